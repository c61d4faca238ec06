//! One claim of a place: from `init_transactions` to the first error, after which a new one is made.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as c;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::clients::{self, BATCH_BYTES, Consumer, Producer, QUEUE_BYTES, Watch};
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

/// How often it is looked whether the queue has room, and how much is still to be sent. The client's own `poll` with a time spins through
/// its last millisecond.
const TICK: Duration = Duration::from_millis(1);
/// When nothing has gone for so long, what waits are batches that are not full.
const STALLED: Duration = Duration::from_millis(5);
/// A flush ends when everything is sent; after so long the client's events are served, which say what failed.
const FLUSH_MS: i32 = 10;

/// The connections of one claim. All methods block.
pub(crate) struct Session {
    place: Arc<Place>,
    watch: Watch,
    consumer: Consumer,
    producer: Producer,
    /// Of the topic, as it was at the claim.
    partitions: usize,
    held: Option<u64>,
    /// The epoch whose records were sent, and wait to be committed.
    sent: Option<u64>,
    /// Records of the open transaction, and their bytes.
    queued: Cell<(usize, usize)>,
}

impl Session {
    /// Claims the place: fences whoever wrote there before, ends what they left open, and reads what is held.
    pub(super) fn open(place: Arc<Place>) -> Result<Self> {
        let watch = Watch::default();
        let consumer = clients::consumer(&place, &watch)?;
        let judge = Judge { place: &place, watch: &watch, consumer: &consumer, producer: None };
        let partitions = topic::ensure(&place, &consumer, &judge)?;
        if let Ok(Some(fence)) = Fence::read(&place, &consumer, PEEK_TIMEOUT) {
            fence.lets_in(&place)?;
        }
        let producer = clients::producer(&place, &watch)?;
        let mut session =
            Self { place, watch, consumer, producer, partitions, held: None, sent: None, queued: Cell::default() };
        session.claim()?;
        Ok(session)
    }

    /// Claims the place of a command, which needs no number of its own: once this has returned, no older session of the same id commits
    /// anything more, what it has committed can be read, and an error ends the session for good. The topic is there.
    pub(crate) fn of_command(place: Arc<Place>) -> Result<Self> {
        let watch = Watch::default();
        let consumer = clients::consumer(&place, &watch)?;
        let producer = clients::producer(&place, &watch)?;
        let mut session =
            Self { place, watch, consumer, producer, partitions: 1, held: None, sent: None, queued: Cell::default() };
        session.producer.init_transactions(INIT_TIMEOUT).map_err(|error| session.error(error))?;
        let partitions = topic::partitions(&session.place, &session.consumer).map_err(|error| session.error(error))?;
        session.partitions = partitions.unwrap_or(1);
        Ok(session)
    }

