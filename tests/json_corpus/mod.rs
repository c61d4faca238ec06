//! Payloads over the grammar of JSON and its limits, one file each, with what the decoder must make of each.
//!
//! | folder | what RFC 8259 says | what the decoder makes of it |
//! |---|---|---|
//! | `valid/` | it is JSON | the row that `rows.json` has for it |
//! | `invalid/<code>/` | it is none; or it is, but no object, or does not fit the columns | a dead letter with this code |
//! | `open/valid/` | implementations may differ | the row that `rows.json` has for it |
//! | `open/<code>/` | implementations may differ | a dead letter with this code |
//!
//! The columns are those of [`COLUMNS`]. Every row has an `id` of its own. The codes are those of `src/decode/json/mod.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The columns that the payloads are made for, as SQL.
pub(crate) const COLUMNS: &str = "id BIGINT NOT NULL, note VARCHAR, whole BIGINT, tiny TINYINT, byte TINYINT UNSIGNED, \
     huge BIGINT UNSIGNED, single REAL, wide DOUBLE, flag BOOLEAN, price DECIMAL(6, 2), born DATE, at_ns TIMESTAMP, at_ms TIMESTAMP(3)";

/// The codes of payloads that are not what the format says; those of all others do not fit the columns.
const DECODE: [&str; 7] = ["utf8", "empty", "truncated", "syntax", "trailing", "not_an_object", "depth"];

/// A payload.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its path in the corpus, such as `invalid/syntax/number_hex`.
    pub(crate) name: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) verdict: Verdict,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The row's values that are not NULL: `id=1001 flag=true`. Of more than 200 characters only the first 60, and how many there are.
    Row(String),
    /// The code of a dead letter.
    Dead(String),
}

impl Case {
    /// The code, if it becomes a dead letter.
    pub(crate) fn code(&self) -> Option<&str> {
        if let Verdict::Dead(code) = &self.verdict { Some(code) } else { None }
    }

    /// The row's id, if it becomes a row.
    pub(crate) fn id(&self) -> Option<i64> {
        let Verdict::Row(row) = &self.verdict else { return None };
        row.strip_prefix("id=")?.split(' ').next()?.parse().ok()
    }

    /// The stage that goes with a code.
    pub(crate) fn stage(code: &str) -> &'static str {
        if DECODE.contains(&code) { "decode" } else { "schema" }
    }
}

/// All payloads, in the order of their names.
pub(crate) fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json_corpus");
    let text = std::fs::read_to_string(root.join("rows.json")).expect("rows.json is there");
    let mut rows: BTreeMap<String, String> = serde_json::from_str(&text).expect("rows.json has a row for each name");
    let mut cases = Vec::new();
    for path in ["valid", "invalid", "open"].iter().flat_map(|folder| files(&root.join(folder))) {
        let name = path.strip_prefix(&root).expect("it is below the root").display().to_string();
        let folder = path.parent().and_then(Path::file_name).expect("it lies in a folder").to_string_lossy().into_owned();
        let verdict = match rows.remove(&name) {
            Some(row) => Verdict::Row(row),
            None if folder == "valid" => panic!("rows.json has no row for {name}"),
            None => Verdict::Dead(folder),
        };
        cases.push(Case { name, payload: std::fs::read(&path).expect("it can be read"), verdict });
    }
    assert!(rows.is_empty(), "rows.json has rows of what is not there: {rows:?}");
    cases
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
