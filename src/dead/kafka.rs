//! Dead letters on a Kafka topic, `<topic>.dlq`: the letters of one epoch in one transaction (see [`crate::kafka`]). Group and
//! transaction are both named `falaj/<lineage>/<lane>/dlq`.
//!
//! * [`send`]: letters into records;
//! * [`originals`]: finds payload, key and headers in the source topic;
//! * [`headers`]: what a letter carries beside them;
//! * [`kept`]: what is there, for `falaj dlq`; [`marks`]: which of it was replayed or purged.

mod headers;
mod kept;
mod marks;
mod originals;
mod send;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::batch::DeadLetter;
use crate::dead::DeadLetters;
use crate::error::{Error, Kind, Result};
use crate::kafka::{MadeTopic, Place, Session, Transactions, Words, blocking};
use crate::sink::Writer;

pub use kept::KafkaKept;

use send::Letters;

/// Letters copied for the writing thread at a time: large enough that a hand-over costs nothing, small enough (8 KiB each at
/// the very most, some 100 bytes as a rule) that a million letters are never held twice.
const PIECE_LETTERS: usize = 1024;
/// Pieces that wait for the writing thread.
const PIECES_WAITING: usize = 2;
/// A letter is its original and headers of ours: twice the message (8 KiB each), and room for names.
const HEADERS_BYTES: u64 = 32 * 1024;

const WORDS: Words = Words {
    many: "dead letters",
    one: "a dead letter",
    too_large: "raise that topic's max.message.bytes above the source's",
    sent: "dead.sent",
    committed: "dead.committed",
};

/// The dead letters of one source topic, for one lane. Connects in `open`.
///
/// A broker that is away makes `write` fail with `Unreachable`; calling it again with the same letters is right. A
/// write whose end is not known is looked up before it is repeated, so each letter is there once for readers of committed records.
pub struct KafkaDeadLetters {
    brokers: String,
    properties: Vec<(String, String)>,
    topic: String,
    file: Option<String>,
    letters: Option<Arc<Letters>>,
    transactions: Transactions,
}

impl KafkaDeadLetters {
    /// A place for the dead letters of `topic`. `properties` are librdkafka's, as for the source; connects to nothing.
    pub fn new(brokers: impl Into<String>, properties: Vec<(String, String)>, topic: impl Into<String>) -> Self {
        let (brokers, topic) = (brokers.into(), topic.into());
        Self { brokers, properties, topic, file: None, letters: None, transactions: Transactions::default() }
    }

    /// The same for the letters of this file of SQL.
    pub fn of_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// The topic that the letters of `topic` go to.
    pub fn topic_for(topic: &str) -> String {
        format!("{topic}.dlq")
    }

    fn place(&self, writer: &Writer) -> Place {
        Place {
            brokers: self.brokers.clone(),
            properties: self.properties.clone(),
            topic: Self::topic_for(&self.topic),
            made: made(&self.topic),
            id: format!("falaj/{}/{}/dlq", writer.lineage, writer.lane),
            lane: writer.lane.clone(),
            incarnation: writer.incarnation,
            words: &WORDS,
        }
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>> {
        let (source, dlq) = (self.topic.clone(), Self::topic_for(&self.topic));
        self.letters = Some(Arc::new(Letters { source, dlq, lane: writer.lane.clone(), file: self.file.clone() }));
        self.transactions.open(self.place(writer)).await
    }

    async fn write(&mut self, epoch: u64, letters: &[DeadLetter]) -> Result<()> {
        let Some(how) = &self.letters else {
            return Err(Error::new(Kind::Bug, "dead letters were written before their place was opened"));
        };
        let order = reading_order(letters);
        let attempt = |session| transaction(Arc::clone(how), session, epoch, letters, &order);
        self.transactions.write(epoch, attempt).await.map(|_| ())
    }
}

/// How the topic for the letters of `topic` is made.
fn made(topic: &str) -> MadeTopic {
    MadeTopic {
        // Letters are read in the order in which they were written.
        partitions: 1,
        replication: -1,
        // They carry their originals' times, by which a broker would drop those of old events at once: kept until purged.
        settings: vec![("retention.ms", "-1")],
        larger_than: Some((topic.to_string(), HEADERS_BYTES)),
    }
}

/// Writes `letters` in one transaction, on a thread that may block.
async fn transaction(
    how: Arc<Letters>,
    mut session: Box<Session>,
    epoch: u64,
    letters: &[DeadLetter],
    order: &[usize],
) -> Result<Box<Session>> {
    let (pieces, taken) = mpsc::channel(PIECES_WAITING);
    let count = letters.len();
    let writing = blocking(move || {
        session.write(epoch, |session| how.send_all(session, count, taken))?;
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

/// The letters' indexes by partition and offset, so that the source is read forwards.
fn reading_order(letters: &[DeadLetter]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..letters.len()).collect();
    order.sort_by_key(|&index| (letters[index].partition, letters[index].offset));
    order
}
