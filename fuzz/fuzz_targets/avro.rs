//! Any bytes as a record in Avro's encoding: nothing panics, hangs or takes memory that the bytes only claim, each is a row or a fault, and
//! its neighbours come out whole.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use falaj_fuzz::decode::Reader;
use falaj_fuzz::registry::schemas::Known;
use falaj_fuzz::registry::{self, SchemaType};
use libfuzzer_sys::fuzz_target;

/// Every way in which a value can be written, read into a column and passed over; and a type that holds itself.
const WRITER: &str = r#"{"type": "record", "name": "Play", "fields": [
    {"name": "id", "type": "long"},
    {"name": "name", "type": ["null", "string"]},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["play", "pause"]}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "born", "type": ["null", {"type": "int", "logicalType": "date"}]},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
    {"name": "cost", "type": {"type": "fixed", "name": "Cost", "size": 3, "logicalType": "decimal", "precision": 6, "scale": 2}},
    {"name": "share", "type": "double"},
    {"name": "part", "type": "float"},
    {"name": "small", "type": "int"},
    {"name": "ok", "type": "boolean"},
    {"name": "raw", "type": "bytes"},
    {"name": "more", "type": {"type": "record", "name": "More", "fields": [
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "counts", "type": {"type": "map", "values": ["null", "long"]}},
        {"name": "none", "type": {"type": "array", "items": "null"}},
        {"name": "next", "type": ["null", "More"]}]}},
    {"name": "last", "type": ["null", "string", "long", "boolean"]}]}"#;

/// The id -1 and nothing else.
const GOOD: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn columns() -> SchemaRef {
    let columns = [
        ("id", DataType::Int64),
        ("name", DataType::Utf8View),
        ("kind", DataType::Utf8View),
        ("at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("born", DataType::Date32),
        ("price", DataType::Decimal128(6, 2)),
        ("cost", DataType::Decimal128(7, 3)),
        ("share", DataType::Float64),
        ("part", DataType::Float32),
        ("small", DataType::Int8),
        ("ok", DataType::Boolean),
        ("raw", DataType::Utf8View),
        ("last", DataType::Utf8View),
        ("new", DataType::Int64),
    ];
    Arc::new(Schema::new(columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

fn reader() -> Reader {
    let schema = registry::Schema { schema_type: SchemaType::Avro, text: WRITER.to_string() };
    Reader::new(&Known { schema, references: Vec::new() }, columns())
}

thread_local! {
    static READER: RefCell<Reader> = RefCell::new(reader());
}

fuzz_target!(|bytes: &[u8]| READER.with(|reader| reader.borrow_mut().check(bytes, GOOD)));
