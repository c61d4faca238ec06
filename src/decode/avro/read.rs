//! Avro's binary encoding: values are read into columns, or passed over.
//!
//! Nothing is allocated by what a payload says of its own length, and a payload of n bytes is done after some n steps.

use super::plan::Cell;
use super::schema::{Id, Schema, Wire};
use crate::decode::rows::column::Column;
use crate::decode::rows::put_text;
use crate::decode::rows::text::{PAYLOADS, view};
use crate::decode::rows::value::{Refusal, Typed};

/// Values inside each other that are passed over: a type may hold itself.
const LEVELS_MAX: usize = 128;

/// Why a payload is not what its schema says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It ends within a value.
    Truncated,
    /// A number goes on after its last possible byte, or does not fit its type.
    Number,
    /// A length is negative, or no boolean is 0 or 1.
    Length,
    Flag,
    Utf8,
    /// There is no such symbol or branch.
    Symbol(i64),
    Branch(i64),
    /// Blocks without end, or too deep.
    Depth,
    Blocks,
    /// The column does not take the value.
    Refused(Refusal),
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        Wrong::Refused(refusal)
    }
}

/// A payload, and how far it is read.
pub(super) struct Input<'a> {
    /// Everything up to the payload's end: places in it are those of texts.
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// Values that may still be passed over in the whole record: those without a byte must not go on for ever.
    pub(super) steps: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, steps: usize) -> Self {
        Self { bytes, at, steps }
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Wrong> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..length)).ok_or(Wrong::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let rest = self.bytes.get(self.at..).ok_or(Wrong::Truncated)?;
        let taken = *rest.first_chunk::<N>().ok_or(Wrong::Truncated)?;
        self.at += N;
        Ok(taken)
    }

    #[inline]
    fn long(&mut self) -> Result<i64, Wrong> {
        // Lengths, branches and symbols mostly take one byte.
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1))
            }
            _ => self.longer(),
        }
    }

    fn longer(&mut self) -> Result<i64, Wrong> {
        let rest = self.bytes.get(self.at..).ok_or(Wrong::Truncated)?;
        let mut value: u64 = 0;
        for (index, &byte) in rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                if index == 9 && byte > 1 {
                    return Err(Wrong::Number);
                }
                self.at += index + 1;
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(if rest.len() < 10 { Wrong::Truncated } else { Wrong::Number })
    }

    #[inline]
    fn int(&mut self) -> Result<i32, Wrong> {
        i32::try_from(self.long()?).map_err(|_| Wrong::Number)
    }

    #[inline]
    fn length(&mut self) -> Result<usize, Wrong> {
        usize::try_from(self.long()?).map_err(|_| Wrong::Length)
    }

    fn flag(&mut self) -> Result<bool, Wrong> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Wrong::Flag),
        }
    }

    /// A two's-complement number, the high byte first.
    fn decimal(&mut self, size: Option<usize>) -> Result<i128, Wrong> {
        let size = size.map_or_else(|| self.length(), Ok)?;
        let bytes = self.take(size)?;
        let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
        let filler = if negative { 0xff } else { 0 };
        let (high, low) = bytes.split_at(bytes.len().saturating_sub(16));
        let mut number = [filler; 16];
        number[16 - low.len()..].copy_from_slice(low);
        let number = i128::from_be_bytes(number);
        // What is cut off must be no more than the sign.
        let fits = high.iter().all(|&byte| byte == filler) && (number < 0) == negative;
        if fits { Ok(number) } else { Err(Wrong::Refused(Refusal::Range)) }
    }

    /// Reads a value into a column. `resolved` takes texts that do not stand in the payload.
    #[inline]
    pub(super) fn put(&mut self, cell: &Cell, column: &mut Column, resolved: &mut Vec<u8>) -> Result<(), Wrong> {
        match cell {
            Cell::Text => {
                let length = self.length()?;
                let at = self.at;
                let text = self.take(length)?;
                if !text.is_ascii() && simdutf8::basic::from_utf8(text).is_err() {
                    return Err(Wrong::Utf8);
                }
                column.put_typed(Typed::Text(view(text, PAYLOADS, at)))?;
            }
            Cell::Int => column.put_typed(Typed::Whole(self.int()?.into()))?,
            Cell::Long | Cell::AnyLong => column.put_typed(Typed::Whole(self.long()?))?,
            Cell::Instant(unit, _) => column.put_typed(Typed::Instant(self.long()?, *unit))?,
            Cell::Union(branches) => {
                let index = self.long()?;
                let branch = usize::try_from(index).ok().and_then(|index| branches.get(index)).ok_or(Wrong::Branch(index))?;
                match branch {
                    Some(cell) => self.put(cell, column, resolved)?,
                    None => return Err(Wrong::Refused(Refusal::Type)),
                }
            }
            Cell::Null => column.put_null()?,
            Cell::Flag => column.put_typed(Typed::Flag(self.flag()?))?,
            Cell::Float => column.put_typed(Typed::Float(f32::from_le_bytes(self.array()?).into()))?,
            Cell::Double => column.put_typed(Typed::Float(f64::from_le_bytes(self.array()?)))?,
            Cell::IntAsFloat => column.put_typed(Typed::Float(self.int()?.into()))?,
            Cell::LongAsFloat => column.put_typed(Typed::Float(self.long()? as f64))?,
            Cell::Days => column.put_typed(Typed::Days(self.int()?))?,
            Cell::Decimal { size, factor } => {
                let units = self.decimal(*size)?.checked_mul(*factor).ok_or(Refusal::Range)?;
                column.put_typed(Typed::Decimal(units))?;
            }
            Cell::LongAsDecimal { factor } => {
                let units = i128::from(self.long()?).checked_mul(*factor).ok_or(Refusal::Range)?;
                column.put_typed(Typed::Decimal(units))?;
            }
            Cell::Symbol(symbols) => {
                let index = self.long()?;
                let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index)).ok_or(Wrong::Symbol(index))?;
                put_text(symbol, column, resolved)?;
            }
        }
        Ok(())
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self, schema: &Schema, id: Id, levels: usize) -> Result<(), Wrong> {
        let levels = levels.checked_sub(1).ok_or(Wrong::Depth)?;
        self.steps = self.steps.checked_sub(1).ok_or(Wrong::Blocks)?;
        match &schema.get(id).wire {
            Wire::Null => {}
            Wire::Boolean => drop(self.flag()?),
            Wire::Int => drop(self.int()?),
            Wire::Long => drop(self.long()?),
            Wire::Float => drop(self.take(4)?),
            Wire::Double => drop(self.take(8)?),
            Wire::Fixed(size) => drop(self.take(*size)?),
            Wire::Bytes | Wire::String => {
                let length = self.length()?;
                self.take(length)?;
            }
            Wire::Enum(symbols) => {
                let index = self.long()?;
                usize::try_from(index).ok().filter(|&index| index < symbols.len()).ok_or(Wrong::Symbol(index))?;
            }
            Wire::Union(branches) => {
                let index = self.long()?;
                let branch = usize::try_from(index).ok().and_then(|index| branches.get(index)).ok_or(Wrong::Branch(index))?;
                self.skip(schema, *branch, levels)?;
            }
            Wire::Record(fields) => {
                for field in fields {
                    self.skip(schema, field.is, levels)?;
                }
            }
            Wire::Array(items) => self.blocks(|input| input.skip(schema, *items, levels))?,
            Wire::Map(values) => self.blocks(|input| {
                let length = input.length()?;
                input.take(length)?;
                input.skip(schema, *values, levels)
            })?,
        }
        Ok(())
    }

    /// The blocks of an array or a map: a count and so many items each, up to a block without items. A negative count is followed by the
    /// block's size in bytes.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Wrong>) -> Result<(), Wrong> {
        loop {
            match self.long()? {
                0 => return Ok(()),
                count if count < 0 => {
                    let size = self.length()?;
                    self.take(size)?;
                }
                count => {
                    for _ in 0..count {
                        item(self)?;
                    }
                }
            }
        }
    }

    /// Passes over a field.
    pub(super) fn skip_field(&mut self, schema: &Schema, id: Id) -> Result<(), Wrong> {
        self.skip(schema, id, LEVELS_MAX)
    }
}
