//! What the receiver took: rows parsed, keys remembered, ids counted once.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use twox_hash::XxHash3_64;

use super::faults::FieldValue;

/// Keys that are remembered: far more than a sender has under way.
const KEYS_MAX: usize = 100_000;
/// Ids that are told apart, as 64-bit hashes: some 300 MB. Of 28 million, two share a hash with a probability of 2 in 100 000.
/// Further ids are not remembered, and every row of theirs counts as new.
const IDS_MAX: usize = 28_000_000;
/// Rows that are kept to be shown, and how much of each.
const LAST_ROWS: usize = 100;
const LAST_ROW_BYTES: usize = 4096;

/// What a receiver took so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests of any outcome.
    pub requests: u64,
    /// Rows in requests that were taken, a repeated key not counted again.
    pub rows: u64,
    /// Rows with different `_id`s (rows without one count each).
    pub effective_rows: u64,
    /// Rows whose `_id` had come before, in a request with another key.
    pub duplicate_ids: u64,
    /// Requests whose key had come before with the same body.
    pub duplicate_keys: u64,
    /// Requests whose key had come before with another body (422).
    pub key_conflicts: u64,
    /// Requests answered with 400.
    pub refused: u64,
    /// Requests that were failed on purpose.
    pub failed: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, rows, effective_rows, duplicate_ids, duplicate_keys, key_conflicts, refused, failed } = self;
        write!(
            f,
            "{effective_rows} rows by _id ({rows} taken, {duplicate_ids} came again) in {requests} requests \
             ({duplicate_keys} repeated, {key_conflicts} in conflict, {refused} refused, {failed} failed on purpose)"
        )
    }
}

/// The counts and what is remembered for them.
#[derive(Debug, Default)]
pub(super) struct Book {
    counts: Counts,
    /// The hash of the body by the hash of its key, and the keys in order of their coming.
    keys: HashMap<u64, u64>,
    keys_in_order: VecDeque<u64>,
    ids: HashSet<u64>,
    /// The newest last.
    last: VecDeque<String>,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    Before,
    OtherBody,
}

/// A row of a body: its text, and its `_id` if it has one.
#[derive(Debug)]
pub(super) struct Row<'a> {
    text: &'a str,
    id: Option<Cow<'a, str>>,
}

impl Book {
    /// Takes the rows of a body, once for each key.
    pub(super) fn take(&mut self, key: Option<&[u8]>, body: &[u8], rows: &[Row<'_>], print: bool) -> Taken {
        self.counts.requests += 1;
        if let Some(key) = key {
            let (key, body) = (XxHash3_64::oneshot(key), XxHash3_64::oneshot(body));
            match self.keys.insert(key, body) {
                Some(before) if before == body => {
                    self.counts.duplicate_keys += 1;
                    return Taken::Before;
                }
                Some(before) => {
                    self.keys.insert(key, before);
                    self.counts.key_conflicts += 1;
                    return Taken::OtherBody;
                }
                None => self.keys_in_order.push_back(key),
            }
            if self.keys_in_order.len() > KEYS_MAX
                && let Some(oldest) = self.keys_in_order.pop_front()
            {
                self.keys.remove(&oldest);
            }
        }
        for row in rows {
            self.counts.rows += 1;
            let is_new = match &row.id {
                Some(id) if self.ids.len() < IDS_MAX => self.ids.insert(XxHash3_64::oneshot(id.as_bytes())),
                Some(id) => !self.ids.contains(&XxHash3_64::oneshot(id.as_bytes())),
                None => true,
            };
            *(if is_new { &mut self.counts.effective_rows } else { &mut self.counts.duplicate_ids }) += 1;
            if print {
                println!("{}", row.text);
            }
        }
        for row in &rows[rows.len().saturating_sub(LAST_ROWS)..] {
            if self.last.len() == LAST_ROWS {
                self.last.pop_front();
            }
            self.last.push_back(row.text[..row.text.floor_char_boundary(LAST_ROW_BYTES)].to_owned());
        }
        Taken::New
    }

    /// Counts a request that was answered with 400.
    pub(super) fn refused(&mut self) {
        self.counts.requests += 1;
        self.counts.refused += 1;
    }

    /// Counts a request that was failed on purpose.
    pub(super) fn failed(&mut self) {
        self.counts.requests += 1;
        self.counts.failed += 1;
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// The last rows, the newest first.
    pub(super) fn last_rows(&self, limit: usize) -> Vec<String> {
        self.last.iter().rev().take(limit).cloned().collect()
    }
}

/// The rows of a body: an array of objects, or objects one after the other. `Err` says what is wrong with it, for the answer.
pub(super) fn parse<'a>(body: &'a [u8], refuse: Option<&FieldValue>) -> Result<Vec<Row<'a>>, String> {
    let wrong = |error: serde_json::Error| format!("this is no JSON: {error}\n");
    let texts: Vec<&'a RawValue> = if body.trim_ascii_start().first() == Some(&b'[') {
        serde_json::from_slice(body).map_err(wrong)?
    } else {
        serde_json::Deserializer::from_slice(body).into_iter().collect::<Result<_, _>>().map_err(wrong)?
    };
    let mut rows = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().map(RawValue::get).enumerate() {
        if !text.starts_with('{') {
            return Err(format!("row {index} is no object\n"));
        }
        if refuse.is_some_and(|refuse| has(text, refuse)) {
            return Err(format!("row {index} is refused: {}\n", &text[..text.floor_char_boundary(200)]));
        }
        rows.push(Row { text, id: id(text)? });
    }
    Ok(rows)
}

