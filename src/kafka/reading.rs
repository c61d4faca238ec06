//! A topic, read from its oldest record to its end as of now: for commands, which end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::clients::{self, Consumer, Watch};
use super::judge::{IS_IT_THERE, distrust, is_denied};
use super::{ASK_TIMEOUT, Place, topic};
use crate::error::{Error, Kind, Result};

/// How long the broker may stay silent about records that should be there.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The longest that a transaction of ours stays open, and some time for the broker to end it.
const OPEN_MAX: Duration = Duration::from_secs(45);
const TICK: Duration = Duration::from_millis(50);

/// Offsets `[from, to)` of a partition.
pub(crate) type Bounds = BTreeMap<i32, (i64, i64)>;

/// A walk over what is committed.
pub(crate) struct Reading {
    place: Arc<Place>,
    consumer: Consumer,
    watch: Watch,
    bounds: Bounds,
    /// The partitions that are not read to their ends yet.
    left: BTreeMap<i32, i64>,
}

impl Reading {
    /// Stands before the oldest record of the topic of `place`; `None` when there is no such topic. With `past_open` everything that is
    /// there by now is read, for which transactions that others have open are waited for; without it, what can be read at once.
    pub(crate) fn open(place: Arc<Place>, past_open: bool) -> Result<Option<Self>> {
        let watch = Watch::default();
        let consumer = clients::consumer(&place, &watch)?;
        let mut reading = Self { place, consumer, watch, bounds: Bounds::new(), left: BTreeMap::new() };
        let found = topic::partitions(&reading.place, &reading.consumer).map_err(|error| reading.error(error))?;
        let Some(partitions) = found else { return Ok(None) };
        let all = if past_open { Some(clients::uncommitted(&reading.place, &reading.watch)?) } else { None };
        let asked = bounds(all.as_ref().unwrap_or(&reading.consumer), &reading.place.topic, partitions);
        reading.bounds = asked.map_err(|error| reading.error(error))?;
        if past_open {
            reading.wait_for_open(partitions)?;
        }
        reading.assign().map_err(|error| reading.error(error))?;
        Ok(Some(reading))
    }

    /// Waits until everything within the bounds is committed or aborted: what lies behind an open transaction is hidden from readers of
    /// committed records, marks of ours among it.
    fn wait_for_open(&self, partitions: usize) -> Result<()> {
        let (began, topic) = (Instant::now(), &self.place.topic);
        loop {
            let now = bounds(&self.consumer, topic, partitions).map_err(|error| self.error(error))?;
            if self.bounds.iter().all(|(partition, (_, end))| now.get(partition).is_some_and(|(_, now)| now >= end)) {
                return Ok(());
            }
            if began.elapsed() > OPEN_MAX {
                let text = format!("somebody's transaction on '{topic}' stays open; try again when it has ended");
                return Err(Error::new(Kind::Unreachable, text));
            }
            std::thread::sleep(TICK);
        }
    }

    fn assign(&mut self) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (&partition, &(from, end)) in self.bounds.iter().filter(|(_, (from, end))| from < end) {
            list.add_partition_offset(&self.place.topic, partition, Offset::Offset(from))?;
            self.left.insert(partition, end);
        }
        self.consumer.assign(&list)
    }

    /// Stands before the oldest record again; the end stays where it is.
    pub(crate) fn again(&mut self) -> Result<()> {
        self.assign().map_err(|error| self.error(error))
    }

    /// The oldest offset and the end of each partition, as they were when it was opened.
    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The next record; `None` after the last. Each partition's come in order.
    pub(crate) fn next(&mut self) -> Result<Option<BorrowedMessage<'_>>> {
        let mut heard = Instant::now();
        while !self.left.is_empty() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let Some(&end) = self.left.get(&message.partition()) else { continue };
                    if message.offset() + 1 >= end {
                        self.left.remove(&message.partition());
                    }
                    if message.offset() < end {
                        return Ok(Some(message));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    self.left.remove(&partition);
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "reading a topic to its end");
                    self.watch.note(&error);
                    if self.watch.denied.lock().is_some() || self.watch.distrusted.lock().is_some() {
                        return Err(self.error(error));
                    }
                }
                None => {}
            }
            if heard.elapsed() > SILENCE_MAX {
                return Err(self.error(KafkaError::MessageConsumption(Code::OperationTimedOut)));
            }
        }
        Ok(None)
    }

    fn error(&self, error: KafkaError) -> Error {
        let Place { topic, brokers, .. } = &*self.place;
        if let Some(reason) = &*self.watch.distrusted.lock() {
            return distrust(brokers, reason);
        }
        let own = error.rdkafka_error_code().filter(|&code| is_denied(code));
        if self.watch.denied.lock().or(own).is_some() {
            let text =
                format!("{brokers} does not let us read '{topic}'; check the credentials and rights ('kafka.sasl.*', ACLs)");
            return Error::new(Kind::Denied, text).because(error);
        }
        Error::new(Kind::Unreachable, format!("'{topic}' at {brokers} cannot be read now; {IS_IT_THERE}")).because(error)
    }
}

fn bounds(consumer: &Consumer, topic: &str, partitions: usize) -> KafkaResult<Bounds> {
    let ask = |partition| Ok((partition, consumer.fetch_watermarks(topic, partition, ASK_TIMEOUT)?));
    (0..i32::try_from(partitions).unwrap_or(i32::MAX)).map(ask).collect()
}
