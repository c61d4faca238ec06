//! An external table as the user declared it, and its options, checked one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::error::{Error, Kind, Result};

/// A `CREATE EXTERNAL TABLE` statement, read.
#[derive(Debug, Clone)]
pub struct TableDef {
    /// The table's name in SQL.
    pub name: String,
    /// What follows `STORED AS`, in upper case: `KAFKA`, `POSTGRES`, `REDIS`, `PARQUET`, `JSON`, `HTTP`, `PRINT`.
    pub stored_as: String,
    /// Whether it was declared `UNBOUNDED`: a source that is read as a log.
    pub unbounded: bool,
    /// What follows `LOCATION`, with `${…}` resolved.
    pub location: String,
    /// The declared columns, partition columns included, as DataFusion types (VARCHAR is `Utf8View`, TIMESTAMP is nanoseconds).
    pub schema: SchemaRef,
    /// The columns of `PARTITIONED BY`, in order.
    pub partition_by: Vec<String>,
    /// `OPTIONS`, names in lower case, with `${…}` resolved.
    pub options: BTreeMap<String, String>,
    /// `file:line:column` of the statement, for messages.
    pub place: String,
}

impl TableDef {
    /// Begins to read the options. Take each known one, then call [`Options::finish`].
    pub fn options(&self) -> Options<'_> {
        Options { table: self, known: Vec::new(), prefixes: Vec::new(), problems: Vec::new() }
    }

    /// An error about this table, with its place.
    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::new(Kind::Sql, format!("{}: table '{}': {message}", self.place, self.name))
    }
}

/// Reads options by name and type, and finds all problems at once.
#[derive(Debug)]
pub struct Options<'a> {
    table: &'a TableDef,
    known: Vec<&'static str>,
    prefixes: Vec<&'static str>,
    problems: Vec<String>,
}

impl<'a> Options<'a> {
    /// The text of an option, if it is given.
    pub fn text(&mut self, name: &'static str) -> Option<&'a str> {
        self.known.push(name);
        self.table.options.get(name).map(String::as_str)
    }

    /// The text of an option that must be given.
    pub fn required(&mut self, name: &'static str, example: &str) -> &'a str {
        let text = self.text(name);
        if text.is_none() {
            self.problems.push(format!("needs the option '{name}', for instance '{name}' '{example}'"));
        }
        text.unwrap_or_default()
    }

    /// One of a few words, or the first of them when it is not given.
    pub fn one_of(&mut self, name: &'static str, words: &[&'static str]) -> &'static str {
        let text = self.text(name);
        let found = words.iter().find(|word| text.is_none_or(|text| text.eq_ignore_ascii_case(word)));
        found.copied().unwrap_or_else(|| {
            self.problems.push(format!(
                "option '{name}' is '{}'; it must be one of {}",
                text.unwrap_or_default(),
                words.join(", ")
            ));
            words.first().copied().unwrap_or_default()
        })
    }

    /// A duration such as `10s` or `5m`.
    pub fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
        self.parsed(name, default, "a duration such as '10s' or '5m'", parse_duration)
    }

    /// A size in bytes such as `16MiB`.
    pub fn bytes(&mut self, name: &'static str, default: u64) -> u64 {
        self.parsed(name, default, "a size such as '16MiB'", parse_bytes)
    }

    /// A whole number.
    pub fn number(&mut self, name: &'static str, default: u64) -> u64 {
        self.parsed(name, default, "a whole number", |text| text.parse().ok())
    }

    fn parsed<T>(&mut self, name: &'static str, default: T, what: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        let Some(text) = self.text(name) else { return default };
        parse(text).unwrap_or_else(|| {
            self.problems.push(format!("option '{name}' is '{text}'; it must be {what}"));
            default
        })
    }

    /// All options that begin with `prefix` (which ends in a dot), without it; handed on unchecked.
    pub fn with_prefix(&mut self, prefix: &'static str) -> Vec<(&'a str, &'a str)> {
        self.prefixes.push(prefix);
        self.table.options.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value.as_str()))).collect()
    }

    /// Notes a problem of the caller's own finding.
    pub fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    /// Ends the reading: unknown options and everything found before become one error.
    pub fn finish(mut self) -> Result<()> {
        for name in self.table.options.keys() {
            if self.known.contains(&name.as_str()) || self.prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let hint = did_you_mean(name, self.known.iter().copied())
                .map_or_else(|| format!("known are {}", self.known.join(", ")), |word| format!("did you mean '{word}'?"));
            self.problems.push(format!("there is no option '{name}'; {hint}"));
        }
        if self.problems.is_empty() { Ok(()) } else { Err(self.table.error(self.problems.join("; "))) }
    }
}

/// Reads `10s`, `1500ms`, `5m`, `1h 30m`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// Reads `512`, `64KiB`, `16MiB`, `2GiB` (and KB, MB, GB as powers of ten).
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// The known word nearest to `word`, if one is near enough to be what was meant.
pub fn did_you_mean<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let bound = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours, ignoring case.
fn edit_distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut rows = vec![(0..=right.len()).collect::<Vec<_>>()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in
            [("512", Some(512)), ("16MiB", Some(16 << 20)), ("1 GB", Some(1_000_000_000)), ("x", None), ("3 apples", None)]
        {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour_and_a_strange_one_does_not() {
        let known = ["watermark.delay", "watermark.column", "brokers", "format"];
        for (word, found) in [("watermark.dealy", Some("watermark.delay")), ("broker", Some("brokers")), ("colour", None)] {
            assert_eq!(did_you_mean(word, known), found, "{word}");
        }
    }
}
