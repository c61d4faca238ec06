//! The headers of a letter: the original's own, then Kafka Connect's, then ours. All values of the latter two are UTF-8 text.

use rdkafka::message::{Header, OwnedHeaders};

use crate::batch::{DeadLetter, Stage};

/// The most of a message that is written. A parser may repeat megabytes of payload in it.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Why a letter has no payload although it is not a tombstone: the value of `falaj.dlq.original`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It had an original, which the source no longer has.
    Gone,
    /// It is a row of no single record (a window's).
    None,
}

/// All headers of `letter`, after those of its original.
pub(super) fn of_letter(
    original: OwnedHeaders,
    (topic, lane): (&str, &str),
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
        ("__connect.errors.topic", topic),
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
        ("falaj.dlq.lane", lane),
        ("falaj.dlq.stage", stage),
        ("falaj.dlq.code", letter.code),
        ("falaj.dlq.attempts", "1"),
        ("falaj.dlq.timestamp_ms", &now),
    ];
    let missing = missing.map(|missing| match missing {
        Missing::Gone => ("falaj.dlq.original", "gone"),
        Missing::None => ("falaj.dlq.original", "none"),
    });
    let all = connect.into_iter().chain(ours).chain(missing);
    all.fold(original, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
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
    use super::*;

    #[test]
    fn a_message_is_cut_between_characters() {
        assert_eq!(capped("short"), "short");
        let long = format!("x{}", "é".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(capped(&long).len(), MESSAGE_BYTES_MAX - 1);
        assert!(long.starts_with(capped(&long)));
    }
}
