//! Looks at everything that stands in a checkpoint: whether each record and each file is whole, and whether they follow each other.

use std::collections::{BTreeMap, BTreeSet};

use super::CheckpointStore;
use super::read::{self, ADVICE, last_run, record_name};
use super::record::{Entry, Handover, Intent, Record, Snapshot, Step};
use super::recover::{Needs, recover};
use crate::error::{Kind, Result};

/// What was looked at, and what is wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records that are there.
    pub records: u64,
    /// Files of window state that snapshots name.
    pub files: u64,
    /// One sentence each, with what to do.
    pub problems: Vec<String>,
    /// Whether the next start would find what it needs.
    pub goes_on: bool,
}

/// Looks at one lane. `Err`: the store does not answer.
pub async fn lane(store: &dyn CheckpointStore, lineage: &str, lane: &str) -> Result<Verified> {
    let records = read::all(store, lineage, lane).await?;
    let mut verified = Verified { records: records.len() as u64, ..Verified::default() };
    let problems = &mut verified.problems;
    let numbers: Vec<u64> = records.iter().map(|(number, _)| *number).collect();
    let run = last_run(&numbers);
    for (at, (number, record)) in records.iter().enumerate() {
        match record {
            Err(error) => problems.push(error.to_string()),
            Ok(record) if at < run && !record.takes_over() => {
                // A purge leaves nothing but claims, and takes the oldest first.
                let missing = numbers.get(at + 1).filter(|next| **next > number + 1);
                problems.extend(missing.map(|next| {
                    format!("the checkpoint records between {} and {} are missing; {ADVICE}", record_name(lane, *number), next)
                }));
            }
            Ok(_) => {}
        }
    }
    let mut chain = Chain { lane, before: None, problems: Vec::new() };
    for (_, record) in &records[run..] {
        match record {
            Ok(record) => chain.follow(record),
            Err(_) => chain.before = None,
        }
    }
    problems.append(&mut chain.problems);
    let torn;
    (verified.files, torn) = files(store, lane, &records, problems).await?;
    verified.goes_on = goes_on(store, lineage, lane, &torn, problems).await?;
    Ok(verified)
}

fn is_claim(record: &Record) -> bool {
    record.entries.iter().any(|entry| matches!(entry, Entry::Claim { .. }))
}

/// Reads the files of the two newest snapshots; those of older ones may have been purged. Gives their number, and the names of
/// those that are not whole.
async fn files(
    store: &dyn CheckpointStore,
    lane: &str,
    records: &[(u64, Result<Record>)],
    problems: &mut Vec<String>,
) -> Result<(u64, BTreeSet<String>)> {
    let entries = records.iter().rev().filter_map(|(_, record)| record.as_ref().ok()).flat_map(|record| &record.entries);
    let snapshots = entries.filter_map(|entry| match entry {
        Entry::Snapshot(snapshot) => Some(snapshot),
        _ => None,
    });
    let newest: Vec<&Snapshot> = snapshots.take(2).collect();
    let files: BTreeMap<&str, _> = newest.iter().flat_map(|of| of.all_files()).map(|file| (file.file.as_str(), file)).collect();
    let mut torn = BTreeSet::new();
    for file in files.values() {
        match read::state_file(store, lane, file).await {
            Err(error) if error.kind() == Kind::Corrupt => {
                problems.push(error.to_string());
                torn.insert(file.file.clone());
            }
            read => drop(read?),
        }
    }
    Ok((files.len() as u64, torn))
}

/// Whether the next start would find what it needs. What it would say if not is a problem, unless that was named before.
async fn goes_on(
    store: &dyn CheckpointStore,
    lineage: &str,
    lane: &str,
    torn: &BTreeSet<String>,
    problems: &mut Vec<String>,
) -> Result<bool> {
    let found = match recover(store, lineage, lane, Needs::LastEpoch).await {
        Ok(last) if !last.has_state() => return Ok(true),
        Ok(_) => recover(store, lineage, lane, Needs::State).await,
        Err(error) => Err(error),
    };
    // From the newest snapshot that is whole, or from the first epoch on.
    let from = found.and_then(|found| {
        let is_whole = |of: &Snapshot| of.all_files().all(|file| !torn.contains(&file.file));
        let newest = found.snapshots.iter().rev().map(|(_, snapshot)| snapshot).find(|snapshot| is_whole(snapshot));
        found.intents_after(newest.map_or(0, |snapshot| snapshot.epoch)).map(drop)
    });
    match from {
        Ok(()) => Ok(true),
        Err(error) if error.kind() != Kind::Corrupt => Err(error),
        Err(error) => {
            if !problems.contains(&error.to_string()) {
                problems.push(error.to_string());
            }
            Ok(false)
        }
    }
}

