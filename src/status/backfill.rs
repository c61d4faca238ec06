//! The figures of one lane of a backfill.

use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// How far the backfill of one lane is.
#[derive(Debug, Default)]
pub struct BackfillStatus(Mutex<Progress>);

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    step: BackfillStep,
    /// When it was first known how much was left, and how much that was.
    began: Option<(Instant, u64)>,
    left: u64,
    event_time_ns: Option<i64>,
}

/// What a lane of a backfill is doing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillStep {
    /// Finding where it stands.
    #[default]
    Starting,
    /// Reading history.
    Reading,
    /// The lane stands still, and goes on from the new result soon.
    HandingOver,
    /// At its end.
    Done,
    /// Ended before, as it was asked to.
    Stopped,
}

impl BackfillStatus {
    /// Says what the backfill is doing.
    pub fn set_step(&self, step: BackfillStep) {
        self.0.lock().step = step;
    }

    /// Says how many records are left, when that is known, and the event time that every partition has reached.
    pub fn note(&self, left: Option<u64>, event_time_ns: Option<i64>) {
        let mut progress = self.0.lock();
        progress.event_time_ns = event_time_ns.or(progress.event_time_ns);
        if let Some(left) = left {
            progress.began.get_or_insert((Instant::now(), left));
            progress.left = left;
        }
    }

    pub(super) fn snapshot(&self, lane: &str) -> BackfillSnapshot {
        let Progress { step, began, left, event_time_ns } = *self.0.lock();
        let rate = began
            .map_or(0.0, |(since, at_first)| at_first.saturating_sub(left) as f64 / since.elapsed().as_secs_f64().max(0.001));
        BackfillSnapshot {
            lane: lane.to_string(),
            step,
            total: began.map_or(0, |(_, at_first)| at_first.max(left)),
            left,
            event_time_ns,
            records_per_second: rate,
            seconds_left: (rate >= 1.0).then(|| left as f64 / rate),
        }
    }
}

/// A copy of a [`BackfillStatus`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackfillSnapshot {
    /// The lane.
    pub lane: String,
    /// What the backfill is doing.
    pub step: BackfillStep,
    /// Records that were left at the start of this process.
    pub total: u64,
    /// Records that are left.
    pub left: u64,
    /// The event time that every partition has reached, ns since 1970.
    pub event_time_ns: Option<i64>,
    /// How fast it reads.
    pub records_per_second: f64,
    /// How long that will take; none while it is not known.
    pub seconds_left: Option<f64>,
}
