//! A source held in memory, for tests and the demo.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::batch::Payloads;
use crate::error::{Error, Kind, Result};
use crate::position::{Positions, Span};
use crate::source::{Reader, Source, Start};

/// What one `poll` takes of each partition at most.
const POLL_RECORDS: usize = 16_384;
const POLL_BYTES: usize = 4 << 20;

/// A topic that lives as long as the process. Clones share it.
#[derive(Debug, Clone)]
pub struct MemorySource {
    topic: Arc<str>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    partitions: Mutex<Vec<Partition>>,
    pushed: Condvar,
    retention_records: usize,
}

#[derive(Debug, Default)]
struct Partition {
    /// The offset of the first record that is still there.
    first: i64,
    records: VecDeque<Record>,
}

#[derive(Debug)]
enum Record {
    /// A payload or a tombstone, and when it was appended (ms since 1970).
    Data(Option<Vec<u8>>, i64),
    /// An offset without a record, as compaction and transactions leave them.
    Gap,
}

impl Partition {
    fn end(&self) -> i64 {
        self.first + self.records.len() as i64
    }

    fn since(&self, time_ms: i64) -> i64 {
        let is_since = |record: &Record| matches!(record, Record::Data(_, appended_ms) if *appended_ms >= time_ms);
        self.first + self.records.iter().position(is_since).unwrap_or(self.records.len()) as i64
    }
}

impl MemorySource {
    /// An empty topic with so many partitions, each of which keeps its newest `retention_records`; readers behind get `Lost`.
    pub fn new(topic: &str, partitions: usize, retention_records: usize) -> Self {
        let partitions = Mutex::new((0..partitions).map(|_| Partition::default()).collect());
        let shared = Shared { partitions, pushed: Condvar::new(), retention_records };
        Self { topic: topic.into(), shared: Arc::new(shared) }
    }

    /// Appends a record; `None` is a tombstone. A partition that does not exist takes nothing.
    pub fn push(&self, partition: usize, payload: Option<Vec<u8>>, appended_ms: i64) {
        self.append(partition, vec![Record::Data(payload, appended_ms)]);
    }

    /// Appends several records to a partition at once: a reader that waits gets them as one piece, so they are one epoch of a
    /// lane that has nothing else to read.
    pub fn push_all(&self, partition: usize, payloads: Vec<Vec<u8>>, appended_ms: i64) {
        let records = payloads.into_iter().map(|payload| Record::Data(Some(payload), appended_ms));
        self.append(partition, records.collect());
    }

    /// Leaves out an offset.
    pub fn push_gap(&self, partition: usize) {
        self.append(partition, vec![Record::Gap]);
    }

    /// Adds a partition after the last.
    pub fn add_partition(&self) {
        self.shared.partitions.lock().push(Partition::default());
        self.shared.pushed.notify_all();
    }

    /// The payload of a record that is still there.
    pub fn payload(&self, partition: i32, offset: i64) -> Option<Vec<u8>> {
        let partitions = self.shared.partitions.lock();
        let partition = partitions.get(usize::try_from(partition).ok()?)?;
        match partition.records.get(usize::try_from(offset - partition.first).ok()?)? {
            Record::Data(payload, _) => payload.clone(),
            Record::Gap => None,
        }
    }

    fn append(&self, partition: usize, records: Vec<Record>) {
        let mut partitions = self.shared.partitions.lock();
        let Some(partition) = partitions.get_mut(partition) else { return };
        partition.records.extend(records);
        while partition.records.len() > self.shared.retention_records {
            partition.records.pop_front();
            partition.first += 1;
        }
        drop(partitions);
        self.shared.pushed.notify_all();
    }

    fn open(&self, from: &Positions, all: bool) -> Result<Box<dyn Reader>> {
        let partitions = self.shared.partitions.lock();
        let mut positions = from.clone();
        for (number, partition) in (0..).zip(partitions.iter()) {
            if all && positions.get(number).is_none() {
                positions.set(number, partition.first);
            }
        }
        Ok(Box::new(MemoryReader { source: self.clone(), positions, ends: Positions::default(), all, next: 0 }))
    }
}

