//! The `INSERT` of a lane, held against the table that it writes before DataFusion counts and casts.

use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Insert, ObjectName, Spanned, Statement as SqlStatement, TableObject};

use super::problem::{at, sql_error};
use super::project::{LaneSql, Project};
use super::tables::{Role, is_written};
use super::wording::{Known, type_name};
use crate::error::Result;
use crate::table::{TableDef, did_you_mean};

/// The sink that `lane` writes, whose columns its query fits.
pub(crate) async fn checked_sink(project: &Project, lane: &LaneSql, session: &SessionContext) -> Result<Arc<TableDef>> {
    let insert = match &lane.insert.statement {
        Statement::Statement(statement) => match statement.as_ref() {
            SqlStatement::Insert(insert) => Some(insert),
            _ => None,
        },
        _ => None,
    };
    let (Some(insert), place) = (insert, &lane.insert.place) else {
        return Err(at(&lane.insert.place, "write INSERT INTO sink SELECT …"));
    };
    let sink = sink_of(project, lane, insert)?;
    let Some(query) = &insert.source else { return Err(at(place, "write INSERT INTO sink SELECT …")) };
    let query = Statement::Statement(Box::new(SqlStatement::Query(query.clone())));
    let planned = session.state().statement_to_plan(query).await;
    let planned = planned.map_err(|error| sql_error(&lane.insert, &error, &Known::of(session)))?;
    let given = planned.schema().fields();
    let wanted = wanted(&sink, insert, place)?;
    if given.len() != wanted.len() {
        let names: Vec<&str> = wanted.iter().map(|field| field.name().as_str()).collect();
        let text = format!(
            "the query gives {}, but '{}' takes {}: {}",
            columns(given.len()),
            sink.name,
            columns(wanted.len()),
            names.join(", ")
        );
        return Err(at(place, text));
    }
    for (index, (from, to)) in given.iter().zip(wanted).enumerate() {
        if !fits(from.data_type(), to.data_type()) {
            let text = format!(
                "'{}' of '{}' is {}, but column {} of the query is {}: write CAST(… AS {}) if that is meant",
                to.name(),
                sink.name,
                type_name(to.data_type()),
                index + 1,
                type_name(from.data_type()),
                type_name(to.data_type())
            );
            return Err(at(place, text));
        }
    }
    Ok(sink)
}

fn columns(count: usize) -> String {
    if count == 1 { "1 column".to_string() } else { format!("{count} columns") }
}

fn sink_of(project: &Project, lane: &LaneSql, insert: &Insert) -> Result<Arc<TableDef>> {
    let TableObject::TableName(object) = &insert.table else {
        return Err(at(&lane.insert.place, "write INSERT INTO sink SELECT …"));
    };
    let start = object.span().start;
    let place = format!("{}:{}:{}", lane.insert.file.path, start.line, start.column);
    let name = name_of(object);
    match project.tables().get(&name) {
        Some(table) if is_written(table) => Ok(Arc::clone(table)),
        Some(table) => {
            let text = format!("'{name}' cannot be written: it is STORED AS {}, write to a sink table", table.stored_as);
            Err(at(&place, text))
        }
        None => {
            let sinks: Vec<&str> = project.tables_of(Role::Sink).map(|table| table.name.as_str()).collect();
            let hint = did_you_mean(&name, sinks.iter().copied())
                .map_or_else(|| format!("there are {}", sinks.join(", ")), |hint| format!("did you mean '{hint}'?"));
            Err(at(&place, format!("there is no sink table '{name}'; {hint}")))
        }
    }
}

/// The columns that the query must give: all of the sink, or those that the statement lists.
fn wanted<'a>(sink: &'a TableDef, insert: &Insert, place: &str) -> Result<Vec<&'a Field>> {
    let fields: Vec<&Field> = sink.schema.fields().iter().map(AsRef::as_ref).collect();
    if insert.columns.is_empty() {
        return Ok(fields);
    }
    let listed = insert.columns.iter().map(|column| {
        let name = name_of(column);
        let hint = did_you_mean(&name, fields.iter().map(|field| field.name().as_str()));
        let hint = hint.map_or_else(String::new, |hint| format!("; did you mean '{hint}'?"));
        let found = fields.iter().find(|field| *field.name() == name).copied();
        found.ok_or_else(|| at(place, format!("'{}' has no column '{name}'{hint}", sink.name)))
    });
    listed.collect()
}

/// The last part of a name, as SQL reads it.
fn name_of(object: &ObjectName) -> String {
    let ident = object.0.last().and_then(|part| part.as_ident());
    ident.map_or_else(String::new, |ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    })
}

/// Whether a value may go in without a CAST: a text into a number would fail row by row, where nobody looks.
fn fits(from: &DataType, to: &DataType) -> bool {
    let text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let same = from == to || *from == DataType::Null;
    let alike = (from.is_numeric() && to.is_numeric()) || (from.is_temporal() && to.is_temporal()) || text(to);
    same || (alike && can_cast_types(from, to))
}
