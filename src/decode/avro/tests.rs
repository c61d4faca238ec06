//! Records in Avro's encoding, good and bad, through the framed decoder.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Float64Type, Int32Type, Int64Type, Schema as ArrowSchema, SchemaRef, TimeUnit,
    TimestampNanosecondType,
};
use proptest::prelude::*;

use super::AvroPlan;
use super::fast::Way;
use crate::decode::Decoded;
use crate::decode::framed::registered::{self, Registered};
use crate::decode::rows::Rows;
use crate::registry::id::SchemaId;
use crate::registry::schemas::Known;
use crate::registry::{Schema, SchemaType};

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"Play","namespace":"shop","fields":[{fields}]}}"#)
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn decode(schemas: &[String], columns: &[Field], payloads: &[Vec<u8>]) -> Decoded {
    let registry = Registered { schema_type: SchemaType::Avro, texts: schemas.to_vec(), imported: Vec::new() };
    registered::decode(registry, columns, payloads)
}

fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn text(value: &str) -> Vec<u8> {
    [long(value.len() as i64), value.as_bytes().to_vec()].concat()
}

fn framed(id: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    [vec![0, 0, 0, 0, id], parts.concat()].concat()
}

const PLAIN: &str = r#"{"name":"id","type":"long"},{"name":"title","type":"string"},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["play","pause"]}}"#;

fn plain(id: i64) -> Vec<u8> {
    framed(1, &[long(id), text("a title of more than twelve bytes"), long(1)])
}

#[test]
fn a_bad_record_costs_itself_alone_wherever_it_stands() {
    let columns = [field("id", DataType::Int64), field("title", DataType::Utf8View), field("kind", DataType::Utf8View)];
    let good = plain(7);
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "empty"),
        (vec![0, 0, 0], "framing"),
        (b"{\"id\":1}".to_vec(), "framing"),
        (good[..good.len() - 1].to_vec(), "truncated"),
        (good[..9].to_vec(), "truncated"),
        (good[..5].to_vec(), "truncated"),
        ([good.clone(), vec![0]].concat(), "trailing"),
        (framed(1, &[long(7), text("t"), long(2)]), "symbol"),
        (framed(1, &[long(7), text("t"), long(-1)]), "symbol"),
        (framed(1, &[long(7), long(2), vec![0xff, 0xfe], long(0)]), "utf8"),
        (framed(1, &[long(7), long(-3), long(0)]), "length"),
        (framed(1, &[long(7), long(i64::MAX), long(0)]), "truncated"),
        (framed(1, &[vec![0xff; 11]]), "number"),
        (framed(9, &[long(7)]), "unknown_schema"),
    ];
    for (payload, code) in &bad {
        for at in [0, 1, 2] {
            let mut payloads = vec![plain(1), plain(2)];
            payloads.insert(at, payload.clone());
            let decoded = decode(&[record(PLAIN)], &columns, &payloads);
            let dead: Vec<_> = decoded.dead.iter().map(|letter| (letter.offset, letter.code)).collect();
            assert_eq!(dead, [(at as i64, *code)], "{payload:?}: {:?}", decoded.dead);
            assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
            assert_eq!(decoded.rows.column(1).as_string_view().value(1), "a title of more than twelve bytes");
            assert_eq!(decoded.rows.column(2).as_string_view().value(1), "pause");
        }
    }
    let all: Vec<_> = bad.iter().map(|(payload, _)| payload.clone()).collect();
    let decoded = decode(&[record(PLAIN)], &columns, &all);
    assert_eq!((decoded.dead.len(), decoded.rows.num_rows()), (bad.len(), 0));
}

