//! A Kafka topic as a source.
//!
//! Partitions are assigned by hand (no group membership), positions come from our own checkpoint, and offsets that the broker
//! no longer has are an error, never a silent reset. Only committed records are shown.

mod failure;
pub mod options;
mod reader;

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use self::failure::of_error;
pub use self::options::KafkaOptions;
use crate::error::{Error, Kind, Result};
use crate::position::Positions;
use crate::source::{Reader, Source, Start};

/// How long one question to the broker may take. Long enough for a cold connection, short enough to say what is wrong.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

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

    /// The first offset and the log end of every partition.
    fn bounds(&self) -> Result<Vec<(i32, i64, i64)>> {
        let KafkaOptions { topic, brokers, .. } = &self.options;
        let failed = |cause| of_error(&cause, topic, brokers);
        let consumer: BaseConsumer = self.options.client_config().create().map_err(failed)?;
        let metadata = consumer.fetch_metadata(Some(topic), ASK_TIMEOUT).map_err(failed)?;
        let partitions: Vec<i32> =
            metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
        if partitions.is_empty() {
            let text = format!("topic '{topic}' does not exist at {brokers}; create it, or start the producer");
            return Err(Error::new(Kind::Unreachable, text));
        }
        let ask = |partition| {
            let (low, high) = consumer.fetch_watermarks(topic, partition, ASK_TIMEOUT).map_err(failed)?;
            Ok((partition, low, high))
        };
        partitions.into_iter().map(ask).collect()
    }
}

impl Source for KafkaSource {
    fn topic(&self) -> &str {
        &self.options.topic
    }

    fn start(&self, start: Start) -> Result<Positions> {
        let pick = |(partition, low, high)| (partition, if start == Start::Earliest { low } else { high });
        Ok(self.bounds()?.into_iter().map(pick).collect())
    }

    fn log_ends(&self) -> Result<Positions> {
        Ok(self.bounds()?.into_iter().map(|(partition, _, high)| (partition, high)).collect())
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        // Offsets that are gone are told before anything is read, with the exact spans.
        let gone: Vec<String> = self
            .bounds()?
            .into_iter()
            .filter_map(|(partition, low, _)| {
                from.get(partition).filter(|&at| at < low).map(|at| format!("partition {partition} [{at}, {low})"))
            })
            .collect();
        if !gone.is_empty() {
            let text = format!(
                "topic '{}' no longer has {}; they are lost to this lane: to go on without them, move its checkpoint away \
                 and start anew",
                self.options.topic,
                gone.join(", ")
            );
            return Err(Error::new(Kind::Lost, text));
        }
        Ok(Box::new(reader::KafkaReader::open(&self.options, from)?))
    }
}
