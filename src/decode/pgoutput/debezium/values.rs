//! Postgres' values as Debezium's connector writes them into JSON by default (`decimal.handling.mode=precise`,
//! `time.precision.mode=adaptive`, `interval.handling.mode=numeric`, `binary.handling.mode=bytes`): Debezium documentation,
//! "Debezium connector for PostgreSQL", "Data type mappings".

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigInt;

use super::times::{clock, date, instant, interval, shown, time, time_with_zone, utc};
use crate::debezium::UNAVAILABLE;
use crate::decode::rows::number::is_number;
use crate::pgoutput::RelationColumn;

/// Postgres' own bound (MAXDIM).
const DIMENSIONS_MAX: usize = 6;
/// What Debezium's connector has for times without an end.
const INFINITY_US: i64 = 9_223_372_036_825_200_000;
const MINUS_INFINITY_US: i64 = -9_223_372_036_832_400_000;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As Postgres has it: whole numbers, finite floats.
    Number,
    /// A string in quotes: what JSON has no type for.
    Text,
    Flag,
    /// The unscaled number's bytes; without a scale that all values share, beside the scale of each.
    Decimal(Option<i32>),
    Money,
    Bytes,
    Bits {
        single: bool,
    },
    Date,
    /// Since midnight; ms up to three digits, else µs.
    Time {
        milli: bool,
    },
    TimeWithZone,
    Timestamp {
        milli: bool,
    },
    Instant,
    Interval,
    Point,
    /// Of arrays: the form of the elements.
    Array(Element),
}

/// The form of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    type_id: u32,
    type_modifier: i32,
}

impl Form {
    /// The form of a column's values.
    pub(super) fn of(column: &RelationColumn) -> Self {
        Self::of_type(column.type_id, column.type_modifier)
    }

    fn of_type(type_id: u32, modifier: i32) -> Self {
        let milli = (0..=3).contains(&modifier);
        match type_id {
            16 => Form::Flag,
            17 => Form::Bytes,
            20 | 21 | 23 | 26 | 700 | 701 => Form::Number,
            600 => Form::Point,
            790 => Form::Money,
            1082 => Form::Date,
            1083 => Form::Time { milli },
            1114 => Form::Timestamp { milli },
            1184 => Form::Instant,
            1186 => Form::Interval,
            1266 => Form::TimeWithZone,
            1560 => Form::Bits { single: modifier == 1 },
            1562 => Form::Bits { single: false },
            // The scale has 11 bits and a sign (PostgreSQL source, numeric.c, numeric_typmod_scale).
            1700 if modifier >= 4 => Form::Decimal(Some((((modifier - 4) & 0x7ff) ^ 1024) - 1024)),
            1700 => Form::Decimal(None),
            other => match element(other) {
                Some(type_id) => Form::Array(Element { type_id, type_modifier: modifier }),
                None => Form::Text,
            },
        }
    }

    /// Writes what stands for a value that was not sent.
    pub(super) fn write_unavailable(self, to: &mut Vec<u8>) {
        match self {
            Form::Bytes => write_base64(UNAVAILABLE.as_bytes(), to),
            Form::Array(_) => {
                to.push(b'[');
                write_text(UNAVAILABLE, to);
                to.push(b']');
            }
            _ => write_text(UNAVAILABLE, to),
        }
    }

    /// Writes a value. One that cannot be read as its type is written as its text.
    pub(super) fn write(self, text: &str, to: &mut Vec<u8>) {
        let began = to.len();
        if self.try_write(text, to).is_none() {
            to.truncate(began);
            write_text(text, to);
        }
    }

    fn try_write(self, text: &str, to: &mut Vec<u8>) -> Option<()> {
        match self {
            Form::Text => write_text(text, to),
            Form::Number if matches!(text, "NaN" | "Infinity" | "-Infinity") => write_text(text, to),
            Form::Number if is_number(text.as_bytes()) => to.extend_from_slice(text.as_bytes()),
            Form::Number => return None,
            Form::Flag => to.extend_from_slice(if text == "t" { b"true" } else { b"false" }),
            Form::Decimal(_) if matches!(text, "NaN" | "Infinity" | "-Infinity") => to.extend_from_slice(b"null"),
            Form::Decimal(scale) => write_decimal(text, scale, to)?,
            Form::Money => write_base64(&money(text)?.to_signed_bytes_be(), to),
            Form::Bytes => write_base64(&unhex(text.strip_prefix("\\x")?)?, to),
            Form::Bits { single: true } => to.extend_from_slice(if text == "1" { b"true" } else { b"false" }),
            Form::Bits { .. } => write_base64(&bits(text)?, to),
            Form::Date => write_number(date(text)?, to),
            Form::Time { milli } => write_number(time(text)? / if milli { 1000 } else { 1 }, to),
            Form::Timestamp { milli } => {
                let us = match text {
                    "infinity" => INFINITY_US,
                    "-infinity" => MINUS_INFINITY_US,
                    _ => instant(text)?,
                };
                write_number(if milli { us.div_euclid(1000) } else { us }, to);
            }
            Form::Instant if matches!(text, "infinity" | "-infinity") => write_text(text, to),
            Form::Instant => write_text(&shown(utc(text)?)?, to),
            Form::TimeWithZone => write_text(&clock(time_with_zone(text)?), to),
            Form::Interval => write_number(interval(text)?, to),
            Form::Point => write_point(text, to)?,
            Form::Array(element) => {
                let form = Form::of_type(element.type_id, element.type_modifier);
                if !write_array(&mut text.as_bytes(), form, DIMENSIONS_MAX, to)? {
                    return None;
                }
            }
        }
        Some(())
    }
}

