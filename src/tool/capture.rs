//! `falaj capture`: what Postgres keeps for the tables whose changes are read, and its removal.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// The folder of SQL files, whose tables name them
    #[arg(value_name = "DIR", default_value = "queries")]
    folder: PathBuf,
}

/// Runs one of the two; prints a line for each slot.
pub async fn run(args: CaptureArgs) -> Result<()> {
    let (place, drops) = match args.command {
        Command::Show(place) => (place, false),
        Command::Drop(place) => (place, true),
    };
    let slots = app::slots(&project_dir::read(&place.folder).await?)?;
    if slots.is_empty() {
        let text = format!("no table in {} is UNBOUNDED and STORED AS POSTGRES", place.folder.display());
        return Err(Error::new(Kind::Usage, text));
    }
    for slot in slots {
        let lines = if drops { slot.drop_all().await? } else { slot.show().await? };
        lines.iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}
