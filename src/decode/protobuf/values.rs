//! Values on the wire into columns.

use std::ops::Range;

use chrono::{Datelike, NaiveDate};
use prost_types::field_descriptor_proto::Type;

use super::plan::{Absent, Cell, To, symbol, zero};
use super::wire::{Broken, Input, Raw, Wire, zigzag};
use crate::decode::rows::column::Column;
use crate::decode::rows::put_text;
use crate::decode::rows::text::view_of_utf8;
use crate::decode::rows::value::{Refusal, Typed};

/// Why a column gets no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Broken(Broken),
    WireType,
    Utf8,
    Required,
    Refused(Refusal),
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        Wrong::Refused(refusal)
    }
}

impl From<Broken> for Wrong {
    fn from(broken: Broken) -> Self {
        Wrong::Broken(broken)
    }
}

/// Adds a value. `bytes` are what it stands in, `resolved` takes texts that stand nowhere.
#[inline]
pub(super) fn put(cell: &Cell, raw: Raw, bytes: &[u8], column: &mut Column, resolved: &mut Vec<u8>) -> Result<(), Wrong> {
    match (cell, raw.wire) {
        (Cell::Text, Wire::Bytes) => {
            let Range { start, end } = raw.range();
            Ok(column.put_view(view_of_utf8(bytes, start, end - start).ok_or(Wrong::Utf8)?)?)
        }
        (Cell::Whole(kind, To::Whole), _) => Ok(column.put_typed(whole(*kind, raw)?)?),
        _ => put_other(cell, raw, bytes, column, resolved),
    }
}

/// The same of types that are not so common.
fn put_other(cell: &Cell, raw: Raw, bytes: &[u8], column: &mut Column, resolved: &mut Vec<u8>) -> Result<(), Wrong> {
    let value = match (cell, raw.wire) {
        (Cell::Whole(kind, to), _) => {
            let number = match whole(*kind, raw)? {
                Typed::Natural(number) => i128::from(number),
                Typed::Whole(number) => i128::from(number),
                _ => return Err(Wrong::WireType),
            };
            match to {
                To::Float => Typed::Float(number as f64),
                To::Decimal(factor) => Typed::Decimal(number.checked_mul(*factor).ok_or(Refusal::Range)?),
                To::Whole => whole(*kind, raw)?,
            }
        }
        (Cell::Flag, Wire::Varint) => Typed::Flag(raw.value != 0),
        (Cell::Float, Wire::Fixed32) => Typed::Float(f32::from_bits(raw.value as u32).into()),
        (Cell::Double, Wire::Fixed64) => Typed::Float(f64::from_bits(raw.value)),
        (Cell::Symbol(symbols), Wire::Varint) => return Ok(put_text(&symbol(symbols, raw.value as i32), column, resolved)?),
        (Cell::Moment, Wire::Bytes) => {
            let [seconds, nanos] = varints(bytes, raw.range())?;
            let nanos = u32::try_from(nanos as i32).ok().filter(|&nanos| nanos < 1_000_000_000).ok_or(Refusal::Type)?;
            Typed::Moment(seconds as i64, nanos)
        }
        (Cell::Day, Wire::Bytes) => {
            let [year, month, day] = varints(bytes, raw.range())?;
            let date = NaiveDate::from_ymd_opt(year as i32, month as u32, day as u32).ok_or(Refusal::Type)?;
            Typed::Days(date.num_days_from_ce() - DAYS_TO_1970)
        }
        (Cell::Decimal(scale), Wire::Bytes) => Typed::Decimal(decimal(bytes, raw.range(), *scale)?),
        (Cell::Wrapped(inner), Wire::Bytes) => {
            return match field(bytes, raw.range(), 1)? {
                Some(raw) => put(inner, raw, bytes, column, resolved),
                None => put_absent(&zero(inner), column, resolved),
            };
        }
        _ => return Err(Wrong::WireType),
    };
    Ok(column.put_typed(value)?)
}

