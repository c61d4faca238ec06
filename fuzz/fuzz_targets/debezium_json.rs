//! Any bytes as an envelope of Debezium's: nothing panics, each payload is a row, a dead letter or left out, and its neighbours come out
//! whole.

#![no_main]

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use falaj_fuzz::decode::debezium::{Changes, DebeziumDecoder};
use falaj_fuzz::decode::{Decoded, Decoder};
use falaj_fuzz::payloads;
use libfuzzer_sys::fuzz_target;

fn schema() -> SchemaRef {
    let columns = [
        ("id", DataType::Int64),
        ("name", DataType::Utf8View),
        ("at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("born", DataType::Date32),
        ("price", DataType::Decimal128(6, 2)),
        // As they are made.
        ("_op", DataType::Utf8),
        ("_lsn", DataType::Int64),
        ("_commit_ts", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("_xid", DataType::Int64),
        ("_unchanged", DataType::Utf8),
    ];
    Arc::new(Schema::new(columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

const GOOD: &[u8] =
    br#"{"before":null,"after":{"id":-1,"name":"a good neighbour"},"source":{"lsn":7,"txId":9,"ts_ms":5},"op":"c"}"#;

thread_local! {
    static SCHEMA: SchemaRef = schema();
}

fuzz_target!(|bytes: &[u8]| {
    let schema = SCHEMA.with(SchemaRef::clone);
    let records = [bytes, GOOD, bytes, GOOD];
    for changes in [Changes::Inserts, Changes::All] {
        let mut decoder = DebeziumDecoder::new(SchemaRef::clone(&schema), changes, TimeUnit::Microsecond).unwrap();
        check(&records, bytes, changes, &decoder.decode(payloads(&records)).unwrap());
    }
});

fn check(records: &[&[u8]], bytes: &[u8], changes: Changes, decoded: &Decoded) {
    let Decoded { rows, offsets, dead, tombstones, .. } = decoded;
    assert_eq!((rows.num_rows() + dead.len() + tombstones.len(), rows.num_rows()), (records.len(), offsets.len()));
    // Arrow makes all others only of values that fit.
    rows.column(1).to_data().validate_full().unwrap();
    let (ids, ops) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(5).as_string::<i32>());
    for (record, offset) in records.iter().zip(0i64..) {
        let row = offsets.values().iter().position(|at| *at == offset);
        let is_dead = dead.iter().any(|letter| letter.offset == offset);
        let is_left_out = tombstones.contains(&offset);
        assert_eq!(usize::from(row.is_some()) + usize::from(is_dead) + usize::from(is_left_out), 1, "{offset}");
        if *record == GOOD {
            assert_eq!(row.map(|row| (ids.value(row), ops.value(row))), Some((-1, "c")));
            continue;
        }
        // An envelope that is read is an object, whatever becomes of it.
        assert!(is_dead || bytes.trim_ascii_start().first() == Some(&b'{'));
        if let Some(row) = row {
            assert!(changes == Changes::All || matches!(ops.value(row), "c" | "r"));
        }
    }
}
