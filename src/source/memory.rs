//! A source held in memory, for the demo and for tests. Clones share it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Reader, Source, Start};
use crate::batch::Payloads;
use crate::error::{Error, Kind, Result};
use crate::position::{Positions, Span};

type Record = (Option<Vec<u8>>, i64);

#[derive(Debug, Default)]
struct Partition {
    first: i64,
    records: std::collections::VecDeque<Record>,
}

impl Partition {
    fn end(&self) -> i64 {
        self.first + self.records.len() as i64
    }
}

#[derive(Debug)]
struct Topic {
    name: String,
    retention_records: usize,
    partitions: Mutex<Vec<Partition>>,
    pushed: Condvar,
}

/// A topic in memory.
#[derive(Debug, Clone)]
pub struct MemorySource(Arc<Topic>);

impl MemorySource {
    /// A topic that keeps the newest `retention_records` of each partition.
    pub fn new(name: &str, partitions: usize, retention_records: usize) -> Self {
        let partitions = Mutex::new((0..partitions).map(|_| Partition::default()).collect());
        Self(Arc::new(Topic { name: name.to_string(), retention_records, partitions, pushed: Condvar::new() }))
    }

    /// Appends a record; `None` is a tombstone. A partition that does not exist takes nothing.
    pub fn push(&self, partition: usize, payload: Option<Vec<u8>>, appended_ms: i64) {
        let mut partitions = self.0.partitions.lock();
        let Some(partition) = partitions.get_mut(partition) else { return };
        partition.records.push_back((payload, appended_ms));
        if partition.records.len() > self.0.retention_records {
            partition.records.pop_front();
            partition.first += 1;
        }
        self.0.pushed.notify_all();
    }

    /// The payload of a record that is still there.
    pub fn payload(&self, partition: i32, offset: i64) -> Option<Vec<u8>> {
        let partitions = self.0.partitions.lock();
        let partition = partitions.get(usize::try_from(partition).ok()?)?;
        partition.records.get(usize::try_from(offset - partition.first).ok()?)?.0.clone()
    }
}

impl Source for MemorySource {
    fn topic(&self) -> &str {
        &self.0.name
    }

    fn start(&self, start: Start) -> Result<Positions> {
        let pick = |partition: &Partition| if start == Start::Earliest { partition.first } else { partition.end() };
        Ok(self.0.partitions.lock().iter().enumerate().map(|(index, partition)| (index as i32, pick(partition))).collect())
    }

    fn log_ends(&self) -> Result<Positions> {
        self.start(Start::Latest)
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MemoryReader { topic: Arc::clone(&self.0), positions: from.clone() }))
    }
}

struct MemoryReader {
    topic: Arc<Topic>,
    positions: Positions,
}

impl MemoryReader {
    fn take(&mut self, partitions: &[Partition], pieces: &mut Vec<Payloads>) -> Result<()> {
        for (index, partition) in partitions.iter().enumerate() {
            let index = index as i32;
            let from = self.positions.get(index).unwrap_or(partition.first);
            if from < partition.first {
                let text = format!("topic '{}' no longer has partition {index} [{from}, {})", self.topic.name, partition.first);
                return Err(Error::new(Kind::Lost, text));
            }
            let records = partition.records.iter().skip((from - partition.first) as usize).take(16_384);
            let mut piece = Payloads { span: Span { partition: index, from, to: from }, ..Payloads::default() };
            for (payload, appended_ms) in records {
                piece.push(piece.span.to, payload.as_deref());
                piece.span.to += 1;
                piece.appended_ms = *appended_ms;
            }
            if !piece.is_empty() {
                self.positions.set(index, piece.span.to);
                pieces.push(piece);
            }
        }
        Ok(())
    }
}

impl Reader for MemoryReader {
    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(Payloads)) -> Result<()> {
        let topic = Arc::clone(&self.topic);
        let mut pieces = Vec::new();
        let mut partitions = topic.partitions.lock();
        self.take(&partitions, &mut pieces)?;
        if pieces.is_empty() {
            topic.pushed.wait_for(&mut partitions, wait);
            self.take(&partitions, &mut pieces)?;
        }
        drop(partitions);
        pieces.into_iter().for_each(take);
        Ok(())
    }

    fn positions(&self) -> Positions {
        self.positions.clone()
    }

    fn at_log_end(&self, partition: i32) -> bool {
        let partitions = self.topic.partitions.lock();
        let end = usize::try_from(partition).ok().and_then(|index| partitions.get(index)).map_or(0, Partition::end);
        self.positions.get(partition).unwrap_or(0) >= end
    }
}
