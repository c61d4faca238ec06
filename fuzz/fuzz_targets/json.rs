//! Any bytes as a payload of the format `json`: nothing panics, the fast path makes of them what the slow one does, serde_json says the same
//! of them, and their neighbours come out whole.

#![no_main]

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use falaj_fuzz::batch::{DeadLetter, Stage};
use falaj_fuzz::decode::{Decoded, Decoder, json_decoder};
use falaj_fuzz::payloads;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The columns of tests/json_corpus, but that the id may be missing.
fn schema() -> SchemaRef {
    let columns = [
        ("id", DataType::Int64),
        ("note", DataType::Utf8View),
        ("whole", DataType::Int64),
        ("tiny", DataType::Int8),
        ("byte", DataType::UInt8),
        ("huge", DataType::UInt64),
        ("single", DataType::Float32),
        ("wide", DataType::Float64),
        ("flag", DataType::Boolean),
        ("price", DataType::Decimal128(6, 2)),
        ("born", DataType::Date32),
        ("at_ns", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("at_ms", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ];
    Arc::new(Schema::new(columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

/// In other orders of keys, so that each begins where the keys of another were learnt.
const GOOD: [&[u8]; 3] = [
    br#"{"id":-1,"note":"a good neighbour","whole":7,"flag":true,"at_ns":"2026-11-23T10:00:00.5Z"}"#,
    br#"{"note":"another \u0041, escaped","x":[{"y":null}],"id":-2}"#,
    br#"{"id":-3}"#,
];

thread_local! {
    static SCHEMA: SchemaRef = schema();
}

fuzz_target!(|bytes: &[u8]| {
    let schema = SCHEMA.with(SchemaRef::clone);
    let [a, b, c] = GOOD;
    // The keys of the bytes are learnt, or another's are known when they come.
    for records in [&[bytes, a, bytes, c][..], &[b, bytes, a]] {
        let fast = decoded(&schema, records, true);
        let slow = decoded(&schema, records, false);
        assert_eq!(fast.dead, slow.dead);
        assert_eq!(fast.offsets, slow.offsets);
        assert_eq!(fast.rows, slow.rows);
        // Arrow makes all others only of values that fit.
        fast.rows.column(1).to_data().validate_full().unwrap();
        check(records, bytes, &fast);
    }
});

fn decoded(schema: &SchemaRef, records: &[&[u8]], fast: bool) -> Decoded {
    let decoded = json_decoder(schema, fast).decode(payloads(records)).unwrap();
    assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), records.len());
    assert_eq!(decoded.rows.num_rows(), decoded.offsets.len());
    decoded
}

/// Each record is in its place, and is what it has to be.
fn check(records: &[&[u8]], bytes: &[u8], decoded: &Decoded) {
    let mut offsets = decoded.offsets.values().iter().zip(0..).peekable();
    let mut dead = decoded.dead.iter().peekable();
    let mut is_judged = false;
    for (record, offset) in records.iter().zip(0i64..) {
        let row = offsets.next_if(|(at, _)| **at == offset).map(|(_, row)| row);
        match (row, GOOD.iter().position(|good| good == record)) {
            (Some(row), Some(good)) => assert_eq!(id(&decoded.rows, row), Some(-1 - good as i64)),
            // The same bytes are the same everywhere.
            (Some(row), None) if !std::mem::replace(&mut is_judged, true) => is_rightly_a_row(bytes, &decoded.rows, row),
            (Some(_), None) => assert!(decoded.dead.is_empty()),
            (None, _) => {
                let letter = dead.next_if(|letter| letter.offset == offset).unwrap();
                if !std::mem::replace(&mut is_judged, true) {
                    is_rightly_dead(bytes, letter);
                }
                assert_eq!(letter.code, decoded.dead[0].code);
            }
        }
    }
}

fn id(rows: &RecordBatch, row: usize) -> Option<i64> {
    let ids = rows.column(0).as_primitive::<Int64Type>();
    ids.is_valid(row).then(|| ids.value(row))
}

fn is_rightly_a_row(bytes: &[u8], rows: &RecordBatch, row: usize) {
    let value = match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => value,
        // What it says only where it makes a value of its own of it.
        Err(e) => {
            assert!(is_json(bytes), "{e}");
            return assert!(["number out of range", "recursion limit"].iter().any(|why| e.to_string().contains(why)), "{e}");
        }
    };
    assert!(value.is_object());
    // serde_json reads -0 as a float.
    let number = |id: &Value| id.as_i64().or(id.as_f64().map(|zero| zero as i64));
    assert_eq!(value.get("id").and_then(number), id(rows, row));
    let notes = rows.column(1).as_string_view();
    let note = notes.is_valid(row).then(|| notes.value(row));
    match value.get("note") {
        None | Some(Value::Null) => assert_eq!(note, None),
        Some(Value::String(text)) => assert_eq!(note, Some(text.as_str())),
        Some(_) => assert!(note.is_some_and(|note| is_json(note.as_bytes()))),
    }
    let flags = rows.column(8).as_boolean();
    assert_eq!(value.get("flag").and_then(Value::as_bool), flags.is_valid(row).then(|| flags.value(row)));
}

fn is_rightly_dead(bytes: &[u8], letter: &DeadLetter) {
    assert!(!letter.message.is_empty() && letter.message.len() < 500);
    let value = serde_json::from_slice::<Value>(bytes);
    match letter.code {
        "utf8" => assert!(str::from_utf8(bytes).is_err()),
        "empty" => assert!(bytes.trim_ascii().is_empty()),
        "truncated" | "trailing" => assert!(!is_json(bytes)),
        // Of halves of surrogate pairs serde_json says nothing where it makes no value.
        "syntax" => assert!(value.is_err()),
        "depth" => assert!(is_json(bytes) && value.is_err()),
        "not_an_object" => assert!(is_json(bytes) && !value.is_ok_and(|value| value.is_object())),
        _ => {
            assert_eq!(letter.stage, Stage::Schema);
            assert!(is_json(bytes));
        }
    }
}

fn is_json(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}
