//! A dead letter as it is kept, and what tells two of them apart.

use twox_hash::XxHash3_64;

use crate::batch::Stage;

/// Letters that are replayed, or purged, all or none: so few that the mark that names them fits into any topic of letters.
pub const AT_ONCE: usize = 500;

/// What tells a letter from every other, also when it was written twice: by a second project over the same topic, or by a new lineage
/// that read everything again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(pub u128);

/// What became of a letter's original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Original {
    /// The letter has its bytes.
    There,
    /// It was not found any more, or its source does not keep it.
    Gone,
    /// The letter is a row of no single record: one of a window.
    None,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The topic, or table, that its record comes from.
    pub topic: String,
    /// Its partition; negative when it comes from no single record.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The lane that could not use it.
    pub lane: String,
    /// In which step: the words of [`Stage::as_str`].
    pub stage: String,
    /// The short word for the reason.
    pub code: String,
    /// The reason, a sentence.
    pub message: String,
    /// The schema that the record was written by, where it says one: an id or a GUID.
    pub schema_id: Option<String>,
    /// When that was, ms since 1970.
    pub failed_ms: i64,
    /// How often its record had been replayed before.
    pub attempts: u64,
    /// The one lane that its record was for, if it was a replayed one.
    pub restricted_to: Option<String>,
    /// The partition of the letters' topic that it is kept in; 0 in a folder.
    pub kept_in: i32,
    /// What became of the original.
    pub original: Original,
    /// The original's time, ms since 1970, if known.
    pub timestamp_ms: Option<i64>,
    /// The original's key.
    pub key: Option<Vec<u8>>,
    /// Its payload; `None` is a tombstone, or the original is not there.
    pub payload: Option<Vec<u8>>,
    /// Its headers, in their order, without any of ours or Kafka Connect's.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A letter with the payload that goes back to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// The letter.
    pub letter: Letter,
    /// The payload.
    pub payload: Option<Vec<u8>>,
}

impl Letter {
    /// The one lane that a replay of it is for. `None`: all lanes, since none could read the record.
    pub fn for_lane(&self) -> Option<&str> {
        if [Stage::Decode, Stage::Schema].iter().any(|stage| stage.as_str() == self.stage) {
            // The others have had the record that this one is mended from.
            return self.restricted_to.as_deref();
        }
        Some(&self.lane)
    }

    /// What tells it from every other letter: the record, and whom a replay of it is for. The record's time and bytes belong to it since
    /// offsets begin again when a topic is deleted and made anew.
    pub fn id(&self) -> LetterId {
        let mut text = format!("{}\0{}\0{}\0", self.topic, self.partition, self.offset).into_bytes();
        if let Some(ms) = self.timestamp_ms.filter(|_| self.original == Original::There) {
            text.extend_from_slice(&ms.to_le_bytes());
        }
        match self.for_lane() {
            Some(lane) => text.extend_from_slice(lane.as_bytes()),
            None => text.push(b'*'),
        }
        text.push(0);
        text.extend_from_slice(self.payload.as_deref().unwrap_or_default());
        let half = |seed| u128::from(XxHash3_64::oneshot_with_seed(seed, &text));
        LetterId(half(0) << 64 | half(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            topic: "t".into(),
            partition: 0,
            offset: 7,
            lane: "a".into(),
            stage: "sql".into(),
            code: "evaluation".into(),
            message: "m".into(),
            schema_id: None,
            failed_ms: 1,
            attempts: 0,
            restricted_to: None,
            kept_in: 0,
            original: Original::There,
            timestamp_ms: Some(5),
            key: None,
            payload: Some(b"x".to_vec()),
            headers: vec![],
        }
    }

    #[test]
    fn a_letter_that_is_written_again_is_the_same_and_every_other_is_another() {
        let again = Letter { failed_ms: 2, message: "n".into(), code: "other".into(), ..letter() };
        assert_eq!(letter().id(), again.id());
        let others = [
            Letter { offset: 8, ..letter() },
            Letter { partition: 1, ..letter() },
            Letter { lane: "b".into(), ..letter() },
            Letter { stage: "decode".into(), ..letter() },
            Letter { timestamp_ms: Some(6), ..letter() },
            Letter { payload: Some(b"y".to_vec()), ..letter() },
        ];
        for other in others {
            assert_ne!(letter().id(), other.id(), "{other:?}");
        }
    }

    #[test]
    fn what_no_lane_could_read_is_for_all_lanes_but_for_those_that_have_had_it() {
        let decode = Letter { stage: "decode".into(), ..letter() };
        assert_eq!((letter().for_lane(), decode.for_lane()), (Some("a"), None));
        let mended_badly = Letter { restricted_to: Some("b".into()), ..decode };
        assert_eq!(mended_badly.for_lane(), Some("b"));
    }
}
