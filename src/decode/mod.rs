//! From payloads to Arrow: the port that a decoder implements, and the formats.
//!
//! One bad record never costs a good one: it becomes a dead letter with its offset, a code and a sentence.

mod avro;
pub mod debezium;
pub mod framed;
pub mod json;
pub mod pgoutput;
mod protobuf;
mod rows;

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::batch::{DeadLetter, Payloads, Segment};
use crate::error::Result;
use crate::position::Span;

/// Turns payloads of one format into rows of one schema. Used by one thread at a time; keeps no record between calls.
pub trait Decoder: Send {
    /// The columns of every batch that it makes.
    fn schema(&self) -> SchemaRef;

    /// Gets what `payloads` need to be decoded beside themselves, such as schemas; called before [`Decoder::decode`], with the same payloads. May
    /// block. `Err(Unreachable)`: it is not to be had now; call it again later, the payloads are as they were.
    fn prepare(&mut self, payloads: &Payloads) -> Result<()>;

    /// Decodes all `payloads`. `rows` has one row for each good record, in offset order.
    /// `Err` only when the decoder itself cannot work (memory); bad records are in `dead`.
    /// The payloads are handed over because texts may go on pointing into their memory.
    fn decode(&mut self, payloads: Payloads) -> Result<Decoded>;
}

/// What a decoder made of some payloads: records = rows + dead + tombstones.
#[derive(Debug)]
pub struct Decoded {
    /// Where the records come from, as in the payloads.
    pub span: Span,
    /// The good records.
    pub rows: RecordBatch,
    /// The offset of each of them.
    pub offsets: Int64Array,
    /// The others.
    pub dead: Vec<DeadLetter>,
    /// The offsets of the records without a payload.
    pub tombstones: Vec<i64>,
    /// When the last record was appended to the log, in ms since 1970; 0 if unknown.
    pub appended_ms: i64,
    /// How many offsets of the span the source no longer had.
    pub lost: u64,
}

impl Decoded {
    /// The segment of these rows.
    pub fn into_segment(self) -> Segment {
        let bytes = held_bytes(&self.rows) + self.offsets.len() * 8;
        Segment {
            span: self.span,
            rows: self.rows,
            offsets: self.offsets,
            dead: Arc::from(self.dead),
            tombstones: Arc::from(self.tombstones),
            for_lanes: Arc::from([]),
            appended_ms: self.appended_ms,
            lost: self.lost,
            bytes,
        }
    }
}

/// The memory that `rows` hold; buffers that columns of texts share count once.
fn held_bytes(rows: &RecordBatch) -> usize {
    let mut seen = Vec::new();
    let mut bytes = rows.get_array_memory_size();
    let texts = rows.columns().iter().filter_map(|column| column.as_string_view_opt());
    for buffer in texts.flat_map(|texts| texts.data_buffers()) {
        if seen.contains(&buffer.data_ptr()) {
            bytes -= buffer.capacity();
        } else {
            seen.push(buffer.data_ptr());
        }
    }
    bytes
}
