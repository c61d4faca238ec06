//! One claim of a place: from `init_transactions` to the first error, after which a new one is made.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::clients::{self, Consumer, Judge, Producer, Watch};
use super::headers::{self, Missing};
use super::originals::Walk;
use super::topic;
use crate::batch::DeadLetter;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::sink::Writer;

/// How long one question to the broker may take: a cold TLS connection fits.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Asked only to spare a newer claim: an unfinished transaction of ours hides the answer, and `init_transactions` ends that.
const PEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// A new cluster makes its transaction log first.
const INIT_TIMEOUT: Duration = Duration::from_secs(15);
/// As long as the broker keeps a transaction open.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Whose letters, and where to.
pub(super) struct Place {
    pub(super) brokers: String,
    pub(super) properties: Vec<(String, String)>,
    /// The source topic.
    pub(super) topic: String,
    /// Where the letters go.
    pub(super) dlq: String,
    /// `transactional.id` and `group.id`.
    id: String,
    lane: String,
    incarnation: u64,
}

impl Place {
    pub(super) fn new(brokers: &str, properties: &[(String, String)], topic: &str, writer: &Writer) -> Self {
        Self {
            brokers: brokers.into(),
            properties: properties.to_vec(),
            topic: topic.into(),
            dlq: super::KafkaDeadLetters::topic_for(topic),
            id: format!("falaj/{}/{}/dlq", writer.lineage, writer.lane),
            lane: writer.lane.clone(),
            incarnation: writer.incarnation,
        }
    }
}

/// What the group offset's metadata says: `incarnation/epoch`, without an epoch when none was written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fence {
    incarnation: u64,
    epoch: Option<u64>,
}

impl Fence {
    fn parse(text: &str) -> Option<Self> {
        let (incarnation, epoch) = text.split_once('/')?;
        let epoch = if epoch.is_empty() { None } else { Some(epoch.parse().ok()?) };
        Some(Self { incarnation: incarnation.parse().ok()?, epoch })
    }

    fn text(&self) -> String {
        let epoch = self.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        format!("{}/{epoch}", self.incarnation)
    }
}

/// The connections of one claim. All methods block.
pub(super) struct Session {
    place: std::sync::Arc<Place>,
    watch: Watch,
    consumer: Consumer,
    producer: Producer,
    held: Option<u64>,
}

impl Session {
    /// Claims the place: fences whoever wrote there before, ends what they left open, and reads what is held.
    pub(super) fn open(place: std::sync::Arc<Place>) -> Result<Self> {
        let watch = Watch::default();
        let consumer = clients::consumer(&place.brokers, &place.properties, &place.id, &watch)?;
        let judge =
            Judge { topic: &place.dlq, brokers: &place.brokers, watch: &watch, consumer: Some(&consumer), producer: None };
        topic::ensure(&place, &consumer, &judge)?;
        if let Ok(Some(fence)) = read_fence(&place, &consumer, PEEK_TIMEOUT) {
            place.yields_to(fence)?;
        }
        let producer = clients::producer(&place.brokers, &place.properties, &place.id, &watch)?;
        let mut session = Self { place, watch, consumer, producer, held: None };
        session.claim()?;
        Ok(session)
    }

