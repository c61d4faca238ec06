//! How long things take, and how far a lane is behind.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How far a lane is behind the log end of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionLag {
    /// The partition.
    pub partition: i32,
    /// Records between the lane's position and the log end.
    pub records: u64,
    /// What was appended before this time, ms since 1970, is taken; none while nothing is known.
    pub taken_to_ms: Option<i64>,
}

impl PartitionLag {
    /// No record that waits is older, in seconds; 0 where none waits.
    pub fn seconds(&self, now_ms: i64) -> Option<f64> {
        match self.records {
            0 => Some(0.0),
            _ => self.taken_to_ms.map(|taken_to_ms| now_ms.saturating_sub(taken_to_ms).max(0) as f64 / 1e3),
        }
    }
}

/// What an epoch does, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Runs the query over what was taken, and writes what is staged; in an epoch that rolls files, with its waits for more.
    Plan,
    /// Makes what is staged durable, or sends ahead what nobody sees yet.
    Stage,
    /// Makes the intent durable.
    Intent,
    /// Makes the result visible.
    Apply,
    /// Makes the commit durable.
    Commit,
}

pub(super) const PHASES: [(Phase, &str); 5] = [
    (Phase::Plan, "plan"),
    (Phase::Stage, "stage"),
    (Phase::Intent, "intent"),
    (Phase::Apply, "apply"),
    (Phase::Commit, "commit"),
];

#[derive(Debug)]
pub(super) struct PhaseTimes {
    pub(super) total_us: u64,
    // Up to an hour at two digits, as for latency.
    pub(super) times: Option<Histogram<u64>>,
}

impl Default for PhaseTimes {
    fn default() -> Self {
        Self { total_us: 0, times: Histogram::new_with_max(3_600_000_000, 2).ok() }
    }
}

/// Times, counted by their length.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// For each bound, those that are longer than the bound before and no longer than this one.
    pub counts: Vec<u64>,
    /// All of them, those beyond the last bound included.
    pub count: u64,
    /// All together, µs.
    pub sum_us: f64,
}

impl Distribution {
    pub(super) fn of(histogram: &Histogram<u64>, bounds_us: &[u64]) -> Self {
        let mut counts = vec![0; bounds_us.len()];
        for step in histogram.iter_recorded() {
            let at = bounds_us.partition_point(|&bound| bound < step.value_iterated_to());
            if let Some(count) = counts.get_mut(at) {
                *count += step.count_since_last_iteration();
            }
        }
        Self { counts, count: histogram.len(), sum_us: histogram.mean() * histogram.len() as f64 }
    }
}

/// How long one part of a lane's epochs has taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PhaseSnapshot {
    /// How often.
    pub count: u64,
    /// All together, µs.
    pub total_us: u64,
    /// Half of them took no longer, µs.
    pub p50_us: u64,
    /// All but one in a hundred took no longer, µs.
    pub p99_us: u64,
}
