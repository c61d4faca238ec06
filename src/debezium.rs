//! The text of the column `_debezium`: the records of one change, as Debezium's connector for Postgres would write them.
//!
//! Each record is a line: key, value, and maybe a header's name and value, with tabs between them. Key and value are JSON, in which
//! neither tabs nor line ends stand as they are; what is empty is not there. A record without a value is a tombstone.

use arrow::datatypes::{DataType, TimeUnit};

/// The column's name.
pub const COLUMN: &str = "_debezium";
/// The header that names the key under which a row goes on.
pub const NEW_KEY: &str = "__debezium.newkey";
/// The header that names the key under which a row was before.
pub const OLD_KEY: &str = "__debezium.oldkey";

/// What stands for a value that Postgres has not sent, since it did not change.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// The columns that a table of the format `debezium-json` may declare beside those of the row, each with its type.
pub const META: [(&str, DataType); 5] = [
    ("_op", DataType::Utf8View),
    ("_lsn", DataType::Int64),
    ("_commit_ts", DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ("_xid", DataType::Int64),
    ("_unchanged", DataType::Utf8View),
];

/// One record of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key, as JSON.
    pub key: Option<&'a str>,
    /// The envelope; `None`: a tombstone.
    pub value: Option<&'a str>,
    /// A header, by name.
    pub header: Option<(&'a str, &'a str)>,
}

/// The records of a text.
pub fn records(text: &str) -> impl Iterator<Item = Record<'_>> {
    text.split('\n').map(|line| {
        let mut parts = line.split('\t').map(|part| Some(part).filter(|part| !part.is_empty()));
        let mut part = || parts.next().flatten();
        let (key, value) = (part(), part());
        Record { key, value, header: part().zip(part()) }
    })
}

/// Appends a record without a value.
pub fn write_tombstone(key: &[u8], header: Option<(&str, &[u8])>, to: &mut Vec<u8>) {
    to.extend_from_slice(key);
    to.push(b'\t');
    write_header(header, to);
}

/// Appends the header of a record, which ends it.
pub fn write_header(header: Option<(&str, &[u8])>, to: &mut Vec<u8>) {
    if let Some((name, value)) = header {
        to.push(b'\t');
        to.extend_from_slice(name.as_bytes());
        to.push(b'\t');
        to.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_apart_as_they_were_put_together() {
        let mut text = b"{\"id\":1}\t{}".to_vec();
        write_header(Some((NEW_KEY, b"{\"id\":2}")), &mut text);
        text.push(b'\n');
        write_tombstone(b"{\"id\":1}", None, &mut text);
        text.extend_from_slice(b"\n\t{}\n");
        write_tombstone(b"", None, &mut text);
        let text = String::from_utf8(text).unwrap();
        let key = Some("{\"id\":1}");
        let expected = [
            Record { key, value: Some("{}"), header: Some((NEW_KEY, "{\"id\":2}")) },
            Record { key, value: None, header: None },
            Record { key: None, value: Some("{}"), header: None },
            Record { key: None, value: None, header: None },
        ];
        assert_eq!(records(&text).collect::<Vec<_>>(), expected);
    }
}
