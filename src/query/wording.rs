//! What DataFusion says about wrong SQL, in our words: one sentence, with what to write instead.

use arrow::datatypes::DataType;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;

use crate::table::did_you_mean;

/// The names that could have been meant.
#[derive(Debug, Default)]
pub(crate) struct Known {
    tables: Vec<String>,
    functions: Vec<String>,
    table_functions: Vec<String>,
}

impl Known {
    /// Everything that `session` knows.
    pub(crate) fn of(session: &SessionContext) -> Self {
        let state = session.state();
        let schemas = session.catalog_names().into_iter().filter_map(|name| session.catalog(&name));
        let schemas = schemas.flat_map(|catalog| {
            let names = catalog.schema_names();
            names.into_iter().filter_map(|name| catalog.schema(&name)).collect::<Vec<_>>()
        });
        let tables = schemas.flat_map(|schema| schema.table_names()).collect();
        let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
        let functions = functions.chain(state.window_functions().keys()).cloned().collect();
        Self { tables, functions, table_functions: state.table_functions().keys().cloned().collect() }
    }
}

/// A sentence, and the word of the SQL that it is about where DataFusion does not say the place.
pub(crate) struct Told {
    pub(crate) sentence: String,
    pub(crate) word: Option<String>,
}

/// Says what `error` means.
pub(crate) fn told(error: &DataFusionError, known: &Known) -> Told {
    if let DataFusionError::SchemaError(schema, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref()
    {
        let hint = did_you_mean(&field.name, valid_fields.iter().map(|field| field.name.as_str()));
        return about(
            format!("there is no column '{}'{}", field.name, or(hint.filter(|hint| *hint != field.name))),
            &field.name,
        );
    }
    let text = plain_text(error);
    let notes: Vec<String> = error.diagnostic().map_or_else(Vec::new, |diagnostic| {
        let helps = diagnostic.helps.iter().map(|help| help.message.clone());
        helps.chain(diagnostic.notes.iter().map(|note| note.message.clone())).collect()
    });
    let text = error.diagnostic().map_or(text, |diagnostic| diagnostic.message.clone());
    parser(&text)
        .or_else(|| missing(&text, &notes, known))
        .or_else(|| types(&text, &notes))
        .or_else(|| window_function(&text))
        .unwrap_or(Told { sentence: text, word: None })
}

/// DataFusion's text without its prefixes, its back traces and its talk about its own bugs.
pub(crate) fn plain_text(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        DataFusionError::Internal(text) | DataFusionError::Plan(text) | DataFusionError::NotImplemented(text) => text.clone(),
        DataFusionError::SQL(parser, _) => parser.to_string(),
        other => other.strip_backtrace(),
    };
    let text = text.split("\n\nbacktrace").next().unwrap_or_default();
    let text = text.split(".\nThis issue was likely caused").next().unwrap_or_default();
    let text = text.split(". No function matches the given").next().unwrap_or_default();
    let mut text = text.trim();
    let prefixes = [
        "sql parser error: ",
        "Internal error: ",
        "Execution error: ",
        "External error: ",
        "Error during planning: ",
        "Invalid or Unsupported Configuration: ",
        "Schema error: ",
    ];
    for prefix in prefixes {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `Expected: A, found: B`, which the parser says.
fn parser(text: &str) -> Option<Told> {
    let text = text.split(" at Line: ").next()?;
    if text.starts_with("Unterminated string") {
        return plainly(format!("{text}: a quote (') is missing, here or before"));
    }
    let (expected, found) = text.strip_prefix("Expected: ")?.split_once(", found: ")?;
    if expected.starts_with("end of statement") {
        return plainly(misplaced(found));
    }
    let found = if found == "EOF" { "the end of the file".to_string() } else { quoted(found) };
    plainly(format!("expected {expected}, found {found}"))
}

/// What is said about a word after the end of a statement that no `;` ended.
pub(crate) fn misplaced(word: &str) -> String {
    format!("{} does not belong here: a word before it is misspelt, or a ';' is missing", quoted(word))
}

/// A string of SQL has its quotes already.
fn quoted(word: &str) -> String {
    if word.starts_with('\'') { word.to_string() } else { format!("'{word}'") }
}

/// A table, column, function or type that is not there.
fn missing(text: &str, notes: &[String], known: &Known) -> Option<Told> {
    let name = text.split('\'').nth(1).unwrap_or_default();
    let name = name.strip_prefix("datafusion.public.").unwrap_or(name);
    let possible: Vec<&str> = notes.iter().filter_map(|note| note.strip_prefix("possible column ")).collect();
    if text.starts_with("table function '") {
        let hint = did_you_mean(name, known.table_functions.iter().map(String::as_str));
        return Some(about(format!("there is no table function '{name}'{}", or(hint)), name));
    }
    if text.starts_with("table '") && text.ends_with("not found") {
        let hint = did_you_mean(name, known.tables.iter().map(String::as_str));
        return Some(about(format!("there is no table or view '{name}'{}", or(hint)), name));
    }
    if text.starts_with("column '") && text.contains("not found") {
        let table = text.split_once(" not found ").map_or_else(String::new, |(_, table)| format!(" {table}"));
        let hint = possible.first().filter(|hint| **hint != name).copied();
        return plainly(format!("there is no column '{name}'{table}{}", or(hint)));
    }
    if text.starts_with("column '") && text.ends_with("is ambiguous") {
        return plainly(format!("the column '{name}' is in more than one table: write {}", possible.join(" or ")));
    }
    if text.starts_with("Invalid function '") {
        let hint = did_you_mean(name, known.functions.iter().map(String::as_str));
        return Some(about(format!("there is no function '{name}'{}", or(hint)), name));
    }
    let name = text.strip_prefix("Unsupported SQL type ")?;
    let types = ["VARCHAR", "BIGINT", "INT", "SMALLINT", "DOUBLE", "REAL", "BOOLEAN", "DATE", "TIMESTAMP", "DECIMAL"];
    let hint = did_you_mean(name, types).map(str::to_string).unwrap_or_default();
    let hint = if hint.is_empty() { format!("; write one of {}", types.join(", ")) } else { or(Some(&hint)) };
    Some(about(format!("there is no type {name}{hint}"), name))
}

/// Functions and operators over types that they do not take.
fn types(text: &str, notes: &[String]) -> Option<Told> {
    if text == "expressions have incompatible types" {
        let types: Vec<&str> = notes.iter().filter_map(|note| note.strip_prefix("has type ")).map(sql_word).collect();
        return plainly(format!("{} do not go together: CAST one of them", types.join(" and ")));
    }
    let function = text.strip_prefix("Function '")?.split('\'').next()?;
    if text.contains("failed to match any signature") {
        // One "requires X, but received Y (DataType: Z)" for each signature; the last one came furthest.
        let tried = text.split("requires ").skip(1).filter_map(|tried| tried.split_once(", but received "));
        let tried: Vec<(&str, &str)> = tried
            .filter_map(|(wanted, received)| Some((wanted, received.split_once("(DataType: ")?.1.split(')').next()?)))
            .collect();
        let received = tried.last().map_or("this", |(_, received)| received);
        let mut wanted: Vec<&str> =
            tried.iter().filter(|(_, other)| *other == received).map(|(wanted, _)| sql_word(wanted)).collect();
        wanted.dedup();
        let sentence = format!(
            "{function}() does not take {}: CAST the argument to what it takes ({})",
            sql_word(received),
            wanted.join(", ")
        );
        return Some(about(sentence, function));
    }
    let (count, rest) = (text.contains(" arguments but received "), text.split_once("' ")?.1);
    let advice = if count { "" } else { ": CAST the argument" };
    Some(about(format!("{function}() {}{advice}", rest.replace("String", "VARCHAR")), function))
}

/// Our own sentences about `hop` and `tumble` begin with the function's name.
fn window_function(text: &str) -> Option<Told> {
    let name = text.split_once("():")?.0;
    matches!(name, "hop" | "tumble" | "cumulate" | "session").then(|| about(text.to_string(), name))
}

fn plainly(sentence: String) -> Option<Told> {
    Some(Told { sentence, word: None })
}

fn about(sentence: String, word: &str) -> Told {
    Told { sentence, word: Some(word.to_string()) }
}

fn or(hint: Option<&str>) -> String {
    hint.map_or_else(String::new, |hint| format!("; did you mean '{}'?", hint.replace("\"hop()\".", "")))
}

/// The SQL word for an Arrow type's name, where there is one.
fn sql_word(arrow: &str) -> &str {
    match arrow {
        "Utf8View" | "Utf8" | "LargeUtf8" | "String" => "VARCHAR",
        "Int64" => "BIGINT",
        "Int32" => "INT",
        "Float64" => "DOUBLE",
        "Float32" => "REAL",
        "Boolean" => "BOOLEAN",
        "Date32" => "DATE",
        "Timestamp(ns)" => "TIMESTAMP",
        "Decimal" => "DECIMAL",
        other => other,
    }
}

/// The name of a type as SQL has it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(..) => "TIMESTAMP".to_string(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        other => sql_word(&other.to_string()).to_string(),
    }
}
