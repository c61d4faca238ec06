//! Stores, logs and forks, over every store that there is.

mod conformance;
mod driven;
mod fork;
mod handover;
mod lagging;
mod log;
mod model;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::CheckpointStore;
use super::lane_log::LaneLog;
use super::local::LocalStore;
use super::memory::MemoryStore;
use super::read::record_name;
use super::record::{Entry, Intent, Record, Snapshot};
use super::recover::{Needs, Recovered};
use super::s3::S3Store;
use crate::clock::Clock;
use crate::error::Result;
use crate::position::{Positions, Span};

const LINEAGE: &str = "0198f000-0000-7000-8000-000000000000";
const LANE: &str = "board";

/// One place of each kind. Handles of a place share nothing but the place, as those of processes do. S3 is there where a Python with
/// `moto` is named by `FALAJ_PYTHON`, as scripts/test does.
struct Place {
    kind: &'static str,
    folder: tempfile::TempDir,
    memory: MemoryStore,
}

impl Place {
    fn all() -> Vec<Self> {
        let s3 = server::endpoint().map(|_| "s3");
        let kinds = ["local", "memory"].into_iter().chain(s3);
        kinds.map(|kind| Self { kind, folder: tempfile::tempdir().unwrap(), memory: MemoryStore::default() }).collect()
    }

    fn of(kind: &str) -> Self {
        Self::all().into_iter().find(|place| place.kind == kind).unwrap()
    }

    /// How long a lane rests between two records: as long as a disk takes for an fsync, and over a network its linger.
    fn pause(&self) -> Duration {
        Duration::from_millis(if self.kind == "s3" { 20 } else { 1 })
    }

    fn open(&self) -> Arc<dyn CheckpointStore> {
        match self.kind {
            "local" => Arc::new(LocalStore::new(self.folder.path().join("checkpoint"))),
            // The folder's name is nobody else's.
            "s3" => Arc::new(S3Store::new(server::bucket(&self.folder.path().file_name().unwrap().to_string_lossy()))),
            _ => Arc::new(self.memory.clone()),
        }
    }
}

async fn claim(store: &Arc<dyn CheckpointStore>, needs: Needs) -> Result<(LaneLog, Recovered)> {
    LaneLog::claim(Arc::clone(store), LINEAGE, LANE, &Clock::held(1_000_000_000), needs, 0).await
}

/// Epoch `epoch` takes ten records of partition 0, from 10 × (epoch − 1) on.
fn intent(epoch: u64) -> Intent {
    let to = epoch as i64 * 10;
    Intent {
        epoch,
        spans: vec![Span { partition: 0, from: to - 10, to }],
        positions: Positions::from_iter([(0, to)]),
        event_times_ns: BTreeMap::from([(0, to)]),
        watermark_ns: Some(to - 5),
        ..Intent::default()
    }
}

/// Appends the intents and commits of some epochs.
async fn epochs(log: &mut LaneLog, epochs: impl IntoIterator<Item = u64>) {
    for epoch in epochs {
        log.append(vec![Entry::Intent(intent(epoch))]).await.unwrap();
        log.append(vec![Entry::Commit { epoch }]).await.unwrap();
    }
}

/// A snapshot as of `epoch`, whose file says so.
async fn snapshot(log: &mut LaneLog, epoch: u64) {
    let from = log.next();
    let file = log.state_writer().write(epoch, "panes", format!("state of {epoch}").into_bytes(), vec![(0, 1)]).await.unwrap();
    log.snapshot(
        Snapshot { epoch, intent: intent(epoch), fingerprint: String::new(), from_pane: 0, files: vec![file], merged: None },
        from,
    )
    .await
    .unwrap();
}

/// Puts other bytes in the place of a file.
async fn replace(store: &Arc<dyn CheckpointStore>, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let bytes = store.read(name).await.unwrap().unwrap_or_else(|| panic!("there is no {name}"));
    store.remove(vec![name.to_string()]).await.unwrap();
    assert!(store.create(name, change(bytes)).await.unwrap());
}

async fn remove(store: &Arc<dyn CheckpointStore>, numbers: impl IntoIterator<Item = u64>) {
    store.remove(numbers.into_iter().map(|number| record_name(LANE, number)).collect()).await.unwrap();
}

/// The same record, with something else in it and a checksum that fits.
fn changed(bytes: &[u8], change: impl FnOnce(&mut Record)) -> Vec<u8> {
    let outer: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let mut record: Record = serde_json::from_str(&outer["record"].to_string()).unwrap();
    change(&mut record);
    record.encode().unwrap()
}
