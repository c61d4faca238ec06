//! One claim of a place: from `init_transactions` to the first error, after which a new one is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::clients::{self, Consumer, Producer, Watch};
use super::fence::Fence;
use super::judge::Judge;
use super::{ASK_TIMEOUT, Place, topic};
use crate::error::{Error, Kind, Result};
use crate::failpoint;

/// Asked only to spare a newer claim: an unfinished transaction of ours hides the answer, and `init_transactions` ends that.
const PEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// A new cluster makes its transaction log first.
const INIT_TIMEOUT: Duration = Duration::from_secs(15);
/// As long as the broker keeps a transaction open.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is looked whether the queue has room, and whether everything is sent. The client's own `poll` with a time spins through
/// its last millisecond.
const FULL_TICK: Duration = Duration::from_millis(1);
const SENT_TICK: Duration = Duration::from_micros(250);

/// The connections of one claim. All methods block.
pub(crate) struct Session {
    place: Arc<Place>,
    watch: Watch,
    consumer: Consumer,
    producer: Producer,
    held: Option<u64>,
}

impl Session {
    /// Claims the place: fences whoever wrote there before, ends what they left open, and reads what is held.
    pub(super) fn open(place: Arc<Place>) -> Result<Self> {
        let watch = Watch::default();
        let consumer = clients::consumer(&place, &watch)?;
        topic::ensure(&place, &consumer, &Judge { place: &place, watch: &watch, consumer: &consumer, producer: None })?;
        if let Ok(Some(fence)) = Fence::read(&place, &consumer, PEEK_TIMEOUT) {
            fence.lets_in(&place)?;
        }
        let producer = clients::producer(&place, &watch)?;
        let mut session = Self { place, watch, consumer, producer, held: None };
        session.claim()?;
        Ok(session)
    }

    fn claim(&mut self) -> Result<()> {
        self.producer.init_transactions(INIT_TIMEOUT).map_err(|error| self.error(error))?;
        let fence = Fence::read(&self.place, &self.consumer, ASK_TIMEOUT).map_err(|error| self.error(error))?;
        if let Some(fence) = fence {
            fence.lets_in(&self.place)?;
            self.held = fence.epoch;
        }
        let ours = Fence { incarnation: self.place.incarnation, epoch: self.held };
        if fence != Some(ours) {
            // From here on an older process that wakes and takes the producer's fence back reads that it is older.
            self.producer.begin_transaction().and_then(|()| self.end(ours)).map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    /// The last epoch that is held.
    pub(crate) fn held(&self) -> Option<u64> {
        self.held
    }

    /// Reads committed records, and nothing while nobody assigns partitions to it.
    pub(crate) fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// Writes `epoch`, all or none: `fill` sends its records by [`Self::send`]. After an error the session is of no more use.
    pub(crate) fn write(&mut self, epoch: u64, fill: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let began = Instant::now();
        let mut written = self.try_write(epoch, fill);
        if let Err(error) = &written
            && began.elapsed() >= END_TIMEOUT
            && matches!(error.kind(), Kind::Unreachable | Kind::Fenced)
        {
            // The broker has ended the transaction by itself, and names it as if somebody had fenced us.
            let sentence =
                format!("'{}' did not take the {} of epoch {epoch} in 30 s", self.place.topic, self.place.words.many);
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

    fn try_write(&self, epoch: u64, fill: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.producer.begin_transaction().map_err(|error| self.error(error))?;
        fill(self)?;
        let ours = Fence { incarnation: self.place.incarnation, epoch: Some(epoch) };
        failpoint::hit(&self.place.lane, self.place.words.sent);
        self.end(ours).map_err(|error| self.error(error))?;
        failpoint::hit(&self.place.lane, self.place.words.committed);
        Ok(())
    }

    /// Copies a record into the producer's queue; waits while that is full.
    pub(crate) fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> KafkaResult<()> {
        let began = Instant::now();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) if began.elapsed() < END_TIMEOUT => {
                    record = back;
                    self.serve();
                    std::thread::sleep(FULL_TICK);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Serves what the producer has to say; never waits. To be called between some hundreds of records.
    pub(crate) fn serve(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Sends the epoch with the records, and commits both.
    fn end(&self, fence: Fence) -> KafkaResult<()> {
        let began = Instant::now();
        // The client's own flush looks every 100 ms only.
        while self.producer.in_flight_count() > 0 {
            if began.elapsed() > END_TIMEOUT {
                return Err(KafkaError::Flush(Code::OperationTimedOut));
            }
            self.serve();
            std::thread::sleep(SENT_TICK);
        }
        let group = self.consumer.group_metadata().ok_or(KafkaError::NoMessageReceived)?;
        self.producer.send_offsets_to_transaction(&fence.offsets(&self.place.topic)?, &group, ASK_TIMEOUT)?;
        self.producer.commit_transaction(END_TIMEOUT)
    }

    /// What an error of the connections means.
    pub(crate) fn error(&self, error: KafkaError) -> Error {
        let Self { place, watch, consumer, producer, .. } = self;
        Judge { place, watch, consumer, producer: Some(producer) }.error(error)
    }
}
