//! Spans, read once more and exactly: how a lane gets back the epochs that it has lost from memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::Shared;
use super::feed::Feed;
use crate::batch::Segment;
use crate::error::{Error, Kind, Result};
use crate::position::{Positions, Span};

/// A reading of its own over some partitions of a log's source. Independent of the log's lanes.
pub struct Replay {
    feed: Feed,
    news: Arc<Notify>,
    positions: Positions,
    /// The rest of a segment that reached past a span.
    rests: BTreeMap<i32, Arc<Segment>>,
}

impl Replay {
    pub(super) fn new(shared: &Shared, from: &Positions) -> Result<Self> {
        let news = Arc::new(Notify::new());
        let feed = shared.feed(from.clone(), true, Arc::clone(&news))?;
        Ok(Self { feed, news, positions: from.clone(), rests: BTreeMap::new() })
    }

    /// Some more of `spans`, which are shortened by what is returned; finished ones are removed. Call it until none is left,
    /// then with the spans of the next epoch. Segments end exactly where a span ends. Each span must begin where the replay
    /// stands in its partition (`Bug` otherwise): name the spans of one partition in order.
    ///
    /// Memory: what was read ahead is bounded as the log's feed is, except that partitions which the source delivers far ahead
    /// of the one that is waited for must be kept. Waits for as long as the source cannot be reached; dropping the future loses
    /// nothing. `Lost`: the spans are gone.
    pub async fn next(&mut self, spans: &mut Vec<Span>) -> Result<Vec<Arc<Segment>>> {
        let news = Arc::clone(&self.news);
        loop {
            let heard = news.notified();
            let taken = self.try_next(spans)?;
            if !taken.is_empty() || spans.is_empty() {
                self.feed.set_hungry(false);
                return Ok(taken);
            }
            if let Some(error) = self.feed.error() {
                return Err(error);
            }
            self.feed.set_hungry(true);
            heard.await;
        }
    }

    /// What the reading waits for, when the source cannot be reached: a sentence.
    pub fn waits_for(&self) -> Option<String> {
        self.feed.waits_for()
    }

    fn try_next(&mut self, spans: &mut Vec<Span>) -> Result<Vec<Arc<Segment>>> {
        self.check(spans)?;
        let mut taken = Vec::new();
        for span in spans.iter_mut() {
            // A later span of a partition whose earlier one is not finished yet is left for the next call.
            if self.positions.get(span.partition) != Some(span.from) {
                continue;
            }
            if span.from < span.to
                && let Some(segment) = self.rests.remove(&span.partition).or_else(|| self.feed.take_of(span.partition))
            {
                let cut = if segment.span.to > span.to {
                    self.rests.insert(span.partition, Arc::new(segment.from_offset(span.to)));
                    Arc::new(segment.to_offset(span.to))
                } else {
                    segment
                };
                self.positions.advance(cut.span)?;
                span.from = cut.span.to;
                taken.push(cut);
            }
        }
        spans.retain(|span| span.from < span.to);
        Ok(taken)
    }

    /// Whether the spans continue the replay, one after the other.
    fn check(&self, spans: &[Span]) -> Result<()> {
        let mut at = self.positions.clone();
        for &span in spans {
            if at.get(span.partition).is_none() {
                return Err(Error::new(Kind::Bug, format!("{span} is not part of the replay")));
            }
            at.advance(span)?;
        }
        Ok(())
    }
}

/// Some spans, read again for a recovery.
pub struct SpanReader {
    shared: Arc<Shared>,
    left: Vec<Span>,
    /// Opened at the first call.
    replay: Option<Replay>,
}

impl SpanReader {
    pub(super) fn new(shared: Arc<Shared>, spans: &[Span]) -> Self {
        let left = spans.iter().copied().filter(|span| span.from < span.to).collect();
        Self { shared, left, replay: None }
    }

    /// The next segments, cut to the spans; `None` after the last. Waits and fails as [`Replay::next`] does.
    pub async fn next(&mut self) -> Result<Option<Vec<Arc<Segment>>>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let replay = match &mut self.replay {
            Some(replay) => replay,
            None => {
                // The first span of each partition says where it begins.
                let from = self.left.iter().rev().map(|span| (span.partition, span.from)).collect();
                self.replay.insert(Replay::new(&self.shared, &from)?)
            }
        };
        replay.next(&mut self.left).await.map(Some)
    }
}
