//! What a lane finds when it claims its log: its records, read from the newest backwards until there is enough to go on.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::CheckpointStore;
use super::lane_log::lags;
use super::read::{ADVICE, READS, Tries, last_run, numbers_in, record, record_name};
use super::record::{Entry, Handover, Intent, Record, Snapshot, Step};
use crate::error::{Error, Kind, Result};

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
    // Before the last run of numbers there is a gap, if the store lists all that there is.
    if let Some(before) = numbers.get(run).and_then(|first| first.checked_sub(1))
        && store.read(&record_name(lane, before)).await?.is_some()
    {
        return Err(lags(lane, before));
    }
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
