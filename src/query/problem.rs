//! From DataFusion's errors to one sentence with file, line and column.

use datafusion::error::DataFusionError;

use super::project::Placed;
use crate::error::{Error, Kind};
use crate::table::did_you_mean;

/// An error of the SQL at `place`.
pub(crate) fn at(place: &str, message: impl std::fmt::Display) -> Error {
    Error::new(Kind::Sql, format!("{place}: {message}"))
}

/// The sentence for an error of `placed`; `known` are names of tables and settings, to guess what was meant.
pub(crate) fn sql_error(placed: &Placed, error: &DataFusionError, known: &[String]) -> Error {
    if let DataFusionError::External(inner) = error.find_root()
        && let Some(ours) = inner.downcast_ref::<Error>()
    {
        return ours.clone();
    }
    let path = &placed.file.path;
    let text = sentence(error);
    let (text, place) = match split_parser_place(&text) {
        Some((text, line, column)) => (text, Some(format!("{path}:{line}:{column}"))),
        None => (text, None),
    };
    let mut message = text;
    let mut place = place;
    if let Some(diagnostic) = error.diagnostic() {
        if let Some(span) = diagnostic.span {
            place = Some(format!("{path}:{}:{}", span.start.line, span.start.column));
        }
        let extra = diagnostic.helps.iter().map(|help| &help.message).chain(diagnostic.notes.iter().map(|note| &note.message));
        message = diagnostic.message.clone();
        for extra in extra.take(3) {
            message.push_str("; ");
            message.push_str(extra);
        }
    }
    if place.is_none()
        && let Some(function) =
            message.split("():").next().filter(|name| matches!(*name, "hop" | "tumble" | "cumulate" | "session"))
    {
        place = find_word(&placed.file.text, function).map(|(line, column)| format!("{path}:{line}:{column}"));
    }
    if !message.contains("ean '")
        && let Some(hint) = hint(&message, known)
    {
        message.push_str(&format!("; did you mean '{hint}'?"));
    }
    at(&place.unwrap_or_else(|| placed.place.clone()), message)
}

/// DataFusion's text without its prefixes, its back traces and its talk about its own bugs.
fn sentence(error: &DataFusionError) -> String {
    let root = error.find_root();
    let text = match root {
        DataFusionError::Internal(text) | DataFusionError::Plan(text) | DataFusionError::NotImplemented(text) => text.clone(),
        DataFusionError::SQL(parser, _) => parser.to_string(),
        DataFusionError::SchemaError(schema, _) => schema.to_string(),
        other => other.strip_backtrace(),
    };
    let text = text.split("\n\nbacktrace").next().unwrap_or_default();
    let text = text.split(".\nThis issue was likely caused").next().unwrap_or_default();
    let mut text = text.trim();
    for prefix in ["sql parser error: ", "Error during planning: ", "Invalid or Unsupported Configuration: ", "Schema error: "]
    {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn split_parser_place(text: &str) -> Option<(String, u64, u64)> {
    let (before, after) = text.rsplit_once(" at Line: ")?;
    let (line, rest) = after.split_once(", Column: ")?;
    let column: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((before.to_string(), line.trim().parse().ok()?, column.parse().ok()?))
}

/// The known name nearest to a word that the message puts in quotes.
fn hint(message: &str, known: &[String]) -> Option<String> {
    let quoted = message.split(['\'', '"']).skip(1).step_by(2);
    quoted
        .filter(|word| !known.iter().any(|name| name == word))
        .filter_map(|word| did_you_mean(word.rsplit("public.").next().unwrap_or(word), known.iter().map(String::as_str)))
        .next()
        .map(str::to_string)
}

fn find_word(text: &str, word: &str) -> Option<(usize, usize)> {
    text.lines().enumerate().find_map(|(line, content)| {
        let code = content.split("--").next().unwrap_or_default();
        code.to_lowercase().find(&format!("{word}(")).map(|column| (line + 1, column + 1))
    })
}
