//! The figures of one lane.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::latency::Latency;
use super::times::{Distribution, PHASES, PartitionLag, Phase, PhaseSnapshot, PhaseTimes};
use super::wiring::{Trouble, Wiring};
use crate::clock::Clock;
use crate::traces;

/// The figures of one lane. Relaxed atomics: each is right by itself, two of them may be a moment apart.
#[derive(Debug)]
pub struct LaneStatus {
    /// Records in the spans of committed epochs: `used + filtered + late + dead + skipped`.
    pub records: AtomicU64,
    /// Rows that the query used.
    pub used: AtomicU64,
    /// Rows that the query's filters left out, and those of replayed dead letters that are for another lane; of a
    /// lane of dead letters, the good records.
    pub filtered: AtomicU64,
    /// Rows whose every window was final, or whose event time lay too far ahead.
    pub late: AtomicU64,
    /// Records that could not be decoded.
    pub dead: AtomicU64,
    /// Records without a payload.
    pub skipped: AtomicU64,
    /// Offsets that the source no longer had, gone over because the table says so.
    pub lost: AtomicU64,
    /// Rows made visible by the sink.
    pub emitted: AtomicU64,
    /// Rows that the sink refused.
    pub refused: AtomicU64,
    /// Rows of windows that had no place in the sink, as often as they were to be written.
    pub left_out: AtomicU64,
    /// Attempts of the sink beyond the first.
    pub retries: AtomicU64,
    /// The last committed epoch.
    pub epoch: AtomicU64,
    /// Records between the lane's positions and the log ends.
    pub lag: AtomicI64,
    /// The lane's watermark, ns since 1970; `i64::MIN` before there is one.
    pub watermark_ns: AtomicI64,
    /// When the last commit was recorded, ms since 1970; 0 before the first of this process.
    pub committed_ms: AtomicI64,
    /// The time that its board shows, ns since 1970; `i64::MIN` of an empty board, and without one.
    pub board_ns: AtomicI64,
    /// Panes held.
    pub panes: AtomicU64,
    /// Memory held by window state.
    pub state_bytes: AtomicU64,
    latency: Latency,
    event_latency: Latency,
    partitions: Mutex<Vec<PartitionLag>>,
    phases: Mutex<[PhaseTimes; 5]>,
    /// The parts of the epoch that the lane is at, for its trace.
    pub traced: traces::Parts,
    /// How long writing the last snapshot took, µs; 0 before the first.
    pub snapshot_us: AtomicU64,
    /// The time that went into snapshots, µs.
    pub snapshots_us: AtomicU64,
    /// When the last snapshot was recorded, ms since 1970; 0 if never.
    pub snapshot_at_ms: AtomicI64,
    text: Mutex<LaneText>,
}

#[derive(Debug, Default, Clone)]
struct LaneText {
    wiring: Wiring,
    state: LaneState,
    error: Option<String>,
    waits_for: Option<String>,
    last_trouble: Option<Trouble>,
}

/// What a lane is doing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaneState {
    /// Claiming its checkpoint, reading its last spans again, waiting for a service.
    #[default]
    Starting,
    /// Reading and writing.
    Running,
    /// Ended as it was asked to.
    Done,
    /// Stopped by an error.
    Stopped,
}

impl Default for LaneStatus {
    fn default() -> Self {
        Self {
            records: AtomicU64::new(0),
            used: AtomicU64::new(0),
            filtered: AtomicU64::new(0),
            late: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            emitted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            lag: AtomicI64::new(0),
            watermark_ns: AtomicI64::new(i64::MIN),
            committed_ms: AtomicI64::new(0),
            board_ns: AtomicI64::new(i64::MIN),
            panes: AtomicU64::new(0),
            state_bytes: AtomicU64::new(0),
            latency: Latency::default(),
            event_latency: Latency::default(),
            partitions: Mutex::default(),
            phases: Mutex::default(),
            traced: traces::Parts::default(),
            snapshot_us: AtomicU64::new(0),
            snapshots_us: AtomicU64::new(0),
            snapshot_at_ms: AtomicI64::new(0),
            text: Mutex::new(LaneText::default()),
        }
    }
}

