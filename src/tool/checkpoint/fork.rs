//! `falaj checkpoint fork`: a new checkpoint is made beside the old one, and then two renames put it in its place.
//!
//! | broken off | what is there | what happens |
//! |---|---|---|
//! | before the first rename | the old checkpoint | it counts; the next fork clears away what was made |
//! | between the renames | no checkpoint | `falaj run` refuses to begin; the next fork does the second rename |
//! | after the second | the new checkpoint | nothing |
//!
//! A bucket knows no renames: there the new one stays beside the old one, whose lanes are claimed and so stand still, and it is for the
//! setting to name it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::show::positions;
use super::{Checkpoint, above, absent, beside};
use crate::app;
use crate::checkpoint::fork::{self, Forked, Names};
use crate::checkpoint::read::{self, Lineage};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::settings::Place;

/// What each kind of sink does at the next start.
const SINKS: &str = "\
At the next start every sink takes this for a new history:
  Redis     the whole board is swapped in; of hashes, each row that changes is written
  Parquet   the lane stops at the files that are there; with the table's 'on_new_lineage' 'append' it adds the rows after
            these positions, a second time where the files have them ('replace' wants a lane that reads everything again)
  HTTP      the rows after these positions are sent with the same _id and a new Idempotency-Key: a receiver that upserts by
            _id ends right
  Kafka     the rows after these positions are appended, a second time where the topic has them; dead letters likewise
";

/// Forks the checkpoint at `place`, or finishes a fork of it that was broken off.
pub(super) async fn run(place: &Place) -> Result<()> {
    if place.is_in_bucket() { in_bucket(place).await } else { in_folder(place).await }
}

async fn in_bucket(place: &Place) -> Result<()> {
    let old = Checkpoint::open(place).await?;
    let lineage = fork::lineage_after(&old.lineage.lineage)?;
    let made = Place(format!("{}-{lineage}", place.0.trim_end_matches('/')));
    let forked = make(&old, &made, &lineage).await?;
    println!("lineage {lineage} goes on from {}", old.lineage.lineage);
    println!("it is in {made}; let the settings name it:  SET falaj.checkpoint = '{made}';");
    say(&forked);
    Ok(())
}

async fn in_folder(folder: &Place) -> Result<()> {
    let place = real(Path::new(&folder.0));
    if !place.exists() {
        let Some(names) = Names::between_renames(&place, &beside(&place)) else { return Err(absent(folder)) };
        rename(&names.made, &place)?;
        println!("the fork that was broken off is finished; the checkpoint before it is in {}", names.kept.display());
        print!("{SINKS}");
        return Ok(());
    }
    let old = Checkpoint::open(&place_of(&place)).await?;
    for (_, names) in Names::unfinished(&place, &beside(&place)) {
        fs::remove_dir_all(&names.made).map_err(|cause| failed(&names.made, "cannot be cleared away", cause))?;
    }
    let lineage = fork::lineage_after(&old.lineage.lineage)?;
    let names = Names::of(&place, &lineage);
    let forked = match make(&old, &place_of(&names.made), &lineage).await {
        Ok(forked) => forked,
        Err(error) => {
            let _ = fs::remove_dir_all(&names.made);
            return Err(error);
        }
    };
    rename(&place, &names.kept)?;
    if let Err(error) = rename(&names.made, &place) {
        rename(&names.kept, &place)?;
        return Err(error);
    }
    println!("lineage {lineage} goes on from {}", old.lineage.lineage);
    println!("the checkpoint as it was is in {}", names.kept.display());
    say(&forked);
    Ok(())
}

/// From where each lane goes on, and what the sinks do then.
fn say(forked: &[(String, Forked)]) {
    for (lane, forked) in forked {
        let from = match forked.epoch {
            0 => "begins, since it has committed nothing yet".to_string(),
            epoch => format!("after epoch {epoch}, at {}", positions(&forked.positions)),
        };
        println!("  {lane}: {from}{}", dropped(forked));
    }
    print!("{SINKS}");
}

/// Makes the new checkpoint at `made`. Its lineage comes last.
async fn make(old: &Checkpoint, made: &Place, lineage: &str) -> Result<Vec<(String, Forked)>> {
    let (to, clock) = (app::checkpoint_at(made)?, Clock::system());
    let mut lanes = Vec::new();
    for lane in &old.lanes {
        let forked = fork::lane(&old.store, &old.lineage.lineage, to.as_ref(), lineage, lane, &clock).await?;
        lanes.extend(forked.map(|forked| (lane.clone(), forked)));
    }
    let new = Lineage { lineage: lineage.to_string(), forked_from: Some(old.lineage.lineage.clone()) };
    if !to.create(read::LINEAGE, new.encode()?).await? {
        return Err(Error::new(Kind::Fenced, format!("{made} is being made by another process")));
    }
    Ok(lanes)
}

fn dropped(forked: &Forked) -> String {
    let text = |epoch| format!("; epoch {epoch} was open, and is read again");
    forked.dropped.map_or(String::new(), text)
}

fn place_of(folder: &Path) -> Place {
    Place(folder.display().to_string())
}

/// Where the folder really is: a link to it stays what it is.
fn real(folder: &Path) -> PathBuf {
    let named = || Some(above(folder).canonicalize().ok()?.join(folder.file_name()?));
    folder.canonicalize().ok().or_else(named).unwrap_or_else(|| folder.to_path_buf())
}

/// Durable when it returns.
fn rename(from: &Path, to: &Path) -> Result<()> {
    let what =
        || format!("cannot be renamed to {} (a mount point cannot: keep the checkpoint in a folder below it)", to.display());
    fs::rename(from, to).map_err(|cause| failed(from, &what(), cause))?;
    let folder = above(to);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| failed(folder, "cannot be made durable", cause))
}

fn failed(path: &Path, what: &str, cause: std::io::Error) -> Error {
    Error::new(Kind::Denied, format!("{} {what}", path.display())).because(cause)
}
