//! The contract as tables, each case at every place of a batch; and both paths against each other.

mod agree;
mod cases;
mod corpus;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;

use super::JsonDecoder;
use crate::batch::{Payloads, Stage};
use crate::decode::{Decoded, Decoder};

/// An event as they are shipped; it fits [`schema`] too.
const EVENT: &str = r#"{"id":1,"content_id":"c000123","user_id":"u1234567","event_type":"play","event_ts":"2026-11-23T10:00:00.123Z","duration_ms":12345,"device":"ios","raw_payload":{"session":"0123456789abcdef0123456789abcdef","app_version":"5.1.2","network":"wifi"}}"#;

/// A column of each kind, beside those of the event.
fn schema() -> SchemaRef {
    let nullable = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        nullable("id", DataType::Int64),
        nullable("event_type", DataType::Utf8View),
        nullable("event_ts", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        nullable("raw_payload", DataType::Utf8View),
        nullable("tiny", DataType::Int8),
        nullable("byte", DataType::UInt8),
        nullable("huge", DataType::UInt64),
        nullable("real", DataType::Float32),
        nullable("double", DataType::Float64),
        nullable("flag", DataType::Boolean),
        nullable("price", DataType::Decimal128(6, 2)),
        nullable("day", DataType::Date32),
        nullable("utf8", DataType::Utf8),
        nullable("large", DataType::LargeUtf8),
        nullable("zoned", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
    ]))
}

/// Payloads at offsets 100, 110, 120, …
fn payloads<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Payloads {
    let mut payloads = Payloads::default();
    for (index, record) in records.into_iter().enumerate() {
        payloads.push(100 + 10 * index as i64, Some(record));
    }
    payloads
}

/// Decodes, and checks what holds of every batch.
fn decode(decoder: &mut JsonDecoder, payloads: Payloads) -> Decoded {
    let records = payloads.len();
    let decoded = decoder.decode(payloads).expect("decodes");
    assert_eq!(decoded.rows.num_rows() + decoded.dead.len() + decoded.tombstones.len(), records);
    assert_eq!(decoded.offsets.len(), decoded.rows.num_rows());
    for column in decoded.rows.columns() {
        column.to_data().validate_full().expect("the array is sound");
    }
    decoded
}

/// The values of a row that are not NULL: `id=1 flag=true`.
fn show(rows: &RecordBatch, row: usize) -> String {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let cell = |(field, column): (&Arc<Field>, &ArrayRef)| {
        column.is_valid(row).then(|| format!("{}={}", field.name(), array_value_to_string(column, row).expect("shown")))
    };
    columns.filter_map(cell).collect::<Vec<_>>().join(" ")
}

const EVENT_ROW: &str = "id=1 event_type=play event_ts=2026-11-23T10:00:00.123 \
     raw_payload={\"session\":\"0123456789abcdef0123456789abcdef\",\"app_version\":\"5.1.2\",\"network\":\"wifi\"}";

/// `payload` becomes this row, or a dead letter with this code, wherever it stands among events.
fn check(payload: impl AsRef<[u8]>, expected: Result<&str, &str>) {
    let payload = payload.as_ref();
    let event = EVENT.as_bytes();
    for (batch, place) in [
        (vec![payload, event, event], "first"),
        (vec![event, payload, event], "middle"),
        (vec![event, event, payload], "last"),
        (vec![payload, payload, payload], "all"),
    ] {
        let text = String::from_utf8_lossy(&payload[..payload.len().min(200)]);
        let decoded = decode(&mut JsonDecoder::new(schema()).expect("schema"), payloads(batch.iter().copied()));
        let mut dead = decoded.dead.iter();
        let mut row = 0;
        for (index, record) in batch.iter().enumerate() {
            let offset = 100 + 10 * index as i64;
            let expected = if *record == event { Ok(EVENT_ROW) } else { expected };
            match expected {
                Ok(expected) => {
                    assert_eq!(decoded.offsets.values().get(row), Some(&offset), "{place}: {text} {:?}", decoded.dead);
                    assert_eq!(show(&decoded.rows, row), expected, "{place}: {text}");
                    row += 1;
                }
                Err(code) => {
                    let letter = dead.next().expect("a dead letter");
                    assert_eq!((letter.offset, letter.code), (offset, code), "{place}: {text}: {}", letter.message);
                    let schema_codes = ["type_mismatch", "out_of_range", "time", "null"];
                    let stage = if schema_codes.contains(&code) { Stage::Schema } else { Stage::Decode };
                    assert_eq!(letter.stage, stage);
                    assert!(letter.message.len() < 300, "{}", letter.message);
                }
            }
        }
    }
}

