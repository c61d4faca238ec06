//! What a running process shows of itself: counters that lanes write and pages read. Reading never blocks writing for long.

mod backfill;
mod capture;
mod lane;
mod latency;
mod lookup;
mod times;
mod wiring;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use self::backfill::{BackfillSnapshot, BackfillStatus, BackfillStep};
pub use self::capture::{CaptureSnapshot, CaptureStatus, CopySnapshot};
pub use self::lane::{LaneSnapshot, LaneState, LaneStatus};
pub use self::lookup::{LookupSnapshot, LookupStatus};
pub use self::times::{Distribution, PartitionLag, Phase, PhaseSnapshot};
pub use self::wiring::{Trouble, Wiring};
use crate::memory::{Memory, MemorySnapshot};

/// All lanes, lookups and captures of one process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Status {
    lanes: Arc<Mutex<BTreeMap<String, Arc<LaneStatus>>>>,
    lookups: Arc<Mutex<BTreeMap<String, Arc<LookupStatus>>>>,
    captures: Arc<Mutex<BTreeMap<String, Arc<CaptureStatus>>>>,
    backfills: Arc<Mutex<BTreeMap<String, Arc<BackfillStatus>>>>,
    memory: Arc<Mutex<Memory>>,
}

impl Status {
    /// The status of lane `name`, made at the first call.
    pub fn lane(&self, name: &str) -> Arc<LaneStatus> {
        Arc::clone(self.lanes.lock().entry(name.to_string()).or_default())
    }

    /// The status of lookup table `name`, made at the first call.
    pub fn lookup(&self, name: &str) -> Arc<LookupStatus> {
        Arc::clone(self.lookups.lock().entry(name.to_string()).or_default())
    }

    /// The status of the capture over replication slot `name`, made at the first call.
    pub fn capture(&self, name: &str) -> Arc<CaptureStatus> {
        Arc::clone(self.captures.lock().entry(name.to_string()).or_default())
    }

    /// How far the backfill of lane `name` is, made at the first call.
    pub fn backfill(&self, name: &str) -> Arc<BackfillStatus> {
        Arc::clone(self.backfills.lock().entry(name.to_string()).or_default())
    }

    /// Every lane by name.
    pub fn lanes(&self) -> Vec<(String, Arc<LaneStatus>)> {
        self.lanes.lock().iter().map(|(name, lane)| (name.clone(), Arc::clone(lane))).collect()
    }

    /// Says whose memory is shown.
    pub fn set_memory(&self, memory: Memory) {
        *self.memory.lock() = memory;
    }

    /// Everything as it is now, for pages and terminals.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            memory: self.memory.lock().snapshot(),
            lanes: self.lanes.lock().iter().map(|(name, lane)| lane.snapshot(name)).collect(),
            lookups: self.lookups.lock().iter().map(|(name, lookup)| lookup.snapshot(name)).collect(),
            captures: self.captures.lock().iter().map(|(name, capture)| capture.snapshot(name)).collect(),
            backfills: self.backfills.lock().iter().map(|(lane, backfill)| backfill.snapshot(lane)).collect(),
        }
    }
}

/// A copy of a [`Status`], for JSON (`/api/v1/status`) and for the terminal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// What is held in memory, of which limit, and by whom.
    pub memory: MemorySnapshot,
    /// The lanes by name.
    pub lanes: Vec<LaneSnapshot>,
    /// The lookups by name.
    pub lookups: Vec<LookupSnapshot>,
    /// The captures by their slot's name.
    pub captures: Vec<CaptureSnapshot>,
    /// In the process of a backfill, its lanes by name.
    pub backfills: Vec<BackfillSnapshot>,
}
