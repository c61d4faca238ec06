//! One lane's log of records: claimed, appended, purged. [`read`](super::read) says what a claim finds.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::CheckpointStore;
use super::read::{self, Needs, Recovered, record_name};
use super::record::{Entry, Record, Snapshot, StateFile, VERSION, hash_hex};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::sink::Writer;

/// Records are removed so many at a time, so that a purge is worth its calls.
const PURGE_RECORDS: u64 = 64;
/// Claims that are never purged, with the restarts that wrote them: whoever sleeps through more of them than this, and wakes, may
/// find the number of its next record free again.
const CLAIMS_KEPT: usize = 1024;

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
}

impl LaneLog {
    /// The lineage of the checkpoint; made once, by whoever comes first.
    pub async fn lineage(store: &dyn CheckpointStore) -> Result<String> {
        let fresh = uuid::Uuid::now_v7().to_string();
        if store.create("lineage.json", format!("{{\"lineage\":\"{fresh}\"}}\n").into_bytes()).await? {
            return Ok(fresh);
        }
        read::lineage(store).await?.ok_or_else(|| Error::new(Kind::Corrupt, "the checkpoint's lineage.json has vanished"))
    }

    /// Reads the log of `lane` and appends a claim to it: whoever drove it before loses its next record. `records_kept` old
    /// records stay when a purge could remove them.
    pub async fn claim(
        store: Arc<dyn CheckpointStore>,
        lineage: &str,
        lane: &str,
        clock: &Clock,
        needs: Needs,
        records_kept: u64,
    ) -> Result<(Self, Recovered)> {
        let recovered = read::recover(store.as_ref(), lineage, lane, needs).await?;
        let writer = Writer { lineage: lineage.to_string(), lane: lane.to_string(), incarnation: recovered.incarnation + 1 };
        let mut log = Self {
            store,
            writer,
            next: recovered.next,
            oldest: recovered.oldest,
            old_claims: recovered.old_claims.clone(),
            needed_from: recovered.snapshots.first().map_or(recovered.oldest, |(from, _)| *from),
            records_kept,
            snapshots: recovered.snapshots.clone(),
            state_files: recovered.state_files.clone(),
            purging: None,
        };
        log.append(vec![Entry::Claim { at_ms: clock.now_ms() }]).await?;
        Ok((log, recovered))
    }

    /// Who writes: the lineage, the lane and this claim.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The number of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Appends a record; durable when it returns. `Err(Fenced)`: somebody else claimed the lane.
    pub async fn append(&mut self, entries: Vec<Entry>) -> Result<()> {
        let record = Record {
            version: VERSION,
            number: self.next,
            lineage: self.writer.lineage.clone(),
            lane: self.writer.lane.clone(),
            incarnation: self.writer.incarnation,
            entries,
        };
        let name = record_name(&self.writer.lane, self.next);
        if !self.store.create(&name, record.encode()?).await? {
            return Err(self.fenced());
        }
        self.next += 1;
        Ok(())
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
        self.needed_from = self.snapshots[0].0;
        Ok(())
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

/// Removes records, oldest first, and files. A claim stays (but for the first `too_many`, which are known to be claims): it holds
/// the number that a process which slept since then would write next.
async fn remove(
    store: &dyn CheckpointStore,
    writer: &Writer,
    numbers: &[u64],
    too_many: usize,
    files: Vec<String>,
) -> Result<()> {
    let mut names = Vec::with_capacity(numbers.len());
    for (index, &number) in numbers.iter().enumerate() {
        let name = record_name(&writer.lane, number);
        let bytes = store.read(&name).await?.unwrap_or_default();
        let record = Record::decode(&bytes, &name, &writer.lineage, &writer.lane, number);
        let claims = record.is_ok_and(|record| record.entries.iter().any(|entry| matches!(entry, Entry::Claim { .. })));
        if !claims || index < too_many {
            names.push(name);
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
