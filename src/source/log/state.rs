//! What a log holds in memory: the tail of each partition, where each lane stands, and what may be dropped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::{BYTES_LEAST, LogLimits};
use crate::batch::Segment;
use crate::error::Error;
use crate::memory::{Account, Use};
use crate::position::Positions;

/// What a segment costs beside its arrays: its structs, and the spare room of small allocations.
const SEGMENT_OVERHEAD: usize = 1024;

/// All that changes while a log runs.
pub(super) struct State {
    /// Set once the source has named its partitions.
    pub(super) opened: bool,
    pub(super) error: Option<Error>,
    pub(super) waiting: Option<String>,
    /// What decoding waits for: a sentence.
    pub(super) decoding_waits: Option<String>,
    /// That the source is away was said; it is said again only after it was back.
    pub(super) away_since: Option<Instant>,
    pub(super) tails: BTreeMap<i32, Tail>,
    pub(super) lanes: BTreeMap<u64, Lane>,
    /// Bytes of all segments held.
    pub(super) bytes: usize,
    /// Bytes of payloads that are being decoded.
    pub(super) in_flight: usize,
    /// What is held, and the reader besides.
    account: Account,
    reader_bytes: usize,
    bytes_max: usize,
    /// When every partition was last seen at its log end.
    pub(super) last_live: Option<Instant>,
    next_sequence: u64,
    /// How many lanes have ever subscribed; the last one's key.
    pub(super) lanes_ever: u64,
}

/// The newest segments of one partition.
pub(super) struct Tail {
    /// The oldest offset held (the next one when nothing is).
    pub(super) start: i64,
    /// Where the log began to read it; `Some` only if that is the partition's beginning.
    pub(super) beginning: Option<i64>,
    /// In offset order, each with the number that says which is oldest among all partitions.
    pub(super) segments: VecDeque<(u64, Arc<Segment>)>,
    /// Pieces read that are not decoded yet.
    pub(super) pending: usize,
    /// Where the reader stands.
    pub(super) read_to: i64,
    pub(super) at_log_end: bool,
    /// The log end as last heard of.
    pub(super) log_end: i64,
}

/// A lane, as far as the log must know it.
pub(super) struct Lane {
    /// What it will take from the tails next. Not kept while detached.
    pub(super) at: Positions,
    /// Reads by itself: holds nothing back.
    pub(super) detached: bool,
    /// Waits in `take`, with nothing to read.
    pub(super) starving: bool,
}

impl State {
    pub(super) fn new(limits: &LogLimits) -> Self {
        Self {
            opened: false,
            error: None,
            waiting: None,
            decoding_waits: None,
            away_since: None,
            tails: BTreeMap::new(),
            lanes: BTreeMap::new(),
            bytes: 0,
            in_flight: 0,
            account: limits.memory.account(Use::Tail),
            reader_bytes: limits.reader_bytes,
            bytes_max: limits.bytes_max,
            last_live: None,
            next_sequence: 0,
            lanes_ever: 0,
        }
    }

    /// Adds a lane, detached if the tails no longer hold what it needs. Returns its key.
    pub(super) fn add_lane(&mut self, at: Positions) -> u64 {
        let detached = self.is_behind(&at);
        self.lanes_ever += 1;
        self.lanes.insert(self.lanes_ever, Lane { at, detached, starving: false });
        self.lanes_ever
    }

    /// Whether something after `at` is no longer in the tails.
    pub(super) fn is_behind(&self, at: &Positions) -> bool {
        self.tails.iter().any(|(&partition, tail)| match at.get(partition) {
            Some(at) => at < tail.start,
            None => tail.beginning != Some(tail.start),
        })
    }

    /// The least positions of all lanes. A partition that some lane lacks is left out: it is read from its beginning.
    pub(super) fn least_positions(&self) -> Positions {
        let mut lanes = self.lanes.values();
        let Some(first) = lanes.next() else { return Positions::default() };
        lanes.fold(first.at.clone(), |least, lane| {
            least.iter().filter_map(|(partition, at)| Some((partition, at.min(lane.at.get(partition)?)))).collect()
        })
    }

    pub(super) fn has_attached_lane(&self) -> bool {
        self.lanes.values().any(|lane| !lane.detached)
    }

    /// Bytes that count against the bound.
    pub(super) fn held(&self) -> usize {
        self.bytes + self.in_flight
    }

