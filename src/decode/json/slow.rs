//! The slow path, which defines the truth: serde_json reads the payload, and every fault gets its code and sentence.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::LEVELS_MAX;
use crate::batch::Stage;
use crate::decode::rows::Rows;
use crate::decode::rows::column::Column;
use crate::decode::rows::number;
use crate::decode::rows::text::{PAYLOADS, RESOLVED};
use crate::decode::rows::value::Shape;
use crate::decode::rows::value::{Refusal, Value};

/// At most so many characters of a value are repeated in a message.
const SHOWN_CHARS: usize = 40;

/// What is wrong with a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) stage: Stage,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Fault {
    fn decode(code: &'static str, message: impl Into<String>) -> Self {
        Self { stage: Stage::Decode, code, message: message.into() }
    }
}

/// Adds the row of the payload `bytes[from..]`. After a fault some columns may have it already.
pub(super) fn read(rows: &mut Rows, bytes: &[u8], from: usize) -> Result<(), Fault> {
    let payload = std::str::from_utf8(&bytes[from..])
        .map_err(|e| Fault::decode("utf8", format!("the payload is not UTF-8 from byte {} on", e.valid_up_to())))?;
    let values = parse(payload, rows)?;
    check_levels_and_surrogates(payload.as_bytes())?;
    for (index, raw) in values.into_iter().enumerate() {
        // A RawValue is a slice of the payload, so the difference of their addresses is its position.
        let Some(raw) = raw else { continue };
        let at = raw.get().as_ptr().addr() - payload.as_ptr().addr();
        put(rows, index, raw.get(), from + at).map_err(|refusal| refused(&rows.columns[index], refusal, raw.get(), at))?;
    }
    rows.fill().map_err(|(index, refusal)| refused(&rows.columns[index], refusal, "", 0))
}

/// The text of each column's value; of a key that comes twice, the last.
fn parse<'a>(payload: &'a str, rows: &Rows) -> Result<Vec<Option<&'a RawValue>>, Fault> {
    let text = payload.trim_start_matches([' ', '\t', '\n', '\r']);
    if text.is_empty() {
        return Err(Fault::decode("empty", "the payload is empty; it must be one JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_str(payload);
    let object = text.starts_with('{');
    let values =
        if object { reader.deserialize_map(Fields(rows)) } else { IgnoredAny::deserialize(&mut reader).map(|_| Vec::new()) };
    let values = values.map_err(|e| not_json(&e, payload))?;
    if let Err(e) = reader.end() {
        let message =
            format!("the payload goes on after its JSON value, at byte {}; it must be one object", position(&e, payload));
        return Err(Fault::decode("trailing", message));
    }
    if !object {
        let at = payload.len() - text.len();
        return Err(Fault::decode("not_an_object", format!("the value at byte {at} is not a JSON object")));
    }
    Ok(values)
}

fn not_json(e: &serde_json::Error, payload: &str) -> Fault {
    if let Some(at) = wrong_escape_at_the_end(payload).filter(|_| e.is_eof()) {
        return Fault::decode("syntax", format!("the payload is not JSON: invalid escape at byte {at}"));
    }
    if e.is_eof() || ends_within_number(e, payload) {
        return Fault::decode("truncated", format!("the payload ends within its JSON value, after byte {}", payload.len()));
    }
    let text = e.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    Fault::decode("syntax", format!("the payload is not JSON: {what} at byte {}", position(e, payload)))
}

/// Where an escape stands that has other than digits in it, and fewer bytes behind it than four: serde_json says that the payload ends there.
fn wrong_escape_at_the_end(payload: &str) -> Option<usize> {
    let bytes = payload.as_bytes();
    let at = (bytes.len().saturating_sub(5)..bytes.len()).find(|&at| bytes[at..].starts_with(b"\\u"))?;
    let escaped = bytes[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1;
    (!escaped && !bytes[at + 2..].iter().all(u8::is_ascii_hexdigit)).then_some(at)
}

/// Whether it stopped at a number of which the payload's end cut off the rest: it takes that for a wrong one.
fn ends_within_number(e: &serde_json::Error, payload: &str) -> bool {
    let from = payload.trim_end_matches(|c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).len();
    position(e, payload) >= from && number::is_number(format!("{}0", &payload[from..]).as_bytes())
}

/// The byte, counted from 0, at which serde_json stopped; it counts lines and columns from 1.
fn position(e: &serde_json::Error, payload: &str) -> usize {
    let before: usize = payload.split_inclusive('\n').take(e.line().saturating_sub(1)).map(str::len).sum();
    (before + e.column().saturating_sub(1)).min(payload.len())
}

/// Collects the values of the columns and passes over all others.
struct Fields<'r>(&'r Rows);

#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut values = vec![None; self.0.columns.len()];
        while let Some(Key(key)) = map.next_key()? {
            let value = map.next_value()?;
            if let Some(index) = self.0.column(key.as_bytes()) {
                *values.get_mut(index).ok_or_else(|| de::Error::custom("a column is missing"))? = Some(value);
            }
        }
        Ok(values)
    }
}

