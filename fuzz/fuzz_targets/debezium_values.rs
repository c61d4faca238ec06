//! Any text (the bytes from the ninth on) as a value of any type (the first four) with any modifier (the next four): what is written is
//! a record whose key and value are JSON, and nothing panics.

#![no_main]

use std::collections::BTreeMap;

use falaj_fuzz::debezium;
use falaj_fuzz::decode::pgoutput::records;
use falaj_fuzz::pgoutput::{Change, Op, Relation, RelationColumn};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    after: BTreeMap<&'a str, &'a RawValue>,
}

fuzz_target!(|bytes: &[u8]| {
    let Some((type_id, rest)) = bytes.split_first_chunk() else { return };
    let Some((type_modifier, text)) = rest.split_first_chunk() else { return };
    let (type_id, type_modifier) = (u32::from_be_bytes(*type_id), i32::from_be_bytes(*type_modifier));
    let columns = vec![RelationColumn { name: "v".to_string(), is_key: true, type_id, type_modifier }];
    let relation = Relation { id: 0, schema: String::new(), name: String::new(), identity: b'd', columns };
    let sent = [b"N\0\x01t", &(text.len() as u32).to_be_bytes()[..], text].concat();
    for body in [&sent, &b"N\0\x01u"[..]] {
        let change = Change { op: Op::Insert, generation: 0, lsn: 0, commit_lsn: 0, before_lsn: 0, commit_us: 0, xid: 0, body };
        let written = records(&change, &relation);
        let written = str::from_utf8(&written).unwrap();
        let records: Vec<_> = debezium::records(written).collect();
        let [debezium::Record { key: Some(key), value: Some(value), header: None }] = records[..] else {
            panic!("not one record: {written}")
        };
        let key: BTreeMap<&str, &RawValue> = serde_json::from_str(key).unwrap();
        let value: Envelope<'_> = serde_json::from_str(value).unwrap();
        assert_eq!(key["v"].get(), value.after["v"].get());
    }
});