#[test]
fn tombstones_are_skipped_and_an_empty_payload_is_not_one() {
    let mut batch = Payloads::default();
    for (offset, payload) in [(1, None), (2, Some(EVENT)), (3, None), (4, Some("")), (5, Some(EVENT)), (6, None)] {
        batch.push(offset, payload.map(str::as_bytes));
    }
    let decoded = decode(&mut JsonDecoder::new(schema()).expect("schema"), batch);
    assert_eq!(decoded.offsets.values(), &[2, 5]);
    assert_eq!(decoded.tombstones.len(), 3);
    assert_eq!(decoded.dead.iter().map(|letter| (letter.offset, letter.code)).collect::<Vec<_>>(), [(4, "empty")]);
}

#[test]
fn without_columns_rows_are_counted() {
    let mut decoder = JsonDecoder::new(Arc::new(Schema::empty())).expect("schema");
    let records = [EVENT, "{}", "{", EVENT];
    let decoded = decode(&mut decoder, payloads(records.map(str::as_bytes)));
    assert_eq!((decoded.rows.num_rows(), decoded.rows.num_columns(), decoded.dead.len()), (3, 0, 1));
    assert_eq!(decode(&mut decoder, Payloads::default()).rows.num_rows(), 0);
}

#[test]
fn a_type_that_cannot_be_decoded_is_refused_by_name() {
    let list = DataType::new_list(DataType::Int64, true);
    let schema = Arc::new(Schema::new(vec![Field::new("tags", list, true)]));
    let error = JsonDecoder::new(schema).expect_err("refused");
    assert_eq!(error.kind(), crate::error::Kind::Sql);
    assert!(error.to_string().contains("'tags'"), "{error}");
}

#[test]
fn a_column_that_must_not_be_null_costs_only_the_record_without_it() {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let records = [r#"{"id":1}"#, r#"{"id":null}"#, "{}", r#"{"id":2}"#];
    let decoded = decode(&mut JsonDecoder::new(schema).expect("schema"), payloads(records.map(str::as_bytes)));
    assert_eq!(decoded.offsets.values(), &[100, 130]);
    for letter in &decoded.dead {
        assert_eq!((letter.stage, letter.code), (Stage::Schema, "null"));
        assert!(letter.message.contains("'id'"), "{}", letter.message);
    }
}

/// Decodes events with only this column of texts, and gives the memory that its views point into.
fn text_memory(column: &str) -> Vec<usize> {
    let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Utf8View, true)]));
    let decoded = decode(&mut JsonDecoder::new(schema).expect("schema"), payloads([EVENT.as_bytes(); 10]));
    decoded.rows.column(0).as_string_view().data_buffers().iter().map(|buffer| buffer.len()).collect()
}

#[test]
fn payloads_stay_in_memory_only_for_columns_that_use_much_of_them() {
    assert_eq!(text_memory("device"), [0usize; 0], "short texts are in the views");
    assert_eq!(text_memory("event_ts"), [240], "few bytes are copied");
    assert_eq!(text_memory("raw_payload"), [EVENT.len() * 10], "many are not");
}

#[test]
fn memory_that_columns_share_counts_once() {
    let memory = |columns: &[&str]| {
        let fields = columns.iter().map(|name| Field::new(*name, DataType::Utf8View, true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        decode(&mut JsonDecoder::new(schema).expect("schema"), payloads([EVENT.as_bytes(); 1000])).into_segment().bytes
    };
    assert!(memory(&["raw_payload", "event_ts"]) < memory(&["raw_payload"]) + 100 * EVENT.len());
}

#[test]
fn messages_say_where_and_what() {
    for (payload, message) in [
        ("{\"id\":1,\n\"x\":nope}", "the payload is not JSON: expected ident at byte 14"),
        ("{\"id\":1} {}", "the payload goes on after its JSON value, at byte 9; it must be one object"),
        ("{\"id\":", "the payload ends within its JSON value, after byte 6"),
        (" [1]", "the value at byte 1 is not a JSON object"),
        ("{\"id\":\"7\"}", "column 'id' is BIGINT, but byte 6 has \"7\""),
        ("{\"byte\":256}", "column 'byte' is TINYINT UNSIGNED, which cannot hold 256, at byte 8"),
        (
            "{\"event_ts\":\"2026-11-23T10:00:00\"}",
            "column 'event_ts' is TIMESTAMP, but \"2026-11-23T10:00:00\", at byte 12, has no offset from UTC; add Z or one such as +02:00",
        ),
    ] {
        let decoded = decode(&mut JsonDecoder::new(schema()).expect("schema"), payloads([payload.as_bytes()]));
        assert_eq!(decoded.dead[0].message, message);
    }
}
