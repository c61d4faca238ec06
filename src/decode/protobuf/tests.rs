//! Records in Protobuf's wire format, good and bad, through the framed decoder.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampNanosecondType, UInt64Type,
};
use proptest::prelude::*;

use crate::decode::Decoded;
use crate::decode::framed::registered::{self, Registered};
use crate::registry::SchemaType;

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// Decodes payloads of these schemas, ids 1 and on, into these columns.
fn decode(schemas: &[&str], columns: &[Field], payloads: &[Vec<u8>]) -> Decoded {
    decode_with(schemas, &[], columns, payloads)
}

/// The same of schemas that import others.
fn decode_with(schemas: &[&str], imported: &[&str], columns: &[Field], payloads: &[Vec<u8>]) -> Decoded {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
    let registry = Registered { schema_type: SchemaType::Protobuf, texts: texts(schemas), imported: texts(imported) };
    registered::decode(registry, columns, payloads)
}

fn codes(decoded: &Decoded) -> Vec<(i64, &'static str)> {
    decoded.dead.iter().map(|letter| (letter.offset, letter.code)).collect()
}

fn varint(mut rest: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn number(field: u64, value: i64) -> Vec<u8> {
    [varint(field << 3), varint(value as u64)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn fixed32(field: u64, value: u32) -> Vec<u8> {
    [varint(field << 3 | 5), value.to_le_bytes().to_vec()].concat()
}

fn fixed64(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

/// The first message of a schema.
fn framed(id: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    [vec![0, 0, 0, 0, id, 0], parts.concat()].concat()
}

const PLAIN: &str = r#"syntax = "proto3"; package shop;
    message Play { int64 id = 1; string title = 2; Kind kind = 3; enum Kind { PLAY = 0; PAUSE = 1; } }"#;

fn plain_columns() -> [Field; 3] {
    [field("id", DataType::Int64), field("title", DataType::Utf8View), field("kind", DataType::Utf8View)]
}

fn plain(id: i64) -> Vec<u8> {
    framed(1, &[number(1, id), bytes(2, b"a title of more than twelve bytes"), number(3, 1)])
}

#[test]
fn a_bad_record_costs_itself_alone_wherever_it_stands() {
    let good = plain(7);
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "empty"),
        (vec![0, 0, 0], "framing"),
        (b"{\"id\":1}".to_vec(), "framing"),
        (vec![0, 0, 0, 0, 1], "framing"),
        (vec![0, 0, 0, 0, 1, 4, 0], "framing"),
        (vec![0, 0, 0, 0, 1, 3], "framing"),
        (vec![0, 0, 0, 0, 1, 2, 2], "incompatible_schema"),
        (vec![0, 0, 0, 0, 9, 0], "unknown_schema"),
        (good[..good.len() - 1].to_vec(), "truncated"),
        (good[..9].to_vec(), "truncated"),
        (framed(1, &[varint(2 << 3 | 2), varint(u64::MAX)]), "truncated"),
        (framed(1, &[bytes(2, &[0xff, 0xfe])]), "utf8"),
        (framed(1, &[bytes(1, b"text")]), "wire_type"),
        (framed(1, &[number(2, 5)]), "wire_type"),
        (framed(1, &[vec![8], vec![0xff; 11]]), "number"),
        (framed(1, &[number(0, 1)]), "tag"),
        (framed(1, &[vec![9 << 3 | 6]]), "tag"),
        (framed(1, &[vec![9 << 3 | 4]]), "group"),
        (framed(1, &[vec![9 << 3 | 3, 8 << 3 | 4]]), "group"),
        (framed(1, &[vec![9 << 3 | 3; 1000]]), "group"),
        (framed(1, &[vec![9 << 3 | 3]]), "truncated"),
    ];
    for (payload, code) in &bad {
        for at in [0, 1, 2] {
            let mut payloads = vec![plain(1), plain(2)];
            payloads.insert(at, payload.clone());
            let decoded = decode(&[PLAIN], &plain_columns(), &payloads);
            assert_eq!(codes(&decoded), [(at as i64, *code)], "{payload:?}: {:?}", decoded.dead);
            assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
            assert_eq!(decoded.rows.column(1).as_string_view().value(1), "a title of more than twelve bytes");
            assert_eq!(decoded.rows.column(2).as_string_view().value(1), "PAUSE");
        }
    }
    let all: Vec<_> = bad.iter().map(|(payload, _)| payload.clone()).collect();
    let decoded = decode(&[PLAIN], &plain_columns(), &all);
    assert_eq!((decoded.dead.len(), decoded.rows.num_rows()), (bad.len(), 0));
}

#[test]
fn every_type_becomes_its_column_and_what_is_not_there_is_null_or_zero_as_the_schema_says() {
    let schema = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
        message M {
            int32 i = 1; sint64 s = 2; fixed32 f = 3; uint64 u = 4; float single = 5; double double = 6; bool ok = 7; bytes raw = 8;
            google.protobuf.Timestamp at = 9; google.protobuf.Int64Value wrapped = 10; optional int64 maybe = 11;
            oneof one { string a = 12; string b = 13; string c = 14; }
            repeated int64 many = 15; map<string, int64> map = 16; M inner = 17; E e = 18;
        }
        enum E { NONE = 0; ONE = 1; }"#;
    let columns = [
        field("i", DataType::Int32),
        field("s", DataType::Int64),
        field("f", DataType::Decimal128(20, 2)),
        field("u", DataType::UInt64),
        field("single", DataType::Float32),
        field("double", DataType::Float64),
        field("ok", DataType::Boolean),
        field("raw", DataType::Utf8View),
        field("at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        field("wrapped", DataType::Int64),
        field("maybe", DataType::Int64),
        field("a", DataType::Utf8View),
        field("b", DataType::Utf8View),
        field("e", DataType::Utf8View),
    ];
    let time = [number(1, -1), number(2, 500_000_000)].concat();
    let full = framed(
        1,
        &[
            number(1, 1),
            number(2, 3),
            fixed32(3, 7),
            number(4, -1),
            fixed32(5, 1.5f32.to_bits()),
            fixed64(6, (-2.5f64).to_bits()),
            number(7, 1),
            bytes(8, "é".as_bytes()),
            bytes(9, &time),
            bytes(10, &number(1, 5)),
            number(11, 0),
            bytes(12, b"a"),
            bytes(13, b"b"),
            bytes(15, &[1, 2, 3]),
            bytes(16, b""),
            bytes(17, b"anything"),
            number(18, 1),
            // The last one counts.
            number(1, -7),
            number(99, 1),
        ],
    );
    let cleared = framed(1, &[bytes(12, b"a"), bytes(14, b"c"), bytes(10, b""), number(18, 5)]);
    let decoded = decode(&[schema], &columns, &[full, framed(1, &[]), cleared]);
    assert_eq!(codes(&decoded), []);
    let column = |name: &str| decoded.rows.column_by_name(name).unwrap();
    let texts = |name: &str| column(name).as_string_view().iter().map(|text| text.map(str::to_string)).collect::<Vec<_>>();
    assert_eq!(column("i").as_primitive::<Int32Type>().values(), &[-7, 0, 0]);
    assert_eq!(column("s").as_primitive::<Int64Type>().values(), &[-2, 0, 0]);
    assert_eq!(column("f").as_primitive::<Decimal128Type>().values(), &[700, 0, 0]);
    assert_eq!(column("u").as_primitive::<UInt64Type>().values(), &[u64::MAX, 0, 0]);
    assert_eq!(column("single").as_primitive::<Float32Type>().values(), &[1.5, 0.0, 0.0]);
    assert_eq!(column("double").as_primitive::<Float64Type>().values(), &[-2.5, 0.0, 0.0]);
    assert_eq!(column("ok").as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(false)]);
    assert_eq!(texts("raw"), [Some("é".to_string()), Some(String::new()), Some(String::new())]);
    let times: Vec<_> = column("at").as_primitive::<TimestampNanosecondType>().iter().collect();
    assert_eq!(times, [Some(-500_000_000), None, None]);
    assert_eq!(column("wrapped").as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(5), None, Some(0)]);
    assert_eq!(column("maybe").as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(0), None, None]);
    assert_eq!((texts("a"), texts("b")), (vec![None; 3], vec![Some("b".to_string()), None, None]));
    assert_eq!(texts("e"), ["ONE", "NONE", "5"].map(|text| Some(text.to_string())));
}

