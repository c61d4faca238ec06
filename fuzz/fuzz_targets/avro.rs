//! Any bytes as a record in Avro's encoding: nothing panics, hangs or takes memory that the bytes only claim, each is a row or a fault, and
//! its neighbours come out whole.

#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../src/batch.rs"]
mod batch;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/headers.rs"]
mod headers;
#[path = "../../src/position.rs"]
mod position;

/// As in src, of what a schema is.
mod registry {
    pub(crate) enum SchemaType {
        Avro,
    }

    pub(crate) struct Schema {
        pub(crate) schema_type: SchemaType,
        pub(crate) text: String,
    }

    pub(crate) mod schemas {
        pub(crate) struct Known {
            pub(crate) schema: super::Schema,
            pub(crate) references: Vec<(String, super::Schema)>,
        }
    }
}

/// The same tree as in src, of the files that are needed: what is visible in it only, is so here.
#[path = "../../src/decode"]
mod decode {
    mod avro;
    /// Of which numbers in text need a part.
    mod json {
        pub(in crate::decode) mod scan;

        const LEVELS_MAX: usize = 128;
    }
    mod rows;

    /// As in src.
    mod framed {
        use crate::batch::Stage;

        #[derive(Debug, Clone)]
        pub(in crate::decode) struct Fault {
            pub(in crate::decode) stage: Stage,
            pub(in crate::decode) code: &'static str,
            pub(in crate::decode) message: String,
        }

        impl Fault {
            pub(in crate::decode) fn decode(code: &'static str, message: impl Into<String>) -> Self {
                Self { stage: Stage::Decode, code, message: message.into() }
            }

            pub(in crate::decode) fn schema(code: &'static str, message: impl Into<String>) -> Self {
                Self { stage: Stage::Schema, code, message: message.into() }
            }
        }
    }

    use arrow::array::RecordBatch;
    use arrow::datatypes::SchemaRef;

    use crate::registry::schemas::Known;

    /// Reads records one after the other, and gives the rows, and which records they are.
    pub(crate) fn read(writer: &Known, columns: &SchemaRef, records: &[&[u8]]) -> (RecordBatch, Vec<usize>) {
        let plan = avro::AvroPlan::new(writer, None, columns).unwrap();
        let mut rows = rows::Rows::new(columns).unwrap();
        let (mut bytes, mut good) = (Vec::new(), Vec::new());
        for (index, record) in records.iter().enumerate() {
            let from = bytes.len();
            bytes.extend_from_slice(record);
            match plan.read(&mut rows, &bytes, from) {
                Ok(()) => {
                    rows.count += 1;
                    good.push(index);
                }
                Err(fault) => {
                    assert!(!fault.code.is_empty() && fault.message.len() < 500, "{fault:?}");
                    rows.undo();
                }
            }
        }
        (rows.finish(columns, bytes).unwrap(), good)
    }
}

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use libfuzzer_sys::fuzz_target;

use registry::SchemaType;
use registry::schemas::Known;

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

thread_local! {
    static COLUMNS: SchemaRef = columns();
    static WRITTEN: Known =
        Known { schema: registry::Schema { schema_type: SchemaType::Avro, text: WRITER.to_string() }, references: Vec::new() };
}

fuzz_target!(|bytes: &[u8]| {
    let columns = COLUMNS.with(SchemaRef::clone);
    let records = [bytes, GOOD, bytes, bytes, GOOD];
    let (rows, good) = WRITTEN.with(|writer| decode::read(writer, &columns, &records));
    assert_eq!(rows.num_rows(), good.len());
    rows.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
    // The same bytes are the same everywhere.
    assert!(good == [1, 4] || good == [0, 1, 2, 3, 4], "{good:?}");
    let ids = rows.column(0).as_primitive::<Int64Type>();
    let neighbours = good.iter().zip(ids.values()).filter(|(index, _)| records[**index] == GOOD);
    neighbours.for_each(|(_, id)| assert_eq!(*id, -1));
});
