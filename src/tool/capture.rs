//! `falaj capture`: what Postgres keeps for the tables whose changes are read, its removal, and a table's rows once more.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokio::sync::watch;

use super::project_dir;
use crate::app;
use crate::error::{Error, Kind, Result};

/// What `falaj capture` takes.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which replication slots there are, how far each was read, and how much WAL is kept for it
    Show(PlaceArgs),
    /// Drop the replication slots and publications, so that Postgres keeps no WAL for them. Stop falaj first. What was not read yet
    /// is gone then: begin again with a new checkpoint
    Drop(PlaceArgs),
    /// Let the rows that a table has now come again, behind what was committed before: `_op` says `r`
    Snapshot(SnapshotArgs),
}

#[derive(Debug, Args)]
struct SnapshotArgs {
    /// The table's name in SQL
    table: String,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// The folder of SQL files, whose tables name them
    #[arg(value_name = "DIR", default_value = "queries")]
    folder: PathBuf,
}

/// Runs one of them; prints what was found or done.
pub async fn run(args: CaptureArgs) -> Result<()> {
    let (place, table, drops) = match args.command {
        Command::Show(place) => (place, None, false),
        Command::Drop(place) => (place, None, true),
        Command::Snapshot(SnapshotArgs { table, place }) => (place, Some(table), false),
    };
    let slots = app::slots(&project_dir::read_asking(&place.folder, watch::channel(false).1).await?)?;
    let mut said = Vec::new();
    for slot in &slots {
        match &table {
            Some(table) => said.extend(slot.ask_for_rows(table).await?),
            None if drops => said.extend(slot.drop_all().await?),
            None => said.extend(slot.show().await?),
        }
    }
    if said.is_empty() {
        let what = table.map_or("no table".to_string(), |table| format!("no table '{table}'"));
        let text = format!("{what} in {} is UNBOUNDED and STORED AS POSTGRES", place.folder.display());
        return Err(Error::new(Kind::Usage, text));
    }
    said.iter().for_each(|line| println!("{line}"));
    Ok(())
}
