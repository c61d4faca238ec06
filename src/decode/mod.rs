//! From payloads to Arrow: the port that a decoder implements, and the formats.
//!
//! One bad record never costs a good one: it becomes a dead letter with its offset, a code and a sentence.

pub mod json;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::batch::{DeadLetter, Payloads, Segment};
use crate::error::Result;

/// Turns payloads of one format into rows of one schema. Used by one thread at a time; keeps no record between calls.
pub trait Decoder: Send {
    /// The columns of every batch that it makes.
    fn schema(&self) -> SchemaRef;

    /// Decodes all `payloads`. `rows` has one row for each good record, in offset order.
    /// `Err` only when the decoder itself cannot work (memory, a registry that is away); bad records are in `dead`.
    fn decode(&mut self, payloads: &Payloads) -> Result<Decoded>;
}

/// What a decoder made of some payloads: records = rows + dead + tombstones.
#[derive(Debug)]
pub struct Decoded {
    /// The good records.
    pub rows: RecordBatch,
    /// The offset of each of them.
    pub offsets: Int64Array,
    /// The others.
    pub dead: Vec<DeadLetter>,
}

impl Decoded {
    /// The segment of these rows.
    pub fn into_segment(self, payloads: &Payloads) -> Segment {
        let bytes = self.rows.get_array_memory_size() + self.offsets.len() * 8;
        Segment {
            span: payloads.span,
            rows: self.rows,
            offsets: self.offsets,
            dead: Arc::from(self.dead),
            tombstones: payloads.tombstones.len() as u64,
            appended_ms: payloads.appended_ms,
            bytes,
        }
    }
}
