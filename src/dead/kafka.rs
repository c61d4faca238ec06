//! Dead letters on a Kafka topic, `<topic>.dlq`: the letters of one epoch in one transaction.
//!
//! The transaction also moves a group offset whose metadata says `incarnation/epoch`. That is how [`DeadLetters::open`] knows
//! what is held, and who holds it: the metadata decides, not the broker's producer fence, because a stopped process that wakes
//! could take that fence back. Group and transaction are both named `falaj/<lineage>/<lane>/dlq`.
//!
//! * [`clients`]: the connections' settings, and what their errors mean for us;
//! * [`session`]: one claim of the place, from `init_transactions` to the first error;
//! * [`topic`]: makes the topic when it is missing;
//! * [`originals`]: finds payload, key and headers in the source topic;
//! * [`headers`]: what a letter carries beside them.

mod clients;
mod headers;
mod originals;
mod session;
mod topic;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::batch::DeadLetter;
use crate::dead::DeadLetters;
use crate::error::{Error, Kind, Result};
use crate::sink::Writer;

use session::{Place, Session};

/// Letters copied for the writing thread at a time: large enough that a hand-over costs nothing, small enough (8 KiB each at
/// the very most, some 100 bytes as a rule) that a million letters are never held twice.
const PIECE_LETTERS: usize = 1024;
/// Pieces that wait for the writing thread.
const PIECES_WAITING: usize = 2;

/// The dead letters of one source topic, for one lane. Connects in `open`.
///
/// A broker that is away makes `write` fail with `Unreachable`; calling it again with the same letters is right. A
/// write whose end is not known is looked up before it is repeated, so each letter is there once for readers of committed records.
pub struct KafkaDeadLetters {
    brokers: String,
    properties: Vec<(String, String)>,
    topic: String,
    place: Option<Arc<Place>>,
    /// `None` after an error: the next write begins with `init_transactions`.
    session: Option<Box<Session>>,
}

impl KafkaDeadLetters {
    /// A place for the dead letters of `topic`. `properties` are librdkafka's, as for the source; connects to nothing.
    pub fn new(brokers: impl Into<String>, properties: Vec<(String, String)>, topic: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), properties, topic: topic.into(), place: None, session: None }
    }

    /// The topic that the letters of `topic` go to.
    pub fn topic_for(topic: &str) -> String {
        format!("{topic}.dlq")
    }

    /// The claim as it stands, or a new one.
    async fn session(&mut self) -> Result<Box<Session>> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let Some(place) = self.place.clone() else {
            return Err(Error::new(Kind::Bug, "dead letters were written before their place was opened"));
        };
        blocking(move || Session::open(place).map(Box::new)).await
    }

    /// Writes `letters` in one transaction, on a thread that may block. The session does not outlive an error.
    async fn transaction(session: Box<Session>, epoch: u64, letters: &[DeadLetter]) -> Result<Box<Session>> {
        let order = reading_order(letters);
        let (pieces, taken) = mpsc::channel(PIECES_WAITING);
        let count = letters.len();
        let writing = blocking(move || {
            let mut session = session;
            session.write(epoch, count, taken)?;
            Ok(session)
        });
        let handing = async move {
            for piece in order.chunks(PIECE_LETTERS) {
                let piece = piece.iter().map(|&index| letters[index].clone()).collect::<Vec<_>>();
                // A closed channel: writing failed and will say why.
                if pieces.send(piece).await.is_err() {
                    return;
                }
            }
        };
        futures::join!(writing, handing).0
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>> {
        forget(self.session.take());
        let place = Place::new(&self.brokers, &self.properties, &self.topic, writer);
        self.place = Some(Arc::new(place));
        let session = self.session().await?;
        let held = session.held();
        self.session = Some(session);
        Ok(held)
    }

    async fn write(&mut self, epoch: u64, letters: &[DeadLetter]) -> Result<()> {
        let mut again = true;
        loop {
            let session = self.session().await?;
            if session.held().is_some_and(|held| held >= epoch) {
                self.session = Some(session);
                return Ok(());
            }
            match Self::transaction(session, epoch, letters).await {
                Ok(session) => {
                    self.session = Some(session);
                    return Ok(());
                }
                // Once: a new claim says whether the epoch was written after all, and whether somebody newer is here.
                Err(error) if again && matches!(error.kind(), Kind::Unreachable | Kind::Fenced) => {
                    tracing::debug!(epoch, error = error.chain(), "dead letters: looking what was written");
                    again = false;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for KafkaDeadLetters {
    fn drop(&mut self) {
        forget(self.session.take());
    }
}

/// The letters' indexes by partition and offset, so that the source is read forwards.
fn reading_order(letters: &[DeadLetter]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..letters.len()).collect();
    order.sort_by_key(|&index| (letters[index].partition, letters[index].offset));
    order
}

/// Closes connections on a thread of their own: closing them waits for their threads.
fn forget(session: Option<Box<Session>>) {
    if let Some(session) = session {
        // Without a thread to spare the closure is dropped here, and the session with it.
        let _ = std::thread::Builder::new().name("dead-letters-close".into()).spawn(move || drop(session));
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(cause) => Err(Error::new(Kind::Bug, "writing dead letters was cut off").because(cause)),
    }
}
