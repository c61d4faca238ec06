//! Finds the originals of letters in the source topic: a walk forwards, which jumps where letters are far apart.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::ASK_TIMEOUT;
use crate::kafka::clients::Consumer;
use crate::kafka::pass::{Passed, pass_over};

/// Further apart than this, going there anew is cheaper than reading what lies between: one answer of the broker (1 MiB) has
/// some 4 000 records.
const JUMP_RECORDS: i64 = 4096;
/// So few records are looked at one by one.
const FEW_RECORDS: i64 = 4;
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
        let mut heard = Instant::now();
        let mut is_near = false;
        loop {
            let Some(at) = &mut self.at else { return Ok(None) };
            let between = offset - at.next;
            if between > FEW_RECORDS && !is_near {
                // Where offsets are missing there are fewer records: half of them at a time, so that ours is hardly ever among them.
                let passed = pass_over(self.consumer, at.partition, usize::try_from(between / 2).unwrap_or(0));
                let partition = at.partition;
                at.next = passed.next.unwrap_or(at.next);
                match passed {
                    Passed { error: Some(code), .. } if is_out_of_range_code(code) => {
                        return Err(KafkaError::MessageConsumption(code));
                    }
                    Passed { next: Some(next), .. } if next > offset => {
                        is_near = true;
                        if !self.go(partition, offset)? {
                            return Ok(None);
                        }
                    }
                    Passed { is_end: true, .. } => {
                        at.next = at.next.max(at.end);
                        return Ok(None);
                    }
                    Passed { next: Some(_), .. } => heard = Instant::now(),
                    Passed { next: None, .. } => is_near = true,
                }
                continue;
            }
            is_near = false;
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
    error.rdkafka_error_code().is_some_and(is_out_of_range_code)
}

fn is_out_of_range_code(code: Code) -> bool {
    matches!(code, Code::OffsetOutOfRange | Code::AutoOffsetReset)
}

fn is_unknown(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition))
}
