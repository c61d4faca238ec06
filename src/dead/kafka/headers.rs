//! The headers of a letter: the original's own, then Kafka Connect's, then ours. All values of the latter two are UTF-8 text.

use std::borrow::Cow;

use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};

use crate::batch::{DeadLetter, Stage};
use crate::dead::letter::{Letter, Original};
use crate::headers::{CONNECT, LANE, OURS, REPLAY_ATTEMPT, STAGE};

/// The most of a message that is written. A parser may repeat megabytes of payload in it.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// The first of the headers that a letter has beside those of its original.
const FIRST: &str = "__connect.errors.topic";

/// The schema that the original was written by.
const SCHEMA_ID: &str = "falaj.dlq.schema_id";

/// Why a letter has no payload although it is not a tombstone: the value of `falaj.dlq.original`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It had an original, which the source no longer has.
    Gone,
    /// It is a row of no single record (a window's).
    None,
    /// Its original is larger than any that can be written; it stays where it is, for as long as the source keeps it.
    TooLarge,
}

/// All headers of `letter`, after those of its original.
pub(super) fn of_letter(
    original: OwnedHeaders,
    (topic, lane, file): (&str, &str, Option<&str>),
    letter: &DeadLetter,
    missing: Option<Missing>,
    now_ms: i64,
) -> OwnedHeaders {
    let stage = letter.stage.as_str();
    let message = capped(&letter.message);
    let class = format!("falaj.{stage}");
    let exception = format!("falaj.{stage}.{}", letter.code);
    let (partition, offset, now) = (letter.partition.to_string(), letter.offset.to_string(), now_ms.to_string());
    let connect = [
        (FIRST, topic),
        ("__connect.errors.partition", &partition),
        ("__connect.errors.offset", &offset),
        ("__connect.errors.connector.name", lane),
        ("__connect.errors.task.id", "0"),
        ("__connect.errors.stage", connect_stage(letter.stage)),
        ("__connect.errors.class.name", &class),
        ("__connect.errors.exception.class.name", &exception),
        ("__connect.errors.exception.message", message),
        // There is no stack to show; tools that group by it still find the failure.
        ("__connect.errors.exception.stacktrace", message),
    ];
    let ours = [
        (LANE, lane),
        (STAGE, stage),
        ("falaj.dlq.code", letter.code),
        ("falaj.dlq.attempts", "1"),
        ("falaj.dlq.timestamp_ms", &now),
    ];
    let missing = missing.map(|missing| match missing {
        Missing::Gone => ("falaj.dlq.original", "gone"),
        Missing::None => ("falaj.dlq.original", "none"),
        Missing::TooLarge => ("falaj.dlq.original", "too_large"),
    });
    let schema_id = letter.schema_id.map(|id| id.to_string());
    let schema_id = schema_id.as_deref().map(|id| (SCHEMA_ID, id));
    let file = file.map(|file| ("falaj.dlq.file", file));
    let all = connect.into_iter().chain(ours).chain(file).chain(schema_id).chain(missing);
    all.fold(original, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// The letter that `record` is; `None` when it is none of ours.
pub(super) fn letter_of(record: &impl Message) -> Option<Letter> {
    let all: Vec<Header<'_, &[u8]>> = record.headers()?.iter().collect();
    // A letter may be one of a letter, or of a record that was replayed: its own headers are the last.
    let (original, ours) = all.split_at(all.iter().rposition(|header| header.key == FIRST)?);
    let own = |name: &str| text(ours, name);
    let stage = own(STAGE)?.into_owned();
    let restricted_to = text(original, LANE).filter(|_| text(original, STAGE).is_none());
    let attempts = text(original, REPLAY_ATTEMPT).and_then(|count| count.parse().ok());
    let is_users = |header: &&Header<'_, &[u8]>| !header.key.starts_with(OURS) && !header.key.starts_with(CONNECT);
    let users = original.iter().filter(is_users).map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec)));
    Some(Letter {
        topic: own(FIRST)?.into_owned(),
        partition: own("__connect.errors.partition")?.parse().ok()?,
        offset: own("__connect.errors.offset")?.parse().ok()?,
        lane: own(LANE)?.into_owned(),
        stage,
        code: own("falaj.dlq.code")?.into_owned(),
        message: own("__connect.errors.exception.message")?.into_owned(),
        schema_id: own(SCHEMA_ID).map(Cow::into_owned),
        failed_ms: own("falaj.dlq.timestamp_ms")?.parse().ok()?,
        attempts: attempts.unwrap_or(0),
        restricted_to: restricted_to.map(Cow::into_owned),
        kept_in: record.partition(),
        original: match own("falaj.dlq.original").as_deref() {
            None => Original::There,
            Some("none") => Original::None,
            Some(_) => Original::Gone,
        },
        timestamp_ms: record.timestamp().to_millis(),
        key: record.key().map(<[u8]>::to_vec),
        payload: record.payload().map(<[u8]>::to_vec),
        headers: users.collect(),
    })
}