impl LaneStatus {
    /// Says what the lane is doing. One that runs waits for nothing any more.
    pub fn set_state(&self, state: LaneState) {
        let mut text = self.text.lock();
        text.state = state;
        if state == LaneState::Running {
            (text.error, text.waits_for) = (None, None);
        }
    }

    /// Whether it reads and writes.
    pub fn is_running(&self) -> bool {
        self.text.lock().state == LaneState::Running
    }

    /// Records between the lane's positions and the log ends.
    pub fn left(&self) -> u64 {
        self.lag.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    /// Whether it has ended, by itself or by an error.
    pub fn is_over(&self) -> bool {
        matches!(self.text.lock().state, LaneState::Done | LaneState::Stopped)
    }

    /// Says what it connects.
    pub fn set_wiring(&self, wiring: Wiring) {
        self.text.lock().wiring = wiring;
    }

    /// Says how far it is behind, of every partition.
    pub fn set_lags(&self, lags: Vec<PartitionLag>) {
        self.lag.store(lags.iter().map(|lag| lag.records as i64).sum(), Ordering::Relaxed);
        *self.partitions.lock() = lags;
    }

    /// Says why it stopped, or what it waits for (`None`: nothing any more).
    pub fn set_trouble(&self, error: Option<String>, waits_for: Option<String>) {
        let mut text = self.text.lock();
        let trouble = |text: &String| Trouble { text: text.clone(), at_ms: Clock::system().now_ms() };
        text.last_trouble = error.as_ref().or(waits_for.as_ref()).map(trouble).or(text.last_trouble.take());
        text.error = error;
        text.waits_for = waits_for;
    }

    /// Notes how long the newest rows of an epoch took from the log to where they are visible.
    pub fn record_latency(&self, latency_us: u64) {
        self.latency.record(latency_us);
    }

    /// Notes how long the newest event of an epoch took from when it happened to where it is visible.
    pub fn record_event_latency(&self, latency_us: u64) {
        self.event_latency.record(latency_us);
    }

    /// Notes how long a part of an epoch took.
    pub fn record_phase(&self, phase: Phase, took: Duration) {
        self.traced.note(PHASES[phase as usize].1, took);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let times = &mut self.phases.lock()[phase as usize];
        times.total_us = times.total_us.saturating_add(took_us);
        if let Some(histogram) = times.times.as_mut() {
            histogram.saturating_record(took_us.max(1));
        }
    }

    /// Notes a snapshot that is recorded.
    pub fn note_snapshot(&self, took: Duration, at_ms: i64) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.snapshot_us.store(took_us, Ordering::Relaxed);
        self.snapshots_us.fetch_add(took_us, Ordering::Relaxed);
        self.snapshot_at_ms.store(at_ms, Ordering::Relaxed);
    }

    /// How long the newest rows of an epoch took from the log to where they are visible, counted up to each of `bounds_us`.
    pub fn latency_distribution(&self, bounds_us: &[u64]) -> Distribution {
        self.latency.distribution(bounds_us)
    }

    /// The same from when the newest event of an epoch happened.
    pub fn event_latency_distribution(&self, bounds_us: &[u64]) -> Distribution {
        self.event_latency.distribution(bounds_us)
    }

    /// The same of each part of an epoch, by its name.
    pub fn phase_distributions(&self, bounds_us: &[u64]) -> Vec<(&'static str, Distribution)> {
        let phases = self.phases.lock();
        let of = |(phase, name): (Phase, &'static str)| {
            let PhaseTimes { total_us, times } = &phases[phase as usize];
            let mut distribution = times.as_ref().map(|times| Distribution::of(times, bounds_us)).unwrap_or_default();
            distribution.sum_us = *total_us as f64;
            (name, distribution)
        };
        PHASES.into_iter().map(of).collect()
    }