/// Records that follow each other.
struct Chain<'a> {
    lane: &'a str,
    /// What is known before the next record.
    before: Option<Known>,
    problems: Vec<String>,
}

/// What the records so far say.
#[derive(Debug, Clone, Default)]
struct Known {
    incarnation: u64,
    intent: Option<Intent>,
    committed: Option<u64>,
}

impl Chain<'_> {
    fn follow(&mut self, record: &Record) {
        let is_first = self.before.is_none();
        let mut known = self.before.take().unwrap_or_default();
        let expected = known.incarnation + u64::from(is_claim(record));
        // A backfill comes above its own claims, too; and of a fork that has left out what it said.
        let is_stop = record.entries.is_empty() || record.handover().is_some_and(|handover| handover.step == Step::Stop);
        let follows = record.incarnation == expected || (is_stop && record.incarnation > expected);
        if !is_first && !follows {
            self.problem(
                record.number,
                &format!("is of incarnation {}, after one of {}", record.incarnation, known.incarnation),
            );
        }
        known.incarnation = record.incarnation;
        for entry in &record.entries {
            match entry {
                Entry::Claim { .. } => {}
                Entry::Handover(Handover { step: Step::Done, .. }) => (known.intent, known.committed) = (None, None),
                Entry::Handover(_) => {}
                Entry::Intent(intent) => {
                    if let Some(before) = &known.intent {
                        self.intent_follows(record.number, before, known.committed, intent);
                    }
                    known.intent = Some(intent.clone());
                }
                Entry::Commit { epoch } => {
                    if known.intent.as_ref().is_some_and(|intent| intent.epoch != *epoch) {
                        self.problem(record.number, &format!("commits epoch {epoch}, which is not the last intent's"));
                    }
                    known.committed = Some(*epoch);
                }
                Entry::Snapshot(snapshot) => {
                    let last = known.committed.max(known.intent.as_ref().map(|intent| intent.epoch));
                    if snapshot.intent.epoch != snapshot.epoch || last.is_some_and(|last| snapshot.epoch > last) {
                        self.problem(record.number, &format!("has a snapshot of epoch {}, which is not there", snapshot.epoch));
                    }
                }
            }
        }
        self.before = Some(known);
    }

    fn intent_follows(&mut self, number: u64, before: &Intent, committed: Option<u64>, intent: &Intent) {
        let epoch = intent.epoch;
        if epoch != before.epoch + 1 {
            self.problem(number, &format!("has the intent of epoch {epoch}, after that of {}", before.epoch));
            return;
        }
        if committed.is_none_or(|committed| committed < before.epoch) {
            self.problem(number, &format!("has the intent of epoch {epoch}, but {} was never committed", before.epoch));
        }
        for span in &intent.spans {
            if before.positions.get(span.partition).is_some_and(|at| at != span.from)
                || intent.positions.get(span.partition) != Some(span.to)
            {
                self.problem(number, &format!("has a span that does not continue the epoch before: {span}"));
            }
        }
        let went_back = before.positions.iter().any(|(partition, at)| intent.positions.get(partition) < Some(at))
            || before.event_times_ns.iter().any(|(partition, at)| intent.event_times_ns.get(partition) < Some(at))
            || intent.watermark_ns < before.watermark_ns
            || intent.board_ns < before.board_ns;
        if went_back {
            self.problem(
                number,
                &format!("has the intent of epoch {epoch}, whose positions or times are before the last ones"),
            );
        }
    }

    fn problem(&mut self, number: u64, what: &str) {
        self.problems.push(format!("the checkpoint record {} {what}; {ADVICE}", record_name(self.lane, number)));
    }
}
