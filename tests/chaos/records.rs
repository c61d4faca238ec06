//! The records of the checkpoint, read while the lanes write and purge them: what each epoch was, and that epochs, spans and
//! watermarks only grow (I5).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use falaj::checkpoint::CheckpointStore;
use falaj::checkpoint::record::{Entry, Intent, Record};
use falaj::position::{Positions, Span};

/// What an intent says that matters here.
#[derive(Debug, Clone)]
pub(super) struct Epoch {
    pub(super) spans: Vec<Span>,
    pub(super) now_ns: i64,
    pub(super) watermark_before_ns: Option<i64>,
    pub(super) watermark_ns: Option<i64>,
    pub(super) board_ns: Option<i64>,
    pub(super) letters: u64,
}

/// The records of one lane so far.
#[derive(Debug, Default)]
pub(super) struct LaneRecords {
    /// In order: the first is epoch 1.
    pub(super) epochs: Vec<Epoch>,
    pub(super) committed: u64,
    pub(super) snapshots: usize,
    /// The first commit of each incarnation.
    pub(super) first_commits: Vec<SystemTime>,
    pub(super) claims: u64,
    /// Of the last epoch.
    pub(super) positions: Positions,
    next: u64,
    /// Whether this incarnation has committed.
    has_committed: bool,
}

/// Where the checkpoint is.
pub(super) enum Place {
    Folder(PathBuf),
    Bucket(Arc<dyn CheckpointStore>),
}

impl Place {
    /// A record or another file, with when it was written, or seen in a bucket.
    fn read(&self, name: &str) -> Option<(Vec<u8>, SystemTime)> {
        match self {
            Place::Folder(folder) => {
                let path = folder.join(name);
                let bytes = std::fs::read(&path).ok()?;
                let written = std::fs::metadata(&path).and_then(|file| file.modified());
                Some((bytes, written.unwrap_or(SystemTime::UNIX_EPOCH)))
            }
            Place::Bucket(store) => Some((waited_for(store.read(name)).unwrap()?, SystemTime::now())),
        }
    }

    fn numbers(&self, lane: &str) -> Vec<u64> {
        let names = match self {
            Place::Folder(folder) => names(&folder.join(lane)),
            Place::Bucket(store) => waited_for(store.list(lane)).unwrap(),
        };
        names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect()
    }
}

/// In the middle of what must not wait: the chaos has threads enough.
fn waited_for<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

/// Reads the records of every lane.
pub(super) struct Collector {
    place: Place,
    lineage: Option<String>,
    pub(super) lanes: BTreeMap<String, LaneRecords>,
    /// What should not be.
    pub(super) violations: Vec<String>,
}

impl Collector {
    /// Of the checkpoint at `place`, which need not be there yet.
    pub(super) fn new(place: Place, lanes: &[&str]) -> Self {
        let lanes = lanes.iter().map(|lane| (lane.to_string(), LaneRecords::default())).collect();
        Self { place, lineage: None, lanes, violations: Vec::new() }
    }

    /// Reads what is new of every lane.
    pub(super) fn collect(&mut self) {
        if self.lineage.is_none() {
            let Some((bytes, _)) = self.place.read("lineage.json") else { return };
            let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            self.lineage = json["lineage"].as_str().map(str::to_string);
        }
        let lineage = self.lineage.as_deref().unwrap_or_default();
        for (lane, records) in &mut self.lanes {
            loop {
                let name = format!("{:020}.json", records.next);
                let Some((bytes, written)) = self.place.read(&format!("{lane}/{name}")) else { break };
                match Record::decode(&bytes, &name, lineage, lane, records.next) {
                    Ok(record) => {
                        records.take(record, written, &mut |what| self.violations.push(format!("lane '{lane}': {what}")))
                    }
                    Err(error) => self.violations.push(error.chain()),
                }
                records.next += 1;
            }
        }
    }

