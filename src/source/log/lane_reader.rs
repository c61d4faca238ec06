//! A lane's reader of the log: from the shared segments, or by itself while it is behind them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Log;
use super::state::LaneAt;
use crate::batch::Segment;
use crate::error::Result;
use crate::position::{Positions, Span};

/// Reads for one lane. Dropping it frees what it holds in the log.
pub struct LogReader {
    log: Arc<Log>,
    id: u64,
    positions: Positions,
    private: Option<Box<LogReader>>,
}

impl LogReader {
    pub(super) fn new(log: Arc<Log>, positions: Positions) -> Self {
        let mut state = log.shared.state.lock();
        state.lanes_ever += 1;
        let id = state.lanes_ever;
        state.lanes.insert(id, LaneAt { positions: positions.clone(), detached: false });
        drop(state);
        log.shared.space.notify_all();
        Self { log, id, positions, private: None }
    }

    /// The next offset of each partition, as far as [`take`](Self::take) has given segments.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The next segments, in order within a partition, up to some `bytes_max`; empty when `wait` passes without any.
    /// Safe to drop: what was not returned was not taken.
    pub async fn take(&mut self, bytes_max: usize, wait: Duration) -> Result<Vec<Segment>> {
        let until = Instant::now() + wait;
        loop {
            let log = Arc::clone(&self.log);
            let news = log.shared.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            match self.take_now(bytes_max)? {
                Taken::Segments(segments) => return Ok(segments),
                Taken::Nothing => {
                    if timeout_at(until, news).await.is_err() {
                        return Ok(Vec::new());
                    }
                }
                Taken::Behind => return self.take_private(bytes_max, until).await,
            }
        }
    }

    fn take_now(&mut self, bytes_max: usize) -> Result<Taken> {
        let mut state = self.log.shared.state.lock();
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        if !state.started {
            return Ok(Taken::Nothing);
        }
        let behind = state
            .partitions
            .iter()
            .any(|(partition, part)| self.positions.get(*partition).is_some_and(|at| at < part.oldest));
        if behind {
            if let Some(lane) = state.lanes.get_mut(&self.id) {
                lane.detached = true;
            }
            return Ok(Taken::Behind);
        }
        let mut segments = Vec::new();
        let mut bytes = 0;
        // A fair share of each partition: one of them must not fill an epoch alone.
        let share = bytes_max / state.partitions.len().max(1);
        for (partition, part) in &state.partitions {
            let mut at = self.positions.get(*partition).unwrap_or(part.oldest);
            let first = part.segments.partition_point(|segment| segment.span.to <= at);
            let mut taken = 0;
            for segment in part.segments.range(first..) {
                if taken > 0 && taken + segment.bytes > share {
                    break;
                }
                taken += segment.bytes;
                segments.push(segment.from_offset(at));
                at = segment.span.to;
            }
            bytes += taken;
            self.positions.set(*partition, at);
        }
        if let Some(lane) = state.lanes.get_mut(&self.id) {
            lane.positions = self.positions.clone();
            lane.detached = false;
        }
        if segments.is_empty() {
            return Ok(Taken::Nothing);
        }
        state.trim();
        drop(state);
        let _ = bytes;
        self.private = None;
        self.log.shared.space.notify_all();
        Ok(Taken::Segments(segments))
    }

    async fn take_private(&mut self, bytes_max: usize, until: Instant) -> Result<Vec<Segment>> {
        let private = self.private.get_or_insert_with(|| Box::new(self.log.private().subscribe(self.positions.clone())));
        let wait = until.saturating_duration_since(Instant::now());
        let segments = Box::pin(private.take(bytes_max, wait)).await?;
        self.positions = private.positions.clone();
        if let Some(lane) = self.log.shared.state.lock().lanes.get_mut(&self.id) {
            lane.positions = self.positions.clone();
        }
        Ok(segments)
    }

    /// Every partition with whether this reader stands at its log end.
    pub fn at_log_end(&self) -> Vec<(i32, bool)> {
        let state = self.log.shared.state.lock();
        let at_end = |partition: i32, at: i64| {
            state.partitions.get(&partition).is_some_and(|part| part.at_log_end && at >= part.end)
        };
        self.positions.iter().map(|(partition, at)| (partition, at_end(partition, at))).collect()
    }

    /// Records between this reader and what the log has read so far.
    pub fn behind(&self) -> i64 {
        let state = self.log.shared.state.lock();
        state.partitions.iter().map(|(partition, part)| (part.end - self.positions.get(*partition).unwrap_or(part.end)).max(0)).sum()
    }
}

enum Taken {
    Segments(Vec<Segment>),
    Nothing,
    Behind,
}

impl Drop for LogReader {
    fn drop(&mut self) {
        let mut state = self.log.shared.state.lock();
        state.lanes.remove(&self.id);
        state.trim();
        drop(state);
        self.log.shared.space.notify_all();
    }
}

/// Reads exact spans again, for a recovery.
pub struct SpanReader {
    reader: LogReader,
    left: Vec<Span>,
}

impl SpanReader {
    pub(super) fn new(log: Arc<Log>, spans: &[Span]) -> Self {
        let left: Vec<Span> = spans.iter().copied().filter(|span| span.from < span.to).collect();
        let from = left.iter().map(|span| (span.partition, span.from)).collect();
        Self { reader: log.subscribe(from), left }
    }

    /// The next segments, cut to the spans; `None` after the last. A source that stays away lets it wait.
    pub async fn next(&mut self) -> Result<Option<Vec<Segment>>> {
        while !self.left.is_empty() {
            let taken = self.reader.take(4 << 20, Duration::from_millis(200)).await?;
            let mut segments = Vec::new();
            for segment in taken {
                if let Some(span) = self.left.iter_mut().find(|span| span.partition == segment.span.partition) {
                    span.from = segment.span.to;
                    segments.push(segment.to_offset(span.to));
                }
            }
            // A span may end in a gap, so that its last offset is never read: the log end says so.
            let ends = self.reader.at_log_end();
            self.left.retain(|span| span.from < span.to && !ends.contains(&(span.partition, true)));
            if !segments.is_empty() {
                return Ok(Some(segments));
            }
        }
        Ok(None)
    }
}
