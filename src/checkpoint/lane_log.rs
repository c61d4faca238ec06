//! One lane's log of records: claimed ([`claim`]), appended, purged. [`recover`](mod@super::recover) says what a claim finds.

mod claim;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use self::claim::lags;
use self::claim::taken_over;
use super::CheckpointStore;
use super::read::{self, Lineage, record_name};
use super::record::{Entry, Record, Snapshot, StateFile, VERSION, hash_hex};
use super::recover::Recovered;
use crate::error::{Error, Kind, Result};
use crate::sink::Writer;

/// Records are removed so many at a time, so that a purge is worth its calls.
const PURGE_RECORDS: u64 = 64;
/// Claims that are never purged, with the restarts that wrote them: whoever sleeps through more of them than this, and wakes, may
/// find the number of its next record free again.
const CLAIMS_KEPT: usize = 1024;
/// How soon a process whose lanes are idle sees that another one has claimed them: it would wait for ever to be refused a record.
const IDLE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The log, claimed by this process.
pub struct LaneLog {
    store: Arc<dyn CheckpointStore>,
    writer: Writer,
    next: u64,
    /// The first record of the run without a gap; before it stand only claims.
    oldest: u64,
    old_claims: Vec<u64>,
    needed_from: u64,
    records_kept: u64,
    /// The newest snapshot and the one before, each with the first record that goes with it.
    snapshots: Vec<(u64, Snapshot)>,
    /// Every state file that there is.
    state_files: BTreeSet<String>,
    purging: Option<tokio::task::JoinHandle<()>>,
    /// When the claim was looked at last.
    looked: Instant,
}

impl LaneLog {
    /// The lineage of the checkpoint; made once, by whoever comes first.
    pub async fn lineage(store: &dyn CheckpointStore) -> Result<String> {
        let fresh = Lineage { lineage: uuid::Uuid::now_v7().to_string(), forked_from: None };
        if store.create(read::LINEAGE, fresh.encode()?).await? {
            return Ok(fresh.lineage);
        }
        let there = read::lineage(store).await?;
        let gone = || Error::new(Kind::Corrupt, format!("the checkpoint's {} has vanished", read::LINEAGE));
        there.map(|there| there.lineage).ok_or_else(gone)
    }

    /// The log at its end, of the newest claim, which it is for the caller to have.
    pub(super) fn at(store: Arc<dyn CheckpointStore>, recovered: &Recovered, lane: &str, records_kept: u64) -> Self {
        let (lineage, incarnation) = (recovered.lineage.clone(), recovered.incarnation);
        let mut log = Self {
            store,
            writer: Writer { lineage, lane: lane.to_string(), incarnation },
            next: recovered.next,
            oldest: 0,
            old_claims: Vec::new(),
            needed_from: 0,
            records_kept,
            snapshots: Vec::new(),
            state_files: BTreeSet::new(),
            purging: None,
            looked: Instant::now(),
        };
        log.stand_at(recovered);
        log
    }

    fn stand_at(&mut self, recovered: &Recovered) {
        self.oldest = recovered.oldest;
        self.old_claims = recovered.old_claims.clone();
        self.snapshots = recovered.snapshots.clone();
        self.state_files = recovered.state_files.clone();
        self.needed_from = self.needed_from();
    }

    /// What ended a process that had claimed the lane as incarnation `mine`: `error`, or that another one has claimed it since, and
    /// has removed what it was working with.
    pub async fn why(store: &dyn CheckpointStore, lineage: &str, lane: &str, mine: u64, error: Error) -> Error {
        match read::newest(store, lineage, lane).await {
            Ok(Some(record)) if mine > 0 && record.incarnation > mine => taken_over(lane).because(error),
            _ => error,
        }
    }

    /// Who writes: the lineage, the lane and this claim.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The next record is the first of another lineage.
    pub(super) fn go_over_to(&mut self, lineage: String) {
        self.writer.lineage = lineage;
    }

    /// The number of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Appends a record; durable when it returns. `Err(Fenced)`: somebody else claimed the lane.
    pub async fn append(&mut self, entries: Vec<Entry>) -> Result<()> {
        if self.try_append(entries).await? { Ok(()) } else { Err(self.fenced()) }
    }

    async fn try_append(&mut self, entries: Vec<Entry>) -> Result<bool> {
        let record = Record {
            version: VERSION,
            number: self.next,
            lineage: self.writer.lineage.clone(),
            lane: self.writer.lane.clone(),
            incarnation: self.writer.incarnation,
            entries,
        };
        let created = self.store.create(&record_name(&self.writer.lane, self.next), record.encode()?).await?;
        self.next += u64::from(created);
        self.looked = Instant::now();
        Ok(created)
    }

    /// [`Self::check_claim`] for a lane that has nothing to write: asks now and then.
    pub async fn check_claim_when_idle(&mut self) -> Result<()> {
        if self.looked.elapsed() < IDLE_LOOK_INTERVAL {
            return Ok(());
        }
        self.looked = Instant::now();
        self.check_claim().await
    }