#[test]
fn every_type_becomes_its_column_and_null_stays_null() {
    let fields = r#"{"name":"d","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}]},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"f","type":["double","null"]},
        {"name":"skipped","type":{"type":"map","values":{"type":"array","items":["null","shop.Play"]}}},
        {"name":"day","type":{"type":"int","logicalType":"date"}},{"name":"small","type":["null","int","long"]}"#;
    let columns = [
        field("d", DataType::Decimal128(12, 3)),
        field("at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        field("f", DataType::Float64),
        field("day", DataType::Date32),
        field("small", DataType::Int32),
    ];
    let skipped = [long(1), text("key"), long(-2), long(2), long(0), long(0), long(0), long(0)].concat();
    let full = framed(
        1,
        &[
            [long(1), long(2), vec![0xff, 0x85]].concat(),
            long(1_700_000_000_000_001),
            [long(0), 2.5f64.to_le_bytes().to_vec()].concat(),
            skipped,
            long(-1),
            [long(2), long(-40_000)].concat(),
        ],
    );
    let empty = framed(1, &[long(0), long(-1), long(1), long(0), long(0), long(0)]);
    let large = framed(1, &[long(0), long(-1), long(1), long(0), long(0), [long(2), long(1 << 40)].concat()]);
    let decoded = decode(&[record(fields)], &columns, &[full, empty, large]);
    assert_eq!(decoded.dead.iter().map(|letter| (letter.offset, letter.code)).collect::<Vec<_>>(), [(2, "out_of_range")]);
    assert_eq!(decoded.rows.column(0).as_primitive::<Decimal128Type>().value(0), -1230);
    assert_eq!(decoded.rows.column(1).as_primitive::<TimestampNanosecondType>().values(), &[1_700_000_000_000_001_000, -1000]);
    assert_eq!(decoded.rows.column(2).as_primitive::<Float64Type>().value(0), 2.5);
    assert_eq!(decoded.rows.column(4).as_primitive::<Int32Type>().value(0), -40_000);
    assert!([0, 2, 4].iter().all(|&column| decoded.rows.column(column).is_null(1)));
}

#[test]
fn every_version_lands_in_the_tables_columns_and_one_that_cannot_is_named() {
    let schemas = [
        record(r#"{"name":"n","type":"int"},{"name":"old","type":"string"}"#),
        record(r#"{"name":"n","type":"string"},{"name":"old","type":"string"}"#),
        record(
            r#"{"name":"new","aliases":["old"],"type":"string"},{"name":"n","type":"long"},
            {"name":"more","type":"long","default":5},{"name":"word","type":"string","default":"a default of some length"}"#,
        ),
    ];
    let payloads = [
        framed(1, &[long(1), text("first")]),
        framed(2, &[text("x"), text("second")]),
        framed(3, &[text("third"), long(1 << 40), long(9), text("w")]),
    ];
    let columns = [
        field("new", DataType::Utf8View),
        field("n", DataType::Int64),
        field("more", DataType::Int64),
        field("word", DataType::Utf8View),
        field("nowhere", DataType::Float64),
    ];
    let decoded = decode(&schemas, &columns, &payloads);
    let [letter] = decoded.dead.as_slice() else { panic!("{:?}", decoded.dead) };
    assert_eq!((letter.offset, letter.code), (1, "incompatible_schema"));
    assert_eq!(
        letter.message,
        "schema id 2 (version 2 of subject 'plays-value') does not fit the table: its field 'n' is a string, which column 'n' of type Int64 cannot hold"
    );
    let texts = |column: usize| decoded.rows.column(column).as_string_view().iter().flatten().collect::<Vec<_>>();
    let numbers = |column: usize| decoded.rows.column(column).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!((texts(0), numbers(1), numbers(2)), (vec!["first", "third"], vec![1, 1 << 40], vec![5, 9]));
    assert_eq!(texts(3), ["a default of some length", "w"]);
    assert_eq!(decoded.rows.column(4).null_count(), 2);
    // Who still has the old name goes on when a field is renamed.
    let old = decode(&schemas, &[field("old", DataType::Utf8View)], &payloads);
    assert_eq!(old.rows.column(0).as_string_view().iter().flatten().collect::<Vec<_>>(), ["first", "second", "third"]);
}

#[test]
fn fields_that_nobody_asks_for_are_passed_over_as_they_are_written() {
    let other = ["\"long\"", "\"string\"", "\"bytes\"", "\"double\""];
    let value = |kind: &str| {
        if kind.contains("long") {
            long(-300)
        } else if kind.contains("double") {
            vec![0; 8]
        } else {
            text("é long enough")
        }
    };
    for (kind, null) in other.into_iter().flat_map(|kind| [(kind, 0), (kind, 1)]) {
        let union = if null == 0 { format!("[\"null\",{kind}]") } else { format!("[{kind},\"null\"]") };
        let schema = record(&format!(r#"{{"name":"skipped","type":{union}}},{{"name":"id","type":"long"}}"#));
        let full = framed(1, &[long(1 - null), value(kind), long(7)]);
        let cut = framed(1, &[long(1 - null), value(kind)]);
        let payloads = [framed(1, &[long(null), long(5)]), full.clone(), framed(1, &[long(2), long(1)]), cut, full];
        let decoded = decode(&[schema], &[field("id", DataType::Int64)], &payloads);
        assert_eq!(
            decoded.dead.iter().map(|letter| (letter.offset, letter.code)).collect::<Vec<_>>(),
            [(2, "branch"), (3, "truncated")]
        );
        assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[5, 7, 7], "{union}");
    }
}

#[test]
fn many_endless_fields_take_no_more_steps_than_one() {
    let many = r#"{"type":"array","items":"null"}"#;
    let fields: Vec<String> = (0..8).map(|n| format!(r#"{{"name":"many{n}","type":{many}}}"#)).collect();
    let schema = record(&format!(r#"{},{{"name":"n","type":"long"}}"#, fields.join(",")));
    let each = [long(400), long(0)].concat();
    let decoded = decode(&[schema], &[field("n", DataType::Int64)], &[framed(1, &[each.repeat(8), long(1)])]);
    assert_eq!(decoded.dead.iter().map(|letter| letter.code).collect::<Vec<_>>(), ["blocks"]);
}

#[test]
fn what_claims_to_be_endless_or_bottomless_ends() {
    let schemas = [record(
        r#"{"name":"many","type":{"type":"array","items":"null"}},{"name":"next","type":["null","Play"]},{"name":"n","type":"long"}"#,
    )];
    let columns = [field("n", DataType::Int64)];
    let endless = framed(1, &[long(i64::MAX)]);
    let deep = framed(1, &[[0u8, 2].repeat(100_000)]);
    let backwards = framed(1, &[long(i64::MIN), long(-1)]);
    let decoded = decode(&schemas, &columns, &[endless, deep, backwards]);
    assert_eq!(decoded.dead.iter().map(|letter| letter.code).collect::<Vec<_>>(), ["blocks", "depth", "length"]);
}

/// The fields that the fast path reads, as columns and passed over.
fn fast_fields() -> (Known, SchemaRef) {
    let kinds = [
        ("l", r#""long""#, DataType::Int64),
        ("s", r#""string""#, DataType::Utf8View),
        ("t", r#"{"type":"long","logicalType":"timestamp-millis"}"#, DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ];
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (name, kind, data_type) in kinds {
        for (suffix, kind) in
            [("", kind.to_string()), ("n", format!(r#"["null",{kind}]"#)), ("u", format!(r#"[{kind},"null"]"#))]
        {
            columns.push(field(&format!("{name}{suffix}"), data_type.clone()));
            fields.extend(["", "_"].map(|skipped| format!(r#"{{"name":"{skipped}{name}{suffix}","type":{kind}}}"#)));
        }
    }
    let schema = Schema { schema_type: SchemaType::Avro, text: record(&fields.join(",")), references: Vec::new() };
    let known = Known { id: SchemaId::Id(1), names: Vec::new(), schema, references: Vec::new() };
    (known, Arc::new(ArrowSchema::new(columns)))
}

/// What a plan makes of records: the rows, and which records they are.
fn read_all(plan: &AvroPlan, columns: &SchemaRef, records: &[Vec<u8>]) -> (RecordBatch, Vec<Option<String>>) {
    let (mut rows, bytes) = (Rows::new(columns).unwrap(), records.concat());
    let (mut from, mut said) = (0, Vec::new());
    for record in records {
        let to = from + record.len();
        let read = plan.read(&mut rows, &bytes, from, to);
        if read.is_ok() {
            rows.count += 1
        } else {
            rows.undo()
        }
        said.push(read.err().map(|fault| format!("{fault:?}")));
        from = to;
    }
    (rows.finish(columns, bytes).unwrap(), said)
}

proptest! {
    #[test]
    fn the_fast_path_does_what_the_slow_one_does(
        rows in prop::collection::vec((any::<i64>(), 0..63u32, "\\PC{0,20}", any::<u32>(), 0..400usize), 1..6),
    ) {
        let (known, columns) = fast_fields();
        let fast = AvroPlan::new(&known, None, &columns).unwrap();
        let mut slow = AvroPlan::new(&known, None, &columns).unwrap();
        slow.0.ways.fill(Way::Slow);
        let mut records = Vec::new();
        for (number, shift, word, flags, cut) in rows {
            // Numbers of every length; now and then a time that a column of nanoseconds cannot hold.
            let at_ms = if flags >> 26 & 7 == 0 { number >> shift } else { number >> shift.max(21) };
            let values = [long(number >> shift), text(&word), long(at_ms)];
            let mut record = Vec::new();
            for (kind, value) in values.into_iter().enumerate() {
                for (place, null) in [(0, None), (1, Some(0)), (2, Some(1))] {
                    for skipped in 0..2 {
                        let is_null = flags >> (kind * 6 + place * 2 + skipped) & 1 == 1;
                        match null {
                            None => record.extend_from_slice(&value),
                            Some(branch) if is_null => record.extend(long(branch)),
                            Some(branch) => record.extend([long(1 - branch), value.clone()].concat()),
                        }
                    }
                }
            }
            // One in eight is cut off, and one in eight has a byte too many of its branch.
            match flags >> 29 {
                0 => record.truncate(cut),
                1 => record.insert(cut.min(record.len()), 4),
                _ => {}
            }
            records.push(record);
        }
        prop_assert_eq!(read_all(&fast, &columns, &records), read_all(&slow, &columns, &records));
    }

    #[test]
    fn any_bytes_are_rows_or_dead_letters_and_neighbours_stay(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8)) {
        let fields = format!(r#"{PLAIN},{{"name":"more","type":["null",{{"type":"map","values":["string","shop.Play"]}}]}}"#);
        let columns = [field("id", DataType::Int64), field("title", DataType::Utf8View), field("kind", DataType::Utf8View)];
        let good = framed(1, &[long(7), text("a title of more than twelve bytes"), long(1), long(0)]);
        let mut payloads = Vec::new();
        for body in bodies {
            payloads.push(good.clone());
            payloads.push(framed(1, &[body]));
        }
        let decoded = decode(&[record(&fields)], &columns, &payloads);
        prop_assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), payloads.len());
        prop_assert!(decoded.dead.iter().all(|letter| letter.offset % 2 == 1));
        for index in 0..decoded.rows.num_rows() {
            let read = decoded.rows.column(1).as_string_view().value(index);
            prop_assert!(std::str::from_utf8(read.as_bytes()).is_ok());
        }
    }
}
