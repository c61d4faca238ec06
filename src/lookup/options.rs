//! The options of a lookup table, as its `CREATE EXTERNAL TABLE` gives them.

use std::time::Duration;

use crate::error::Result;
use crate::table::{TableDef, did_you_mean};

/// The most rows that a lookup table holds unless it says otherwise.
const ROWS_MAX: u64 = 10_000_000;
/// The most that `rows.max` may say: rows are numbered with 32 bits, base and overlay together.
const ROWS_LIMIT: u64 = 1 << 31;

/// How a lookup table is kept fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// All of it is loaded again after so long.
    Every(Duration),
    /// Its changes are followed.
    Changes,
}

/// What to do for keys that are not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMiss {
    /// Nothing: such a key has no row until the next load.
    None,
    /// Ask the store for it, before the batch goes on.
    Fetch,
}

/// What to do when the store cannot be asked for missing keys within `miss_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissError {
    /// Go on waiting.
    Wait,
    /// Treat the keys as if they had no row, and count them.
    Null,
}

/// The options of a lookup table, checked.
#[derive(Debug, Clone)]
pub struct LookupOptions {
    /// Where the store is. May hold a password: never printed.
    pub url: String,
    /// The key column's place among the declared columns.
    pub key: usize,
    /// How it is kept fresh.
    pub refresh: Refresh,
    /// The publication by which changes are followed.
    pub publication: String,
    /// What to do for keys that are not in memory.
    pub on_miss: OnMiss,
    /// How long a key that the store does not have either is remembered as such.
    pub miss_ttl: Duration,
    /// How long a batch waits for a store that is away.
    pub miss_timeout: Duration,
    /// What happens after that.
    pub on_miss_error: OnMissError,
    /// The most rows that are held.
    pub rows_max: u64,
}

impl LookupOptions {
    /// Reads the options of `table`; all problems become one error.
    pub fn from_table(table: &TableDef) -> Result<Self> {
        let mut options = table.options();
        let url = options.required("url", "${env:DATABASE_URL}").to_string();
        let key_name = options.required("key", "id");
        let names = || table.schema.fields().iter().map(|field| field.name().as_str());
        let key = names().position(|name| name == key_name);
        if key.is_none() && !key_name.is_empty() {
            let hint = did_you_mean(key_name, names()).map_or_else(
                || format!("its columns are {}", names().collect::<Vec<_>>().join(", ")),
                |name| format!("did you mean '{name}'?"),
            );
            options.problem(format!("the key '{key_name}' is none of its columns; {hint}"));
        }
        let refresh = if options.text("refresh").is_some_and(|text| text.eq_ignore_ascii_case("cdc")) {
            Refresh::Changes
        } else {
            let refresh = options.duration("refresh", Duration::from_secs(30));
            if refresh < Duration::from_millis(100) {
                options.problem("option 'refresh' must be at least '100ms': each time the whole table is read");
            }
            Refresh::Every(refresh)
        };
        let publication = options.text("publication").unwrap_or("falaj").to_string();
        let on_miss = match options.one_of("on_miss", &["none", "fetch"]) {
            "fetch" => OnMiss::Fetch,
            _ => OnMiss::None,
        };
        let miss_ttl = options.duration("miss_ttl", Duration::from_secs(5));
        let miss_timeout = options.duration("miss_timeout", Duration::from_secs(5));
        let on_miss_error = match options.one_of("on_miss_error", &["wait", "null"]) {
            "null" => OnMissError::Null,
            _ => OnMissError::Wait,
        };
        let rows_max = options.number("rows.max", ROWS_MAX);
        if rows_max > ROWS_LIMIT {
            options.problem(format!("option 'rows.max' must be at most {ROWS_LIMIT}"));
        }
        options.finish()?;
        Ok(Self {
            url,
            key: key.unwrap_or_default(),
            refresh,
            publication,
            on_miss,
            miss_ttl,
            miss_timeout,
            on_miss_error,
            rows_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<LookupOptions> {
        let mut all: BTreeMap<String, String> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        all.entry("url".into()).or_insert("postgres://localhost".into());
        all.entry("key".into()).or_insert("id".into());
        let fields = vec![Field::new("name", DataType::Utf8View, true), Field::new("id", DataType::Utf8View, true)];
        LookupOptions::from_table(&TableDef {
            name: "content".into(),
            stored_as: "POSTGRES".into(),
            unbounded: false,
            location: "content".into(),
            schema: Arc::new(Schema::new(fields)),
            partition_by: vec![],
            options: all,
            place: "lookups.sql:1:1".into(),
        })
    }

    #[test]
    fn options_have_defaults_and_are_read() {
        let options = read(&[]).unwrap();
        assert_eq!((options.key, options.on_miss, options.on_miss_error), (1, OnMiss::None, OnMissError::Wait));
        assert_eq!((options.refresh, options.miss_ttl), (Refresh::Every(Duration::from_secs(30)), Duration::from_secs(5)));
        assert_eq!(read(&[("refresh", "cdc")]).unwrap().refresh, Refresh::Changes);
        let options = read(&[("on_miss", "fetch"), ("on_miss_error", "null"), ("rows.max", "7"), ("key", "name")]).unwrap();
        assert_eq!((options.key, options.on_miss, options.on_miss_error), (0, OnMiss::Fetch, OnMissError::Null));
        assert_eq!(options.rows_max, 7);
    }

    #[test]
    fn wrong_options_are_named_with_advice() {
        for (name, value, part) in [
            ("key", "nam", "did you mean 'name'?"),
            ("refresh", "1ms", "at least '100ms'"),
            ("on_miss", "ask", "must be one of none, fetch"),
            ("miss_tll", "1s", "did you mean 'miss_ttl'?"),
            ("rows.max", "9999999999", "at most"),
        ] {
            let text = read(&[(name, value)]).unwrap_err().to_string();
            assert!(text.starts_with("lookups.sql:1:1: table 'content': ") && text.contains(part), "{text}");
        }
    }
}