    /// `Err(Fenced)` when somebody else has claimed the lane since this process wrote last.
    pub async fn check_claim(&self) -> Result<()> {
        match self.store.read(&record_name(&self.writer.lane, self.next)).await? {
            None => Ok(()),
            Some(_) => Err(self.fenced()),
        }
    }

    fn fenced(&self) -> Error {
        let text = format!(
            "another process has claimed lane '{}' (record {} is there already); this one stops",
            self.writer.lane, self.next
        );
        Error::new(Kind::Fenced, text)
    }

    /// What writes state files of this claim, beside the log.
    pub fn state_writer(&self) -> StateWriter {
        StateWriter { store: Arc::clone(&self.store), writer: self.writer.clone() }
    }

    /// Appends the record of a snapshot whose files are all written. `from` is the first record after the snapshot's epoch.
    pub async fn snapshot(&mut self, snapshot: Snapshot, from: u64) -> Result<()> {
        let from = from.min(self.next);
        self.append(vec![Entry::Snapshot(snapshot.clone())]).await?;
        self.state_files.extend(snapshot.all_files().map(|file| file.file.clone()));
        self.snapshots.push((from, snapshot));
        // The one before stays, for the case that a file of the newest is torn.
        if self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
        self.needed_from = self.needed_from();
        Ok(())
    }

    /// While there is one snapshot only, every intent from the first on stays: they are what is read if a file of it is torn.
    fn needed_from(&self) -> u64 {
        if self.snapshots.len() < 2 { self.oldest } else { self.snapshots[0].0 }
    }

    /// For lanes without state: from here on nothing before the last commit is needed.
    pub fn needs_only_the_last(&mut self) {
        self.needed_from = self.next.saturating_sub(2);
    }

    /// Removes what recovery no longer needs, in the background. Called now and then, outside an epoch.
    pub fn purge(&mut self) {
        let keep_from = self.needed_from.saturating_sub(self.records_kept);
        if keep_from < self.oldest + PURGE_RECORDS || self.purging.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let needed =
            |name: &String| self.snapshots.iter().flat_map(|(_, snapshot)| snapshot.all_files()).any(|file| file.file == *name);
        let (kept, old): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut self.state_files).into_iter().partition(needed);
        self.state_files = kept;
        let files = old.iter().map(|name| format!("{}/{name}", self.writer.lane)).collect();
        let too_many = self.old_claims.len().saturating_sub(CLAIMS_KEPT);
        let mut numbers: Vec<u64> = self.old_claims.drain(..too_many).collect();
        numbers.extend(self.oldest..keep_from);
        self.oldest = keep_from;
        let (store, writer) = (Arc::clone(&self.store), self.writer.clone());
        self.purging = Some(tokio::spawn(async move {
            if let Err(error) = remove(store.as_ref(), &writer, &numbers, too_many, files).await {
                tracing::debug!("lane '{}' could not remove old records: {}", writer.lane, error.chain());
            }
        }));
    }
}

#[cfg(test)]
impl LaneLog {
    /// Waits for the purge that is under way.
    pub(super) async fn purged(&mut self) {
        if let Some(purging) = self.purging.take() {
            purging.await.unwrap();
        }
    }
}

/// Removes records, oldest first, and files. A claim stays (but for the first `too_many`, which are known to be claims): it holds
/// the number that a process which slept since then would write next. What cannot be read stays, since it may be one.
async fn remove(
    store: &dyn CheckpointStore,
    writer: &Writer,
    numbers: &[u64],
    too_many: usize,
    files: Vec<String>,
) -> Result<()> {
    let mut names = Vec::with_capacity(numbers.len());
    for (index, &number) in numbers.iter().enumerate() {
        // Of this lineage, or of one before it.
        let record = read::record(store, &writer.lineage, &writer.lane, number).await;
        if index < too_many || record.is_ok_and(|record| !record.takes_over()) {
            names.push(record_name(&writer.lane, number));
        }
    }
    crate::failpoint::hit(&writer.lane, "purge");
    names.extend(files);
    store.remove(names).await
}

/// Writes files of window state, while the log goes on.
pub struct StateWriter {
    store: Arc<dyn CheckpointStore>,
    writer: Writer,
}

impl StateWriter {
    /// Writes what `what` names of the state as of `epoch`, which is about these panes.
    pub async fn write(&self, epoch: u64, what: &str, bytes: Vec<u8>, panes: Vec<(i64, i64)>) -> Result<StateFile> {
        let file = format!("state-{epoch:020}-{}-{what}.arrow", self.writer.incarnation);
        let (size_bytes, hash) = (bytes.len() as u64, hash_hex(&bytes));
        if !self.store.create(&format!("{}/{file}", self.writer.lane), bytes).await? {
            let text = format!("the snapshot {file} is there already; another process drives this lane");
            return Err(Error::new(Kind::Fenced, text));
        }
        crate::failpoint::hit(&self.writer.lane, "snapshot.written");
        Ok(StateFile { file, size_bytes, hash, panes })
    }

    /// The bytes of a file, checked.
    pub async fn read(&self, file: &StateFile) -> Result<Vec<u8>> {
        read::state_file(self.store.as_ref(), &self.writer.lane, file).await
    }
}