    /// Waits until the lane has another commit than the first `commits` claims had.
    pub(super) fn has_committed_since(&mut self, lane: &str, claims: u64) -> bool {
        self.collect();
        let records = &self.lanes[lane];
        records.claims > claims && records.has_committed
    }

    /// A record that was purged before it was read would be a hole.
    pub(super) fn check_all_read(&mut self) {
        for (lane, records) in &self.lanes {
            let last = self.place.numbers(lane).into_iter().max();
            if last.is_some_and(|last| last >= records.next) {
                self.violations.push(format!("lane '{lane}': record {} was not there when it was read", records.next));
            }
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

impl LaneRecords {
    fn take(&mut self, record: Record, written: SystemTime, violation: &mut impl FnMut(String)) {
        for entry in record.entries {
            match entry {
                Entry::Handover(_) => violation("nobody runs a backfill here".to_string()),
                Entry::Claim { .. } => {
                    self.claims += 1;
                    self.has_committed = false;
                    if record.incarnation != self.claims {
                        violation(format!("claim {} is of incarnation {}", self.claims, record.incarnation));
                    }
                }
                Entry::Intent(intent) => {
                    if record.incarnation != self.claims {
                        violation(format!(
                            "epoch {} is of incarnation {}, not {}",
                            intent.epoch, record.incarnation, self.claims
                        ));
                    }
                    self.intend(intent, violation);
                }
                Entry::Commit { epoch } => {
                    if epoch != self.committed + 1 || epoch != self.epochs.len() as u64 {
                        violation(format!("epoch {epoch} is committed after {}", self.committed));
                    }
                    self.committed = epoch;
                    if !self.has_committed {
                        self.has_committed = true;
                        self.first_commits.push(written);
                    }
                }
                Entry::Snapshot(_) => self.snapshots += 1,
            }
        }
    }

    fn intend(&mut self, intent: Intent, violation: &mut impl FnMut(String)) {
        let epoch = intent.epoch;
        if epoch != self.committed + 1 || epoch != self.epochs.len() as u64 + 1 {
            violation(format!("epoch {epoch} is intended after {} and the commit of {}", self.epochs.len(), self.committed));
        }
        for span in &intent.spans {
            let at = self.positions.get(span.partition).unwrap_or(0);
            if span.from != at || span.to <= span.from {
                violation(format!("epoch {epoch} has {span} after position {at}"));
            }
            self.positions.set(span.partition, span.to);
        }
        if let Some(other) = self.positions.iter().find(|(partition, at)| intent.positions.get(*partition) != Some(*at)) {
            violation(format!("epoch {epoch} ends at {:?}, but its spans end at {other:?}", intent.positions));
        }
        if let Some(last) = self.epochs.last() {
            if intent.watermark_ns < last.watermark_ns || intent.board_ns < last.board_ns {
                violation(format!("epoch {epoch} goes back in time"));
            }
            if intent.watermark_before_ns > intent.watermark_ns || intent.watermark_before_ns > last.watermark_ns {
                violation(format!("epoch {epoch} judges by a watermark that nobody had reached"));
            }
        }
        self.epochs.push(Epoch {
            spans: intent.spans,
            now_ns: intent.now_ns,
            watermark_before_ns: intent.watermark_before_ns,
            watermark_ns: intent.watermark_ns,
            board_ns: intent.board_ns,
            letters: intent.letters,
        });
    }

    /// How long after each of `kills` the first new commit came, where one came before the next end, and when that was.
    pub(super) fn recoveries(&self, kills: &[SystemTime], others: &[SystemTime]) -> Vec<(SystemTime, Duration)> {
        let after = |kill: &SystemTime| {
            let commit = *self.first_commits.iter().find(|at| *at > kill)?;
            let is_between = |end: &SystemTime| kill < end && *end < commit;
            let took = commit.duration_since(*kill).unwrap_or_default();
            (!kills.iter().chain(others).any(is_between)).then_some((commit, took))
        };
        kills.iter().filter_map(after).collect()
    }
}