#[test]
fn values_that_a_column_cannot_hold_are_refused_one_by_one() {
    let schema = r#"syntax = "proto2"; import "google/type/date.proto"; import "confluent/type/decimal.proto";
        message M { optional int64 small = 1 [default = 7]; optional google.type.Date day = 2; required bool ok = 3;
            optional confluent.type.Decimal price = 4; optional google.protobuf.Timestamp at = 5; }"#;
    let imported = [
        r#"syntax = "proto3"; package google.type; message Date { int32 year = 1; int32 month = 2; int32 day = 3; }"#,
        r#"syntax = "proto3"; package confluent.type; message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }"#,
    ];
    let columns = [
        field("small", DataType::Int8),
        field("day", DataType::Date32),
        field("price", DataType::Decimal128(6, 2)),
        field("ok", DataType::Boolean),
        field("at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ];
    let ok = number(3, 1);
    let day = |month: i64| bytes(2, &[number(1, 1969), number(2, month), number(3, 31)].concat());
    let price = |value: &[u8], scale: i64| bytes(4, &[bytes(1, value), number(3, scale)].concat());
    let at = |seconds: i64, nanos: i64| bytes(5, &[number(1, seconds), number(2, nanos)].concat());
    let payloads = [
        framed(1, &[ok.clone(), day(12), price(&[0xff, 0x85], 1)]),
        framed(1, &[number(1, 200), ok.clone()]),
        framed(1, &[ok.clone(), day(2)]),
        framed(1, &[]),
        framed(1, &[ok.clone(), price(&[1, 1], 3)]),
        framed(1, &[ok.clone(), price(&[0x7f; 17], 0)]),
        framed(1, &[ok.clone(), price(&[1], i32::MIN.into())]),
        framed(1, &[ok.clone(), at(0, 1_000_000_000)]),
        framed(1, &[ok.clone(), at(i64::MAX, 0)]),
        framed(1, &[ok.clone(), bytes(2, b"\xff")]),
    ];
    let decoded = decode_with(&[schema], &imported, &columns, &payloads);
    let expected = [
        (1, "out_of_range"),
        (2, "type_mismatch"),
        (3, "required"),
        (4, "out_of_range"),
        (5, "out_of_range"),
        (6, "out_of_range"),
        (7, "type_mismatch"),
        (8, "out_of_range"),
        (9, "truncated"),
    ];
    assert_eq!(codes(&decoded), expected, "{:?}", decoded.dead);
    assert_eq!(decoded.rows.column(1).as_primitive::<Date32Type>().values(), &[-1]);
    assert_eq!(decoded.rows.column(2).as_primitive::<Decimal128Type>().values(), &[-1230]);
}

#[test]
fn every_version_lands_in_the_tables_columns_and_one_that_cannot_is_named() {
    let schemas = [
        r#"syntax = "proto3"; message M { int32 n = 1; string old = 2; }"#,
        r#"syntax = "proto3"; message M { string n = 1; string old = 2; }"#,
        r#"syntax = "proto3"; message N { int64 n = 1; } message M { sint64 n = 1; string new = 2; int64 more = 3; }"#,
    ];
    let payloads = [
        framed(1, &[number(1, 1), bytes(2, b"first")]),
        framed(2, &[bytes(1, b"x"), bytes(2, b"second")]),
        // The second message of its file.
        [vec![0, 0, 0, 0, 3, 2, 2], number(1, 2), bytes(2, b"third"), number(3, 5)].concat(),
    ];
    let columns = [
        field("new", DataType::Utf8View),
        field("n", DataType::Int64),
        field("more", DataType::Int64),
        field("nowhere", DataType::Float64),
    ];
    let decoded = decode(&schemas, &columns, &payloads);
    assert_eq!(codes(&decoded), [(1, "incompatible_schema")], "{:?}", decoded.dead);
    assert_eq!(
        decoded.dead[0].message,
        "schema id 2 (version 2 of subject 'plays-value') does not fit the table: its field 'n' is a string, which column 'n' of type Int64 cannot hold"
    );
    let numbers = |column: usize| decoded.rows.column(column).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    let texts = decoded.rows.column(0).as_string_view().iter().flatten().collect::<Vec<_>>();
    assert_eq!((texts, numbers(1), numbers(2)), (vec!["first", "third"], vec![Some(1), Some(1)], vec![None, Some(5)]));
    assert_eq!(decoded.rows.column(3).null_count(), 2);
}

proptest! {
    #[test]
    fn any_bytes_are_rows_or_dead_letters_and_neighbours_stay(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8)) {
        let mut payloads = Vec::new();
        for body in bodies {
            payloads.push(plain(7));
            payloads.push([vec![0, 0, 0, 0, 1], body].concat());
        }
        let decoded = decode(&[PLAIN], &plain_columns(), &payloads);
        prop_assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), payloads.len());
        prop_assert!(decoded.dead.iter().all(|letter| letter.offset % 2 == 1));
        decoded.rows.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
    }
}
