//! One lane's log of records: claimed, appended, purged. [`recover`](mod@super::recover) says what a claim finds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;

use super::CheckpointStore;
use super::read::{self, Lineage, record_name};
use super::record::{Entry, Handover, Record, Snapshot, StateFile, Step, VERSION, hash_hex};
use super::recover::{Needs, Recovered, recover};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::sink::Writer;

/// Records are removed so many at a time, so that a purge is worth its calls.
const PURGE_RECORDS: u64 = 64;
/// Claims that are never purged, with the restarts that wrote them: whoever sleeps through more of them than this, and wakes, may
/// find the number of its next record free again.
const CLAIMS_KEPT: usize = 1024;
/// How often a claim is tried against a process that is at work: it writes a record in a few milliseconds at best.
const CLAIM_TRIES: usize = 300;
/// How often the end of such a process's log is looked at for its next record, and how many records each look asks for at once.
const END_LOOKS: usize = 16;
const LOOK_AHEAD: usize = 3;
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

    /// Reads the log of `lane` and appends a claim to it: whoever drove it before loses its next record. `records_kept` old
    /// records stay when a purge could remove them. `Err(Corrupt)` when it is not fit to go on from; then nothing was claimed.
    pub async fn claim(
        store: Arc<dyn CheckpointStore>,
        lineage: &str,
        lane: &str,
        clock: &Clock,
        needs: Needs,
        records_kept: u64,
    ) -> Result<(Self, Recovered)> {
        Self::claim_again(store, lineage, lane, clock, needs, records_kept, 0).await
    }

    /// The same for a process that has claimed the lane before, as incarnation `mine` (0: not yet), and recovers from an error:
    /// `Err(Fenced)` when another process has claimed it since. Only a start takes a lane over.
    pub async fn claim_again(
        store: Arc<dyn CheckpointStore>,
        lineage: &str,
        lane: &str,
        clock: &Clock,
        needs: Needs,
        records_kept: u64,
        mine: u64,
    ) -> Result<(Self, Recovered)> {
        let at_ms = clock.now_ms();
        let claim = |_before: u64| Entry::Claim { at_ms };
        Self::take(store, lineage, lane, needs, records_kept, (mine, 0), claim).await
    }

    /// Claims the log, as an incarnation above `least`, with the entry that `make` makes of the claim before: a claim, or the first
    /// step of a handover.
    pub(super) async fn take(
        store: Arc<dyn CheckpointStore>,
        lineage: &str,
        lane: &str,
        needs: Needs,
        records_kept: u64,
        (mine, least): (u64, u64),
        make: impl Fn(u64) -> Entry,
    ) -> Result<(Self, Recovered)> {
        let mut recovered = recover(store.as_ref(), lineage, lane, needs).await?;
        if let Some(handover) = &recovered.handover {
            return Err(is_handed_over(lane, handover));
        }
        if mine > 0 && recovered.incarnation > mine {
            return Err(taken_over(lane));
        }
        let mut log = Self::at(Arc::clone(&store), &recovered, lane, records_kept);
        log.writer.incarnation = recovered.incarnation.max(least) + 1;
        if log.take_over(lineage, mine, recovered.incarnation, make).await? {
            recovered = recover(store.as_ref(), lineage, lane, needs).await?;
        }
        if recovered.next < log.next - 1 {
            return Err(lags(lane, log.next - 1));
        }
        log.stand_at(&recovered);
        Ok((log, recovered))
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

    /// Appends the claim. Where another process is at work its newest records are read, and the claim comes after them; says
    /// whether there were any.
    async fn take_over(&mut self, lineage: &str, mine: u64, mut before: u64, make: impl Fn(u64) -> Entry) -> Result<bool> {
        let first = self.next;
        for _ in 0..CLAIM_TRIES {
            if self.try_append(vec![make(before)]).await? {
                return Ok(self.next > first + 1);
            }
            if mine > 0 {
                return Err(self.fenced());
            }
            before = self.go_to_end(lineage).await?;
        }
        Err(self.fenced())
    }

    /// Moves behind the last record, and gives its incarnation. Its number is found by steps that double while they hit a record
    /// (galloping search: Bentley and Yao, 1976), since who reads every record of a process that writes as fast may never meet its last
    /// one. Then its next record is waited for: a claim that is sent as soon as that is seen comes first if the lane takes a moment
    /// before the one after it, and one sent at any other time comes too late where a look takes as long as a record.
    async fn go_to_end(&mut self, lineage: &str) -> Result<u64> {
        let mut step = 1;
        while self.is_there(self.next + step - 1).await? {
            (self.next, step) = (self.next + step, step * 2);
        }
        while step > 1 {
            step /= 2;
            self.next += if self.is_there(self.next + step - 1).await? { step } else { 0 };
        }
        let mut newest = None;
        for look in 0..END_LOOKS {
            let (seen, last) = self.look_ahead().await?;
            self.next += seen as u64;
            newest = last.or(newest);
            if look > 0 && (1..LOOK_AHEAD).contains(&seen) {
                break;
            }
        }
        // After a claim nobody writes under an older one, so the last record has the greatest incarnation.
        let Writer { lineage: own, lane, incarnation } = &mut self.writer;
        let (store, number) = (self.store.as_ref(), self.next - 1);
        let last = match newest {
            Some(bytes) => read::record_of(store, lineage, lane, number, &bytes).await?,
            None => read::record(store, lineage, lane, number).await?,
        };
        if let Some(handover) = last.handover().filter(|handover| handover.is_open()) {
            return Err(is_handed_over(lane, handover));
        }
        *incarnation = (*incarnation).max(last.incarnation + 1);
        *own = last.lineage;
        Ok(last.incarnation)
    }

    async fn is_there(&self, number: u64) -> Result<bool> {
        Ok(self.store.read(&record_name(&self.writer.lane, number)).await?.is_some())
    }

    /// How many of the next records are there, and the bytes of the last of them.
    async fn look_ahead(&self) -> Result<(usize, Option<Vec<u8>>)> {
        let names: Vec<String> = (self.next..).take(LOOK_AHEAD).map(|number| record_name(&self.writer.lane, number)).collect();
        let found = try_join_all(names.iter().map(|name| self.store.read(name))).await?;
        let there: Vec<Vec<u8>> = found.into_iter().map_while(|bytes| bytes).collect();
        Ok((there.len(), there.into_iter().last()))
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

/// A lane that stands still while a backfill takes it over may be claimed by nobody.
fn is_handed_over(lane: &str, handover: &Handover) -> Error {
    let advice = match handover.step {
        Step::Stop => "; if that has ended too soon, 'falaj backfill' finishes it and 'falaj backfill --cancel' gives it up",
        _ => "; if that has ended too soon, 'falaj backfill' finishes it",
    };
    let text = format!("lane '{lane}' is being handed over to the result of a backfill ({}){advice}", handover.lineage);
    Error::new(Kind::Unreachable, text)
}

/// What a store does not list may be the very record that says where the lane stands.
pub(super) fn lags(lane: &str, number: u64) -> Error {
    let text =
        format!("the checkpoint's store does not list record {number} of lane '{lane}' yet, which is there; it is tried again");
    Error::new(Kind::Unreachable, text)
}

fn taken_over(lane: &str) -> Error {
    let text = format!("another process has claimed lane '{lane}' while this one waited; this one stops");
    Error::new(Kind::Fenced, text)
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
