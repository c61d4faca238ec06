//! A source read in the order of event time across its partitions: of those that are behind, always the one that has come the least far.
//!
//! A lane's watermark is the least over the partitions, so history in whatever order makes no row late; but window state, and files that
//! are open, would grow by what one partition is ahead of another. Each partition has a reader of its own. Who decodes says how far its
//! partition has come ([`Order::decoder`]), so the order is that of pieces (some 16 384 records), not of single records. At the log end,
//! all partitions are read in turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use parking_lot::{Condvar, Mutex};

use super::log::MakeDecoder;
use super::{Reader, Source, Start};
use crate::batch::Payloads;
use crate::decode::{Decoded, Decoder};
use crate::error::Result;
use crate::position::Positions;

/// Pieces of one partition that may be read and not decoded: one is decoded while the next is fetched.
const PENDING_MAX: usize = 2;
/// How long a partition at its log end is waited for, before the next one is looked at.
const END_WAIT: Duration = Duration::from_millis(2);

/// A source in order. Clones share how far each partition has come.
#[derive(Clone)]
pub struct Order {
    inner: Arc<dyn Source>,
    from: Positions,
    to: Option<Positions>,
    times: Arc<Times>,
}

/// How far each partition has come.
#[derive(Default)]
struct Times {
    reached: Mutex<BTreeMap<i32, Reached>>,
    decoded: Condvar,
}

#[derive(Default, Clone, Copy)]
struct Reached {
    /// The greatest event time that was decoded; none before the first.
    time_ns: Option<i64>,
    /// Pieces that were read and are still to be decoded.
    pending: usize,
}

impl Order {
    /// `inner` from `from` on, and with `to` no further: that is its log end then. Partitions that `from` does not name are left out.
    pub fn new(inner: Arc<dyn Source>, from: Positions, to: Option<Positions>) -> Self {
        Self { inner, from, to, times: Arc::default() }
    }

    /// Decoders that say how far they have come: by the greatest time in `column`, and where there is none by when a record was appended.
    pub fn decoder(&self, make: MakeDecoder, column: Option<String>) -> MakeDecoder {
        let times = Arc::clone(&self.times);
        Arc::new(move || {
            let (inner, times, column) = (make()?, Arc::clone(&times), column.clone());
            Ok(Box::new(Watching { inner, times, column }))
        })
    }

    /// The event time that every partition has reached; none before each has come to some.
    pub fn reached_ns(&self) -> Option<i64> {
        let reached = self.times.reached.lock();
        let of = |(partition, _): (i32, i64)| reached.get(&partition).and_then(|reached| reached.time_ns);
        // A partition without records has no say.
        self.from.iter().filter_map(of).min()
    }
}

impl Source for Order {
    fn topic(&self) -> &str {
        self.inner.topic()
    }

    fn start(&self, start: Start) -> Result<Positions> {
        match start {
            Start::Earliest => Ok(self.from.clone()),
            _ => self.inner.start(start),
        }
    }

    fn log_ends(&self) -> Result<Positions> {
        let ends = self.inner.log_ends()?;
        Ok(self
            .from
            .iter()
            .filter_map(|(partition, _)| Some((partition, self.at_most(partition, ends.get(partition)?))))
            .collect())
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        let mut parts = Vec::new();
        for (partition, first) in self.from.iter() {
            let at = self.at_most(partition, from.get(partition).unwrap_or(first));
            let reader = self.inner.reader_of(&[(partition, at)].into_iter().collect())?;
            parts.push(Part { partition, at, reader });
        }
        Ok(Box::new(OrderedReader { order: self.clone(), parts, next: 0 }))
    }

    fn acknowledge(&self, _lane: &str, _positions: &Positions) {
        // What is read again has been acknowledged by the lanes that read it first.
    }

    fn waits_for(&self, _lane: &str) -> bool {
        false
    }

    fn reader_of(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        self.inner.reader_of(from)
    }
}

impl Order {
    fn at_most(&self, partition: i32, offset: i64) -> i64 {
        self.end_of(partition).map_or(offset, |end| offset.min(end))
    }

    fn end_of(&self, partition: i32) -> Option<i64> {
        self.to.as_ref().and_then(|to| to.get(partition))
    }
}

struct OrderedReader {
    order: Order,
    parts: Vec<Part>,
    /// At the log end, the part that is waited for next.
    next: usize,
}

struct Part {
    partition: i32,
    at: i64,
    reader: Box<dyn Reader>,
}

