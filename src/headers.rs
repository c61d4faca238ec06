//! The headers of records that falaj knows by name: those that it reads of a source's records, and those of its dead letters.

use std::sync::Arc;

/// The one lane that a record is for. On a dead letter itself, which has [`STAGE`] beside it: the lane whose letter it is.
pub const LANE: &str = "falaj.dlq.lane";
/// In which step a dead letter failed. No other record has it.
pub const STAGE: &str = "falaj.dlq.stage";
/// How often a record was replayed.
pub const REPLAY_ATTEMPT: &str = "falaj.dlq.replay_attempt";
/// What all headers of ours that have to do with dead letters begin with.
pub const OURS: &str = "falaj.dlq.";
/// What those of Kafka Connect's begin with.
pub const CONNECT: &str = "__connect.errors.";

/// The most of a header's value that is read: a lane's name is that of a file, which has 255 bytes at most, and a schema's id is shorter.
pub const VALUE_BYTES_MAX: usize = 256;

/// A header that is read from a source's records; all others are left unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// [`LANE`]: the record is a replayed dead letter of that lane, and for no other.
    Lane,
    /// `__value_schema_id`: which schema the payload is written by.
    ValueSchemaId,
}

impl Known {
    /// All of them.
    pub const ALL: [Known; 2] = [Known::Lane, Known::ValueSchemaId];
}

/// A header of one record among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// The index of the record.
    pub record: usize,
    /// Which header.
    pub name: Known,
    /// Its value, the first [`VALUE_BYTES_MAX`] bytes of it.
    pub value: Box<[u8]>,
}

/// Says that a record is for one lane only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForLane {
    /// The record's offset.
    pub offset: i64,
    /// The lane's name.
    pub lane: Arc<str>,
}
