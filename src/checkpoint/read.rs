//! What stands in a checkpoint: the records of a lane, read from the newest backwards until there is enough to go on.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::CheckpointStore;
use super::record::{Entry, Handover, Intent, Record, Snapshot, StateFile, Step, foreign, hash_hex};
use crate::error::{Error, Kind, Result};

/// Records that are read at the same time: each waits for the disk for some microseconds, or for a store for milliseconds.
const READS: usize = 32;

/// How often a lane is read again that another process drives meanwhile: each time that process must have written on since.
const READ_TRIES: usize = 10;

pub(super) const ADVICE: &str = "put back a copy of the folder, or move it away to begin a new lineage";

/// The file that names the checkpoint's history.
pub const LINEAGE: &str = "lineage.json";

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
    /// The lane's lineage: the checkpoint's, or that of the backfill which it was handed over to last.
    pub lineage: String,
    /// The handover that has not ended.
    pub handover: Option<Handover>,
    /// Whether the newest snapshot came by a handover: what the sink shows may be another query's.
    pub is_handed_over: bool,
    pub(super) oldest: u64,
    /// The first record of the lane's lineage, or [`Self::oldest`].
    pub(super) since: u64,
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

    /// The intent of the last epoch that was committed; none before the first.
    pub fn last_committed(&self) -> Option<&Intent> {
        let is_committed = |intent: &&Intent| intent.epoch <= self.committed;
        let last = self.intents.iter().rev().find(is_committed);
        last.or(self.snapshots.last().map(|(_, snapshot)| &snapshot.intent))
    }

    /// Whether the lane has window state: it must find all that its snapshots do not hold.
    pub fn has_state(&self) -> bool {
        !self.snapshots.is_empty() || self.last().is_some_and(|intent| !intent.event_times_ns.is_empty())
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

/// What `lineage.json` says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lineage {
    /// The id of the checkpoint's history.
    pub lineage: String,
    /// The one that it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
}

