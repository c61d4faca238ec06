//! The last minutes of each lane, kept here so that a page that is loaded anew has them at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::status::LaneSnapshot;

/// How often a point is taken.
pub(super) const POINT_EVERY: Duration = Duration::from_secs(1);
/// Five minutes of each lane, in some 6 KiB.
const POINTS_MAX: usize = 300;
/// Rates are taken over so many points, so that one slow epoch is no gap.
const RATE_POINTS: usize = 3;

/// What one lane did in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Records per second that were read.
    #[serde(rename = "in")]
    pub records: f32,
    /// Rows per second that became visible in the sink.
    #[serde(rename = "out")]
    pub rows: f32,
    /// Records that wait.
    pub lag: u32,
    /// Latency from the event, p99 of the last minute, ms.
    pub p99_ms: f32,
}

/// The points of all lanes. Every lane has as many as it has lived through, the newest last.
#[derive(Debug, Default)]
pub(super) struct History {
    lanes: BTreeMap<String, Lane>,
    /// The number of the newest point.
    newest: u64,
    at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Lane {
    /// When, with the records read and rows written until then.
    counted: VecDeque<(Instant, u64, u64)>,
    points: VecDeque<Point>,
}

/// The points as pages get them.
#[derive(Debug, Serialize)]
pub(super) struct Points<'h> {
    /// The number of the newest point.
    newest: u64,
    every_ms: u64,
    lanes: BTreeMap<&'h str, &'h VecDeque<Point>>,
}

impl History {
    /// Whether it is time for a point.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| now.duration_since(at) >= POINT_EVERY)
    }

    /// Takes a point, if it is time for one.
    pub(super) fn note(&mut self, lanes: &[LaneSnapshot], now: Instant) {
        if !self.is_due(now) {
            return;
        }
        self.at = Some(now);
        self.newest += 1;
        self.lanes.retain(|name, _| lanes.iter().any(|lane| lane.name == *name));
        for lane in lanes {
            self.lanes.entry(lane.name.clone()).or_default().note(lane, now);
        }
    }

    /// The number of the newest point, and that point of each lane.
    pub(super) fn newest(&self) -> (u64, BTreeMap<String, Point>) {
        let newest = |(name, lane): (&String, &Lane)| Some((name.clone(), *lane.points.back()?));
        (self.newest, self.lanes.iter().filter_map(newest).collect())
    }

    pub(super) fn points(&self) -> Points<'_> {
        let lanes = self.lanes.iter().map(|(name, lane)| (name.as_str(), &lane.points)).collect();
        Points { newest: self.newest, every_ms: POINT_EVERY.as_millis() as u64, lanes }
    }
}

impl Lane {
    fn note(&mut self, lane: &LaneSnapshot, now: Instant) {
        let (at, records, rows) = self.counted.front().copied().unwrap_or((now, lane.records, lane.emitted));
        let seconds = now.duration_since(at).as_secs_f32();
        // A lane that began anew counts from 0 again.
        let rate = |from: u64, to: u64| if seconds > 0.0 { to.saturating_sub(from) as f32 / seconds } else { 0.0 };
        let p99_us = lane.event_latency_p99_us.max(lane.latency_p99_us);
        push(
            &mut self.points,
            POINTS_MAX,
            Point {
                records: rate(records, lane.records),
                rows: rate(rows, lane.emitted),
                lag: u32::try_from(lane.lag.max(0)).unwrap_or(u32::MAX),
                p99_ms: p99_us as f32 / 1e3,
            },
        );
        push(&mut self.counted, RATE_POINTS, (now, lane.records, lane.emitted));
    }
}

fn push<T>(into: &mut VecDeque<T>, max: usize, one: T) {
    if into.len() == max {
        into.pop_front();
    }
    into.push_back(one);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::status::Status;

    #[test]
    fn there_is_a_point_a_second_and_no_more_than_five_minutes_of_them() {
        let (status, began) = (Status::default(), Instant::now());
        let lane = status.lane("top");
        let mut history = History::default();
        for half in 0..1_000_u64 {
            lane.records.store(500 * half, Ordering::Relaxed);
            lane.emitted.store(50 * half, Ordering::Relaxed);
            history.note(&status.snapshot().lanes, began + Duration::from_millis(500 * half));
        }
        let (newest, points) = history.newest();
        assert_eq!(newest, 500);
        assert_eq!(points["top"], Point { records: 1_000.0, rows: 100.0, lag: 0, p99_ms: 0.0 });
        assert_eq!(history.points().lanes["top"].len(), POINTS_MAX);
        // It began anew.
        lane.records.store(7, Ordering::Relaxed);
        lane.lag.store(-3, Ordering::Relaxed);
        history.note(&status.snapshot().lanes, began + Duration::from_secs(501));
        assert_eq!((history.newest().1["top"].records, history.newest().1["top"].lag), (0.0, 0));
        history.note(&[], began + Duration::from_secs(502));
        assert!(history.newest().1.is_empty());
    }
}