/// The type of the elements of an array's type.
fn element(type_id: u32) -> Option<u32> {
    Some(match type_id {
        1000 => 16,
        1001 => 17,
        1005 => 21,
        1007 => 23,
        1009 => 25,
        1014 => 1042,
        1015 => 1043,
        1016 => 20,
        1017 => 600,
        1021 => 700,
        1022 => 701,
        1028 => 26,
        1040 => 829,
        1041 => 869,
        1115 => 1114,
        1182 => 1082,
        1183 => 1083,
        1185 => 1184,
        1187 => 1186,
        1231 => 1700,
        1270 => 1266,
        1561 => 1560,
        1563 => 1562,
        143 => 142,
        199 => 114,
        651 => 650,
        791 => 790,
        2951 => 2950,
        3807 => 3802,
        _ => return None,
    })
}

/// Writes a string of JSON.
pub(super) fn write_text(text: &str, to: &mut Vec<u8>) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    } else if serde_json::to_writer(&mut *to, text).is_err() {
        // Writing a text into memory cannot fail.
        to.extend_from_slice(b"null");
    }
}

/// Writes a whole number.
pub(super) fn write_number(number: i64, to: &mut Vec<u8>) {
    to.extend_from_slice(number.to_string().as_bytes());
}

fn write_base64(bytes: &[u8], to: &mut Vec<u8>) {
    to.push(b'"');
    to.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    to.push(b'"');
}

/// `-12.50` with a scale of 3 is -12500.
fn write_decimal(text: &str, scale: Option<i32>, to: &mut Vec<u8>) -> Option<()> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction}");
    let has = i32::try_from(fraction.len()).ok()?;
    let number: BigInt = digits.parse().ok()?;
    let scaled = match scale.unwrap_or(has) - has {
        more @ 0.. => number * BigInt::from(10).pow(more as u32),
        // A scale below 0: the digits that go are zeros.
        less => number / BigInt::from(10).pow(less.unsigned_abs()),
    };
    match scale {
        Some(_) => write_base64(&scaled.to_signed_bytes_be(), to),
        None => {
            to.extend_from_slice(b"{\"scale\":");
            write_number(has.into(), to);
            to.extend_from_slice(b",\"value\":");
            write_base64(&scaled.to_signed_bytes_be(), to);
            to.push(b'}');
        }
    }
    Some(())
}

/// In hundredths, whatever the currency's sign and separators are.
fn money(text: &str) -> Option<BigInt> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let number: BigInt = digits.parse().ok()?;
    Some(if text.contains(['-', '(']) { -number } else { number })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

/// The first bit is the highest of the last byte.
fn bits(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len().div_ceil(8)];
    for (at, bit) in text.bytes().rev().enumerate() {
        match bit {
            b'0' => {}
            b'1' => bytes[at / 8] |= 1 << (at % 8),
            _ => return None,
        }
    }
    Some(bytes)
}

/// `(1.5,2.5)`, with its well-known binary form.
fn write_point(text: &str, to: &mut Vec<u8>) -> Option<()> {
    let (x, y) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let mut wkb = vec![1, 1, 0, 0, 0];
    for number in [x, y] {
        wkb.extend_from_slice(&number.parse::<f64>().ok()?.to_le_bytes());
    }
    to.extend_from_slice(b"{\"x\":");
    Form::Number.try_write(x, to)?;
    to.extend_from_slice(b",\"y\":");
    Form::Number.try_write(y, to)?;
    to.extend_from_slice(b",\"wkb\":");
    write_base64(&wkb, to);
    to.extend_from_slice(b",\"srid\":null}");
    Some(())
}

/// `{a,"b c",NULL,{…}}` (PostgreSQL documentation, "Array Input and Output Syntax"). Takes it from `rest`; whether nothing follows it.
fn write_array(rest: &mut &[u8], form: Form, dimensions: usize, to: &mut Vec<u8>) -> Option<bool> {
    // Bounds that do not begin at 1 stand before the braces.
    if rest.first() == Some(&b'[') {
        let after = rest.iter().position(|&byte| byte == b'=')?;
        *rest = &rest[after + 1..];
    }
    *rest = rest.strip_prefix(b"{")?;
    to.push(b'[');
    if let Some(after) = rest.strip_prefix(b"}") {
        *rest = after;
        to.push(b']');
        return Some(rest.is_empty());
    }
    loop {
        match rest.first()? {
            b'{' => {
                write_array(rest, form, dimensions.checked_sub(1)?, to)?;
            }
            b'"' => {
                let value = quoted(rest)?;
                form.write(&value, to);
            }
            _ => {
                let end = rest.iter().position(|&byte| matches!(byte, b',' | b'}'))?;
                match str::from_utf8(&rest[..end]).ok()? {
                    "NULL" => to.extend_from_slice(b"null"),
                    value => form.write(value, to),
                }
                *rest = &rest[end..];
            }
        }
        let (&next, after) = rest.split_first()?;
        *rest = after;
        match next {
            b',' => to.push(b','),
            b'}' => {
                to.push(b']');
                return Some(rest.is_empty());
            }
            _ => return None,
        }
    }
}

/// Takes a quoted element.
fn quoted(rest: &mut &[u8]) -> Option<String> {
    let (mut value, mut at) = (Vec::new(), 1);
    loop {
        match rest.get(at)? {
            b'"' => break,
            b'\\' => {
                value.push(*rest.get(at + 1)?);
                at += 2;
            }
            &byte => {
                value.push(byte);
                at += 1;
            }
        }
    }
    *rest = &rest[at + 1..];
    String::from_utf8(value).ok()
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
