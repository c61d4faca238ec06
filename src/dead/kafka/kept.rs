//! The letters of a topic, for the commands that read, replay and purge them.
//!
//! A replay, and a purge, is transactions with one `transactional.id` for each topic of letters, so that the broker ends those of
//! whoever came before. Each transaction has records for the source, and the marks of their letters: both, or neither. Whoever
//! comes next reads the marks before it decides, so each letter is replayed once, whatever dies.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::error::KafkaResult;
use rdkafka::message::Message as _;
use rdkafka::producer::BaseRecord;

use super::marks::{self, Deletable, Marks, is_mark};
use super::{HEADERS_BYTES, KafkaDeadLetters, headers, made};
use crate::dead::Kept;
use crate::dead::letter::{AT_ONCE, Letter, LetterId, Mended};
use crate::error::{Error, Kind, Result};
use crate::kafka::{Place, Reading, Session, Words, delete_before};

const _: () = assert!((AT_ONCE as u64) * 33 < HEADERS_BYTES - 1024, "a mark fits where the smallest letter does");

const WORDS: Words = Words {
    many: "replayed records",
    one: "a replayed record",
    too_large: "raise that topic's max.message.bytes",
    sent: "replay.sent",
    committed: "replay.committed",
};

/// The dead letters of one topic. Connects when it is asked for something.
pub struct KafkaKept {
    topic: String,
    /// The source's topic and that of its letters.
    source: Arc<Place>,
    letters: Arc<Place>,
    marks: Marks,
    reading: Option<Reading>,
    /// Once it is claimed.
    session: Option<Session>,
}

impl KafkaKept {
    /// The letters of `topic`. `properties` are librdkafka's, as for the source.
    pub fn new(brokers: impl Into<String>, properties: Vec<(String, String)>, topic: impl Into<String>) -> Self {
        let (brokers, topic) = (brokers.into(), topic.into());
        let dlq = KafkaDeadLetters::topic_for(&topic);
        let place = |name: &str| {
            Arc::new(Place {
                brokers: brokers.clone(),
                properties: properties.clone(),
                topic: name.to_string(),
                made: made(&topic),
                id: format!("falaj/{dlq}"),
                lane: "dlq".to_string(),
                incarnation: 0,
                words: &WORDS,
            })
        };
        let (source, letters) = (place(&topic), place(&dlq));
        Self { topic, source, letters, marks: Marks::default(), reading: None, session: None }
    }

    fn claimed(&self) -> Result<&Session> {
        self.session.as_ref().ok_or_else(|| Error::new(Kind::Bug, "letters were replayed before they were claimed"))
    }

    /// Marks `letters` in one transaction, with what `fill` sends.
    fn mark(&mut self, what: &str, letters: &[(LetterId, i32)], fill: impl Fn(&Session) -> KafkaResult<()>) -> Result<()> {
        let mut by_partition: BTreeMap<i32, Vec<LetterId>> = BTreeMap::new();
        letters.iter().for_each(|&(id, partition)| by_partition.entry(partition).or_default().push(id));
        let done = self.claimed()?.write_for_command(|session| {
            fill(session)?;
            by_partition.iter().try_for_each(|(&partition, ids)| {
                let headers = marks::headers(what, ids);
                session.send(BaseRecord::to(&self.letters.topic).partition(partition).headers(headers))
            })
        });
        done.map_err(|error| match error.kind() {
            Kind::Unreachable => Error::new(
                Kind::Unreachable,
                "the broker went away, or somebody else began to replay or purge these letters; run the command again for what is \
                 left: no letter is replayed twice",
            )
            .because(error),
            _ => error,
        })?;
        letters.iter().try_for_each(|&(id, partition)| self.marks.add(id, (partition, i64::MAX), &self.letters.topic))
    }
}

impl Kept for KafkaKept {
    fn source(&self) -> &str {
        &self.topic
    }

    fn begin(&mut self) -> Result<()> {
        self.marks = Marks::default();
        self.reading = Reading::open(Arc::clone(&self.letters), self.session.is_some())?;
        let Some(reading) = &mut self.reading else { return Ok(()) };
        while let Some(record) = reading.next()? {
            self.marks.note(&record)?;
        }
        reading.again()
    }

    fn next(&mut self) -> Result<Option<Letter>> {
        let Some(reading) = &mut self.reading else { return Ok(None) };
        while let Some(record) = reading.next()? {
            let letter = headers::letter_of(&record).filter(|letter| self.marks.of(letter.id()).is_none());
            if letter.is_some() {
                return Ok(letter);
            }
        }
        Ok(None)
    }

    fn claim(&mut self) -> Result<()> {
        self.session = None;
        self.session = Some(Session::of_command(Arc::clone(&self.source))?);
        Ok(())
    }

    fn replay(&mut self, records: &[Mended]) -> Result<()> {
        let letters: Vec<(LetterId, i32)> = records.iter().map(|record| (record.letter.id(), record.letter.kept_in)).collect();
        let source = Arc::clone(&self.source);
        self.mark("replayed", &letters, |session| records.iter().try_for_each(|record| send(session, &source.topic, record)))
    }

    fn purge(&mut self, wanted: &mut dyn FnMut(&Letter) -> bool) -> Result<u64> {
        self.claim()?;
        self.begin()?;
        let (mut purged, mut batch, mut deletable) = (0, Vec::new(), Deletable::default());
        while let Some(reading) = &mut self.reading {
            let Some(record) = reading.next()? else { break };
            let at = (record.partition(), record.offset());
            match headers::letter_of(&record) {
                Some(letter) => match self.marks.of(letter.id()) {
                    Some(mark) => deletable.is_marked(at, mark),
                    None if wanted(&letter) => batch.push((letter.id(), at.0)),
                    None => deletable.stays(at),
                },
                None if is_mark(&record) => {}
                // Not ours.
                None => deletable.stays(at),
            }
            drop(record);
            if batch.len() >= AT_ONCE {
                purged += batch.len() as u64;
                self.mark("purged", &std::mem::take(&mut batch), |_| Ok(()))?;
            }
        }
        if !batch.is_empty() {
            purged += batch.len() as u64;
            self.mark("purged", &batch, |_| Ok(()))?;
        }
        let Some(reading) = self.reading.take() else { return Ok(purged) };
        let up_to = deletable.up_to(reading.bounds());
        if !up_to.is_empty() {
            delete_before(&self.letters, &up_to).map_err(|error| {
                let text = format!(
                    "{purged} letters are marked as purged, but their records on '{}' cannot be deleted now",
                    self.letters.topic
                );
                Error::new(Kind::Unreachable, text).because(error)
            })?;
        }
        Ok(purged)
    }
}

/// Puts a record where its original was, as far as that goes: the partition, the key, the time, and the headers of its own.
fn send(session: &Session, topic: &str, Mended { letter, payload }: &Mended) -> KafkaResult<()> {
    let mut record: BaseRecord<'_, [u8], [u8]> =
        BaseRecord::to(topic).partition(letter.partition).headers(headers::of_replay(letter));
    record.key = letter.key.as_deref();
    record.payload = payload.as_deref();
    record.timestamp = letter.timestamp_ms.filter(|&ms| ms > 0);
    session.send(record)
}
