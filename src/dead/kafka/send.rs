//! Letters into records: each with what its original had.

use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Message as _, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use tokio::sync::mpsc;

use super::headers::{self, Missing};
use super::originals::Walk;
use crate::batch::DeadLetter;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::kafka::Session;
use crate::kafka::clients::QUEUE_BYTES;

/// Whose letters, and where to.
#[derive(Debug)]
pub(super) struct Letters {
    /// The source topic.
    pub(super) source: String,
    /// Where the letters go.
    pub(super) dlq: String,
    /// The lane's name.
    pub(super) lane: String,
    /// The file that declares it, or the table of a built-in one.
    pub(super) file: Option<String>,
}

impl Letters {
    /// Sends the `count` letters that come in `pieces`, in reading order. Fewer mean that whoever hands them over has gone away:
    /// an error, so that nothing is written.
    pub(super) fn send_all(&self, session: &Session, count: usize, mut pieces: mpsc::Receiver<Vec<DeadLetter>>) -> Result<()> {
        let mut seen = 0;
        let mut walk = Walk::new(session.consumer(), &self.source);
        while let Some(letters) = pieces.blocking_recv() {
            seen += letters.len();
            self.send_piece(session, &mut walk, &letters).map_err(|error| session.error(error))?;
        }
        if seen < count {
            return Err(Error::new(Kind::Bug, "the dead letters of an epoch were given up half-way"));
        }
        Ok(())
    }

    /// Finds the originals of `letters` and hands them to the producer's queue.
    fn send_piece(&self, session: &Session, walk: &mut Walk<'_>, letters: &[DeadLetter]) -> KafkaResult<()> {
        let now_ms = Clock::system().now_ms();
        for letters in letters.chunk_by(|a, b| (a.partition, a.offset) == (b.partition, b.offset)) {
            let (partition, offset) = (letters[0].partition, letters[0].offset);
            if partition < 0 || offset < 0 {
                letters.iter().try_for_each(|letter| self.send(session, letter, None, Some(Missing::None), now_ms))?;
                continue;
            }
            let original = walk.find(partition, offset)?;
            let (original, missing) = match original {
                None => (None, Some(Missing::Gone)),
                Some(found) if found.key_len() + found.payload_len() > QUEUE_BYTES => (None, Some(Missing::TooLarge)),
                found => (found, None),
            };
            letters.iter().try_for_each(|letter| self.send(session, letter, original.as_ref(), missing, now_ms))?;
        }
        session.serve();
        Ok(())
    }

    fn send(
        &self,
        session: &Session,
        letter: &DeadLetter,
        original: Option<&BorrowedMessage<'_>>,
        missing: Option<Missing>,
        now_ms: i64,
    ) -> KafkaResult<()> {
        // Copied by librdkafka, unread: names, order, doubles and null values stay as they were.
        let headers = original.and_then(|original| original.headers()).map_or_else(OwnedHeaders::new, |own| own.detach());
        let headers = headers::of_letter(headers, (&self.source, &self.lane, self.file.as_deref()), letter, missing, now_ms);
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.dlq).headers(headers);
        record.key = original.and_then(|original| original.key());
        record.payload = match original {
            Some(original) => original.payload(),
            None => Some(&[]),
        };
        record.timestamp = original.and_then(|original| original.timestamp().to_millis()).filter(|&ms| ms > 0);
        session.send(record)
    }
}
