//! Any bytes as a message in Protobuf's wire format: nothing panics, hangs or takes memory that the bytes only claim, each is a row or a fault,
//! and its neighbours come out whole.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use falaj_fuzz::decode::Reader;
use falaj_fuzz::registry::schemas::Known;
use falaj_fuzz::registry::{self, SchemaType};
use libfuzzer_sys::fuzz_target;

/// Every way in which a value can be written, read into a column and passed over.
const WRITER: &str = r#"syntax = "proto3";
    message Play {
        int64 id = 1; string name = 2; Kind kind = 3; google.protobuf.Timestamp at = 4; google.type.Date born = 5;
        confluent.type.Decimal price = 6; sint32 small = 7; fixed64 large = 8; sfixed32 part = 9; float single = 10; double share = 11;
        bool ok = 12; bytes raw = 13; google.protobuf.Int64Value maybe = 14; google.protobuf.StringValue text = 15;
        oneof one { string a = 16; int32 b = 17; string c = 18; }
        optional uint64 natural = 19; repeated int64 many = 20; Play next = 21;
        enum Kind { PLAY = 0; PAUSE = 1; A_KIND_WITH_A_LONG_NAME = 5; }
    }"#;
const IMPORTED: [&str; 2] = [
    r#"syntax = "proto3"; package google.type; message Date { int32 year = 1; int32 month = 2; int32 day = 3; }"#,
    r#"syntax = "proto3"; package confluent.type; message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }"#,
];

/// The id -1 and nothing else.
const GOOD: &[u8] = &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];

fn columns() -> SchemaRef {
    let columns = [
        ("id", DataType::Int64),
        ("name", DataType::Utf8View),
        ("kind", DataType::Utf8View),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("born", DataType::Date32),
        ("price", DataType::Decimal128(7, 3)),
        ("small", DataType::Int8),
        ("large", DataType::UInt64),
        ("part", DataType::Decimal128(12, 2)),
        ("single", DataType::Float32),
        ("share", DataType::Float64),
        ("ok", DataType::Boolean),
        ("raw", DataType::Utf8View),
        ("maybe", DataType::Int16),
        ("text", DataType::Utf8View),
        ("a", DataType::Utf8View),
        ("b", DataType::Float64),
        ("natural", DataType::UInt32),
        ("new", DataType::Int64),
    ];
    Arc::new(Schema::new(columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

fn reader() -> Reader {
    let schema = |text: &str| registry::Schema { schema_type: SchemaType::Protobuf, text: text.to_string() };
    let references = IMPORTED.iter().map(|text| (String::new(), schema(text))).collect();
    Reader::new(&Known { schema: schema(WRITER), references }, columns())
}

thread_local! {
    static READER: RefCell<Reader> = RefCell::new(reader());
}

fuzz_target!(|bytes: &[u8]| READER.with(|reader| reader.borrow_mut().check(bytes, GOOD)));
