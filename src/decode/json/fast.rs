//! The fast path: one walk over a payload, without an allocation, guided by the keys of an earlier one.
//!
//! It either adds the very row that the slow path would add, or gives `None`, after which the caller takes back what it
//! added and asks the slow path. It never decides that a record is bad.

use super::scan;
use crate::decode::rows::Rows;
use crate::decode::rows::text::PAYLOADS;
use crate::decode::rows::value::Value;

/// A template is for a payload with at most so many keys …
const STEPS_MAX: usize = 512;
/// … which take up at most so many bytes: a hostile record must not stay in memory.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// A template that does not fit is replaced after so many records, not at once: producers that shuffle their keys would
/// make a new one for each record.
const PATIENCE_RECORDS: u32 = 64;

/// What stood between the values of an earlier payload: `{"id":`, then `,"user_id":`, and so on, blanks included.
#[derive(Debug, Default)]
pub(super) struct Template {
    /// All of it, one after the other.
    text: Vec<u8>,
    steps: Vec<Step>,
    /// How many records may still come before the template is replaced.
    patience: u32,
}

/// The text before one value.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Where it begins and ends in the template.
    from: usize,
    to: usize,
    /// Where the key begins and ends in there.
    key: (usize, usize),
    /// The column with that name, if there is one.
    column: Option<usize>,
}

/// What comes after a value, or after nothing.
enum Next {
    /// A key, and where its value begins.
    Key { from: usize, to: usize, value: usize },
    /// The end of the payload.
    End,
}

impl Template {
    /// Adds the row of the payload `bytes[from..]`, which is valid UTF-8. After `None` some columns may have it already.
    pub(super) fn read(&mut self, rows: &mut Rows, bytes: &[u8], from: usize) -> Option<()> {
        let row = rows.count;
        let mut at = from;
        let mut written = 0;
        let mut step = 0;
        let mut surprised = false;
        loop {
            let column;
            match self.steps.get(step) {
                Some(next) if matches(bytes, at, &self.text[next.from..next.to]) => {
                    at += next.to - next.from;
                    column = next.column;
                    step += 1;
                }
                _ => match separator(bytes, at, at == from)? {
                    Next::End => break,
                    Next::Key { from, to, value } => {
                        let key = &bytes[from..to];
                        at = value;
                        column = rows.column(key);
                        let ahead = self.position(step, key);
                        surprised |= ahead.is_none();
                        // The first step begins with a brace, so it must never be tried again.
                        step = ahead.map_or(step, |position| position + 1).max(1);
                    }
                },
            }
            at = scan::blanks(bytes, at);
            let Some(column) = column else {
                at = scan::skip(bytes, at, 1)?;
                continue;
            };
            let found = scan::value(bytes, at)?;
            let column = rows.columns.get_mut(column)?;
            // A key that comes twice is the slow path's affair.
            if column.len() != row {
                return None;
            }
            let text = &bytes[found.from..found.to];
            column.put(Value { shape: found.shape, text, buffer: PAYLOADS, offset: found.from }).ok()?;
            at = found.next;
            written += 1;
        }
        if written != rows.columns.len() {
            rows.fill().ok()?;
        }
        if surprised {
            self.replace(rows, bytes, from);
        }
        Some(())
    }

    /// Where `key` stands among the steps from `step` on.
    fn position(&self, step: usize, key: &[u8]) -> Option<usize> {
        let ahead = self.steps.get(step..)?.iter().position(|step| &self.text[step.key.0..step.key.1] == key)?;
        Some(step + ahead)
    }

    /// Learns the keys of the payload `bytes[from..]`, unless the present ones were learnt a short while ago.
    #[cold]
    fn replace(&mut self, rows: &Rows, bytes: &[u8], from: usize) {
        if self.patience > 0 {
            self.patience -= 1;
            return;
        }
        let mut learnt = Template { patience: PATIENCE_RECORDS, ..Template::default() };
        if learnt.learn(rows, bytes, from).is_some() {
            *self = learnt;
        } else {
            self.patience = PATIENCE_RECORDS;
        }
    }