    /// Notes that the source is away, and tells the operator once.
    pub(super) fn is_away(&mut self, error: &Error) {
        let waiting = error.chain();
        if self.away_since.is_none() {
            self.away_since = Some(Instant::now());
            tracing::warn!("waiting: {waiting}");
        }
        self.waiting = Some(waiting);
    }

    /// Notes that the source gives something, or nothing because there is no more.
    pub(super) fn is_back(&mut self, topic: &str) {
        if let Some(since) = self.away_since.take() {
            tracing::info!("topic '{topic}' is read again, after {:.1} s", since.elapsed().as_secs_f64());
        }
    }

    /// The bound as of now: less than `bytes_max` when memory is short.
    pub(super) fn bound(&self) -> usize {
        let fair = self.account.fair().saturating_sub(self.reader_bytes);
        self.bytes_max.min(fair.max(BYTES_LEAST))
    }

    /// Tells the memory's account what is held now.
    pub(super) fn settle(&mut self) {
        let reader = if self.opened { self.reader_bytes } else { 0 };
        self.account.set(self.held() + reader);
    }

    pub(super) fn at_log_end(&self) -> bool {
        self.opened && self.tails.values().all(|tail| tail.at_log_end)
    }

    /// Adds a decoded segment to its tail.
    pub(super) fn append(&mut self, segment: Segment) {
        self.bytes += weight(&segment);
        self.next_sequence += 1;
        if let Some(tail) = self.tails.get_mut(&segment.span.partition) {
            tail.segments.push_back((self.next_sequence, Arc::new(segment)));
        }
    }

    /// Drops the oldest segments that every attached lane has taken, until at most `bytes_max` are held.
    pub(super) fn evict(&mut self, bytes_max: usize) {
        self.evict_to(bytes_max);
        self.settle();
    }

    fn evict_to(&mut self, bytes_max: usize) {
        while self.held() > bytes_max {
            let passed = |partition: i32, to: i64| {
                let mut attached = self.lanes.values().filter(|lane| !lane.detached);
                attached.all(|lane| lane.at.get(partition).is_some_and(|at| at >= to))
            };
            let fronts = self.tails.iter().filter_map(|(&partition, tail)| {
                let (sequence, segment) = tail.segments.front()?;
                passed(partition, segment.span.to).then_some((*sequence, partition))
            });
            let Some((_, partition)) = fronts.min() else { return };
            let Some(tail) = self.tails.get_mut(&partition) else { return };
            if let Some((_, segment)) = tail.segments.pop_front() {
                tail.start = segment.span.to;
                self.bytes -= weight(&segment);
            }
        }
    }

    /// The attached lane with the most left to take, if it has any.
    pub(super) fn slowest_lane(&mut self) -> Option<&mut Lane> {
        let tails = &self.tails;
        let left = |lane: &Lane| -> i64 {
            tails
                .iter()
                .filter_map(|(&partition, tail)| {
                    let (_, last) = tail.segments.back()?;
                    Some((last.span.to - lane.at.get(partition).unwrap_or(tail.start).max(tail.start)).max(0))
                })
                .sum()
        };
        let attached = self.lanes.values_mut().filter(|lane| !lane.detached);
        attached.map(|lane| (left(lane), lane)).filter(|(left, _)| *left > 0).max_by_key(|(left, _)| *left).map(|(_, l)| l)
    }
}

impl Tail {
    pub(super) fn new(start: i64, beginning: Option<i64>) -> Self {
        Self { start, beginning, segments: VecDeque::new(), pending: 0, read_to: start, at_log_end: false, log_end: start }
    }

    /// The part of the next segment after `at` (or the first, for a lane that has no position here).
    pub(super) fn next(&self, at: Option<i64>) -> Option<Arc<Segment>> {
        let at = at.unwrap_or(i64::MIN);
        let index = self.segments.partition_point(|(_, segment)| segment.span.to <= at);
        let (_, segment) = self.segments.get(index)?;
        Some(if at > segment.span.from { Arc::new(segment.from_offset(at)) } else { Arc::clone(segment) })
    }

    /// Whether there is one.
    pub(super) fn has_next(&self, at: Option<i64>) -> bool {
        let at = at.unwrap_or(i64::MIN);
        self.segments.back().is_some_and(|(_, segment)| segment.span.to > at)
    }
}

/// What a segment counts for against a bound.
pub(super) fn weight(segment: &Segment) -> usize {
    segment.bytes + SEGMENT_OVERHEAD
}
