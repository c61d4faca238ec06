//! Finds the originals of letters in the source topic: a walk forwards, which jumps where letters are far apart.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::ASK_TIMEOUT;
use crate::kafka::clients::Consumer;

/// Further apart than this, going there anew is cheaper than reading what lies between: one answer of the broker (1 MiB) has
/// some 4 000 records.
const JUMP_RECORDS: i64 = 4096;
/// How long the source may stay silent about a record that should be there.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A walk over the source topic with a consumer that nobody else uses meanwhile.
pub(super) struct Walk<'a> {
    consumer: &'a Consumer,
    topic: &'a str,
    at: Option<At>,
    /// A record that was read while looking for one before it, which is not there.
    ahead: Option<BorrowedMessage<'a>>,
}

/// Where a walk stands.
struct At {
    partition: i32,
    /// The next offset that the consumer hands over.
    next: i64,
    /// The offset after the last record, as it was when we came here.
    end: i64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(consumer: &'a Consumer, topic: &'a str) -> Self {
        Self { consumer, topic, at: None, ahead: None }
    }

    /// The record at `offset` of `partition`, or `None` when it is gone. A partition's offsets are asked in ascending order.
    pub(super) fn find(&mut self, partition: i32, offset: i64) -> Result<Option<BorrowedMessage<'a>>, KafkaError> {
        match self.ahead.take() {
            Some(ahead) if ahead.partition() == partition && ahead.offset() == offset => return Ok(Some(ahead)),
            Some(ahead) if ahead.partition() == partition && ahead.offset() > offset => {
                self.ahead = Some(ahead);
                return Ok(None);
            }
            _ => {}
        }
        if !self.reaches(partition, offset) && !self.go(partition, offset)? {
            return Ok(None);
        }
        match self.read_to(offset) {
            // Retention overtook us between asking for the first offset and reading; look again.
            Err(error) if is_out_of_range(&error) => match self.go(partition, offset)? {
                true => self.read_to(offset),
                false => Ok(None),
            },
            found => found,
        }
    }

    /// Whether reading on from here comes to `offset` soon.
    fn reaches(&self, partition: i32, offset: i64) -> bool {
        let at = self.at.as_ref().filter(|at| at.partition == partition);
        at.is_some_and(|at| (at.next..at.next + JUMP_RECORDS).contains(&offset) && offset < at.end)
    }

    /// Stands before `offset`; false when the partition does not have it.
    fn go(&mut self, partition: i32, offset: i64) -> Result<bool, KafkaError> {
        self.at = None;
        let (low, end) = match self.consumer.fetch_watermarks(self.topic, partition, ASK_TIMEOUT) {
            Ok(bounds) => bounds,
            Err(error) if is_unknown(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        if !(low..end).contains(&offset) {
            return Ok(false);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.topic, partition, Offset::Offset(offset))?;
        self.consumer.assign(&list)?;
        self.at = Some(At { partition, next: offset, end });
        Ok(true)
    }

    /// Reads on until `offset` or past it.
    fn read_to(&mut self, offset: i64) -> Result<Option<BorrowedMessage<'a>>, KafkaError> {
        let Some(at) = &mut self.at else { return Ok(None) };
        let mut heard = Instant::now();
        loop {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) if message.partition() == at.partition => {
                    heard = Instant::now();
                    at.next = message.offset() + 1;
                    if message.offset() == offset {
                        return Ok(Some(message));
                    }
                    if message.offset() > offset {
                        self.ahead = Some(message);
                        return Ok(None);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) if partition == at.partition => {
                    // The rest up to the end holds no record that can be read, and this is said only once.
                    at.next = at.next.max(at.end);
                    return Ok(None);
                }
                Some(Err(error)) if is_out_of_range(&error) => return Err(error),
                Some(Err(error)) => tracing::debug!(%error, "reading the originals of dead letters"),
                Some(Ok(_)) | None => {}
            }
            if heard.elapsed() > SILENCE_MAX {
                return Err(KafkaError::MessageConsumption(Code::OperationTimedOut));
            }
        }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.ahead = None;
        // Nothing is fetched while no letters are written. It can only fail when the consumer is closed.
        let _ = self.consumer.unassign();
    }
}

fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::OffsetOutOfRange | Code::AutoOffsetReset))
}

fn is_unknown(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition))
}
