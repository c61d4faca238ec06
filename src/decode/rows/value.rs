//! Values on their way into columns, and why a column does not take one.

use arrow::datatypes::TimeUnit;

use super::number::Misfit;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Shape {
    Null,
    True,
    False,
    Number,
    String,
    Nested,
}

/// A value as a column takes it.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Value<'a> {
    pub(in crate::decode) shape: Shape,
    /// The value as it stands in the payload; of a string, what is between the quotes, escapes resolved.
    pub(in crate::decode) text: &'a [u8],
    /// The number of the buffer that holds `text` (see [`super::text`]), and where in it.
    pub(in crate::decode) buffer: u32,
    pub(in crate::decode) offset: usize,
}

/// Why a column does not take a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Refusal {
    /// The column may not be NULL.
    Null,
    /// The value is of another type.
    Type,
    /// The type cannot hold it.
    Range,
    /// The text is not a time; the words end a sentence that begins with the text.
    Time(&'static str),
}

impl From<Misfit> for Refusal {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::NotWhole => Refusal::Type,
            Misfit::Range => Refusal::Range,
        }
    }
}

/// A value that a binary format has as what it is.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) enum Typed {
    Whole(i64),
    /// A whole number that may be beyond those with a sign.
    Natural(u64),
    Float(f64),
    Flag(bool),
    /// In the column's own smallest units.
    Decimal(i128),
    Days(i32),
    Instant(i64, TimeUnit),
    /// Seconds and nanoseconds since 1970.
    Moment(i64, u32),
    /// The view of a text that is valid UTF-8 (see [`super::text::view`]).
    Text(u128),
}
