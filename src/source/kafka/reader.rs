//! The walk over a topic's partitions.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode as Code;

use super::native::{BATCH, Consumer, Event, c_name};
use super::watch::Watch;
use super::{KafkaOptions, bounds, failure, no_topic, partitions};
use crate::batch::Payloads;
use crate::error::{Error, Kind, Result};
use crate::headers::Known;
use crate::position::{Positions, Span};
use crate::source::Reader;

/// What one `poll` hands over at most (and a batch of librdkafka more): enough to decode at full speed, and small enough to
/// be shared among threads and to stop between two of them.
const POLL_RECORDS: usize = 16_384;
const POLL_BYTES: usize = 4 << 20;

pub(super) struct KafkaReader {
    options: KafkaOptions,
    topic: CString,
    consumer: Arc<Consumer>,
    partitions: BTreeMap<i32, Partition>,
    watch: Arc<Watch>,
    /// Whether partitions that come later are read too.
    all: bool,
    /// The error that ended the reading, said again at every poll.
    ended: Option<Error>,
}

/// Where one partition stands, and what the present poll has read of it.
struct Partition {
    /// The next offset.
    position: i64,
    at_log_end: bool,
    piece: Payloads,
}

impl KafkaReader {
    /// Stands at `from`; with `all`, also at the beginning of every other partition, and of those that come later.
    pub(super) fn open(options: &KafkaOptions, from: &Positions, all: bool) -> Result<Self> {
        let consumer = Arc::new(Consumer::connect(options)?);
        let exist = partitions(&consumer, options)?;
        if let Some((partition, at)) = from.iter().find(|(partition, _)| !exist.contains(partition)) {
            let topic = &options.topic;
            return Err(Error::new(
                Kind::Lost,
                format!(
                    "topic '{topic}' has no partition {partition} (any more), which was read up to offset {at}; was the topic made again?"
                ),
            ));
        }
        let unread: Vec<i32> = exist.into_iter().filter(|&partition| all && from.get(partition).is_none()).collect();
        let mut at: Vec<(i32, i64)> = from.iter().collect();
        at.extend(bounds(&consumer, options, &unread)?.into_iter().map(|(partition, low, _)| (partition, low)));
        let watch = Arc::new(Watch::default());
        let mut reader = Self {
            options: options.clone(),
            topic: c_name(&options.topic)?,
            consumer,
            partitions: BTreeMap::new(),
            watch,
            all,
            ended: None,
        };
        reader.add(&at)?;
        reader.watch(all)?;
        Ok(reader)
    }

    fn add(&mut self, from: &[(i32, i64)]) -> Result<()> {
        self.consumer.assign(&self.options.topic, from)?;
        for &(partition, position) in from {
            self.partitions.insert(partition, Partition { position, at_log_end: false, piece: Payloads::default() });
        }
        Ok(())
    }

    /// Starts the thread that asks the broker now and then; it ends with the reader.
    fn watch(&self, find_new: bool) -> Result<()> {
        let (watch, consumer, options) = (Arc::clone(&self.watch), Arc::clone(&self.consumer), self.options.clone());
        let known = self.partitions.keys().copied().collect();
        thread::Builder::new()
            .name("kafka-watch".into())
            .spawn(move || watch.run(consumer, &options, known, find_new))
            .map(drop)
            .map_err(|why| Error::new(Kind::Full, "no more threads can be started").because(why))
    }

    /// Reads what is there into the partitions' pieces. Returns the first failure of a partition.
    fn read(&mut self, wait: Duration) -> Option<(i32, Code)> {
        let (mut records, mut bytes, mut failed) = (0, 0, None);
        let mut wait = wait;
        while records < POLL_RECORDS && bytes < POLL_BYTES && failed.is_none() {
            let partitions = &mut self.partitions;
            let count = self.consumer.read(wait, &mut |event| match event {
                Event::Record { partition, offset, payload, timestamp_ms, headers } => {
                    let Some(partition) = partitions.get_mut(&partition) else { return };
                    // After a reconnection librdkafka may begin with records that it has handed over before.
                    if offset < partition.position {
                        return;
                    }
                    partition.piece.push(offset, payload);
                    for (name, value) in Known::ALL.into_iter().zip(headers) {
                        if let Some(value) = value {
                            partition.piece.push_header(name, value);
                        }
                    }
                    partition.piece.appended_ms = timestamp_ms;
                    partition.position = offset + 1;
                    partition.at_log_end = false;
                    records += 1;
                    bytes += payload.map_or(0, <[u8]>::len);
                }
                Event::LogEnd { partition, offset } => {
                    let Some(partition) = partitions.get_mut(&partition) else { return };
                    partition.position = partition.position.max(offset);
                    partition.at_log_end = partition.position == offset;
                }
                Event::Failed { partition, code } => failed = failed.or(Some((partition, code))),
            });
            if count < BATCH {
                break;
            }
            wait = Duration::ZERO;
        }
        failed
    }

    /// Hands over the pieces; each begins where the partition stood before.
    fn hand_over(&mut self, from: &[(i32, i64)], take: &mut dyn FnMut(Payloads)) -> bool {
        let mut some = false;
        for &(number, from) in from {
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            if partition.position == from {
                continue;
            }
            let mut piece = std::mem::take(&mut partition.piece);
            piece.span = Span { partition: number, from, to: partition.position };
            take(piece);
            some = true;
        }
        some
    }

