//! The format `json`: one payload is one JSON object, which becomes one row.
//!
//! ```text
//!  payload ──▶ fast path: walks along the keys of an earlier record ──────────▶ row
//!                  │ anything unusual                                         ▲
//!                  └──▶ slow path: serde_json, which defines the truth ───────┴──▶ or dead letter
//! ```
//!
//! # Contract
//!
//! A payload is one JSON object by RFC 8259, with nothing but white space around it. Otherwise it is a dead letter of
//! [`Stage::Decode`](crate::batch::Stage::Decode); the first of these that holds is its code:
//!
//! | code | the payload |
//! |---|---|
//! | `utf8` | is not UTF-8 |
//! | `empty` | has nothing, or only white space |
//! | `truncated` | ends within its value |
//! | `syntax` | is not JSON (NaN and Infinity are not) |
//! | `trailing` | goes on after its value: a second document, any other byte |
//! | `not_an_object` | is an array, a string, a number, `true`, `false` or `null` |
//! | `depth`, `syntax` | is nested deeper than 128 levels (the object itself is the first), or has an escape that is half of a surrogate pair: whichever comes first |
//!
//! Fields are found by name: exactly, escapes in keys resolved, in any order. Unknown ones are ignored, but must be valid.
//! Missing ones and `null` are NULL. Of a key that comes twice the last counts, and only its value is looked at.
//! A value that its column cannot take makes the record a dead letter of [`Stage::Schema`](crate::batch::Stage::Schema)
//! that names the first such column in the schema's order, before any column that is NULL for want of a field:
//!
//! | column | takes | code otherwise |
//! |---|---|---|
//! | integers | numbers without fraction and exponent (`1.0` and `1e2` are refused; `-0` is 0) | `type_mismatch`, `out_of_range` |
//! | floats | numbers, to the nearest float; not beyond the largest | `type_mismatch`, `out_of_range` |
//! | decimals | numbers, and strings that hold one; further digits are rounded, a half away from zero | `type_mismatch`, `out_of_range` |
//! | booleans | `true`, `false` | `type_mismatch` |
//! | dates | strings `YYYY-MM-DD` | `type_mismatch`, `time` |
//! | timestamps | strings by RFC 3339 with any offset (also Postgres' `+02`, `+0230`), to UTC; finer digits are dropped | `type_mismatch`, `time`, `out_of_range` |
//! | texts | strings; of any other value its JSON text, byte for byte as in the payload | |
//! | any that is NOT NULL | no NULL | `null` |
//!
//! Timestamps are never guessed: a date alone or a time without an offset is refused (`time`), and so are integers
//! (`type_mismatch`), since nothing says whether they count seconds or milliseconds.

mod fast;
pub(in crate::decode) mod scan;
mod slow;
#[cfg(test)]
mod tests;

use arrow::array::Int64Array;
use arrow::datatypes::{SchemaRef, TimeUnit};

use super::rows::Rows;
use super::{Decoded, Decoder};
use crate::batch::{DeadLetter, Payloads};
use crate::error::{Error, Kind, Result};

/// Objects and arrays inside each other, the payload's own object included. serde_json has the same bound.
const LEVELS_MAX: usize = 128;

/// Decodes payloads that are JSON objects. See the module's contract.
#[derive(Debug)]
pub struct JsonDecoder {
    schema: SchemaRef,
    rows: Rows,
    template: fast::Template,
    /// Off only in the tests that compare both paths.
    pub(in crate::decode) fast: bool,
}

impl JsonDecoder {
    /// A decoder for these columns, possibly none: then rows are only counted.
    /// Fails with [`Kind::Sql`] and the column's name if a type cannot be decoded or a name comes twice.
    pub fn new(schema: SchemaRef) -> Result<JsonDecoder> {
        let rows = Rows::new(&schema)?;
        Ok(Self { schema, rows, template: fast::Template::default(), fast: true })
    }

    /// The same for payloads in which a time may be a number of `unit`s since 1970, and a date a number of days.
    pub(in crate::decode) fn with_numbers_as_times(mut self, unit: TimeUnit) -> Self {
        self.rows.columns.iter_mut().for_each(|column| column.take_numbers_as_times(unit));
        self
    }

    /// Adds the row of the payload `bytes[from..]`, or nothing.
    fn read(&mut self, bytes: &[u8], from: usize, valid: bool) -> Result<(), slow::Fault> {
        if self.fast && valid {
            if self.template.read(&mut self.rows, bytes, from).is_some() {
                self.rows.count += 1;
                return Ok(());
            }
            self.rows.undo();
        }
        let read = slow::read(&mut self.rows, bytes, from);
        match read {
            Ok(()) => self.rows.count += 1,
            Err(_) => self.rows.undo(),
        }
        read
    }
}

impl Decoder for JsonDecoder {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn prepare(&mut self, _: &Payloads) -> Result<()> {
        Ok(())
    }

    fn decode(&mut self, payloads: Payloads) -> Result<Decoded> {
        // Positions inside a batch are 32 bits wide in Arrow's strings.
        if i32::try_from(payloads.bytes.len()).is_err() {
            return Err(Error::new(Kind::Full, "a batch of payloads is larger than 2 GiB; lower the source's batch size"));
        }
        let Payloads { span, bytes, ends, offsets, tombstones, appended_ms, lost, .. } = payloads;
        let all_valid = valid(&bytes, &ends);
        let mut good = Vec::with_capacity(ends.len());
        let mut dead = Vec::new();
        self.rows.reserve(ends.len());
        let mut skipped = tombstones.iter().copied().peekable();
        let mut from = 0;
        for (index, (&to, &offset)) in ends.iter().zip(&offsets).enumerate() {
            if skipped.next_if_eq(&index).is_none() {
                let valid = all_valid || simdutf8::basic::from_utf8(&bytes[from..to]).is_ok();
                match self.read(&bytes[..to], from, valid) {
                    Ok(()) => good.push(offset),
                    Err(slow::Fault { stage, code, message }) => {
                        dead.push(DeadLetter { partition: span.partition, offset, stage, code, message, schema_id: None });
                    }
                }
            }
            from = to;
        }
        let rows = self.rows.finish(&self.schema, bytes)?;
        let tombstones = tombstones.iter().map(|&index| offsets[index]).collect();
        Ok(Decoded { span, rows, offsets: Int64Array::from(good), dead, tombstones, appended_ms, lost })
    }
}

/// Whether every payload is valid UTF-8: all of them together are, and none begins within a character.
fn valid(bytes: &[u8], ends: &[usize]) -> bool {
    let Ok(text) = simdutf8::basic::from_utf8(bytes) else { return false };
    ends.iter().all(|&end| text.is_char_boundary(end))
}