    fn phase_snapshots(&self) -> BTreeMap<String, PhaseSnapshot> {
        let phases = self.phases.lock();
        let of = |(phase, name): (Phase, &'static str)| {
            let times = &phases[phase as usize];
            let quantile = |q| times.times.as_ref().map_or(0, |times| times.value_at_quantile(q));
            let count = times.times.as_ref().map_or(0, Histogram::len);
            (name.to_string(), PhaseSnapshot { count, total_us: times.total_us, p50_us: quantile(0.5), p99_us: quantile(0.99) })
        };
        PHASES.into_iter().map(of).collect()
    }

    pub(super) fn snapshot(&self, name: &str) -> LaneSnapshot {
        let text = self.text.lock().clone();
        let (latency, event_latency) = (self.latency.quantiles(), self.event_latency.quantiles());
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |time_ns: &AtomicI64| Some(time_ns.load(Ordering::Relaxed)).filter(|&ns| ns != i64::MIN);
        LaneSnapshot {
            name: name.to_string(),
            wiring: text.wiring,
            state: text.state,
            error: text.error,
            waits_for: text.waits_for,
            last_trouble: text.last_trouble,
            records: get(&self.records),
            used: get(&self.used),
            filtered: get(&self.filtered),
            late: get(&self.late),
            dead: get(&self.dead),
            skipped: get(&self.skipped),
            lost: get(&self.lost),
            emitted: get(&self.emitted),
            refused: get(&self.refused),
            left_out: get(&self.left_out),
            retries: get(&self.retries),
            epoch: get(&self.epoch),
            lag: self.lag.load(Ordering::Relaxed),
            partitions: self.partitions.lock().clone(),
            watermark_ns: time(&self.watermark_ns),
            committed_ms: self.committed_ms.load(Ordering::Relaxed),
            board_ns: time(&self.board_ns),
            panes: get(&self.panes),
            state_bytes: get(&self.state_bytes),
            latency_p50_us: latency.p50_us,
            latency_p95_us: latency.p95_us,
            latency_p99_us: latency.p99_us,
            event_latency_p50_us: event_latency.p50_us,
            event_latency_p95_us: event_latency.p95_us,
            event_latency_p99_us: event_latency.p99_us,
            phases: self.phase_snapshots(),
            snapshot_us: get(&self.snapshot_us),
            snapshots_us: get(&self.snapshots_us),
            snapshot_at_ms: self.snapshot_at_ms.load(Ordering::Relaxed),
        }
    }
}

/// A copy of a [`LaneStatus`]; the fields mean the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on LaneStatus")]
pub struct LaneSnapshot {
    pub name: String,
    #[serde(flatten)]
    pub wiring: Wiring,
    pub state: LaneState,
    pub error: Option<String>,
    pub waits_for: Option<String>,
    /// The last error or outage, kept when it is over.
    pub last_trouble: Option<Trouble>,
    pub records: u64,
    pub used: u64,
    pub filtered: u64,
    pub late: u64,
    pub dead: u64,
    pub skipped: u64,
    /// Offsets that the source no longer had.
    pub lost: u64,
    pub emitted: u64,
    pub refused: u64,
    pub left_out: u64,
    pub retries: u64,
    pub epoch: u64,
    pub lag: i64,
    /// The same of each partition.
    pub partitions: Vec<PartitionLag>,
    pub watermark_ns: Option<i64>,
    pub committed_ms: i64,
    pub board_ns: Option<i64>,
    pub panes: u64,
    pub state_bytes: u64,
    /// From the append to the log until the row is visible, over the last minute; 0 when there was nothing.
    pub latency_p50_us: u64,
    pub latency_p95_us: u64,
    pub latency_p99_us: u64,
    /// The same from when the event happened.
    pub event_latency_p50_us: u64,
    pub event_latency_p95_us: u64,
    pub event_latency_p99_us: u64,
    pub phases: BTreeMap<String, PhaseSnapshot>,
    pub snapshot_us: u64,
    pub snapshots_us: u64,
    pub snapshot_at_ms: i64,
}