impl Lineage {
    /// The file's bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let broken = |cause| Error::new(Kind::Bug, "a lineage could not be written as JSON").because(cause);
        let mut bytes = serde_json::to_vec(self).map_err(broken)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The lineage of a checkpoint; none when there is no checkpoint.
pub async fn lineage(store: &dyn CheckpointStore) -> Result<Option<Lineage>> {
    let Some(bytes) = store.read(LINEAGE).await? else { return Ok(None) };
    let lineage = serde_json::from_slice(&bytes).map_err(|cause| {
        Error::new(Kind::Corrupt, format!("the checkpoint's {LINEAGE} is torn; put back a copy of the folder")).because(cause)
    })?;
    Ok(Some(lineage))
}

/// The lanes that have records, sorted.
pub async fn lanes(store: &dyn CheckpointStore) -> Result<Vec<String>> {
    let mut lanes = Vec::new();
    for name in store.list("").await? {
        if name != LINEAGE && !numbers(store, &name).await?.is_empty() {
            lanes.push(name);
        }
    }
    Ok(lanes)
}

/// The numbers of a lane's records, sorted.
pub async fn numbers(store: &dyn CheckpointStore, lane: &str) -> Result<Vec<u64>> {
    Ok(numbers_in(&store.list(lane).await?))
}

fn numbers_in(names: &[String]) -> Vec<u64> {
    let is_number = |text: &&str| text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |name: &String| name.strip_suffix(".json").filter(is_number)?.parse().ok();
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// Every record of a lane that there is, or why it cannot be read. `Err`: the store does not answer.
pub async fn all(store: &dyn CheckpointStore, lineage: &str, lane: &str) -> Result<Vec<(u64, Result<Record>)>> {
    let numbers = numbers(store, lane).await?;
    let mut records = Vec::with_capacity(numbers.len());
    for some in numbers.chunks(READS) {
        for (&number, read) in some.iter().zip(join_all(some.iter().map(|&number| record(store, lineage, lane, number))).await)
        {
            match read {
                Err(error) if error.kind() != Kind::Corrupt => return Err(error),
                read => records.push((number, read)),
            }
        }
    }
    Ok(records)
}

/// Reads one record, checked.
pub async fn record(store: &dyn CheckpointStore, lineage: &str, lane: &str, number: u64) -> Result<Record> {
    let name = record_name(lane, number);
    let bytes = store.read(&name).await?;
    let bytes = bytes.ok_or_else(|| Error::new(Kind::Corrupt, format!("the checkpoint record {name} is missing; {ADVICE}")))?;
    let record = Record::decode_of_any(&bytes, &name, lane, number)?;
    let is_ours = record.lineage == lineage || was_handed_over(store, lane, &record.lineage).await?;
    if is_ours { Ok(record) } else { Err(foreign(&name)) }
}

/// The newest record of a lane; none when there is none.
pub async fn newest(store: &dyn CheckpointStore, lineage: &str, lane: &str) -> Result<Option<Record>> {
    let mut tries = Tries::default();
    loop {
        let read = match numbers(store, lane).await?.last() {
            None => return Ok(None),
            Some(&last) => record(store, lineage, lane, last).await,
        };
        match read {
            Err(error) => tries.again(store, lane, error).await?,
            Ok(record) => return Ok(Some(record)),
        }
    }
}

/// Whoever drives a lane may purge what was listed before it is read, and a folder's names are not listed at one moment: so what is
/// corrupt is read again if the log has grown.
#[derive(Default)]
struct Tries {
    done: usize,
    newest: Option<u64>,
}

impl Tries {
    /// `Err`: the error stands.
    async fn again(&mut self, store: &dyn CheckpointStore, lane: &str, error: Error) -> Result<()> {
        if error.kind() != Kind::Corrupt || self.done == READ_TRIES {
            return Err(error);
        }
        let newest = numbers(store, lane).await?.pop();
        if self.done > 0 && self.newest == newest {
            return Err(error);
        }
        (self.done, self.newest) = (self.done + 1, newest);
        Ok(())
    }
}

async fn was_handed_over(store: &dyn CheckpointStore, lane: &str, lineage: &str) -> Result<bool> {
    // It becomes a part of a path.
    let is_id = lineage.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    Ok(is_id && store.read(&lineage_name(lane, lineage)).await?.is_some())
}

/// The file which says that the lane was, or is about to be, handed over to `lineage`.
pub(super) fn lineage_name(lane: &str, lineage: &str) -> String {
    format!("{lane}/lineage-{lineage}.json")
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

/// Where the last run of numbers without a gap begins. Before it stand only claims, which a purge leaves; if something else is
/// missing there, it will be missed.
pub(super) fn last_run(numbers: &[u64]) -> usize {
    (1..numbers.len()).rev().find(|&at| numbers[at] != numbers[at - 1] + 1).unwrap_or(0)
}

/// Reads a lane's records from the newest backwards, until there is what it `needs`.
pub async fn recover(store: &dyn CheckpointStore, lineage: &str, lane: &str, needs: Needs) -> Result<Recovered> {
    let mut tries = Tries::default();
    loop {
        match recover_once(store, lineage, lane, needs).await {
            Err(error) => tries.again(store, lane, error).await?,
            found => return found,
        }
    }
}

async fn recover_once(store: &dyn CheckpointStore, lineage: &str, lane: &str, needs: Needs) -> Result<Recovered> {
    let names = store.list(lane).await?;
    let numbers = numbers_in(&names);
    let run = last_run(&numbers);
    let mut recovered = Recovered {
        next: numbers.last().map_or(0, |last| last.saturating_add(1)),
        oldest: numbers.get(run).copied().unwrap_or(0),
        since: numbers.get(run).copied().unwrap_or(0),
        lineage: lineage.to_string(),
        old_claims: numbers[..run].to_vec(),
        state_files: names.into_iter().filter(|name| name.starts_with("state-")).collect(),
        ..Recovered::default()
    };
    let mut found = Backwards { recovered: &mut recovered, needs };
    'found: for some in numbers[run..].rchunks(READS) {
        let asked = some.iter().map(|&number| record(store, lineage, lane, number));
        for (&number, read) in some.iter().zip(join_all(asked).await).rev() {
            match read {
                Ok(record) => {
                    if found.take(record) {
                        break 'found;
                    }
                }
                // Only the snapshot before would be lost with it.
                Err(error) if error.kind() == Kind::Corrupt && found.suffices() => {
                    tracing::warn!("lane '{lane}' does not need what is older than its last snapshot: {error}");
                    recovered.oldest = number + 1;
                    break 'found;
                }
                Err(error) => return Err(error),
            }
        }
    }
    recovered.intents.reverse();
    recovered.snapshots.reverse();
    if let Some(intent) = recovered.intents.last() {
        // Epochs have no gap, so whatever came before an intent is committed.
        recovered.committed = recovered.committed.max(intent.epoch - 1);
    }
    let is_fresh = recovered.committed == 0 && recovered.oldest == 0 && recovered.state_files.is_empty();
    if recovered.last().is_none() && !is_fresh {
        let text = match recovered.oldest.checked_sub(1) {
            Some(first) => format!("the checkpoint record {} is missing, which had the last intent", record_name(lane, first)),
            None => format!("the checkpoint of lane '{lane}' has no intent left, but has had some"),
        };
        return Err(Error::new(Kind::Corrupt, format!("{text}; {ADVICE}")));
    }
    Ok(recovered)
}

/// What was found so far, the newest first.
struct Backwards<'a> {
    recovered: &'a mut Recovered,
    needs: Needs,
}

impl Backwards<'_> {
    /// Whether there is a snapshot, and every intent after it.
    fn suffices(&self) -> bool {
        let Some((_, newest)) = self.recovered.snapshots.first() else { return false };
        match self.recovered.intents.last() {
            Some(intent) => intent.epoch <= newest.epoch + 1,
            None => self.recovered.committed <= newest.epoch,
        }
    }

    /// Takes the record before those that were taken; `true` when nothing older is needed.
    fn take(&mut self, record: Record) -> bool {
        let recovered = &mut *self.recovered;
        recovered.incarnation = recovered.incarnation.max(record.incarnation);
        if record.number + 1 == recovered.next {
            recovered.lineage.clone_from(&record.lineage);
            recovered.handover = record.handover().filter(|handover| handover.is_open()).cloned();
        }
        for entry in record.entries.into_iter().rev() {
            match entry {
                Entry::Claim { .. } => {}
                Entry::Handover(Handover { step: Step::Done, .. }) => {
                    recovered.since = record.number;
                    recovered.is_handed_over = recovered.snapshots.len() < 2;
                    return true;
                }
                Entry::Handover(_) => {}
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
