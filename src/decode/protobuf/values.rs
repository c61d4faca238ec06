//! Values on the wire into columns.

use chrono::{Datelike, NaiveDate};
use prost_types::field_descriptor_proto::Type;

use super::plan::{Absent, Cell, To, symbol, zero};
use super::wire::{Broken, Input, Raw, zigzag};
use crate::decode::rows::column::{Column, Refusal, Typed};
use crate::decode::rows::put_text;
use crate::decode::rows::text::{PAYLOADS, view};

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
pub(super) fn put(cell: &Cell, raw: Raw, bytes: &[u8], column: &mut Column, resolved: &mut Vec<u8>) -> Result<(), Wrong> {
    let value = match (cell, raw) {
        (Cell::Text, Raw::Bytes(from, to)) => {
            let text = &bytes[from..to];
            if !text.is_ascii() && simdutf8::basic::from_utf8(text).is_err() {
                return Err(Wrong::Utf8);
            }
            Typed::Text(view(text, PAYLOADS, from))
        }
        (Cell::Whole(kind, to), raw) => whole(*kind, raw, *to)?,
        (Cell::Flag, Raw::Varint(value)) => Typed::Flag(value != 0),
        (Cell::Float, Raw::Fixed32(bits)) => Typed::Float(f32::from_bits(bits).into()),
        (Cell::Double, Raw::Fixed64(bits)) => Typed::Float(f64::from_bits(bits)),
        (Cell::Symbol(symbols), Raw::Varint(value)) => return Ok(put_text(&symbol(symbols, value as i32), column, resolved)?),
        (Cell::Moment, Raw::Bytes(from, to)) => {
            let [seconds, nanos] = varints(bytes, from, to)?;
            let nanos = u32::try_from(nanos as i32).ok().filter(|&nanos| nanos < 1_000_000_000).ok_or(Refusal::Type)?;
            Typed::Moment(seconds as i64, nanos)
        }
        (Cell::Day, Raw::Bytes(from, to)) => {
            let [year, month, day] = varints(bytes, from, to)?;
            let date = NaiveDate::from_ymd_opt(year as i32, month as u32, day as u32).ok_or(Refusal::Type)?;
            Typed::Days(date.num_days_from_ce() - DAYS_TO_1970)
        }
        (Cell::Decimal(scale), Raw::Bytes(from, to)) => Typed::Decimal(decimal(bytes, from, to, *scale)?),
        (Cell::Wrapped(inner), Raw::Bytes(from, to)) => {
            return match field(bytes, from, to, 1)? {
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

fn whole(kind: Type, raw: Raw, to: To) -> Result<Typed, Wrong> {
    let number = match (kind, raw) {
        // Longer ones than 32 bits are cut, as all readers do.
        (Type::Int32, Raw::Varint(value)) => i128::from(value as i32),
        (Type::Int64, Raw::Varint(value)) => i128::from(value as i64),
        (Type::Uint32, Raw::Varint(value)) => i128::from(value as u32),
        (Type::Uint64, Raw::Varint(value)) => i128::from(value),
        (Type::Sint32, Raw::Varint(value)) => i128::from(zigzag(u64::from(value as u32))),
        (Type::Sint64, Raw::Varint(value)) => i128::from(zigzag(value)),
        (Type::Fixed32, Raw::Fixed32(value)) => i128::from(value),
        (Type::Sfixed32, Raw::Fixed32(value)) => i128::from(value as i32),
        (Type::Fixed64, Raw::Fixed64(value)) => i128::from(value),
        (Type::Sfixed64, Raw::Fixed64(value)) => i128::from(value as i64),
        _ => return Err(Wrong::WireType),
    };
    Ok(match to {
        To::Whole if number < 0 => Typed::Whole(number as i64),
        To::Whole => Typed::Natural(number as u64),
        To::Float => Typed::Float(number as f64),
        To::Decimal(factor) => Typed::Decimal(number.checked_mul(factor).ok_or(Refusal::Range)?),
    })
}

/// The last occurrence of a field in a message.
fn field(bytes: &[u8], from: usize, to: usize, wanted: u32) -> Result<Option<Raw>, Wrong> {
    let mut input = Input::new(&bytes[..to], from);
    let mut found = None;
    while let Some((number, raw)) = input.next()? {
        if number == wanted {
            found = Some(raw);
        }
    }
    Ok(found)
}

/// The fields 1, 2, … of a message that has numbers only; those that are not there are 0.
fn varints<const N: usize>(bytes: &[u8], from: usize, to: usize) -> Result<[u64; N], Wrong> {
    let mut input = Input::new(&bytes[..to], from);
    let mut found = [0; N];
    while let Some((number, raw)) = input.next()? {
        match (found.get_mut(number as usize - 1), raw) {
            (Some(place), Raw::Varint(value)) => *place = value,
            (Some(_), _) => return Err(Wrong::WireType),
            (None, _) => {}
        }
    }
    Ok(found)
}

/// A `confluent.type.Decimal`: bytes in two's complement, the high one first, and their scale; in units of the column's scale.
fn decimal(bytes: &[u8], from: usize, to: usize, wanted: i8) -> Result<i128, Wrong> {
    let number = match field(bytes, from, to, 1)? {
        None => &[],
        Some(Raw::Bytes(from, to)) => &bytes[from..to],
        Some(_) => return Err(Wrong::WireType),
    };
    let scale = match field(bytes, from, to, 3)? {
        None => 0,
        Some(Raw::Varint(scale)) => scale as i32,
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