    fn claim(&mut self) -> Result<()> {
        self.producer.init_transactions(INIT_TIMEOUT).map_err(|error| self.error(error))?;
        let fence = read_fence(&self.place, &self.consumer, ASK_TIMEOUT).map_err(|error| self.error(error))?;
        if let Some(fence) = fence {
            self.place.yields_to(fence)?;
            self.held = fence.epoch;
        }
        let ours = Fence { incarnation: self.place.incarnation, epoch: self.held };
        if fence != Some(ours) {
            // From here on an older process that wakes and takes the producer's fence back reads that it is older.
            self.producer.begin_transaction().and_then(|()| self.end(ours)).map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    /// The last epoch whose letters are held.
    pub(super) fn held(&self) -> Option<u64> {
        self.held
    }

    /// Writes the `count` letters that come in `pieces`, in reading order, all or none. After an error the session is of no
    /// more use. Fewer letters than `count` mean that whoever sent them has gone away: nothing is written.
    pub(super) fn write(&mut self, epoch: u64, count: usize, mut pieces: mpsc::Receiver<Vec<DeadLetter>>) -> Result<()> {
        let began = Instant::now();
        let mut written = self.try_write(epoch, count, &mut pieces);
        if let Err(error) = &written
            && began.elapsed() >= END_TIMEOUT
            && matches!(error.kind(), Kind::Unreachable | Kind::Fenced)
        {
            // The broker has ended the transaction by itself, and names it as if somebody had fenced us.
            let sentence = format!("'{}' did not take the {count} dead letters of epoch {epoch} in 30 s", self.place.dlq);
            written = Err(Error::new(Kind::Unreachable, sentence).because(error.clone()));
        }
        match &written {
            Ok(()) => self.held = Some(epoch),
            // A transaction left open holds readers back until it times out, so end it if the broker can be asked.
            Err(error) if !matches!(error.kind(), Kind::Unreachable | Kind::Fenced) => {
                let _ = self.producer.abort_transaction(PEEK_TIMEOUT);
            }
            Err(_) => {}
        }
        written
    }

    fn try_write(&self, epoch: u64, count: usize, pieces: &mut mpsc::Receiver<Vec<DeadLetter>>) -> Result<()> {
        self.producer.begin_transaction().map_err(|error| self.error(error))?;
        let mut seen = 0;
        let mut walk = Walk::new(&self.consumer, &self.place.topic);
        while let Some(letters) = pieces.blocking_recv() {
            seen += letters.len();
            self.send_piece(&mut walk, &letters).map_err(|error| self.error(error))?;
        }
        drop(walk);
        if seen < count {
            return Err(Error::new(Kind::Bug, format!("the dead letters of epoch {epoch} were given up half-way")));
        }
        let ours = Fence { incarnation: self.place.incarnation, epoch: Some(epoch) };
        failpoint::hit(&self.place.lane, "dead.sent");
        self.end(ours).map_err(|error| self.error(error))?;
        failpoint::hit(&self.place.lane, "dead.committed");
        Ok(())
    }

    /// Finds the originals of `letters` and hands them to the producer's queue.
    fn send_piece(&self, walk: &mut Walk<'_>, letters: &[DeadLetter]) -> KafkaResult<()> {
        let now_ms = Clock::system().now_ms();
        for letters in letters.chunk_by(|a, b| (a.partition, a.offset) == (b.partition, b.offset)) {
            let (partition, offset) = (letters[0].partition, letters[0].offset);
            if partition < 0 || offset < 0 {
                letters.iter().try_for_each(|letter| self.send(letter, None, Some(Missing::None), now_ms))?;
                continue;
            }
            let original = walk.find(partition, offset)?;
            let missing = if original.is_none() { Some(Missing::Gone) } else { None };
            letters.iter().try_for_each(|letter| self.send(letter, original.as_ref(), missing, now_ms))?;
        }
        // Serves what the producer has to say; never waits.
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    fn send(
        &self,
        letter: &DeadLetter,
        original: Option<&BorrowedMessage<'_>>,
        missing: Option<Missing>,
        now_ms: i64,
    ) -> KafkaResult<()> {
        // Copied by librdkafka, unread: names, order, doubles and null values stay as they were.
        let headers = original.and_then(|original| original.headers()).map_or_else(OwnedHeaders::new, |own| own.detach());
        let headers = headers::of_letter(headers, (&self.place.topic, &self.place.lane), letter, missing, now_ms);
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.place.dlq).headers(headers);
        record.key = original.and_then(|original| original.key());
        record.payload = match original {
            Some(original) => original.payload(),
            None => Some(&[]),
        };
        record.timestamp = original.and_then(|original| original.timestamp().to_millis()).filter(|&ms| ms > 0);
        let began = Instant::now();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) if began.elapsed() < END_TIMEOUT => {
                    record = back;
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Sends the epoch with the letters, and commits both.
    fn end(&self, fence: Fence) -> KafkaResult<()> {
        let began = Instant::now();
        // The client's own flush looks every 100 ms only.
        while self.producer.in_flight_count() > 0 {
            if began.elapsed() > END_TIMEOUT {
                return Err(KafkaError::Flush(Code::OperationTimedOut));
            }
            self.producer.poll(Duration::from_millis(1));
        }
        let mut offsets = TopicPartitionList::new();
        // The offset is for lag tools; the metadata is what is read back.
        let offset = fence.epoch.and_then(|epoch| i64::try_from(epoch).ok()).unwrap_or(0);
        offsets.add_partition_offset(&self.place.dlq, 0, Offset::Offset(offset))?;
        if let Some(mut element) = offsets.find_partition(&self.place.dlq, 0) {
            element.set_metadata(fence.text());
        }
        let group = self.consumer.group_metadata().ok_or(KafkaError::NoMessageReceived)?;
        self.producer.send_offsets_to_transaction(&offsets, &group, ASK_TIMEOUT)?;
        self.producer.commit_transaction(END_TIMEOUT)
    }

    fn error(&self, error: KafkaError) -> Error {
        let judge = Judge {
            topic: &self.place.dlq,
            brokers: &self.place.brokers,
            watch: &self.watch,
            consumer: Some(&self.consumer),
            producer: Some(&self.producer),
        };
        judge.error(error)
    }
}

impl Place {
    /// `Err(Fenced)` when `fence` is a newer claim's.
    fn yields_to(&self, fence: Fence) -> Result<()> {
        if fence.incarnation <= self.incarnation {
            return Ok(());
        }
        Err(Error::new(
            Kind::Fenced,
            format!(
                "a newer start of lane '{}' (number {}, this is {}) writes its dead letters to '{}'; stop one of them",
                self.lane, fence.incarnation, self.incarnation, self.dlq
            ),
        ))
    }
}

/// What the group's offset says; `None` when there is none.
fn read_fence(place: &Place, consumer: &Consumer, wait: Duration) -> KafkaResult<Option<Fence>> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&place.dlq, 0);
    let answer = consumer.committed_offsets(asked, Timeout::After(wait))?;
    let Some(element) = answer.find_partition(&place.dlq, 0) else { return Ok(None) };
    element.error()?;
    Ok(Fence::parse(element.metadata()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_read_back_as_it_was_written() {
        for fence in [Fence { incarnation: 3, epoch: Some(17) }, Fence { incarnation: 1, epoch: None }] {
            assert_eq!(Fence::parse(&fence.text()), Some(fence));
        }
        assert_eq!(Fence { incarnation: 3, epoch: Some(17) }.text(), "3/17");
        for foreign in ["", "3", "x/1", "3/x"] {
            assert_eq!(Fence::parse(foreign), None, "{foreign:?}");
        }
    }
}