    fn learn(&mut self, rows: &Rows, bytes: &[u8], from: usize) -> Option<()> {
        let mut at = from;
        while let Next::Key { from: key_from, to: key_to, value } = separator(bytes, at, at == from)? {
            let start = self.text.len();
            let length = value - at;
            if self.steps.len() == STEPS_MAX || start + length > TEXT_BYTES_MAX {
                return None;
            }
            self.text.extend_from_slice(&bytes[at..value]);
            let key = (start + key_from - at, start + key_to - at);
            self.steps.push(Step { from: start, to: start + length, key, column: rows.column(&bytes[key_from..key_to]) });
            at = scan::skip(bytes, value, 1)?;
        }
        Some(())
    }
}

/// Whether `text` stands at `at`. Written out, because a call to compare a dozen bytes costs more than comparing them.
#[inline]
fn matches(bytes: &[u8], at: usize, text: &[u8]) -> bool {
    let Some(there) = bytes.get(at..at + text.len()) else { return false };
    match (there.first_chunk::<8>(), text.first_chunk::<8>(), there.last_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(a), Some(b), Some(c), Some(d)) if text.len() <= 16 => a == b && c == d,
        _ => there == text,
    }
}

/// Reads `{"key":` or, when it is not the `first`, `,"key":`, or the end of the object and of the payload.
fn separator(bytes: &[u8], at: usize, first: bool) -> Option<Next> {
    let at = scan::blanks(bytes, at);
    let key = match (bytes.get(at)?, first) {
        (b'{', true) | (b',', false) => scan::blanks(bytes, at + 1),
        (b'}', false) => return end(bytes, at + 1),
        _ => return None,
    };
    if first && bytes.get(key) == Some(&b'}') {
        return end(bytes, key + 1);
    }
    if bytes.get(key) != Some(&b'"') {
        return None;
    }
    let to = scan::plain_string(bytes, key + 1)?;
    let colon = scan::blanks(bytes, to + 1);
    (bytes.get(colon) == Some(&b':')).then(|| Next::Key { from: key + 1, to, value: scan::blanks(bytes, colon + 1) })
}

fn end(bytes: &[u8], at: usize) -> Option<Next> {
    (scan::blanks(bytes, at) == bytes.len()).then_some(Next::End)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn what_producers_usually_write_stays_on_the_fast_path() {
        let fields = ["id", "name"].map(|name| Field::new(name, DataType::Utf8View, true));
        let mut rows = Rows::new(&Schema::new(fields.to_vec())).expect("schema");
        let mut template = Template::default();
        for (payload, fast) in [
            (r#"{"id":1,"x":{"a":["\"",null,true]},"name":"a"}"#, true),
            (r#"{"id":-2.5e3,"x":"a\nb","name":null}"#, true),
            (r#"{"id":3,"name":"a field less"}"#, true),
            (r#"{"x":0,"y":false,"id":4,"name":"other keys"}"#, true),
            (r#"{"name":"another order","id":5}"#, true),
            (r#" { "id" : 6 , "name" : "blanks" } "#, true),
            ("{}", true),
            (r#"{"id":7,"name":"es\ncaped"}"#, false),
            (r#"{"id":7,"x":"\u0041"}"#, false),
            (r#"{"id":7,"id":8}"#, false),
            (r#"{"id":7}{"id":8}"#, false),
        ] {
            let read = template.read(&mut rows, payload.as_bytes(), 0).is_some();
            assert_eq!(read, fast, "{payload}");
            rows.count += usize::from(read);
            rows.undo();
        }
    }

    #[test]
    fn a_template_is_replaced_after_some_records_and_stays_small() {
        let mut rows = Rows::new(&Schema::new(vec![Arc::new(Field::new("id", DataType::Int64, true))])).expect("schema");
        let mut template = Template::default();
        let mut read = |payload: &str| {
            template.read(&mut rows, payload.as_bytes(), 0).expect("fast");
            rows.count += 1;
            template.steps.len()
        };
        assert_eq!(read(r#"{"id":1}"#), 1);
        assert_eq!(read(r#"{"id":1,"x":2,"y":3}"#), 1);
        assert_eq!((0..PATIENCE_RECORDS).map(|_| read(r#"{"id":1,"x":2,"y":3}"#)).last(), Some(3));
        let hostile: String = (0..=STEPS_MAX).map(|key| format!(r#""k{key}":1,"#)).collect();
        let hostile = format!(r#"{{{hostile}"id":1}}"#);
        assert_eq!((0..2 * PATIENCE_RECORDS).map(|_| read(&hostile)).last(), Some(3));
    }
}
