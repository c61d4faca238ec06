//! What a run has left behind, read without the engine.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use parquet::file::reader::SerializedFileReader;
use parquet::record::Field;
use serde::{Deserialize, Deserializer};

use super::oracle::Row;
use crate::support::receiver::Receiver;

/// A time in RFC 3339, in ms since 1970.
pub(crate) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?.timestamp_millis())
}

/// All files below `folder` with this suffix, by their path. A name with a dot or an underscore in front is for no reader.
pub(crate) fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let entry = entry.unwrap();
        let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
        if !hidden && entry.path().is_dir() {
            found.extend(files(&entry.path(), suffix));
        } else if !hidden && entry.path().extension().is_some_and(|extension| extension == suffix) {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// The rows of Parquet files; each column by its name, in the order of the file.
pub(crate) fn parquet(path: &Path) -> impl Iterator<Item = Vec<(String, Field)>> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    reader.into_iter().map(|row| row.unwrap().into_columns())
}

/// The rows of JSON files.
pub(crate) fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Every enriched row of the Parquet output by its id, each once and in the folder of its day and hour.
pub(crate) fn enriched(folder: &Path) -> BTreeMap<i64, Row> {
    let mut rows = BTreeMap::new();
    for path in files(folder, "parquet") {
        let place = path.parent().unwrap().strip_prefix(folder).unwrap().display().to_string();
        for columns in parquet(&path) {
            let row = row(columns);
            let at = DateTime::from_timestamp_millis(row.event_ts).unwrap();
            assert_eq!(place, format!("dt={}/hour={}", at.format("%Y-%m-%d"), at.format("%-H")), "{row:?}");
            if let Some(double) = rows.insert(row.id, row) {
                panic!("{} has a row that is there twice: {double:?}", path.display());
            }
        }
    }
    rows
}

/// The rows that a receiver took by their id, each once.
pub(crate) async fn received(receiver: &Receiver, topic: &str) -> BTreeMap<i64, Row> {
    let (mut ids, mut rows) = (HashSet::new(), BTreeMap::new());
    for line in receiver.rows() {
        let mut row: Row = serde_json::from_str(&line).unwrap();
        let id = row.row_id.take().unwrap();
        assert!(id.starts_with(topic) && ids.insert(id), "twice, or of another topic: {line}");
        assert!(rows.insert(row.id, row).is_none(), "twice, by different '_id's: {line}");
    }
    let counts = receiver.counts().await;
    for (figure, expected) in [("effective_rows", rows.len()), ("duplicate_ids", 0), ("key_conflicts", 0), ("refused", 0)] {
        assert_eq!(counts[figure], expected, "{figure}: {counts}");
    }
    rows
}

fn row(columns: Vec<(String, Field)>) -> Row {
    const NAMES: [&str; 13] = [
        "id",
        "content_id",
        "user_id",
        "event_type",
        "event_ts",
        "duration_ms",
        "device",
        "raw_payload",
        "title",
        "content_type",
        "length_seconds",
        "engagement_seconds",
        "engagement_pct",
    ];
    assert!(columns.iter().map(|(name, _)| name.as_str()).eq(NAMES), "{columns:?}");
    let mut fields = columns.into_iter().map(|(_, field)| field);
    let mut next = || fields.next().unwrap();
    Row {
        row_id: None,
        id: long(&next()).unwrap(),
        content_id: text(next()).unwrap(),
        user_id: text(next()).unwrap(),
        event_type: text(next()).unwrap(),
        event_ts: long(&next()).unwrap(),
        duration_ms: long(&next()),
        device: text(next()).unwrap(),
        raw_payload: text(next()).unwrap(),
        title: text(next()),
        content_type: text(next()),
        length_seconds: long(&next()),
        engagement_seconds: double(&next()),
        engagement_pct: double(&next()),
    }
}

/// A number, or a time in ms; microseconds must be whole milliseconds.
pub(crate) fn long(field: &Field) -> Option<i64> {
    match field {
        Field::Null => None,
        Field::Long(value) => Some(*value),
        Field::TimestampMicros(value) => {
            assert_eq!(value % 1000, 0);
            Some(value / 1000)
        }
        other => panic!("{other:?} is no number and no time"),
    }
}

/// A text.
pub(crate) fn text(field: Field) -> Option<String> {
    match field {
        Field::Null => None,
        Field::Str(value) => Some(value),
        other => panic!("{other:?} is no text"),
    }
}

/// A floating-point number.
pub(crate) fn double(field: &Field) -> Option<f64> {
    match field {
        Field::Null => None,
        Field::Double(value) => Some(*value),
        other => panic!("{other:?} is no DOUBLE"),
    }
}

/// Says what differs, and not all that does not.
pub(crate) fn assert_same<K: Ord + Debug, V: PartialEq + Debug>(what: &str, expected: &BTreeMap<K, V>, found: &BTreeMap<K, V>) {
    let missing: Vec<_> = expected.iter().filter(|(key, _)| !found.contains_key(key)).take(5).collect();
    let extra: Vec<_> = found.iter().filter(|(key, _)| !expected.contains_key(key)).take(5).collect();
    let both = expected.iter().filter_map(|(key, value)| Some((key, value, found.get(key)?)));
    let other: Vec<_> = both.filter(|(_, expected, found)| expected != found).take(5).collect();
    assert!(
        missing.is_empty() && extra.is_empty() && other.is_empty(),
        "{what}: {} expected, {} found; missing {missing:?}; too many {extra:?}; different (expected, found) {other:?}",
        expected.len(),
        found.len()
    );
}

/// Sums of floating-point numbers depend on their order.
pub(crate) fn assert_close(expected: f64, found: f64, what: impl Debug) {
    assert!((expected - found).abs() <= 1e-9 * expected.abs().max(1.0), "{what:?}: {expected} expected, {found} found");
}