/// Finds in valid JSON what serde_json lets pass in values that nobody reads.
fn check_levels_and_surrogates(json: &[u8]) -> Result<(), Fault> {
    let mut level = 0;
    let mut at = 0;
    let mut in_string = false;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if json.get(at + 1) == Some(&b'u') => {
                let low = || json.get(at + 6..at + 8).filter(|next| *next == b"\\u").and_then(|_| code_unit(json, at + 8));
                match code_unit(json, at + 2) {
                    Some(0xD800..0xDC00) if matches!(low(), Some(0xDC00..0xE000)) => at += 11,
                    Some(0xD800..0xE000) => {
                        return Err(Fault::decode("syntax", format!("the escape at byte {at} is half of a surrogate pair")));
                    }
                    _ => at += 5,
                }
            }
            b'\\' => at += 1,
            b'{' | b'[' if !in_string => {
                level += 1;
                if level > LEVELS_MAX {
                    let message = format!("the payload is nested deeper than {LEVELS_MAX} levels at byte {at}");
                    return Err(Fault::decode("depth", message));
                }
            }
            b'}' | b']' if !in_string => level -= 1,
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The UTF-16 code unit whose four digits begin at `at`.
fn code_unit(json: &[u8], at: usize) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(json.get(at..at + 4)?).ok()?, 16).ok()
}

/// Hands the value `raw`, which stands at `at` of all payloads, to a column.
fn put(rows: &mut Rows, index: usize, raw: &str, at: usize) -> Result<(), Refusal> {
    let shape = shape(raw);
    let string = raw.get(1..raw.len().saturating_sub(1)).filter(|_| shape == Shape::String);
    let column = rows.columns.get_mut(index).ok_or(Refusal::Type)?;
    match string {
        None => column.put(Value { shape, text: raw.as_bytes(), buffer: PAYLOADS, offset: at }),
        Some(text) if !text.contains('\\') => {
            column.put(Value { shape, text: text.as_bytes(), buffer: PAYLOADS, offset: at + 1 })
        }
        Some(_) => {
            // It cannot fail: the escapes have been checked.
            let text: String = serde_json::from_str(raw).map_err(|_| Refusal::Type)?;
            let offset = rows.resolved.len();
            rows.resolved.extend_from_slice(text.as_bytes());
            column.put(Value { shape, text: text.as_bytes(), buffer: RESOLVED, offset })
        }
    }
}

fn shape(raw: &str) -> Shape {
    match raw.as_bytes().first() {
        Some(b'"') => Shape::String,
        Some(b'{' | b'[') => Shape::Nested,
        Some(b't') => Shape::True,
        Some(b'f') => Shape::False,
        Some(b'n') => Shape::Null,
        _ => Shape::Number,
    }
}

fn refused(column: &Column, refusal: Refusal, raw: &str, at: usize) -> Fault {
    let (name, sql_type) = (column.field().name(), sql_type(column.field().data_type()));
    let shown: String = raw.chars().take(SHOWN_CHARS).collect();
    let more = if shown.len() < raw.len() { "…" } else { "" };
    let (code, message) = match refusal {
        Refusal::Null => ("null", format!("column '{name}' is NOT NULL, but the payload has no value for it")),
        Refusal::Type => {
            let advice = match (column.field().data_type(), shape(raw)) {
                (DataType::Timestamp(..), Shape::Number) => "; write times as text such as 2026-11-23T10:00:00Z",
                (_, Shape::Number) => "; whole numbers have neither a fraction nor an exponent",
                _ => "",
            };
            ("type_mismatch", format!("column '{name}' is {sql_type}, but byte {at} has {shown}{more}{advice}"))
        }
        Refusal::Range => {
            ("out_of_range", format!("column '{name}' is {sql_type}, which cannot hold {shown}{more}, at byte {at}"))
        }
        Refusal::Time(why) => ("time", format!("column '{name}' is {sql_type}, but {shown}{more}, at byte {at}, {why}")),
    };
    Fault { stage: Stage::Schema, code, message }
}

/// The type as people write it in SQL.
fn sql_type(data_type: &DataType) -> Cow<'static, str> {
    Cow::Borrowed(match data_type {
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Boolean => "BOOLEAN",
        DataType::Date32 => "DATE",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Decimal128(precision, scale) => return Cow::Owned(format!("DECIMAL({precision}, {scale})")),
        _ => "VARCHAR",
    })
}
