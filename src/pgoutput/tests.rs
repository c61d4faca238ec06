//! Messages made by hand, whole and cut short; and any bytes at all.

use proptest::prelude::*;

use super::{Change, Malformed, Message, Op, Tuple, Value};

fn relation() -> Vec<u8> {
    let mut bytes = vec![b'R', 0, 0, 0x40, 1];
    bytes.extend_from_slice(b"public\0events\0d\0\x02");
    bytes.extend_from_slice(b"\x01id\0\0\0\0\x14\xff\xff\xff\xff");
    bytes.extend_from_slice(b"\0name\0\0\0\0\x19\xff\xff\xff\xff");
    bytes
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = vec![b't'];
    bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

fn tuple(kind: u8, values: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(values.len() as u16).to_be_bytes());
    bytes.extend(values.concat());
    bytes
}

fn change(op: Op, body: &[u8]) -> Change<'_> {
    Change { op, generation: 3, lsn: 7, commit_lsn: 9, before_lsn: 8, commit_us: -1, xid: 77, body }
}

#[test]
fn a_relation_names_the_table_and_its_columns() {
    let bytes = relation();
    let Ok(Message::Relation(relation)) = Message::parse(&bytes) else { panic!("no relation") };
    assert_eq!((relation.id, relation.schema.as_str(), relation.name.as_str()), (0x4001, "public", "events"));
    let columns: Vec<_> = relation.columns.iter().map(|c| (c.name.as_str(), c.is_key, c.type_id, c.type_modifier)).collect();
    assert_eq!(columns, [("id", true, 20, -1), ("name", false, 25, -1)]);
}

#[test]
fn a_change_is_read_as_it_was_written_with_its_old_and_new_row() {
    let new = [text("1"), vec![b'u']];
    let old = [text("0"), vec![b'n']];
    let both = [tuple(b'K', &old), tuple(b'N', &new)].concat();
    let mut bytes = Vec::new();
    change(Op::Update, &both).write(&mut bytes);
    let read = Change::read(&bytes).unwrap();
    assert_eq!(read, change(Op::Update, &both));
    let rows = read.rows().unwrap();
    let values = |tuple: Option<Tuple<'_>>| tuple.unwrap().map(Result::unwrap).map(|v| format!("{v:?}")).collect::<Vec<_>>();
    assert!(!rows.old_is_whole);
    assert_eq!(values(rows.old), [format!("{:?}", Value::Text(b"0")), format!("{:?}", Value::Null)]);
    assert_eq!(values(rows.new), [format!("{:?}", Value::Text(b"1")), format!("{:?}", Value::Unchanged)]);
}

#[test]
fn what_is_cut_short_or_of_an_unknown_kind_is_refused() {
    let whole = relation();
    for length in 0..whole.len() {
        assert!(Message::parse(&whole[..length]).is_err(), "{length} bytes");
    }
    assert_eq!(Message::parse(b"?"), Err(Malformed("is of an unknown kind")));
    let body = tuple(b'N', &[text("abc")]);
    for length in 0..body.len() {
        let cut = change(Op::Insert, &body[..length]);
        let read = cut.rows().and_then(|rows| rows.new.into_iter().flatten().collect::<Result<Vec<_>, _>>());
        assert!(read.is_err(), "{length} bytes");
    }
    assert!(change(Op::Delete, &body).rows().is_err(), "a delete has no new row");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), first in 0usize..8) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = b"IUDRTBCM"[first];
        }
        let _ = Message::parse(&bytes);
        for op in [Op::Read, Op::Insert, Op::Update, Op::Delete, Op::Truncate] {
            if let Ok(rows) = change(op, &bytes).rows() {
                rows.old.into_iter().flatten().for_each(drop);
                rows.new.into_iter().flatten().for_each(drop);
            }
        }
        let _ = Change::read(&bytes);
    }
}
