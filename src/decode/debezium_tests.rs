//! Envelopes, whole, in part and none; with and without a schema.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};

use super::*;
use crate::position::Span;

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let mut fields = vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8View, true),
        Field::new("at", time, true),
        Field::new("day", DataType::Date32, true),
    ];
    fields.extend(META.map(|(name, data_type)| Field::new(name, data_type, true)));
    Arc::new(Schema::new(fields))
}

/// The rows as text, the dead letters' offsets and codes, and what was left out.
fn decoded(changes: Changes, payloads: &[Option<&str>]) -> (Vec<String>, Vec<(i64, &'static str)>, Vec<i64>) {
    let mut taken = Payloads { span: Span { partition: 0, from: 0, to: payloads.len() as i64 }, ..Payloads::default() };
    for (offset, payload) in payloads.iter().enumerate() {
        taken.push(offset as i64, payload.map(str::as_bytes));
    }
    let mut decoder = DebeziumDecoder::new(schema(), changes, TimeUnit::Microsecond).unwrap();
    let decoded = decoder.decode(taken).unwrap();
    assert_eq!(decoded.rows.num_rows(), decoded.offsets.len());
    let mut text = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut text);
    writer.write(&decoded.rows).unwrap();
    writer.finish().unwrap();
    let rows = String::from_utf8(text).unwrap().lines().map(str::to_string).collect();
    (rows, decoded.dead.iter().map(|letter| (letter.offset, letter.code)).collect(), decoded.tombstones)
}

const CREATED: &str = r#"{"before":null,"after":{"id":1,"name":"a","at":1748781296789012,"day":20240},"source":{"lsn":7,"txId":9,"ts_ms":5},"op":"c"}"#;
const DELETED: &str = r#"{"before":{"id":1,"name":null},"after":null,"source":{"ts_us":6000},"op":"d"}"#;

#[test]
fn rows_that_are_new_come_as_rows_and_the_other_changes_when_they_are_asked_for() {
    let updated = r#"{"schema":{"type":"struct"},"payload":{"before":null,"after":{"id":2,"at":"2025-06-01T12:34:56.789012Z"},"op":"u"}}"#;
    let truncated = r#"{"before":null,"after":null,"op":"t"}"#;
    let payloads = [Some(CREATED), Some(updated), Some(DELETED), None, Some(truncated), Some(r#"{"op":"m","message":{}}"#)];
    let created = r#"{"id":1,"name":"a","at":"2025-06-01T12:34:56.789012","day":"2025-06-01","_op":"c","_lsn":7,"_commit_ts":"1970-01-01T00:00:00.005","_xid":9}"#;
    let (rows, dead, left_out) = decoded(Changes::Inserts, &payloads);
    assert_eq!((rows, dead, left_out), (vec![created.to_string()], vec![], vec![1, 2, 3, 4, 5]));
    let (rows, dead, left_out) = decoded(Changes::All, &payloads);
    let expected = [
        created,
        r#"{"id":2,"at":"2025-06-01T12:34:56.789012","_op":"u"}"#,
        r#"{"id":1,"_op":"d","_commit_ts":"1970-01-01T00:00:00.006"}"#,
        r#"{"_op":"t"}"#,
    ];
    assert_eq!(rows, expected);
    assert_eq!((dead, left_out), (vec![], vec![3, 5]));
}

#[test]
fn what_the_connector_had_not_is_null_and_named() {
    let payload =
        r#"{"after":{"id":3,"name":"__debezium_unavailable_value","tags":["__debezium_unavailable_value"]},"op":"u"}"#;
    let (rows, dead, _) = decoded(Changes::All, &[Some(payload)]);
    assert_eq!((rows, dead), (vec![r#"{"id":3,"_op":"u","_unchanged":"name,tags"}"#.to_string()], vec![]));
}

#[test]
fn a_bad_envelope_or_row_is_dead_and_its_neighbours_go_on() {
    let bad = [
        (r#"{"id":1}"#, "not_an_envelope"),
        (r#"{"op":"x"}"#, "not_an_envelope"),
        (r#"{"op":"c","after":null}"#, "no_row"),
        (r#"{"op":"c"}"#, "no_row"),
        (r#"{"op":"c","after":[1]}"#, "not_an_object"),
        (r#"{"op":"c","after":{"id":"x"}}"#, "type_mismatch"),
        (r#"{"op":"c","after":{"at":1.5}}"#, "type_mismatch"),
        (r#"{"op":"c","after":{"id":1}"#, "syntax"),
        ("[]", "not_an_object"),
        ("7", "not_an_object"),
        ("", "empty"),
    ];
    for (payload, code) in bad {
        let (rows, dead, _) = decoded(Changes::Inserts, &[Some(CREATED), Some(payload), Some(CREATED)]);
        assert_eq!((rows.len(), dead), (2, vec![(1, code)]), "{payload}");
    }
}

#[test]
fn only_the_columns_that_are_used_are_decoded() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("_lsn", DataType::Int64, true)]));
    let mut decoder = DebeziumDecoder::new(schema, Changes::Inserts, TimeUnit::Millisecond).unwrap();
    let mut payloads = Payloads { span: Span { partition: 0, from: 0, to: 1 }, ..Payloads::default() };
    payloads.push(0, Some(CREATED.as_bytes()));
    let decoded = decoder.decode(payloads).unwrap();
    assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().value(0), 7);
}
