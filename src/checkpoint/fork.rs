//! A new lineage on purpose: every lane goes on from its last commit, and every sink takes it for a new history.
//!
//! Records keep their numbers. A process that still drives the old lineage, or slept and wakes, finds the number of its next record
//! taken, in the old folder and in the new one, as it would by any later claim.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CheckpointStore;
use super::lane_log::LaneLog;
use super::read::{self, record_name};
use super::record::{Entry, Intent, Record, VERSION};
use super::recover::{Needs, Recovered, recover};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::position::Positions;

/// The folders of a fork, beside the checkpoint's own, which is renamed to `kept`; then `made` is renamed to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The new checkpoint while it is made.
    pub made: PathBuf,
    /// The old one afterwards.
    pub kept: PathBuf,
}

impl Names {
    /// Those of the fork of `checkpoint` that begins `lineage`.
    pub fn of(checkpoint: &Path, lineage: &str) -> Self {
        let beside = |what: &str| checkpoint.with_file_name(format!("{}{what}{lineage}", name(checkpoint)));
        Self { made: beside(MADE), kept: beside(KEPT) }
    }

    /// The fork that was broken off between its renames, if the names `beside` a missing checkpoint show one. The first rename
    /// comes when everything is made.
    pub fn between_renames(checkpoint: &Path, beside: &[String]) -> Option<Self> {
        Self::unfinished(checkpoint, beside).into_iter().map(|(_, names)| names).find(|names| {
            let kept = names.kept.file_name().unwrap_or_default();
            beside.iter().any(|name| kept == name.as_str())
        })
    }

    /// Every fork whose new checkpoint is not in its place yet, with its lineage.
    pub fn unfinished(checkpoint: &Path, beside: &[String]) -> Vec<(String, Self)> {
        let prefix = format!("{}{MADE}", name(checkpoint));
        let lineages = beside.iter().filter_map(|name| name.strip_prefix(&prefix));
        lineages.map(|lineage| (lineage.to_string(), Self::of(checkpoint, lineage))).collect()
    }
}

const MADE: &str = ".unfinished-fork-";
const KEPT: &str = ".before-fork-";

fn name(checkpoint: &Path) -> String {
    checkpoint.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// From where a lane goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forked {
    /// The last committed epoch; 0 before the first.
    pub epoch: u64,
    /// The positions after it; empty before the first.
    pub positions: Positions,
    /// The epoch that was open, and is read again.
    pub dropped: Option<u64>,
}

/// An id for a lineage that comes after `old`. Sinks refuse an older one.
pub fn lineage_after(old: &str) -> Result<String> {
    let new = uuid::Uuid::now_v7().to_string();
    if new.as_str() > old {
        return Ok(new);
    }
    Err(clock_is_behind(old))
}

fn clock_is_behind(old: &str) -> Error {
    let text =
        format!("this machine's clock is behind the lineage {old}, which sinks would take for the newer one; set the clock");
    Error::new(Kind::Denied, text)
}

/// Claims `lane` in `from` and writes what recovery needs of it to `to`, which belongs to the lineage `new`. `None`: there is no
/// record of it. `Err(Corrupt)`: not all is there, or whole.
pub async fn lane(
    from: &Arc<dyn CheckpointStore>,
    old: &str,
    to: &dyn CheckpointStore,
    new: &str,
    lane: &str,
    clock: &Clock,
) -> Result<Option<Forked>> {
    if read::numbers(from.as_ref(), lane).await?.is_empty() {
        return Ok(None);
    }
    let (log, recovered) = LaneLog::claim(Arc::clone(from), old, lane, clock, Needs::State, u64::MAX).await?;
    if recovered.lineage.as_str() >= new {
        return Err(clock_is_behind(&recovered.lineage));
    }
    let whole = copy_snapshots(from.as_ref(), to, lane, &recovered).await?;
    let first = recovered.snapshots.first().map_or(recovered.since, |(from, _)| *from);
    let dropped = recovered.open_intent().map(|intent| intent.epoch);
    let mut incarnation = 0;
    for number in read::numbers(from.as_ref(), lane).await?.into_iter().filter(|number| *number < log.next()) {
        let mut entries = match read::record(from.as_ref(), old, lane, number).await {
            Ok(record) => {
                incarnation = record.incarnation;
                record.entries
            }
            // It may be a claim, whose number must stay taken; nothing in it is needed.
            Err(error) if error.kind() == Kind::Corrupt && number < first => Vec::new(),
            Err(error) => return Err(error),
        };
        let takes = |entry: &Entry| matches!(entry, Entry::Claim { .. } | Entry::Handover(_));
        let is_claim = entries.is_empty() || entries.iter().any(takes);
        if number < first && !is_claim {
            continue;
        }
        entries.retain(|entry| match entry {
            Entry::Claim { .. } => true,
            // All records are of the new lineage.
            Entry::Handover(_) => false,
            Entry::Intent(intent) => number >= first && intent.epoch <= recovered.committed,
            Entry::Commit { .. } => number >= first,
            Entry::Snapshot(snapshot) => number >= first && whole.contains(&snapshot.epoch),
        });
        let record =
            Record { version: VERSION, number, lineage: new.to_string(), lane: lane.to_string(), incarnation, entries };
        to.create(&record_name(lane, number), record.encode()?).await?;
    }
    let last = check(to, new, lane, recovered.committed).await?;
    let positions = last.map(|intent| intent.positions).unwrap_or_default();
    Ok(Some(Forked { epoch: recovered.committed, positions, dropped }))
}

/// Copies the files of each snapshot that is whole; gives the snapshots' epochs.
async fn copy_snapshots(
    from: &dyn CheckpointStore,
    to: &dyn CheckpointStore,
    lane: &str,
    recovered: &Recovered,
) -> Result<Vec<u64>> {
    let mut whole = Vec::new();
    'snapshots: for (_, snapshot) in &recovered.snapshots {
        for file in snapshot.all_files() {
            match read::state_file(from, lane, file).await {
                // A file of both snapshots is there already.
                Ok(bytes) => to.create(&format!("{lane}/{}", file.file), bytes).await?,
                Err(error) if error.kind() == Kind::Corrupt => {
                    tracing::warn!("lane '{lane}' goes on without its snapshot of epoch {}: {error}", snapshot.epoch);
                    continue 'snapshots;
                }
                Err(error) => return Err(error),
            };
        }
        whole.push(snapshot.epoch);
    }
    Ok(whole)
}

/// The new log must give what the old one gave. Gives its last intent.
async fn check(to: &dyn CheckpointStore, new: &str, lane: &str, committed: u64) -> Result<Option<Intent>> {
    let recovered = recover(to, new, lane, Needs::State).await?;
    if recovered.has_state() {
        recovered.intents_after(recovered.snapshots.last().map_or(0, |(_, snapshot)| snapshot.epoch))?;
    }
    let last = recovered.last().cloned();
    let epoch = last.as_ref().map_or(0, |intent| intent.epoch);
    if (epoch, recovered.committed) == (committed, committed) {
        return Ok(last);
    }
    let text = format!("the checkpoint of lane '{lane}' does not hold the intent of epoch {committed}; {}", read::ADVICE);
    Err(Error::new(Kind::Corrupt, text))
}
