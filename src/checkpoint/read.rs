//! What stands in a checkpoint: the records of a lane, read from the newest backwards until there is enough to go on.

use std::collections::BTreeSet;

use futures::future::try_join_all;

use super::CheckpointStore;
use super::record::{Entry, Intent, Record, Snapshot, StateFile, hash_hex};
use crate::error::{Error, Kind, Result};

/// Records that are read at the same time: each waits for the disk for some microseconds, or for a store for milliseconds.
const READS: usize = 32;

const ADVICE: &str = "put back a copy of the folder, or move it away to begin a new lineage";

/// What a lane must find to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Its last epoch: it has no state.
    LastEpoch,
    /// Its newest two snapshots, and all that came after the older one.
    State,
}

/// What a lane finds when it claims its log.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The newest snapshots, the older first, each with the first record that goes with it.
    pub snapshots: Vec<(u64, Snapshot)>,
    /// The intents after the older snapshot, in order and without a gap; without state the last one.
    pub intents: Vec<Intent>,
    /// The last committed epoch; 0 before the first.
    pub committed: u64,
    /// The last incarnation; 0 before the first.
    pub incarnation: u64,
    /// The number of the next record.
    pub next: u64,
    pub(super) oldest: u64,
    pub(super) old_claims: Vec<u64>,
    pub(super) state_files: BTreeSet<String>,
}

impl Recovered {
    /// The last intent, if its epoch is not committed.
    pub fn open_intent(&self) -> Option<&Intent> {
        self.intents.last().filter(|intent| intent.epoch > self.committed)
    }

    /// The last intent, or that of the newest snapshot when nothing came after it.
    pub fn last(&self) -> Option<&Intent> {
        self.intents.last().or(self.snapshots.last().map(|(_, snapshot)| &snapshot.intent))
    }

    /// The intents after `epoch`. `Err(Corrupt)` when the first of them is not there.
    pub fn intents_after(&self, epoch: u64) -> Result<&[Intent]> {
        let at = self.intents.partition_point(|intent| intent.epoch <= epoch);
        let intents = &self.intents[at..];
        let is_whole = intents.first().is_none_or(|intent| intent.epoch == epoch + 1);
        if is_whole && (!intents.is_empty() || self.committed <= epoch) {
            return Ok(intents);
        }
        let text = format!("the checkpoint does not hold the intent of epoch {}; {ADVICE}", epoch + 1);
        Err(Error::new(Kind::Corrupt, text))
    }
}

/// The lineage of a checkpoint; none when there is no checkpoint.
pub async fn lineage(store: &dyn CheckpointStore) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Lineage {
        lineage: String,
    }
    let Some(bytes) = store.read("lineage.json").await? else { return Ok(None) };
    let lineage: Lineage = serde_json::from_slice(&bytes).map_err(|cause| {
        Error::new(Kind::Corrupt, "the checkpoint's lineage.json is torn; put back a copy of the folder").because(cause)
    })?;
    Ok(Some(lineage.lineage))
}

/// The numbers of a lane's records, sorted.
pub async fn numbers(store: &dyn CheckpointStore, lane: &str) -> Result<Vec<u64>> {
    let names = store.list(lane).await?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads one record, checked.
pub async fn record(store: &dyn CheckpointStore, lineage: &str, lane: &str, number: u64) -> Result<Record> {
    let name = record_name(lane, number);
    let bytes = store.read(&name).await?;
    let bytes = bytes.ok_or_else(|| Error::new(Kind::Corrupt, format!("the checkpoint record {name} is missing; {ADVICE}")))?;
    Record::decode(&bytes, &name, lineage, lane, number)
}

/// The bytes of a file of window state, checked.
pub async fn state_file(store: &dyn CheckpointStore, lane: &str, file: &StateFile) -> Result<Vec<u8>> {
    let name = format!("{lane}/{}", file.file);
    let bytes = store.read(&name).await?.unwrap_or_default();
    if bytes.len() as u64 != file.size_bytes || hash_hex(&bytes) != file.hash {
        return Err(Error::new(Kind::Corrupt, format!("the snapshot {name} is missing, torn or changed; {ADVICE}")));
    }
    Ok(bytes)
}

/// Reads a lane's records from the newest backwards, until there is what it `needs`.
pub async fn recover(store: &dyn CheckpointStore, lineage: &str, lane: &str, needs: Needs) -> Result<Recovered> {
    let numbers = numbers(store, lane).await?;
    let names = store.list(lane).await?;
    // Before the last gap stand claims that a purge left. If something else is missing there, it will be missed below.
    let run = (1..numbers.len()).rev().find(|&at| numbers[at] != numbers[at - 1] + 1).unwrap_or(0);
    let mut recovered = Recovered {
        next: numbers.last().map_or(0, |last| last + 1),
        oldest: numbers.get(run).copied().unwrap_or(0),
        old_claims: numbers[..run].to_vec(),
        state_files: names.into_iter().filter(|name| name.starts_with("state-")).collect(),
        ..Recovered::default()
    };
    let mut found = Backwards { recovered: &mut recovered, needs };
    'found: for some in numbers[run..].rchunks(READS) {
        let asked: Vec<_> = some.iter().map(|&number| record(store, lineage, lane, number)).collect();
        for record in try_join_all(asked).await?.into_iter().rev() {
            if found.take(record) {
                break 'found;
            }
        }
    }
    recovered.intents.reverse();
    recovered.snapshots.reverse();
    if let Some(intent) = recovered.intents.last() {
        // Epochs have no gap, so whatever came before an intent is committed.
        recovered.committed = recovered.committed.max(intent.epoch - 1);
    }
    if recovered.last().is_none() && (recovered.committed > 0 || recovered.oldest > 0) {
        let first = record_name(lane, recovered.oldest.saturating_sub(1));
        let text = format!("the checkpoint record {first} is missing, which had the last intent; {ADVICE}");
        return Err(Error::new(Kind::Corrupt, text));
    }
    Ok(recovered)
}

/// What was found so far, the newest first.
struct Backwards<'a> {
    recovered: &'a mut Recovered,
    needs: Needs,
}

impl Backwards<'_> {
    /// Takes the record before those that were taken; `true` when nothing older is needed.
    fn take(&mut self, record: Record) -> bool {
        let recovered = &mut *self.recovered;
        recovered.incarnation = recovered.incarnation.max(record.incarnation);
        for entry in record.entries.into_iter().rev() {
            match entry {
                Entry::Claim { .. } => {}
                Entry::Commit { epoch } => recovered.committed = recovered.committed.max(epoch),
                Entry::Snapshot(snapshot) if recovered.snapshots.len() < 2 => {
                    recovered.committed = recovered.committed.max(snapshot.epoch);
                    recovered.snapshots.push((record.number, snapshot));
                }
                Entry::Snapshot(_) => {}
                Entry::Intent(intent) if self.needs == Needs::LastEpoch => {
                    recovered.intents.push(intent);
                    return true;
                }
                Entry::Intent(intent) => {
                    for (from, snapshot) in &mut recovered.snapshots {
                        if intent.epoch > snapshot.epoch {
                            *from = (*from).min(record.number);
                        }
                    }
                    recovered.intents.push(intent);
                }
            }
        }
        let (Some((_, older)), Some(intent)) = (recovered.snapshots.get(1), recovered.intents.last()) else { return false };
        intent.epoch <= older.epoch + 1
    }
}

pub(super) fn record_name(lane: &str, number: u64) -> String {
    format!("{lane}/{number:020}.json")
}
