//! `falaj checkpoint`: what a checkpoint holds, whether it is whole, and a new lineage from it.

mod fork;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use tokio::sync::watch;

use self::show::count;
use super::project_dir;
use crate::app;
use crate::checkpoint::CheckpointStore;
use crate::checkpoint::fork::Names;
use crate::checkpoint::read::{self, Lineage};
use crate::checkpoint::verify;
use crate::error::{Error, Kind, Result};
use crate::settings::Place;

/// What `falaj checkpoint` takes.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say where each lane stands; or, of one lane, what its last records say
    Show(ShowArgs),
    /// Read every record and every file, and name what is torn, missing or does not fit; the exit code is 1 if something is
    Verify(PlaceArgs),
    /// Begin a new lineage, for a checkpoint that is older than its sinks. Stop falaj first: a process that still runs is
    /// refused at its next record and ends. The old checkpoint is kept beside the new one
    Fork(PlaceArgs),
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// The folder of SQL files, whose settings name the checkpoint
    #[arg(value_name = "DIR", default_value = "queries", conflicts_with = "checkpoint")]
    folder: PathBuf,
    /// The checkpoint's folder, or s3://BUCKET/FOLDER
    #[arg(long, value_name = "PLACE")]
    checkpoint: Option<String>,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The folder of SQL files, whose settings name the checkpoint [default: queries]; may be left out before LANE
    #[arg(value_name = "DIR")]
    first: Option<String>,
    /// The lane
    #[arg(value_name = "LANE")]
    second: Option<String>,
    /// The checkpoint's folder or s3://BUCKET/FOLDER, instead of DIR
    #[arg(long, value_name = "PLACE")]
    checkpoint: Option<String>,
    /// How many records of LANE are shown, from the last back
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    records: usize,
}

/// Runs one of the three.
pub async fn run(args: CheckpointArgs) -> Result<()> {
    match args.command {
        Command::Show(args) => {
            let (place, lane) = args.split()?;
            let checkpoint = Checkpoint::open(&place.read().await?).await?;
            match lane {
                None => show::lanes(&checkpoint).await,
                Some(lane) => show::records(&checkpoint, checkpoint.lane(&lane).await?.as_str(), args.records).await,
            }
        }
        Command::Verify(place) => verify_all(&Checkpoint::open(&place.read().await?).await?).await,
        Command::Fork(place) => fork::run(&place.read().await?).await,
    }
}

impl PlaceArgs {
    /// Where the checkpoint is.
    async fn read(&self) -> Result<Place> {
        match &self.checkpoint {
            Some(place) => Ok(Place(place.clone())),
            None => Ok(project_dir::read_asking(&self.folder, watch::channel(false).1).await?.settings().checkpoint.clone()),
        }
    }
}

impl ShowArgs {
    /// The place, and the lane if one is named. One word is a folder if there is one of that name.
    fn split(&self) -> Result<(PlaceArgs, Option<String>)> {
        let (folder, lane) = match (self.first.as_deref(), self.second.as_deref(), &self.checkpoint) {
            (None, _, _) => ("queries", None),
            (Some(folder), None, None) if Path::new(folder).is_dir() => (folder, None),
            (Some(lane), None, _) => ("queries", Some(lane)),
            (Some(folder), Some(lane), None) => (folder, Some(lane)),
            (Some(_), Some(_), Some(_)) => return Err(Error::new(Kind::Usage, "with --checkpoint only a lane can be named")),
        };
        Ok((PlaceArgs { folder: folder.into(), checkpoint: self.checkpoint.clone() }, lane.map(str::to_string)))
    }
}

/// A checkpoint that is there.
struct Checkpoint {
    place: Place,
    store: Arc<dyn CheckpointStore>,
    lineage: Lineage,
    lanes: Vec<String>,
}

impl Checkpoint {
    async fn open(place: &Place) -> Result<Self> {
        let store = app::checkpoint_at(place)?;
        let Some(lineage) = read::lineage(store.as_ref()).await? else { return Err(absent(place)) };
        let lanes = read::lanes(store.as_ref()).await?;
        Ok(Self { place: place.clone(), store, lineage, lanes })
    }

    /// The name, if it is a lane's.
    async fn lane(&self, name: &str) -> Result<String> {
        if self.lanes.iter().any(|lane| lane == name) {
            return Ok(name.to_string());
        }
        let hint = match crate::table::did_you_mean(name, self.lanes.iter().map(String::as_str)) {
            Some(lane) => format!("did you mean '{lane}'?"),
            None => format!("there are {}", self.lanes.join(", ")),
        };
        let text = format!("the checkpoint {} has no lane '{name}'; {hint}", self.place);
        Err(Error::new(Kind::Usage, text))
    }
}

/// Nothing is there, or a fork that was broken off.
fn absent(place: &Place) -> Error {
    let folder = Path::new(&place.0);
    let text = match Names::between_renames(folder, &beside(folder)) {
        Some(_) => format!("the fork of {place} was broken off; 'falaj checkpoint fork' finishes it"),
        None => format!("there is no checkpoint {place}; falaj run makes it, and --checkpoint PLACE names another"),
    };
    Error::new(Kind::Usage, text)
}

/// The names in the folder that `folder` is in.
fn beside(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(above(folder)) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn above(folder: &Path) -> &Path {
    folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

async fn verify_all(checkpoint: &Checkpoint) -> Result<()> {
    let mut problems = 0;
    for lane in &checkpoint.lanes {
        let verified = verify::lane(checkpoint.store.as_ref(), &checkpoint.lineage.lineage, lane).await?;
        let fine = if verified.problems.is_empty() { ": fine" } else { "" };
        println!("{lane}: {}, {}{fine}", count(verified.records, "record"), count(verified.files, "state file"));
        for problem in &verified.problems {
            println!("  {problem}");
        }
        if !verified.problems.is_empty() && verified.goes_on {
            println!("  the lane goes on all the same at its next start: what that needs is whole");
        }
        problems += verified.problems.len() as u64;
    }
    if problems == 0 {
        println!("{}: fine", checkpoint.place);
        return Ok(());
    }
    let text = format!("the checkpoint {} has {}", checkpoint.place, count(problems, "problem"));
    Err(Error::new(Kind::Corrupt, text))
}
