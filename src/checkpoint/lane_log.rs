//! One lane's log of records: claimed, read, appended, purged.

use std::sync::Arc;

use super::CheckpointStore;
use super::record::{Entry, Intent, Record, Snapshot, VERSION, hash_hex};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::sink::Writer;

// Records kept behind the one that recovery needs, for a person who wants to see what happened.
const RECORDS_KEPT: u64 = 16;

/// What a lane finds when it claims its log.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The newest snapshot of the window state.
    pub snapshot: Option<Snapshot>,
    /// All intents after that snapshot, in order; without a snapshot, all that are still there.
    pub intents: Vec<Intent>,
    /// The last committed epoch; 0 before the first.
    pub committed: u64,
}

impl Recovered {
    /// The last intent, if its epoch is not committed.
    pub fn open_intent(&self) -> Option<&Intent> {
        self.intents.last().filter(|intent| intent.epoch > self.committed)
    }
}

/// The log, claimed by this process.
pub struct LaneLog {
    store: Arc<dyn CheckpointStore>,
    writer: Writer,
    next: u64,
    oldest: u64,
    needed_from: u64,
}

impl LaneLog {
    /// The lineage of the checkpoint; made once, by whoever comes first.
    pub async fn lineage(store: &dyn CheckpointStore) -> Result<String> {
        let fresh = uuid::Uuid::now_v7().to_string();
        if store.create("lineage.json", format!("{{\"lineage\":\"{fresh}\"}}\n").into_bytes()).await? {
            return Ok(fresh);
        }
        #[derive(serde::Deserialize)]
        struct Lineage {
            lineage: String,
        }
        let bytes = store.read("lineage.json").await?.unwrap_or_default();
        let lineage: Lineage = serde_json::from_slice(&bytes).map_err(|cause| {
            Error::new(Kind::Corrupt, "the checkpoint's lineage.json is torn; put back a copy of the folder").because(cause)
        })?;
        Ok(lineage.lineage)
    }

    /// Reads the log of `lane` and appends a claim to it: whoever drove it before loses its next record.
    pub async fn claim(store: Arc<dyn CheckpointStore>, lineage: &str, lane: &str, clock: &Clock) -> Result<(Self, Recovered)> {
        let names = store.list(lane).await?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        numbers.sort_unstable();
        check_gaps(lane, &numbers)?;
        let mut recovered = Recovered::default();
        let mut incarnation = 0;
        let mut needed_from = 0;
        for &number in &numbers {
            let name = record_name(lane, number);
            let bytes = store.read(&name).await?.unwrap_or_default();
            let record = Record::decode(&bytes, &name, lineage, lane, number)?;
            incarnation = incarnation.max(record.incarnation);
            for entry in record.entries {
                match entry {
                    Entry::Claim { .. } => {}
                    Entry::Intent(intent) => recovered.intents.push(intent),
                    Entry::Commit { epoch } => recovered.committed = recovered.committed.max(epoch),
                    Entry::Snapshot(snapshot) => {
                        recovered.intents.retain(|intent| intent.epoch > snapshot.epoch);
                        recovered.committed = recovered.committed.max(snapshot.epoch);
                        recovered.snapshot = Some(snapshot);
                        needed_from = number;
                    }
                }
            }
        }
        let writer = Writer { lineage: lineage.to_string(), lane: lane.to_string(), incarnation: incarnation + 1 };
        let next = numbers.last().map_or(0, |last| last + 1);
        let oldest = numbers.first().copied().unwrap_or(0);
        let mut log = Self { store, writer, next, oldest, needed_from };
        log.append(vec![Entry::Claim { at_ms: clock.now_ms() }]).await?;
        Ok((log, recovered))
    }

    /// Who writes: the lineage, the lane and this claim.
    pub fn writer(&self) -> &Writer {
        &self.writer
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
            let text = format!(
                "another process has claimed lane '{}' (record {} is there already); this one stops",
                self.writer.lane, self.next
            );
            return Err(Error::new(Kind::Fenced, text));
        }
        self.next += 1;
        Ok(())
    }

    /// Writes a snapshot's file, then the record that names it.
    pub async fn snapshot(&mut self, intent: &Intent, bytes: Vec<u8>) -> Result<()> {
        let file = format!("state-{:020}-{}.arrow", intent.epoch, self.writer.incarnation);
        let (size_bytes, hash) = (bytes.len() as u64, hash_hex(&bytes));
        if !self.store.create(&format!("{}/{file}", self.writer.lane), bytes).await? {
            return Err(Error::new(
                Kind::Fenced,
                format!("the snapshot {file} is there already; another process drives this lane"),
            ));
        }
        let snapshot = Snapshot { epoch: intent.epoch, intent: intent.clone(), file, size_bytes, hash };
        let at = self.next;
        self.append(vec![Entry::Snapshot(snapshot)]).await?;
        self.needed_from = at;
        Ok(())
    }

    /// The bytes of a snapshot, checked.
    pub async fn read_snapshot(&self, snapshot: &Snapshot) -> Result<Vec<u8>> {
        let name = format!("{}/{}", self.writer.lane, snapshot.file);
        let bytes = self.store.read(&name).await?.unwrap_or_default();
        if bytes.len() as u64 != snapshot.size_bytes || hash_hex(&bytes) != snapshot.hash {
            let text = format!("the snapshot {name} is missing, torn or changed; put back a copy of the checkpoint folder");
            return Err(Error::new(Kind::Corrupt, text));
        }
        Ok(bytes)
    }

    /// For lanes without state: from here on nothing before the last commit is needed.
    pub fn needs_only_the_last(&mut self) {
        self.needed_from = self.next.saturating_sub(2);
    }

    /// Removes what recovery no longer needs. Called now and then, outside an epoch.
    pub async fn purge(&mut self) -> Result<()> {
        let keep_from = self.needed_from.saturating_sub(RECORDS_KEPT);
        // In batches, so that a purge costs little and is worth its calls.
        if keep_from < self.oldest + 64 {
            return Ok(());
        }
        let lane = &self.writer.lane;
        let names = self.store.list(lane).await?;
        let newest_state = names.iter().filter(|name| name.starts_with("state-")).max().cloned();
        let states = names.iter().filter(|name| name.starts_with("state-") && Some(*name) != newest_state.as_ref());
        let mut old: Vec<String> = states.map(|name| format!("{lane}/{name}")).collect();
        old.extend((self.oldest..keep_from).map(|number| record_name(lane, number)));
        self.store.remove(old).await?;
        self.oldest = keep_from;
        Ok(())
    }
}

fn check_gaps(lane: &str, numbers: &[u64]) -> Result<()> {
    match numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        None => Ok(()),
        Some(pair) => {
            let name = record_name(lane, pair[0] + 1);
            let text = format!(
                "the checkpoint record {name} is missing; put back a copy of the folder, or move it away to begin a new lineage"
            );
            Err(Error::new(Kind::Corrupt, text))
        }
    }
}

fn record_name(lane: &str, number: u64) -> String {
    format!("{lane}/{number:020}.json")
}
