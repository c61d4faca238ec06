//! The fast path: fields of the most common types, read without a call.
//!
//! It either does with a field what [`read`](super::read) would do, or gives `None` and has done nothing; then that is asked. It never decides
//! that a record is bad. Bytes are looked at several at once, those of the next record too: what counts is that a value ends within its own.

use super::plan::{Cell, Step};
use super::schema::{Schema, Wire};
use crate::decode::rows::column::Column;
use crate::decode::rows::text;

/// How a field is read fast. What is most common is one variant, so that one look finds it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    SkipLong,
    SkipBytes,
    /// A union of `null`, which is this branch, and one other.
    SkipOrNull {
        null: u8,
        bytes: bool,
    },
    Text(usize),
    /// A `long` for a column that holds each.
    Long(usize),
    /// A `long` of which each is so many of the column's units.
    Times(usize, i64),
    /// A union of two branches, of which `null` is NULL.
    OrNull {
        column: usize,
        null: u8,
        value: Value,
    },
    Slow,
}

/// What the other branch is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Text,
    Long,
    Times(i64),
}

impl Way {
    /// The way that does what `step` says.
    pub(super) fn of(step: &Step, schema: &Schema) -> Self {
        match step {
            Step::Skip(id) => match schema.get(*id).wire {
                Wire::Long => Way::SkipLong,
                Wire::Bytes | Wire::String => Way::SkipBytes,
                Wire::Union(ref branches) => match branches.as_slice() {
                    &[one, other] => match (&schema.get(one).wire, &schema.get(other).wire) {
                        (Wire::Null, Wire::Long) => Way::SkipOrNull { null: 0, bytes: false },
                        (Wire::Long, Wire::Null) => Way::SkipOrNull { null: 1, bytes: false },
                        (Wire::Null, Wire::Bytes | Wire::String) => Way::SkipOrNull { null: 0, bytes: true },
                        (Wire::Bytes | Wire::String, Wire::Null) => Way::SkipOrNull { null: 1, bytes: true },
                        _ => Way::Slow,
                    },
                    _ => Way::Slow,
                },
                _ => Way::Slow,
            },
            Step::Put(column, Cell::Union(branches)) => {
                let (null, cell) = match branches.as_slice() {
                    [Some(Cell::Null), Some(cell)] => (0, cell),
                    [Some(cell), Some(Cell::Null)] => (1, cell),
                    _ => return Way::Slow,
                };
                Value::of(cell).map_or(Way::Slow, |value| Way::OrNull { column: *column, null, value })
            }
            Step::Put(column, cell) => match Value::of(cell) {
                Some(Value::Text) => Way::Text(*column),
                Some(Value::Long) => Way::Long(*column),
                Some(Value::Times(times)) => Way::Times(*column, times),
                None => Way::Slow,
            },
        }
    }

    /// Reads the field that begins at `at` of a record that ends at `to`; gives where the next one begins.
    #[inline(always)]
    pub(super) fn read(&self, columns: &mut [Column], bytes: &[u8], at: usize, to: usize) -> Option<usize> {
        match *self {
            Way::SkipLong => long(bytes, at, to).map(|(_, next)| next),
            Way::SkipBytes => length(bytes, at, to).map(|(from, length)| from + length),
            Way::SkipOrNull { null, bytes: is_bytes } => match *bytes.get(at).filter(|_| at < to)? {
                branch if branch == 2 * null => Some(at + 1),
                0 | 2 if is_bytes => length(bytes, at + 1, to).map(|(from, length)| from + length),
                0 | 2 => long(bytes, at + 1, to).map(|(_, next)| next),
                _ => None,
            },
            Way::Text(column) => put_text(columns.get_mut(column)?, bytes, at, to),
            Way::Long(column) => put_long(columns.get_mut(column)?, bytes, at, to),
            Way::Times(column, times) => put_times(columns.get_mut(column)?, times, bytes, at, to),
            Way::OrNull { column, null, value } => {
                let column = columns.get_mut(column)?;
                // The branches 0 and 1 as they are written.
                match *bytes.get(at).filter(|_| at < to)? {
                    branch if branch == 2 * null => column.put_null().ok().map(|()| at + 1),
                    0 | 2 => match value {
                        Value::Text => put_text(column, bytes, at + 1, to),
                        Value::Long => put_long(column, bytes, at + 1, to),
                        Value::Times(times) => put_times(column, times, bytes, at + 1, to),
                    },
                    _ => None,
                }
            }
            Way::Slow => None,
        }
    }
}

impl Value {
    fn of(cell: &Cell) -> Option<Self> {
        Some(match cell {
            Cell::Text => Value::Text,
            Cell::AnyLong => Value::Long,
            Cell::Instant(_, Some(times)) => Value::Times(*times),
            _ => return None,
        })
    }
}

#[inline(always)]
fn put_text(column: &mut Column, bytes: &[u8], at: usize, to: usize) -> Option<usize> {
    let (from, length) = length(bytes, at, to)?;
    column.put_view(text::view_of_utf8(bytes, from, length)?).ok()?;
    Some(from + length)
}

#[inline(always)]
fn put_long(column: &mut Column, bytes: &[u8], at: usize, to: usize) -> Option<usize> {
    let (number, next) = long(bytes, at, to)?;
    column.put_own(number).ok()?;
    Some(next)
}

#[inline(always)]
fn put_times(column: &mut Column, times: i64, bytes: &[u8], at: usize, to: usize) -> Option<usize> {
    let (number, next) = long(bytes, at, to)?;
    column.put_own(number.checked_mul(times)?).ok()?;
    Some(next)
}

/// Where the bytes begin whose length stands at `at`, and how many there are: none goes beyond `to`. Most lengths take one byte.
#[inline(always)]
fn length(bytes: &[u8], at: usize, to: usize) -> Option<(usize, usize)> {
    let byte = usize::from(*bytes.get(at)?);
    let (length, from) = match byte & 0x81 {
        0 => (byte >> 1, at + 1),
        _ => {
            let (length, from) = long(bytes, at, to)?;
            (usize::try_from(length).ok()?, from)
        }
    };
    (from <= to && length <= to - from).then_some((from, length))
}

/// A number of up to eight bytes, all of them at once, and where it ends.
#[inline(always)]
fn long(bytes: &[u8], at: usize, to: usize) -> Option<(i64, usize)> {
    let word = u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    // Its last byte is the first without a high bit.
    let last = !word & 0x8080_8080_8080_8080;
    let next = at + last.trailing_zeros() as usize / 8 + 1;
    if last == 0 || next > to {
        return None;
    }
    // Seven bits of each byte are pushed together: two and two, four and four, all.
    let bits = word & (last ^ (last - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
    let bits = bits & 0x007f_007f_007f_007f | (bits & 0x7f00_7f00_7f00_7f00) >> 1;
    let bits = bits & 0x0000_3fff_0000_3fff | (bits & 0x3fff_0000_3fff_0000) >> 2;
    let bits = bits & 0x0fff_ffff | (bits & 0x0fff_ffff_0000_0000) >> 4;
    Some(((bits >> 1) as i64 ^ -((bits & 1) as i64), next))
}
