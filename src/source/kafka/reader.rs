//! The walk over the partitions of a topic: many records for each wake, each payload copied once, into its partition's arena.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::failure::of_error;
use super::options::KafkaOptions;
use crate::batch::Payloads;
use crate::error::Result;
use crate::position::{Positions, Span};
use crate::source::Reader;

// One wake hands over at most so much: enough to spread the costs of a segment, little enough to be quick.
const RECORDS_MAX: usize = 32_768;
const BYTES_MAX: usize = 8 << 20;

/// A reader with a connection of its own.
pub(super) struct KafkaReader {
    consumer: BaseConsumer,
    options: KafkaOptions,
    positions: Positions,
    at_end: BTreeSet<i32>,
}

impl KafkaReader {
    /// Assigns all partitions of `from` at their positions.
    pub(super) fn open(options: &KafkaOptions, from: &Positions) -> Result<Self> {
        let failed = |cause| of_error(&cause, &options.topic, &options.brokers);
        let consumer: BaseConsumer = options.client_config().create().map_err(failed)?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from.iter() {
            list.add_partition_offset(&options.topic, partition, Offset::Offset(offset)).map_err(failed)?;
        }
        consumer.assign(&list).map_err(failed)?;
        Ok(Self { consumer, options: options.clone(), positions: from.clone(), at_end: BTreeSet::new() })
    }
}

impl Reader for KafkaReader {
    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(Payloads)) -> Result<()> {
        let mut pieces: BTreeMap<i32, Payloads> = BTreeMap::new();
        let (mut records, mut bytes) = (0, 0);
        let mut wait = wait;
        let mut failed = None;
        while records < RECORDS_MAX && bytes < BYTES_MAX {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let piece = pieces.entry(partition).or_insert_with(|| {
                        let from = self.positions.get(partition).unwrap_or(offset);
                        Payloads { span: Span { partition, from, to: from }, ..Payloads::default() }
                    });
                    piece.push(offset, message.payload());
                    piece.span.to = offset + 1;
                    piece.appended_ms = message.timestamp().to_millis().unwrap_or(0);
                    records += 1;
                    bytes += message.payload_len();
                    self.at_end.remove(&partition);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.at_end.insert(partition);
                }
                Some(Err(cause)) => {
                    failed = Some(of_error(&cause, &self.options.topic, &self.options.brokers));
                    break;
                }
            }
            // The first record is waited for, the others are taken as far as they are there.
            wait = Duration::ZERO;
        }
        for (partition, piece) in pieces {
            self.positions.set(partition, piece.span.to);
            take(piece);
        }
        failed.map_or(Ok(()), Err)
    }

    fn positions(&self) -> Positions {
        self.positions.clone()
    }

    fn at_log_end(&self, partition: i32) -> bool {
        self.at_end.contains(&partition)
    }
}
