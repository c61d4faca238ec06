//! Every payload of `tests/json_corpus`: alone, among good records, and all one after the other; by both paths, and as serde_json has it.

#[path = "../../../../tests/json_corpus/mod.rs"]
#[allow(dead_code, reason = "some is for the test on a real topic only")]
mod json_corpus;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;
use json_corpus::{Case, Verdict, cases};

/// As `json_corpus::COLUMNS` declares them.
fn columns() -> SchemaRef {
    let nullable = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        nullable("note", DataType::Utf8View),
        nullable("whole", DataType::Int64),
        nullable("tiny", DataType::Int8),
        nullable("byte", DataType::UInt8),
        nullable("huge", DataType::UInt64),
        nullable("single", DataType::Float32),
        nullable("wide", DataType::Float64),
        nullable("flag", DataType::Boolean),
        nullable("price", DataType::Decimal128(6, 2)),
        nullable("born", DataType::Date32),
        nullable("at_ns", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        nullable("at_ms", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ]))
}

fn decoder(fast: bool) -> JsonDecoder {
    JsonDecoder { fast, ..JsonDecoder::new(columns()).expect("schema") }
}

/// What became of each record, in their order.
fn verdicts(decoder: &mut JsonDecoder, records: &[&[u8]]) -> Vec<Verdict> {
    let decoded = decode(decoder, payloads(records.iter().copied()));
    let mut verdicts: Vec<Option<Verdict>> = vec![None; records.len()];
    let index = |offset: i64| (offset - 100) as usize / 10;
    for (row, &offset) in decoded.offsets.values().iter().enumerate() {
        verdicts[index(offset)] = Some(Verdict::Row(shortened(show(&decoded.rows, row))));
    }
    for letter in decoded.dead {
        assert_eq!(letter.stage.as_str(), Case::stage(letter.code), "{letter:?}");
        assert!(letter.message.len() < 300, "{letter:?}");
        let before = verdicts[index(letter.offset)].replace(Verdict::Dead(letter.code.to_string()));
        assert_eq!(before, None, "a row and a letter, or two letters");
    }
    verdicts.into_iter().map(|verdict| verdict.expect("every record is a row or a letter")).collect()
}

/// As `rows.json` has long rows.
fn shortened(row: String) -> String {
    let length = row.chars().count();
    if length <= 200 { row } else { row.chars().take(60).collect::<String>() + &format!("… {length} characters") }
}

fn differences(found: impl Iterator<Item = (String, Verdict, Verdict)>) -> String {
    found
        .filter(|(_, expected, found)| expected != found)
        .map(|(name, expected, found)| format!("\n{name}: {expected:?} expected, {found:?} found"))
        .collect()
}

#[test]
fn every_payload_of_the_corpus_becomes_what_its_folder_says_alone_and_at_every_place_among_good_records() {
    const GOOD: &[u8] = br#"{"id":1,"note":"a good neighbour","flag":true,"at_ns":"2026-11-23T10:00:00Z"}"#;
    let row = Verdict::Row("id=1 note=a good neighbour flag=true at_ns=2026-11-23T10:00:00".to_string());
    let cases = cases();
    assert!(cases.len() >= 300, "{} payloads", cases.len());
    let mut wrong = Vec::new();
    for fast in [true, false] {
        for case in &cases {
            let (payload, verdict) = (case.payload.as_slice(), case.verdict.clone());
            let places: [&[&[u8]]; 4] = [&[payload], &[payload, GOOD, GOOD], &[GOOD, payload, GOOD], &[GOOD, GOOD, payload]];
            for records in places {
                let expected = records.iter().map(|record| if *record == GOOD { row.clone() } else { verdict.clone() });
                let found = verdicts(&mut decoder(fast), records);
                if !expected.clone().eq(found.iter().cloned()) {
                    wrong.push((case.name.clone(), expected.collect::<Vec<_>>(), found));
                    break;
                }
            }
        }
    }
    let shown: String =
        wrong.iter().map(|(name, expected, found)| format!("\n{name}: {expected:?} expected, {found:?} found")).collect();
    assert!(wrong.is_empty(), "{shown}");
}