    /// Sends what `fill` sends in one transaction of a command: all of it or, when that cannot be said, an error.
    pub(crate) fn write_for_command(&self, fill: impl FnOnce(&Self) -> KafkaResult<()>) -> Result<()> {
        let write = || {
            self.producer.begin_transaction()?;
            self.queued.set((0, 0));
            fill(self)?;
            self.wait_until_sent()?;
            failpoint::hit(&self.place.lane, self.place.words.sent);
            self.producer.commit_transaction(END_TIMEOUT)?;
            failpoint::hit(&self.place.lane, self.place.words.committed);
            Ok(())
        };
        write().map_err(|error| {
            let error = self.error(error);
            // A transaction left open holds readers back until it times out.
            let _ = self.producer.abort_transaction(PEEK_TIMEOUT);
            error
        })
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
            let ended = self.begin(ours).and_then(|()| self.producer.commit_transaction(END_TIMEOUT));
            ended.map_err(|error| self.error(error))?;
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

    /// Writes `epoch`, all or none: `fill` sends its records by [`Self::send`], if [`Self::send_ahead`] has not. After an error the
    /// session is of no more use.
    pub(crate) fn write(&mut self, epoch: u64, fill: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.in_transaction(epoch, |session| {
            session.try_send(epoch, fill)?;
            session.sent = None;
            session.producer.commit_transaction(END_TIMEOUT).map_err(|error| session.error(error))?;
            failpoint::hit(&session.place.lane, session.place.words.committed);
            session.held = Some(epoch);
            Ok(())
        })
    }

    /// Does what comes before the commit of [`Self::write`]: nobody who reads committed records sees it.
    pub(crate) fn send_ahead(&mut self, epoch: u64, fill: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.in_transaction(epoch, |session| session.try_send(epoch, fill))
    }

    fn try_send(&mut self, epoch: u64, fill: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        if self.sent == Some(epoch) {
            return Ok(());
        }
        let ours = Fence { incarnation: self.place.incarnation, epoch: Some(epoch) };
        self.begin(ours).map_err(|error| self.error(error))?;
        fill(self)?;
        failpoint::hit(&self.place.lane, self.place.words.sent);
        self.wait_until_sent().map_err(|error| self.error(error))?;
        self.sent = Some(epoch);
        Ok(())
    }

    /// Begins a transaction with its epoch. That goes first since the broker refuses it while the transaction before is still ending: it
    /// is tried again after 2 ms (`retry.backoff.ms`), whereas the client lets records wait for 20 ms then.
    fn begin(&self, fence: Fence) -> KafkaResult<()> {
        self.producer.begin_transaction()?;
        self.queued.set((0, 0));
        let group = self.consumer.group_metadata().ok_or(KafkaError::NoMessageReceived)?;
        self.producer.send_offsets_to_transaction(&fence.offsets(&self.place.topic)?, &group, ASK_TIMEOUT)
    }

    /// Does a part of the transaction of `epoch`. After an error ends it where that can be, and says what the error means.
    fn in_transaction(&mut self, epoch: u64, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let began = Instant::now();
        let error = match work(self) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !matches!(error.kind(), Kind::Unreachable | Kind::Fenced) {
            // A transaction left open holds readers back until it times out, so end it if the broker can be asked.
            let _ = self.producer.abort_transaction(PEEK_TIMEOUT);
            return Err(error);
        }
        if began.elapsed() < END_TIMEOUT {
            return Err(error);
        }
        // The broker has ended the transaction by itself, and names it as if somebody had fenced us.
        let sentence = format!("'{}' did not take the {} of epoch {epoch} in 30 s", self.place.topic, self.place.words.many);
        Err(Error::new(Kind::Unreachable, sentence).because(error))
    }

    /// Copies a record into the producer's queue; waits while that is full, and refuses one that never fits.
    pub(crate) fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> KafkaResult<()> {
        let began = Instant::now();
        let (records, bytes) = self.queued.get();
        let of_this = record.key.map_or(0, <[u8]>::len) + record.payload.map_or(0, <[u8]>::len);
        if of_this > QUEUE_BYTES {
            return Err(KafkaError::MessageProduction(Code::MessageSizeTooLarge));
        }
        self.queued.set((records + 1, bytes + of_this));
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) if began.elapsed() < END_TIMEOUT => {
                    record = back;
                    self.serve();
                    if began.elapsed() < STALLED { std::thread::sleep(TICK) } else { self.flush() }
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Serves what the producer has to say; never waits. To be called between some hundreds of records.
    pub(crate) fn serve(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Full batches go by themselves, the last ones when they are asked for: while a flush lasts, the client spins for whatever waits
    /// behind a batch on its way.
    fn wait_until_sent(&self) -> KafkaResult<()> {
        let (records, bytes) = self.queued.get();
        // A batch for each partition, and one on its way.
        let few = (self.partitions + 1) * BATCH_BYTES * records / bytes.max(1);
        let (began, mut least, mut since) = (Instant::now(), usize::MAX, Instant::now());
        loop {
            self.serve();
            let waiting = usize::try_from(self.producer.in_flight_count()).unwrap_or(0);
            if waiting < least {
                (least, since) = (waiting, Instant::now());
            }
            if waiting == 0 {
                return Ok(());
            } else if began.elapsed() > END_TIMEOUT {
                return Err(KafkaError::Flush(Code::OperationTimedOut));
            } else if waiting > few && since.elapsed() < STALLED {
                std::thread::sleep(TICK);
            } else {
                self.flush();
            }
        }
    }

    /// Lets go what waits. The wrapper's own flush looks every 100 ms only.
    fn flush(&self) {
        // SAFETY: the client is alive, and the call keeps nothing of it. What is still to be sent is asked for anyhow.
        let _ = unsafe { c::rd_kafka_flush(self.producer.client().native_ptr(), FLUSH_MS) };
    }

    /// What an error of the connections means.
    pub(crate) fn error(&self, error: KafkaError) -> Error {
        let Self { place, watch, consumer, producer, .. } = self;
        Judge { place, watch, consumer, producer: Some(producer) }.error(error)
    }
}