impl Reader for OrderedReader {
    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(Payloads)) -> Result<()> {
        let deadline = Instant::now() + wait;
        let mut reached = self.order.times.reached.lock();
        loop {
            let of = |part: &Part| reached.get(&part.partition).copied().unwrap_or_default();
            let behind = (0..self.parts.len()).filter(|&index| !self.is_at_end(&self.parts[index]));
            let Some(least) = behind.min_by_key(|&index| of(&self.parts[index]).time_ns) else {
                drop(reached);
                return self.poll_ends(deadline, take);
            };
            if of(&self.parts[least]).pending < PENDING_MAX {
                drop(reached);
                return self.poll_part(least, wait, take).map(drop);
            }
            if self.order.times.decoded.wait_until(&mut reached, deadline).timed_out() {
                return Ok(());
            }
        }
    }

    fn positions(&self) -> Positions {
        self.parts.iter().map(|part| (part.partition, part.at)).collect()
    }

    fn at_log_end(&self, partition: i32) -> bool {
        self.parts.iter().any(|part| part.partition == partition && self.is_at_end(part))
    }

    fn log_ends(&self) -> Positions {
        let end = |part: &Part| {
            let known = part.reader.log_ends().get(part.partition).unwrap_or(part.at);
            (part.partition, self.order.at_most(part.partition, known.max(part.at)))
        };
        self.parts.iter().map(end).collect()
    }
}

impl OrderedReader {
    fn is_at_end(&self, part: &Part) -> bool {
        let is_over = self.order.end_of(part.partition).is_some_and(|end| part.at >= end);
        is_over || part.reader.at_log_end(part.partition)
    }

    /// Waits for new records of any partition, until `deadline`.
    fn poll_ends(&mut self, deadline: Instant, take: &mut dyn FnMut(Payloads)) -> Result<()> {
        let mut some = false;
        while !some && Instant::now() < deadline {
            // One is waited for, the others are looked at.
            self.next = (self.next + 1) % self.parts.len().max(1);
            let waits = deadline.saturating_duration_since(Instant::now()).min(END_WAIT);
            let mut is_over = true;
            for index in 0..self.parts.len() {
                let Part { partition, at, .. } = self.parts[index];
                if self.order.end_of(partition).is_some_and(|end| at >= end) {
                    continue;
                }
                is_over = false;
                some |= self.poll_part(index, if index == self.next { waits } else { Duration::ZERO }, take)?;
            }
            if is_over {
                std::thread::sleep(waits);
            }
        }
        Ok(())
    }

    fn poll_part(&mut self, index: usize, wait: Duration, take: &mut dyn FnMut(Payloads)) -> Result<bool> {
        let part = &mut self.parts[index];
        let end = self.order.to.as_ref().and_then(|to| to.get(part.partition));
        let (times, mut some) = (&self.order.times, false);
        let polled = part.reader.poll(wait, &mut |mut piece| {
            if let Some(end) = end {
                cut(&mut piece, end);
            }
            if piece.span.from < piece.span.to {
                times.reached.lock().entry(piece.span.partition).or_default().pending += 1;
                some = true;
                take(piece);
            }
        });
        let at = part.reader.positions().get(part.partition).unwrap_or(part.at);
        part.at = end.map_or(at, |end| at.min(end)).max(part.at);
        polled.map(|()| some)
    }
}

/// Takes away what lies at `end` or behind.
fn cut(piece: &mut Payloads, end: i64) {
    if piece.span.to <= end {
        return;
    }
    let kept = piece.offsets.partition_point(|&offset| offset < end);
    piece.offsets.truncate(kept);
    piece.ends.truncate(kept);
    piece.bytes.truncate(piece.ends.last().copied().unwrap_or(0));
    piece.tombstones.retain(|&index| index < kept);
    piece.headers.retain(|header| header.record < kept);
    piece.span.to = end.max(piece.span.from);
}

/// A decoder, and how far its partitions have come.
struct Watching {
    inner: Box<dyn Decoder>,
    times: Arc<Times>,
    column: Option<String>,
}

impl Decoder for Watching {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn prepare(&mut self, payloads: &Payloads) -> Result<()> {
        self.inner.prepare(payloads)
    }

    fn decode(&mut self, payloads: Payloads) -> Result<Decoded> {
        let (partition, appended_ns) = (payloads.span.partition, payloads.appended_ms.saturating_mul(1_000_000));
        let decoded = self.inner.decode(payloads);
        let greatest = |decoded: &Decoded| {
            let column = decoded.rows.column_by_name(self.column.as_deref()?)?;
            arrow::compute::max(column.as_primitive_opt::<TimestampNanosecondType>()?)
        };
        let time_ns = decoded.as_ref().ok().and_then(greatest).unwrap_or(appended_ns);
        let mut reached = self.times.reached.lock();
        let reached = reached.entry(partition).or_default();
        reached.time_ns = reached.time_ns.max(Some(time_ns));
        reached.pending = reached.pending.saturating_sub(1);
        self.times.decoded.notify_all();
        decoded
    }
}

#[cfg(test)]
mod tests;