#[test]
fn all_of_the_corpus_after_each_other_in_one_batch_is_the_same_forwards_backwards_and_again() {
    let mut cases = cases();
    for fast in [true, false] {
        let mut decoder = decoder(fast);
        for _ in 0..3 {
            let records: Vec<&[u8]> = cases.iter().map(|case| case.payload.as_slice()).collect();
            let found = verdicts(&mut decoder, &records);
            let both = cases.iter().zip(found).map(|(case, found)| (case.name.clone(), case.verdict.clone(), found));
            let differences = differences(both);
            assert!(differences.is_empty(), "{differences}");
            cases.reverse();
        }
    }
}

#[test]
fn serde_json_says_the_same_of_the_corpus_where_the_contract_says_no_more() {
    let mut wrong = String::new();
    for Case { name, payload, verdict } in cases() {
        let text = std::str::from_utf8(&payload);
        // It says whether the grammar holds, and nothing of levels, halves of pairs and numbers that no float holds.
        let grammar = text.is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        let value = serde_json::from_slice::<Value>(&payload);
        let agrees = match verdict {
            Verdict::Row(_) => match value {
                Ok(value) => value.is_object(),
                // The value of a deep one has a level less.
                Err(e) => grammar && ["number out of range", "recursion limit"].iter().any(|why| e.to_string().contains(why)),
            },
            Verdict::Dead(code) => match code.as_str() {
                "not_an_object" => grammar && !value.is_ok_and(|value| value.is_object()),
                "depth" => grammar && value.is_err_and(|e| e.to_string().contains("recursion limit")),
                "syntax" if name.starts_with("open/syntax/surrogate") => grammar && value.is_err(),
                "utf8" => text.is_err(),
                "empty" | "truncated" | "syntax" | "trailing" => text.is_ok() && !grammar && value.is_err(),
                _ => grammar && value.map_or_else(|e| e.to_string().contains("number out of range"), |value| value.is_object()),
            },
        };
        if !agrees {
            wrong += &format!("\n{name}");
        }
    }
    assert!(wrong.is_empty(), "serde_json says otherwise of{wrong}");
}

#[test]
fn poison_at_every_position_of_a_batch_costs_only_itself() {
    // More than the records after which the fast path learns new keys.
    const RECORDS: usize = 70;
    let good: Vec<String> = (0..RECORDS).map(|id| format!(r#"{{"id":{id},"note":"good number {id}","flag":true}}"#)).collect();
    let poison: [&[u8]; 8] = [
        b"",
        b"{",
        b"[{}",
        b"{\"id\":7}{\"id\":8}",
        b"\xff\xfe",
        b"{\"id\":7,\"note\":\"open",
        b"{\"id\":\"x\",\"y\":1}",
        b"{\"whole\":1}",
    ];
    for fast in [true, false] {
        let mut decoder = decoder(fast);
        for (at, poison) in (0..RECORDS).flat_map(|at| poison.map(|poison| (at, poison))) {
            let records = good.iter().enumerate().map(|(index, good)| if index == at { poison } else { good.as_bytes() });
            let decoded = decode(&mut decoder, payloads(records));
            assert_eq!(decoded.dead.iter().map(|letter| letter.offset).collect::<Vec<_>>(), [100 + 10 * at as i64]);
            let ids = decoded.rows.column(0).as_primitive::<arrow::datatypes::Int64Type>().values();
            assert!(ids.iter().copied().eq((0..RECORDS as i64).filter(|&id| id != at as i64)), "{at}: {ids:?}");
            let notes = decoded.rows.column(1).as_string_view().iter().zip(ids);
            notes.for_each(|(note, id)| assert_eq!(note, Some(format!("good number {id}").as_str())));
        }
    }
}
