//! The values of one row, one after the other.

use super::{Bytes, Malformed};

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL; of a key, also a column that is not part of it.
    Null,
    /// A value out of line that did not change: Postgres has not sent it.
    Unchanged,
    /// The value as Postgres' output function writes it.
    Text(&'a [u8]),
}

/// A walk over the values of a row. Ends after the last, or after the first that cannot be read.
pub struct Tuple<'a> {
    bytes: Bytes<'a>,
    left: u16,
}

impl<'a> Tuple<'a> {
    /// The row that begins at `bytes`, which may go on after it.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(bytes);
        let left = bytes.u16()?;
        Ok(Self { bytes, left })
    }

    /// What follows the row; all of its values must have been walked over.
    pub(super) fn rest(self) -> &'a [u8] {
        self.bytes.0
    }

    fn value(&mut self) -> Result<Value<'a>, Malformed> {
        match self.bytes.u8()? {
            b'n' => Ok(Value::Null),
            b'u' => Ok(Value::Unchanged),
            b't' => {
                let length = self.bytes.u32()? as usize;
                self.bytes.take(length).map(Value::Text)
            }
            _ => Err(Malformed("has a value of an unknown kind")),
        }
    }
}

impl<'a> Iterator for Tuple<'a> {
    type Item = Result<Value<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let value = self.value();
        if value.is_err() {
            self.left = 0;
        }
        Some(value)
    }
}