impl Source for MemorySource {
    fn topic(&self) -> &str {
        &self.topic
    }

    fn start(&self, start: Start) -> Result<Positions> {
        let partitions = self.shared.partitions.lock();
        let at = |partition: &Partition| match start {
            Start::Earliest => partition.first,
            Start::Latest => partition.end(),
            Start::At(time_ms) => partition.since(time_ms),
        };
        Ok((0..).zip(partitions.iter().map(at)).collect())
    }

    fn log_ends(&self) -> Result<Positions> {
        self.start(Start::Latest)
    }

    fn acknowledge(&self, _lane: &str, _positions: &Positions) {
        // What it keeps does not depend on its readers.
    }

    fn waits_for(&self, _lane: &str) -> bool {
        false // What is not acknowledged costs nothing.
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        self.open(from, true)
    }

    fn reader_of(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        self.open(from, false)
    }
}

struct MemoryReader {
    source: MemorySource,
    positions: Positions,
    /// The log ends at the last poll.
    ends: Positions,
    all: bool,
    /// The partition that the next poll looks at first, so that none is left behind.
    next: usize,
}

impl Reader for MemoryReader {
    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(Payloads)) -> Result<()> {
        let shared = Arc::clone(&self.source.shared);
        let mut partitions = shared.partitions.lock();
        if !self.has_news(&partitions) {
            shared.pushed.wait_for(&mut partitions, wait);
        }
        let mut pieces = Vec::new();
        let (mut records, mut bytes, count) = (0, 0, partitions.len());
        let mut read = Ok(());
        for step in 0..count {
            let number = (self.next + step) % count;
            match self.read(number as i32, &partitions[number]) {
                Ok(Some(piece)) => {
                    records += piece.len();
                    bytes += piece.bytes.len();
                    pieces.push(piece);
                }
                Ok(None) => {}
                Err(lost) => {
                    read = Err(lost);
                    break;
                }
            }
            if records >= POLL_RECORDS || bytes >= POLL_BYTES {
                self.next = number + 1;
                break;
            }
        }
        drop(partitions);
        pieces.into_iter().for_each(take);
        read
    }

    fn positions(&self) -> Positions {
        self.positions.clone()
    }

    fn at_log_end(&self, partition: i32) -> bool {
        self.ends.get(partition).is_some_and(|end| self.positions.get(partition) == Some(end))
    }

    fn log_ends(&self) -> Positions {
        self.ends.clone()
    }
}

impl MemoryReader {
    /// Whether a poll would change anything.
    fn has_news(&self, partitions: &[Partition]) -> bool {
        (0..).zip(partitions).any(|(number, partition)| match self.positions.get(number) {
            Some(at) => at != partition.end() || self.ends.get(number).is_none(),
            None => self.all,
        })
    }

    fn read(&mut self, number: i32, partition: &Partition) -> Result<Option<Payloads>> {
        let from = match self.positions.get(number) {
            Some(at) => at,
            None if self.all => partition.first,
            None => return Ok(None),
        };
        if from < partition.first {
            let (topic, span) = (&self.source.topic, Span { partition: number, from, to: partition.first });
            return Err(Error::new(Kind::Lost, format!("topic '{topic}' no longer has {span}; keep more records")));
        }
        self.ends.set(number, partition.end());
        let mut piece = Payloads { span: Span { partition: number, from, to: from }, ..Payloads::default() };
        for record in partition.records.range(((from - partition.first) as usize).min(partition.records.len())..) {
            if let Record::Data(payload, appended_ms) = record {
                piece.push(piece.span.to, payload.as_deref());
                piece.appended_ms = *appended_ms;
            }
            piece.span.to += 1;
            if piece.len() >= POLL_RECORDS || piece.bytes.len() >= POLL_BYTES {
                break;
            }
        }
        self.positions.set(number, piece.span.to);
        Ok((piece.span.to > from).then_some(piece))
    }
}
