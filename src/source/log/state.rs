//! What lies in the log, and which lane has read how far. Plain data under one lock.

use std::collections::{BTreeMap, VecDeque};

use crate::batch::Segment;
use crate::error::Error;
use crate::position::Positions;

#[derive(Default)]
pub(super) struct State {
    pub(super) partitions: BTreeMap<i32, Part>,
    pub(super) lanes: BTreeMap<u64, LaneAt>,
    pub(super) lanes_ever: u64,
    pub(super) started: bool,
    pub(super) bytes: usize,
    /// An error that waiting will not mend: every lane gets it.
    pub(super) error: Option<Error>,
    pub(super) waits_for: Option<String>,
}

/// One partition's segments, in order and without a gap between them.
pub(super) struct Part {
    pub(super) oldest: i64,
    pub(super) end: i64,
    pub(super) segments: VecDeque<Segment>,
    pub(super) at_log_end: bool,
}

pub(super) struct LaneAt {
    pub(super) positions: Positions,
    /// It reads by itself and holds nothing here.
    pub(super) detached: bool,
}

impl State {
    /// The least position of the lanes in each partition: where reading begins.
    pub(super) fn begin(&mut self) -> Positions {
        let mut from = Positions::default();
        for lane in self.lanes.values() {
            for (partition, at) in lane.positions.iter() {
                from.set(partition, from.get(partition).map_or(at, |least| least.min(at)));
            }
        }
        for (partition, at) in from.iter() {
            let part = Part { oldest: at, end: at, segments: VecDeque::new(), at_log_end: false };
            self.partitions.insert(partition, part);
        }
        self.started = true;
        from
    }

    pub(super) fn append(&mut self, segment: Segment) {
        let from = segment.span.from;
        let part = self.partitions.entry(segment.span.partition).or_insert_with(|| Part {
            oldest: from,
            end: from,
            segments: VecDeque::new(),
            at_log_end: false,
        });
        part.at_log_end = false;
        part.end = segment.span.to;
        self.bytes += segment.bytes;
        part.segments.push_back(segment);
    }

    /// Whether this lane has nothing to read here.
    pub(super) fn has_all(&self, lane: &LaneAt) -> bool {
        self.partitions.iter().all(|(partition, part)| lane.positions.get(*partition).is_some_and(|at| at >= part.end))
    }

    /// Drops what every attached lane has passed.
    pub(super) fn trim(&mut self) {
        for (partition, part) in &mut self.partitions {
            let attached = self.lanes.values().filter(|lane| !lane.detached);
            let Some(least) = attached.map(|lane| lane.positions.get(*partition).unwrap_or(part.oldest)).min() else { continue };
            while part.segments.front().is_some_and(|segment| segment.span.to <= least) {
                if let Some(segment) = part.segments.pop_front() {
                    self.bytes = self.bytes.saturating_sub(segment.bytes);
                    part.oldest = segment.span.to;
                }
            }
        }
    }

    /// Whether some attached lane has read everything, while others have not.
    pub(super) fn starved(&self) -> bool {
        self.lanes.values().any(|lane| !lane.detached && self.has_all(lane))
    }

    /// Detaches the lane that is furthest behind.
    pub(super) fn detach_slowest(&mut self) {
        let behind = |lane: &LaneAt| -> i64 {
            self.partitions.iter().map(|(partition, part)| part.end - lane.positions.get(*partition).unwrap_or(part.oldest)).sum()
        };
        let attached = self.lanes.iter().filter(|(_, lane)| !lane.detached);
        let slowest = attached.max_by_key(|(_, lane)| behind(lane)).map(|(id, _)| *id);
        if let Some(lane) = slowest.and_then(|id| self.lanes.get_mut(&id)) {
            lane.detached = true;
        }
        self.trim();
    }

    pub(super) fn live(&self) -> bool {
        self.partitions.values().any(|part| part.at_log_end)
    }
}
