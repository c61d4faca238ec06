//! A lane: one `INSERT INTO sink SELECT …` that drives itself, one epoch at a time: intent → apply → commit.
//!
//! [`driver`] is the loop and the one recovery path, [`epoch`] the protocol, [`rows`] and [`windowed`] are the two kinds of work,
//! [`letters`] is the built-in lane that writes a source's undecodable records down, `handover` waits while a backfill takes a lane over.
//! A lane knows ports, never adapters.

mod absorb;
pub mod driver;
mod emit;
pub mod epoch;
mod guard;
mod handover;
pub mod keep;
pub mod letters;
mod pace;
mod restore;
pub mod rows;
mod snapshot;
pub mod update;
pub mod watermark;
pub mod windowed;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::checkpoint::CheckpointStore;
use crate::clock::Clock;
use crate::dead::DeadLetters;
use crate::error::Result;
use crate::position::Positions;
use crate::query::plan::LanePlan;
use crate::sink::Sink;
use crate::source::log::Log;
use crate::source::{Source, Start};
use crate::status::LaneStatus;

/// When a windowed lane's rows reach the sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emit {
    /// Each window once, when the watermark passes its end.
    Final,
    /// Each epoch, what changed; rows are told apart by these columns of the sink.
    Update {
        /// Indexes of the key's columns in the sink table.
        key: Vec<usize>,
    },
    /// Each epoch, the whole result of the window that covers the last `size` of time.
    Latest,
}

/// The rules of event time, from the source's `watermark.*` options.
#[derive(Debug, Clone, Copy)]
pub struct WatermarkRules {
    /// How far the watermark stays behind the greatest event time.
    pub delay_ns: i64,
    /// After how long a silent partition no longer holds the others back; none: never.
    pub idle_ns: Option<i64>,
    /// How far ahead of the intent's time an event may be.
    pub ahead_ns: i64,
}

/// How large an epoch may become.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of decoded input that are taken at once.
    pub take_bytes_max: usize,
    /// How long a lane rests after an epoch that left nothing to take.
    pub linger: Duration,
    /// For sinks that roll files: an epoch goes on until the sink has written so many bytes, or so much time has passed.
    pub roll: Option<(u64, Duration)>,
    /// Input records between two snapshots of window state.
    pub snapshot_records: u64,
    /// Old checkpoint records that stay.
    pub records_kept: u64,
}

/// Makes something anew after each recovery.
pub type Make<T> = Arc<dyn Fn() -> Result<T> + Send + Sync>;

/// Everything that a lane is made of.
#[derive(Clone)]
pub struct LaneParts {
    /// What it computes.
    pub plan: LanePlan,
    /// When its windows are emitted.
    pub emit: Emit,
    /// Its bounds.
    pub bounds: Bounds,
    /// The rules of its event time.
    pub watermark: WatermarkRules,
    /// The source, for its start positions.
    pub source: Arc<dyn Source>,
    /// The source's log, shared with the other lanes.
    pub log: Arc<Log>,
    /// Where it begins without a checkpoint.
    pub start: Start,
    /// Its sink.
    pub make_sink: Make<Box<dyn Sink>>,
    /// Where its dead letters go.
    pub make_dead: Make<Box<dyn DeadLetters>>,
    /// Where its records are.
    pub store: Arc<dyn CheckpointStore>,
    /// The checkpoint's lineage.
    pub lineage: String,
    /// The time.
    pub clock: Clock,
    /// Its figures.
    pub status: Arc<LaneStatus>,
    /// Where to stop (`--until`); none: never, as things are.
    pub until: watch::Receiver<Option<Positions>>,
    /// Is told when everything is read that there was at the start.
    pub caught_up: Option<watch::Sender<bool>>,
    /// Becomes true when the process wants to stop.
    pub stop: watch::Receiver<bool>,
    /// Is told when a backfill has handed over a result of other SQL than this process runs: it must be read again.
    pub reload: watch::Sender<bool>,
}

impl LaneParts {
    /// The source's column with the event time, if it names one.
    fn event_column(&self) -> Option<&str> {
        self.plan.source.options.get("watermark.column").map(String::as_str)
    }

    /// Whether `positions` reach to where the lane is to stop.
    fn reached(&self, positions: &Positions) -> bool {
        self.until.borrow().as_ref().is_some_and(|ends| positions.reached(ends))
    }
}
