//! The fast path agrees with the slow one, and both with serde_json, on whatever there is.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::{Array, AsArray, EVENT, JsonDecoder, decode, payloads, schema};
use crate::batch::Stage;

/// Values that fit some column, nearly fit one, or are not JSON at all.
fn value() -> impl Strategy<Value = String> {
    let some = select(vec![
        "null",
        "true",
        "false",
        "0",
        "-1",
        "127",
        "128",
        "1.5",
        "1e2",
        "-0.0",
        "1E+400",
        "9223372036854775808",
        "01",
        "1.",
        "-",
        "nul",
        "NaN",
        "{}",
        "[]",
        "[1, {\"a\": \"b\"}]",
        "{\"a\":[true,null]}",
        "{\"a\" 1}",
        "[1,]",
        "\"\"",
        "\"play\"",
        "\"a text of more than twelve bytes\"",
        "\"żółw\"",
        "\"es\\ncaped\"",
        "\"\\u00e9\"",
        "\"\\ud83d\"",
        "\"\\q\"",
        "\"open",
        "\"2026-11-23T10:00:00.123Z\"",
        "\"2026-11-23 10:00:59+02\"",
        "\"2026-11-23T10:61:00Z\"",
        "\"2026-11-23\"",
        "\"12.345\"",
        "{\"s\":\"\\\"\"}",
        "{\"s\":\"\\u0000\"}",
    ]);
    prop_oneof![8 => some.prop_map(str::to_owned), 1 => any::<i64>().prop_map(|n| n.to_string()), 1 => any::<f64>().prop_map(|n| n.to_string())]
}

fn object() -> impl Strategy<Value = String> {
    let key = select(vec![
        "id",
        "event_type",
        "event_ts",
        "raw_payload",
        "tiny",
        "byte",
        "huge",
        "real",
        "double",
        "flag",
        "price",
        "day",
        "utf8",
        "large",
        "zoned",
        "x",
        "y",
        "",
        "ID",
        "\\u0069d",
        "żółw",
    ]);
    let blank = || select(vec!["", "", "", "", " ", "\n\t "]);
    let field = (blank(), key, blank(), blank(), value(), blank());
    let fields = vec(field, 0..8).prop_map(|fields| {
        fields
            .into_iter()
            .map(|(a, key, b, c, value, d)| format!("{a}\"{key}\"{b}:{c}{value}{d}"))
            .collect::<Vec<_>>()
            .join(",")
    });
    (blank(), fields, blank()).prop_map(|(before, fields, after)| format!("{before}{{{fields}}}{after}"))
}

/// An event of which some bytes were changed, the end cut off, or a part doubled.
fn broken_event() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![select(b"{}[]:,\"\\ \n0123456789-+.eEtfnuZ\0\x1f\x80\xc3\xff".to_vec()), any::<u8>()];
    let changes = vec((0..EVENT.len(), byte), 0..3);
    (
        changes,
        prop_oneof![3 => Just(EVENT.len()), 1 => 0..EVENT.len()],
        prop_oneof![4 => Just(None), 1 => (0..EVENT.len()).prop_map(Some)],
    )
        .prop_map(|(changes, length, doubled)| {
            let mut event = EVENT.as_bytes().to_vec();
            changes.into_iter().for_each(|(at, byte)| event[at] = byte);
            event.truncate(length);
            if let Some(from) = doubled.filter(|&from| from < event.len()) {
                event.extend_from_within(from..);
            }
            event
        })
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => Just(EVENT.as_bytes().to_vec()),
        3 => object().prop_map(String::into_bytes),
        3 => broken_event(),
        1 => (object(), any::<prop::sample::Index>()).prop_map(|(text, at)| text.as_bytes()[..at.index(text.len())].to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn both_paths_make_the_same_of_every_record(records in vec(record(), 1..12)) {
        let mut fast = JsonDecoder::new(schema()).expect("schema");
        let mut slow = JsonDecoder::new(schema()).expect("schema");
        slow.fast = false;
        // Twice, so that the second batch meets what the first has taught.
        for _ in 0..2 {
            let batch = payloads(records.iter().map(Vec::as_slice));
            let (fast, slow) = (decode(&mut fast, batch.clone()), decode(&mut slow, batch));
            prop_assert_eq!(&fast.dead, &slow.dead);
            prop_assert_eq!(&fast.offsets, &slow.offsets);
            prop_assert_eq!(&fast.rows, &slow.rows);
        }
    }

    #[test]
    fn what_serde_json_reads_as_an_object_is_never_refused_by_its_syntax(records in vec(record(), 1..4)) {
        let decoded = decode(&mut JsonDecoder::new(schema()).expect("schema"), payloads(records.iter().map(Vec::as_slice)));
        let ids = decoded.rows.column(0).as_primitive::<arrow::datatypes::Int64Type>();
        for (index, record) in records.iter().enumerate() {
            let offset = 100 + 10 * index as i64;
            let value = serde_json::from_slice::<Value>(record);
            match decoded.offsets.values().binary_search(&offset) {
                Ok(row) => match value {
                    Ok(value) => {
                        let id = ids.is_valid(row).then(|| ids.value(row));
                        // serde_json reads -0 as a float.
                        let read = |id: &Value| id.as_i64().or(id.as_f64().map(|zero| zero as i64));
                        prop_assert_eq!(value.get("id").and_then(read), id);
                    }
                    // A number that no float can hold is still JSON, and nobody's in a column that is not used.
                    Err(e) => prop_assert!(e.to_string().contains("number out of range"), "{}", e),
                },
                Err(_) => {
                    let decode = decoded.dead.iter().any(|letter| letter.offset == offset && letter.stage == Stage::Decode);
                    prop_assert!(!(decode && value.is_ok_and(|value| value.is_object())));
                }
            }
        }
    }
}