/// The value of the last header of this name.
fn text<'h>(headers: &[Header<'h, &'h [u8]>], name: &str) -> Option<Cow<'h, str>> {
    let found = headers.iter().rev().find(|header| header.key == name)?;
    found.value.map(String::from_utf8_lossy)
}

/// The headers of the record that takes the place of `letter` on its source.
pub(super) fn of_replay(letter: &Letter) -> OwnedHeaders {
    let attempt = (letter.attempts + 1).to_string();
    let add = |headers: OwnedHeaders, key: &str, value: Option<&[u8]>| headers.insert(Header { key, value });
    let headers = OwnedHeaders::new_with_capacity(letter.headers.len() + 2);
    let headers = letter.headers.iter().fold(headers, |headers, (key, value)| add(headers, key, value.as_deref()));
    let headers = add(headers, REPLAY_ATTEMPT, Some(attempt.as_bytes()));
    match letter.for_lane() {
        Some(lane) => add(headers, LANE, Some(lane.as_bytes())),
        None => headers,
    }
}

/// Connect's word for where it failed.
fn connect_stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Decode | Stage::Schema => "VALUE_CONVERTER",
        Stage::Sql | Stage::Late => "TRANSFORMATION",
        Stage::Sink => "TASK_PUT",
    }
}

/// The beginning of `message`, cut between characters.
fn capped(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use rdkafka::message::OwnedMessage;

    use super::*;

    fn letter(code: &'static str) -> DeadLetter {
        DeadLetter { partition: 3, offset: 17, stage: Stage::Sql, code, message: "it is so".into(), schema_id: None }
    }

    fn record(payload: &str, headers: OwnedHeaders) -> OwnedMessage {
        let time = rdkafka::Timestamp::CreateTime(5);
        OwnedMessage::new(Some(payload.into()), Some(b"k".to_vec()), "t.dlq".into(), time, 2, 9, Some(headers))
    }

    #[test]
    fn a_letter_is_read_back_with_what_its_original_had() {
        let trace = OwnedHeaders::new().insert(Header { key: "trace", value: Some("1") });
        let headers = of_letter(trace, ("t", "top", None), &letter("evaluation"), None, 7);
        let read = letter_of(&record("x", headers.clone())).unwrap();
        let at = (read.topic.as_str(), read.partition, read.offset, read.kept_in);
        assert_eq!(
            (at, read.lane.as_str(), read.stage.as_str(), read.code.as_str()),
            (("t", 3, 17, 2), "top", "sql", "evaluation")
        );
        assert_eq!((read.message.as_str(), read.failed_ms, read.original), ("it is so", 7, Original::There));
        assert_eq!(
            (read.key.as_deref(), read.payload.as_deref(), read.timestamp_ms),
            (Some(&b"k"[..]), Some(&b"x"[..]), Some(5))
        );
        assert_eq!(read.headers, [("trace".to_string(), Some(b"1".to_vec()))]);
        let gone = of_letter(headers, ("t", "top", None), &letter("evaluation"), Some(Missing::Gone), 7);
        assert_eq!(letter_of(&record("", gone)).unwrap().original, Original::Gone);
        let foreign = OwnedHeaders::new().insert(Header { key: "__connect.errors.topic", value: Some("t") });
        assert_eq!(letter_of(&record("x", foreign)), None, "Connect's own letters are not ours");
    }

    #[test]
    fn a_record_that_fails_again_counts_its_replays_and_keeps_its_lane() {
        let first = letter_of(&record("x", of_letter(OwnedHeaders::new(), ("t", "top", None), &letter("a"), None, 7))).unwrap();
        let again = letter_of(&record("x", of_letter(of_replay(&first), ("t", "other", None), &letter("b"), None, 8))).unwrap();
        assert_eq!((again.attempts, again.restricted_to.as_deref(), again.lane.as_str()), (1, Some("top"), "other"));
        assert_eq!(again.headers, []);
        let (replayed, twice) = (of_replay(&again), of_replay(&Letter { stage: "decode".into(), ..again.clone() }));
        let says = |headers: &OwnedHeaders| {
            let all: Vec<_> = headers.iter().map(|header| (header.key.to_string(), header.value.unwrap().to_vec())).collect();
            all.into_iter().map(|(key, value)| format!("{key}={}", String::from_utf8(value).unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(says(&replayed), ["falaj.dlq.replay_attempt=2", "falaj.dlq.lane=other"]);
        // It was mended badly, and the other lanes have had their record long since.
        assert_eq!(says(&twice), ["falaj.dlq.replay_attempt=2", "falaj.dlq.lane=top"]);
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        assert_eq!(capped("short"), "short");
        let long = format!("x{}", "é".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(capped(&long).len(), MESSAGE_BYTES_MAX - 1);
        assert!(long.starts_with(capped(&long)));
    }
}
