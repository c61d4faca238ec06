//! Changes as the records that Debezium's connector for Postgres would write of them, with its JSON converter and without schemas: the
//! column `_debezium`.
//!
//! A change gives one record or more, each a line of the column's text (see [`crate::debezium`]). A row that goes is followed by a
//! tombstone; one whose key changes goes under the old key and is created under the new one, and headers name the other key.
//!
//! What differs from Debezium's: `source.version` and the time of processing (`ts_ms`, …) are falaj's; `source.name` is the slot's name;
//! rows of a snapshot all have `source.snapshot` `true`, no `txId`, and the place of the snapshot as `lsn`; a DATE without an end is the
//! last or first day that 32 bits can count to; a NULL stays NULL where Connect's converter would put the column's default; there are no headers `__debezium.context.*`, since no task of Connect writes them.

mod times;
mod values;

use crate::clock::Clock;
use crate::debezium::{NEW_KEY, OLD_KEY, write_header, write_tombstone};
use crate::pgoutput::{Change, Malformed, Op, Relation, RelationColumn, Tuple, Value};

use self::values::{Form, write_number, write_text};

/// Where changes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The slot, which stands for Debezium's `topic.prefix`.
    pub slot: String,
    /// The database.
    pub database: String,
}

/// Writes changes of one table.
pub(super) struct Envelopes {
    /// What `source` begins with, up to its time.
    head: Vec<u8>,
    /// `,"db":"…"`
    database: Vec<u8>,
    clock: Clock,
    now_ns: i64,
    /// For values of one change.
    old: Vec<u8>,
    new: Vec<u8>,
}

/// A relation, made ready to be written.
pub(super) struct Shape {
    columns: Vec<ShapeColumn>,
    /// `,"schema":"…","table":"…"`
    table: Vec<u8>,
}

struct ShapeColumn {
    /// `"name":`
    name: Vec<u8>,
    form: Form,
    is_key: bool,
}

impl Shape {
    pub(super) fn of(relation: &Relation) -> Self {
        let column = |column: &RelationColumn| {
            let mut name = Vec::new();
            write_text(&column.name, &mut name);
            name.push(b':');
            ShapeColumn { name, form: Form::of(column), is_key: column.is_key }
        };
        let mut table = Vec::from(*b",\"schema\":");
        write_text(&relation.schema, &mut table);
        table.extend_from_slice(b",\"table\":");
        write_text(&relation.name, &mut table);
        Self { columns: relation.columns.iter().map(column).collect(), table }
    }
}

type Values<'a> = Vec<Value<'a>>;