    /// What it means that a partition failed.
    fn failure(&mut self, partition: i32, code: Code) -> Error {
        let KafkaOptions { topic, brokers, .. } = &self.options;
        if failure::is_out_of_range(code) {
            return match self.missing() {
                Ok(missing) if missing.is_empty() => failure::of_code(code, topic, brokers),
                Ok(missing) => {
                    let missing: Vec<String> = missing.iter().map(|(_, text)| text.clone()).collect();
                    lost(topic, &missing)
                }
                // The broker went away before it could say what is left: what is known is said.
                Err(_) => lost(topic, &[format!("partition {partition} from {}", self.partitions[&partition].position)]),
            };
        }
        failure::of_code(code, topic, brokers)
    }

    /// Where the user has said so: stands behind what the broker no longer has, and hands that over as spans without records.
    /// `false` when that is not the trouble.
    fn goes_over_lost(&mut self, code: Code, take: &mut dyn FnMut(Payloads)) -> bool {
        if !self.options.goes_on_without_lost || !failure::is_out_of_range(code) {
            return false;
        }
        let Ok(missing) = self.missing() else { return false };
        let gaps: Option<Vec<Span>> = missing.iter().map(|(gap, _)| *gap).collect();
        let Some(gaps) = gaps.filter(|gaps| !gaps.is_empty()) else { return false };
        let mut positions = self.positions();
        gaps.iter().for_each(|gap| positions.set(gap.partition, gap.to));
        let Ok(reader) = Self::open(&self.options, &positions, self.all) else { return false };
        let texts: Vec<String> = missing.into_iter().map(|(_, text)| text).collect();
        tracing::warn!(
            "topic '{}' no longer has {}: it goes on without them, as 'on_lost' says",
            self.options.topic,
            texts.join(", ")
        );
        *self = reader;
        for span in gaps {
            take(Payloads { span, lost: span.from.abs_diff(span.to), ..Payloads::default() });
        }
        true
    }

    /// The offsets that we should read next and that the broker does not have, in words; each with the gap that it is, if there
    /// is something behind it.
    fn missing(&self) -> Result<Vec<(Option<Span>, String)>> {
        let numbers: Vec<i32> = self.partitions.keys().copied().collect();
        let mut missing = Vec::new();
        for (partition, low, high) in bounds(&self.consumer, &self.options, &numbers)? {
            let at = self.partitions[&partition].position;
            if at < low {
                let gap = Span { partition, from: at, to: low };
                missing.push((Some(gap), gap.to_string()));
            } else if at > high {
                missing.push((None, format!("partition {partition} from {at} (the log ends at {high})")));
            }
        }
        Ok(missing)
    }

    /// Takes over what the watch has found.
    fn heed_watch(&mut self) -> Result<()> {
        let news = self.watch.take_news();
        if news.gone {
            let KafkaOptions { topic, brokers, .. } = &self.options;
            return Err(Error::new(
                Kind::Lost,
                format!("topic '{topic}' was deleted at {brokers}; what was not read yet is gone"),
            ));
        }
        if news.new.is_empty() { Ok(()) } else { self.add(&news.new) }
    }
}

fn lost(topic: &str, missing: &[String]) -> Error {
    Error::new(
        Kind::Lost,
        format!(
            "topic '{topic}' no longer has offsets that were not read yet: {}; raise the topic's retention, or go on without them by the table's option 'on_lost' 'go_on'",
            missing.join(", ")
        ),
    )
}

impl Reader for KafkaReader {
    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(Payloads)) -> Result<()> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        if self.watch.news() {
            self.heed_watch().inspect_err(|why| self.ended = Some(why.clone()))?;
        }
        let from: Vec<(i32, i64)> = self.partitions.iter().map(|(&number, partition)| (number, partition.position)).collect();
        let failed = self.read(wait);
        let some = self.hand_over(&from, take);
        if let Some(failure) = self.consumer.serve() {
            self.watch.look_now();
            let error = failure.error(&self.options.topic, &self.options.brokers);
            if error.kind() == Kind::Denied {
                return Err(error);
            }
        }
        if let Some((partition, code)) = failed {
            if failure::is_unknown_topic(code) {
                // Also said by a broker that has only just started; the watch finds out whether it is true.
                self.watch.look_now();
                return if some { Ok(()) } else { Err(no_topic(&self.options)) };
            }
            if self.goes_over_lost(code, take) {
                return Ok(());
            }
            let error = self.failure(partition, code);
            if error.kind() != Kind::Unreachable {
                self.ended = Some(error.clone());
            }
            return Err(error);
        }
        if some {
            self.watch.is_well();
            return Ok(());
        }
        self.watch.trouble().map_or(Ok(()), Err)
    }

    fn positions(&self) -> Positions {
        self.partitions.iter().map(|(&number, partition)| (number, partition.position)).collect()
    }

    fn at_log_end(&self, partition: i32) -> bool {
        self.partitions.get(&partition).is_some_and(|partition| partition.at_log_end)
    }

    fn log_ends(&self) -> Positions {
        let end = |(&number, partition): (&i32, &Partition)| {
            // A log end that lies past the position by control markers only is none to wait for.
            let known = if partition.at_log_end { None } else { self.consumer.known_log_end(&self.topic, number) };
            (number, known.unwrap_or(partition.position).max(partition.position))
        };
        self.partitions.iter().map(end).collect()
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.watch.stop();
    }
}
