//! From DataFusion's errors to one sentence with file, line and column.

use datafusion::error::DataFusionError;

use super::statements::Placed;
use super::wording::{Known, plain_text, told};
use crate::error::{Error, Kind};
use crate::settings::SECRET;

/// An error of the SQL at `place`.
pub(crate) fn at(place: &str, message: impl std::fmt::Display) -> Error {
    Error::new(Kind::Sql, format!("{place}: {message}"))
}

/// The sentence for an error of `placed`; `known` are the names that could have been meant.
pub(crate) fn sql_error(placed: &Placed, error: &DataFusionError, known: &Known) -> Error {
    if let DataFusionError::External(inner) = error.find_root()
        && let Some(ours) = inner.downcast_ref::<Error>()
    {
        // What is about a table names the place where that is declared.
        return if ours.to_string().contains(".sql:") { ours.clone() } else { ours.clone().at(&placed.place) };
    }
    let told = told(error, known);
    let spot = spot_of(placed, error).or_else(|| {
        let word = told.word.as_deref()?;
        find_word(placed, word)
    });
    match spot {
        Some((line, column)) => at(&format!("{}:{line}:{column}", placed.file.path), told.sentence),
        None => at(&placed.place, told.sentence),
    }
}

/// The sentence for a `SET` of `name` to `value` that DataFusion refused; `settings` are the names of all.
pub(crate) fn setting_error(placed: &Placed, name: &str, value: &str, error: &DataFusionError, settings: &[String]) -> Error {
    if settings.iter().any(|setting| setting == name) {
        // Who writes a secret where a reference belongs must not find it in the logs.
        let value = if name == SECRET { "that".to_string() } else { value.to_string() };
        return at(&placed.place, format!("setting '{name}' cannot be {value}: {}", plain_text(error)));
    }
    let hint = crate::table::did_you_mean(name, settings.iter().map(String::as_str));
    let hint = hint.map_or_else(String::new, |hint| format!("; did you mean '{hint}'?"));
    at(&placed.place, format!("there is no setting '{name}'{hint}"))
}

/// Line and column as the parser or the planner says them.
fn spot_of(placed: &Placed, error: &DataFusionError) -> Option<(u64, u64)> {
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        return Some((span.start.line, span.start.column));
    }
    let text = plain_text(error);
    if text.ends_with("found: EOF") {
        return Some(end_of(&placed.file.text));
    }
    let (line, rest) = text.rsplit_once(" at Line: ")?.1.split_once(", Column: ")?;
    let column: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((line.trim().parse().ok()?, column.parse().ok()?))
}

/// Behind the last word of a file.
fn end_of(text: &str) -> (u64, u64) {
    let text = text.trim_end();
    let last = text.lines().last().unwrap_or_default();
    (text.lines().count().max(1) as u64, last.chars().count() as u64 + 1)
}

/// The first place of `word`, as a word of its own and outside comments, from the beginning of the statement on.
fn find_word(placed: &Placed, word: &str) -> Option<(u64, u64)> {
    let word = word.to_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    for (index, line) in placed.file.text.lines().enumerate().skip(placed.line.saturating_sub(1) as usize) {
        let code = line.split("--").next().unwrap_or_default().to_lowercase();
        for (at, _) in code.match_indices(&word) {
            let after = code[at + word.len()..].chars().next();
            if !code[..at].ends_with(is_part) && !after.is_some_and(is_part) {
                return Some((index as u64 + 1, code[..at].chars().count() as u64 + 1));
            }
        }
    }
    None
}
