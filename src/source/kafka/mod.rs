//! A Kafka topic as a source.
//!
//! Partitions are assigned by hand (no group membership), positions come from our own checkpoint, and offsets that the broker
//! no longer has are an error, never a silent reset. Only committed records are shown.
//!
//! * [`options`]: what a user may write, checked without a network;
//! * `reader`: the walk over the partitions;
//! * `watch`: what is asked beside that;
//! * `native`: all unsafe calls of librdkafka's C interface;
//! * `failure`: what an error of librdkafka means for us.

mod failure;
mod native;
pub mod options;
mod reader;
mod watch;

use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::error::{Error, Kind, Result};
use crate::position::Positions;
use crate::source::{Reader, Source, Start};

pub use options::{Format, KafkaOptions};

use failure::Failure;
use native::Consumer;

/// How long one question to the broker may take. Long enough for a cold TLS connection, short enough to say what is wrong.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// A topic on some brokers. Holds no connection itself: each reader and each question has its own.
#[derive(Debug, Clone)]
pub struct KafkaSource {
    options: KafkaOptions,
}

impl KafkaSource {
    /// A source over these options. Connects to nothing.
    pub fn new(options: KafkaOptions) -> Self {
        Self { options }
    }

    /// The options it was made from.
    pub fn options(&self) -> &KafkaOptions {
        &self.options
    }

    /// The offset of the first record of every partition that was appended at `time_ms` or later.
    fn since(&self, time_ms: i64) -> Result<Positions> {
        let consumer = Consumer::connect(&self.options)?;
        let partitions = partitions(&consumer, &self.options)?;
        let found = consumer.offsets_since(&self.options.topic, &partitions, time_ms, ASK_TIMEOUT);
        let found = found.map_err(|code| failure::of_code(code, &self.options.topic, &self.options.brokers))?;
        // Where nothing is so new, the log end.
        let end = |(partition, _, high): (i32, i64, i64)| (partition, found.get(partition).unwrap_or(high));
        Ok(bounds(&consumer, &self.options, &partitions)?.into_iter().map(end).collect())
    }

    /// The first offset and the log end of every partition.
    fn bounds(&self) -> Result<Vec<(i32, i64, i64)>> {
        let consumer = Consumer::connect(&self.options)?;
        let partitions = partitions(&consumer, &self.options)?;
        bounds(&consumer, &self.options, &partitions)
    }
}

impl Source for KafkaSource {
    fn topic(&self) -> &str {
        &self.options.topic
    }

    fn start(&self, start: Start) -> Result<Positions> {
        let pick = |(partition, low, high)| (partition, if start == Start::Earliest { low } else { high });
        match start {
            Start::At(time_ms) => self.since(time_ms),
            _ => Ok(self.bounds()?.into_iter().map(pick).collect()),
        }
    }

    fn log_ends(&self) -> Result<Positions> {
        Ok(self.bounds()?.into_iter().map(|(partition, _, high)| (partition, high)).collect())
    }

    fn acknowledge(&self, _lane: &str, _positions: &Positions) {
        // The broker keeps records by its own rules.
    }

    fn waits_for(&self, _lane: &str) -> bool {
        false // What is not acknowledged costs nothing.
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        Ok(Box::new(reader::KafkaReader::open(&self.options, from, true)?))
    }

    fn reader_of(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        Ok(Box::new(reader::KafkaReader::open(&self.options, from, false)?))
    }
}

/// The numbers of the topic's partitions, or `Unreachable` with what to do when there is no such topic.
fn partitions(consumer: &Consumer, options: &KafkaOptions) -> Result<Vec<i32>> {
    match consumer.partitions(&options.topic, ASK_TIMEOUT) {
        Ok(partitions) if !partitions.is_empty() => Ok(partitions),
        Ok(_) => Err(no_topic(options)),
        Err(code) if failure::is_unknown_topic(code) => Err(no_topic(options)),
        Err(code) => Err(not_answered(consumer, code, options)),
    }
}

/// Why a question was not answered: what librdkafka has said meanwhile goes before.
fn not_answered(consumer: &Consumer, code: Code, options: &KafkaOptions) -> Error {
    let KafkaOptions { topic, brokers, .. } = options;
    match consumer.serve().filter(Failure::is_for_good) {
        Some(failure) => failure.error(topic, brokers),
        None => failure::of_code(code, topic, brokers),
    }
}

/// First offset and log end of each of `partitions`, one question after the other over one connection.
fn bounds(consumer: &Consumer, options: &KafkaOptions, partitions: &[i32]) -> Result<Vec<(i32, i64, i64)>> {
    let ask = |&partition: &i32| match consumer.watermarks(&options.topic, partition, ASK_TIMEOUT) {
        Ok((low, high)) => Ok((partition, low, high)),
        Err(code) => Err(not_answered(consumer, code, options)),
    };
    partitions.iter().map(ask).collect()
}

fn no_topic(options: &KafkaOptions) -> Error {
    let KafkaOptions { topic, brokers, .. } = options;
    Error::new(Kind::Unreachable, format!("topic '{topic}' does not exist at {brokers}; create it, or start the producer"))
}

#[cfg(test)]
mod tests;