/// From the first day of our calendar.
const DAYS_TO_1970: i32 = 719_163;

/// Adds what stands for a field that is not there.
pub(super) fn put_absent(absent: &Absent, column: &mut Column, resolved: &mut Vec<u8>) -> Result<(), Wrong> {
    Ok(match absent {
        Absent::Null => column.put_null(),
        Absent::Value(value) => column.put_typed(*value),
        Absent::Text(text) => put_text(text, column, resolved),
        Absent::Required => return Err(Wrong::Required),
    }?)
}

#[inline]
fn whole(kind: Type, raw: Raw) -> Result<Typed, Wrong> {
    let Raw { value, wire, .. } = raw;
    Ok(match (kind, wire) {
        // Longer ones than 32 bits are cut, as all readers do.
        (Type::Int32, Wire::Varint) | (Type::Sfixed32, Wire::Fixed32) => Typed::Whole((value as i32).into()),
        (Type::Int64, Wire::Varint) | (Type::Sfixed64, Wire::Fixed64) => Typed::Whole(value as i64),
        (Type::Uint32, Wire::Varint) | (Type::Fixed32, Wire::Fixed32) => Typed::Natural((value as u32).into()),
        (Type::Uint64, Wire::Varint) | (Type::Fixed64, Wire::Fixed64) => Typed::Natural(value),
        (Type::Sint32, Wire::Varint) => Typed::Whole(zigzag((value as u32).into())),
        (Type::Sint64, Wire::Varint) => Typed::Whole(zigzag(value)),
        _ => return Err(Wrong::WireType),
    })
}

/// The last occurrence of a field in a message.
fn field(bytes: &[u8], message: Range<usize>, wanted: u32) -> Result<Option<Raw>, Wrong> {
    let mut input = Input::new(bytes, message.start, message.end);
    let mut found = None;
    while input.next()? {
        if input.number == wanted {
            found = Some(input.raw());
        }
    }
    Ok(found)
}

/// The fields 1, 2, … of a message that has numbers only; those that are not there are 0.
#[inline]
fn varints<const N: usize>(bytes: &[u8], message: Range<usize>) -> Result<[u64; N], Wrong> {
    let mut input = Input::new(bytes, message.start, message.end);
    let mut found = [0; N];
    while input.next()? {
        if let Some(place) = found.get_mut(input.number as usize - 1) {
            match input.raw() {
                Raw { wire: Wire::Varint, value, .. } => *place = value,
                _ => return Err(Wrong::WireType),
            }
        }
    }
    Ok(found)
}

/// A `confluent.type.Decimal`: bytes in two's complement, the high one first, and their scale; in units of the column's scale.
fn decimal(bytes: &[u8], message: Range<usize>, wanted: i8) -> Result<i128, Wrong> {
    let number = match field(bytes, message.clone(), 1)? {
        None => &[],
        Some(raw) if raw.wire == Wire::Bytes => &bytes[raw.range()],
        Some(_) => return Err(Wrong::WireType),
    };
    let scale = match field(bytes, message, 3)? {
        None => 0,
        Some(Raw { wire: Wire::Varint, value, .. }) => value as i32,
        Some(_) => return Err(Wrong::WireType),
    };
    if number.len() > 16 {
        return Err(Refusal::Range.into());
    }
    let first = if number.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    let units = number.iter().fold(first, |units: i128, &byte| units << 8 | i128::from(byte));
    let by = i32::from(wanted).checked_sub(scale).ok_or(Refusal::Range)?;
    let factor = 10i128.checked_pow(by.unsigned_abs()).ok_or(Refusal::Range)?;
    // Nothing is rounded.
    let rescaled = if by >= 0 { units.checked_mul(factor) } else { Some(units / factor).filter(|_| units % factor == 0) };
    Ok(rescaled.ok_or(Refusal::Range)?)
}