fn values(row: Option<Tuple<'_>>) -> Result<Option<Values<'_>>, Malformed> {
    row.map(Iterator::collect).transpose()
}

impl Envelopes {
    pub(super) fn new(origin: &Origin, clock: Clock) -> Self {
        let mut head = Vec::from(*b"\"source\":{\"version\":");
        write_text(concat!("falaj ", env!("CARGO_PKG_VERSION")), &mut head);
        head.extend_from_slice(b",\"connector\":\"postgresql\",\"name\":");
        write_text(&origin.slot, &mut head);
        let mut database = Vec::from(*b",\"db\":");
        write_text(&origin.database, &mut database);
        Self { head, database, clock, now_ns: 0, old: Vec::new(), new: Vec::new() }
    }

    /// A batch begins: its changes have one time of processing.
    pub(super) fn begin(&mut self) {
        self.now_ns = self.clock.now_ns();
    }

    /// Appends the records of `change`.
    pub(super) fn write(&mut self, change: &Change<'_>, shape: &Shape, to: &mut Vec<u8>) -> Result<(), Malformed> {
        let rows = change.rows()?;
        let (old, mut new) = (values(rows.old)?, values(rows.new)?);
        if let (Some(old), Some(new), true) = (&old, &mut new, rows.old_is_whole) {
            // What was not sent since it did not change stands in the old row.
            new.iter_mut().zip(old).filter(|(new, _)| **new == Value::Unchanged).for_each(|(new, old)| *new = *old);
        }
        let (mut old_key, mut new_key) = (std::mem::take(&mut self.old), std::mem::take(&mut self.new));
        old_key.clear();
        new_key.clear();
        old.iter().for_each(|old| shape.write_key(old, &mut old_key));
        new.iter().for_each(|new| shape.write_key(new, &mut new_key));
        let (old, new) = (old.as_ref(), new.as_ref());
        match change.op {
            Op::Truncate => self.record((b"", None), (None, None), change, shape, to),
            Op::Delete => {
                self.record((&old_key, None), (old, None), change, shape, to);
                to.push(b'\n');
                write_tombstone(&old_key, None, to);
            }
            Op::Update if old.is_some() && old_key != new_key => {
                let (gone, come) = (Change { op: Op::Delete, ..*change }, Change { op: Op::Insert, ..*change });
                self.record((&old_key, Some((NEW_KEY, &new_key))), (old, None), &gone, shape, to);
                to.push(b'\n');
                write_tombstone(&old_key, Some((NEW_KEY, &new_key)), to);
                to.push(b'\n');
                self.record((&new_key, Some((OLD_KEY, &old_key))), (None, new), &come, shape, to);
            }
            _ => self.record((&new_key, None), (old.filter(|_| rows.old_is_whole), new), change, shape, to),
        }
        (self.old, self.new) = (old_key, new_key);
        Ok(())
    }

    fn record(
        &self,
        (key, header): (&[u8], Option<(&str, &[u8])>),
        (before, after): (Option<&Values<'_>>, Option<&Values<'_>>),
        change: &Change<'_>,
        shape: &Shape,
        to: &mut Vec<u8>,
    ) {
        to.extend_from_slice(key);
        to.extend_from_slice(b"\t{\"before\":");
        shape.write_row(before, to);
        to.extend_from_slice(b",\"after\":");
        shape.write_row(after, to);
        to.push(b',');
        self.write_source(change, shape, to);
        to.extend_from_slice(b",\"transaction\":null,\"op\":\"");
        to.extend_from_slice(change.op.letter().as_bytes());
        to.push(b'"');
        write_times(self.now_ns, to);
        to.push(b'}');
        write_header(header, to);
    }

    fn write_source(&self, change: &Change<'_>, shape: &Shape, to: &mut Vec<u8>) {
        let field = |name: &str, number: i64, to: &mut Vec<u8>| {
            to.extend_from_slice(name.as_bytes());
            write_number(number, to);
        };
        let is_read = change.op == Op::Read;
        to.extend_from_slice(&self.head);
        field(",\"ts_ms\":", change.commit_us.div_euclid(1000), to);
        to.extend_from_slice(if is_read { b",\"snapshot\":\"true\"" } else { b",\"snapshot\":\"false\"" });
        to.extend_from_slice(&self.database);
        to.extend_from_slice(b",\"sequence\":\"[");
        match change.before_lsn {
            0 => to.extend_from_slice(b"null"),
            before => to.extend_from_slice(format!("\\\"{before}\\\"").as_bytes()),
        }
        to.extend_from_slice(format!(",\\\"{}\\\"]\"", change.lsn).as_bytes());
        field(",\"ts_us\":", change.commit_us, to);
        field(",\"ts_ns\":", change.commit_us.saturating_mul(1000), to);
        to.extend_from_slice(&shape.table);
        match is_read {
            true => to.extend_from_slice(b",\"txId\":null"),
            false => field(",\"txId\":", change.xid.into(), to),
        }
        to.extend_from_slice(format!(",\"lsn\":{},\"xmin\":null}}", change.lsn).as_bytes());
    }
}

impl Shape {
    /// The key as an object; nothing, where the table has none.
    fn write_key(&self, values: &Values<'_>, to: &mut Vec<u8>) {
        for (column, value) in self.columns.iter().zip(values).filter(|(column, _)| column.is_key) {
            to.push(if to.is_empty() { b'{' } else { b',' });
            column.write(value, to);
        }
        if !to.is_empty() {
            to.push(b'}');
        }
    }

    fn write_row(&self, values: Option<&Values<'_>>, to: &mut Vec<u8>) {
        let Some(values) = values else {
            to.extend_from_slice(b"null");
            return;
        };
        to.push(b'{');
        for (index, (column, value)) in self.columns.iter().zip(values).enumerate() {
            if index > 0 {
                to.push(b',');
            }
            column.write(value, to);
        }
        to.push(b'}');
    }
}

impl ShapeColumn {
    fn write(&self, value: &Value<'_>, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.name);
        match value {
            Value::Null => to.extend_from_slice(b"null"),
            Value::Unchanged => self.form.write_unavailable(to),
            Value::Text(text) => match simdutf8::basic::from_utf8(text) {
                Ok(text) => self.form.write(text, to),
                Err(_) => write_text(&String::from_utf8_lossy(text), to),
            },
        }
    }
}

/// When it was processed, in three units.
fn write_times(now_ns: i64, to: &mut Vec<u8>) {
    for (name, number) in [(",\"ts_ms\":", now_ns / 1_000_000), (",\"ts_us\":", now_ns / 1000), (",\"ts_ns\":", now_ns)] {
        to.extend_from_slice(name.as_bytes());
        write_number(number, to);
    }
}