/// A row's `_id`, when it is a text. Most come first and without an escape, so that nothing needs to be parsed again.
fn id(text: &str) -> Result<Option<Cow<'_, str>>, String> {
    #[derive(Deserialize)]
    struct WithId<'a> {
        #[serde(borrow, default, rename = "_id")]
        id: Option<Cow<'a, str>>,
    }
    if let Some(rest) = text.strip_prefix(r#"{"_id":""#)
        && let Some(end) = memchr::memchr2(b'"', b'\\', rest.as_bytes())
        && rest.as_bytes()[end] == b'"'
    {
        return Ok(Some(Cow::Borrowed(&rest[..end])));
    }
    let row: WithId<'_> = serde_json::from_str(text).map_err(|error| format!("the _id of a row is no text: {error}\n"))?;
    Ok(row.id)
}

fn has(text: &str, wanted: &FieldValue) -> bool {
    let row: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    match row.get(&wanted.field) {
        Some(serde_json::Value::String(value)) => *value == wanted.value,
        Some(value) => serde_json::from_str::<serde_json::Value>(&wanted.value).is_ok_and(|wanted| wanted == *value),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(body: &str) -> Result<Vec<Option<String>>, String> {
        Ok(parse(body.as_bytes(), None)?.into_iter().map(|row| row.id.map(Cow::into_owned)).collect())
    }

    #[test]
    fn arrays_lines_and_single_objects_are_rows_and_the_rest_is_refused() {
        let some = |id: &str| Some(id.to_owned());
        for (body, expected) in [
            (r#"[{"_id":"a","n":1},{"n":2,"_id":"b\"c"}]"#, vec![some("a"), some("b\"c")]),
            ("{\"_id\":\"a\"}\n{\"_id\":null}\n", vec![some("a"), None]),
            (r#" {"x":{"_id":"inner"}}"#, vec![None]),
            ("[]", vec![]),
        ] {
            assert_eq!(ids(body).unwrap(), expected, "{body}");
        }
        for body in ["[1]", "nonsense", r#"[{"_id":"a"}"#, r#"{"_id":"a"} x"#, r#"{"_id":7}"#, "\u{0}"] {
            assert!(ids(body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_key_counts_once_and_a_row_counts_by_its_id() {
        let mut book = Book::default();
        let mut take = |key: &str, body: &str| {
            book.take(Some(key.as_bytes()), body.as_bytes(), &parse(body.as_bytes(), None).unwrap(), false)
        };
        assert_eq!(take("1", r#"[{"_id":"a"},{"_id":"b"}]"#), Taken::New);
        assert_eq!(take("1", r#"[{"_id":"a"},{"_id":"b"}]"#), Taken::Before);
        assert_eq!(take("1", r#"[{"_id":"a"}]"#), Taken::OtherBody);
        assert_eq!(take("1", r#"[{"_id":"a"},{"_id":"b"}]"#), Taken::Before);
        assert_eq!(take("2", r#"[{"_id":"b"},{"_id":"c"},{}]"#), Taken::New);
        let expected = Counts {
            requests: 5,
            rows: 5,
            effective_rows: 4,
            duplicate_ids: 1,
            duplicate_keys: 2,
            key_conflicts: 1,
            ..Counts::default()
        };
        assert_eq!(book.counts(), expected);
        assert_eq!(book.last_rows(2), ["{}", r#"{"_id":"c"}"#]);
    }

    #[test]
    fn keys_are_forgotten_in_their_order() {
        let mut book = Book::default();
        for key in 0..KEYS_MAX + 10 {
            book.take(Some(&key.to_le_bytes()), b"", &[], false);
        }
        assert_eq!((book.keys.len(), book.keys_in_order.len()), (KEYS_MAX, KEYS_MAX));
    }
}
