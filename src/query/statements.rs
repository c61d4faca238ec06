//! The statements of a SQL file, each with its place. DataFusion's parser reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::sql::parser::{DFParserBuilder, ResetStatement, Statement};
use datafusion::sql::sqlparser::ast::{ObjectName, Statement as SqlStatement};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::problem::{at, sql_error};
use super::project::SqlFile;
use super::tables::role;
use super::wording::{Known, misplaced};
use crate::error::Result;

/// A statement with its place.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) file: Arc<SqlFile>,
    /// The line of its first word, from 1.
    pub(crate) line: u64,
    /// `file:line:column` of its first word.
    pub(crate) place: String,
    pub(crate) statement: Statement,
}

impl Placed {
    /// Whether it declares an external table.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.statement, Statement::CreateExternalTable(_))
    }

    /// The name that it declares; empty for a statement that declares nothing.
    pub(crate) fn declares(&self) -> String {
        match &self.statement {
            Statement::CreateExternalTable(table) => table.name.to_string().to_lowercase(),
            Statement::Statement(statement) => match statement.as_ref() {
                SqlStatement::CreateView(view) => view.name.to_string().to_lowercase(),
                _ => String::new(),
            },
            _ => String::new(),
        }
    }
}

/// All statements of `file`.
pub(crate) fn statements(file: &Arc<SqlFile>) -> Result<Vec<Placed>> {
    let placed = |line, column, statement| {
        let place = format!("{}:{line}:{column}", file.path);
        Placed { file: Arc::clone(file), line, place, statement }
    };
    // Only stands where no statement could be read.
    let none = || Statement::Reset(ResetStatement::Variable(ObjectName(Vec::new())));
    let parser = DFParserBuilder::new(file.text.as_str()).build();
    let mut parser = parser.map_err(|error| sql_error(&placed(1, 1, none()), &error, &Known::default()))?;
    let mut found: Vec<Placed> = Vec::new();
    loop {
        let mut ended = found.is_empty();
        while parser.parser.consume_token(&Token::SemiColon) {
            ended = true;
        }
        let next = parser.parser.peek_token();
        let start = next.span.start;
        if next.token == Token::EOF {
            return Ok(found);
        }
        if !ended {
            let place = format!("{}:{}:{}", file.path, start.line, start.column);
            return Err(at(&place, misplaced(&next.token.to_string())));
        }
        let parsed = parser.parse_statement();
        let wrong = |error| sql_error(&placed(start.line, start.column, none()), &error, &Known::default());
        found.push(placed(start.line, start.column, parsed.map_err(wrong)?));
    }
}

/// Refuses a name that is declared twice, and tables that are stored as nothing that we know.
pub(crate) fn check_declarations<'a>(creates: impl Iterator<Item = &'a Placed>) -> Result<()> {
    let mut places: BTreeMap<String, &str> = BTreeMap::new();
    for create in creates {
        let name = create.declares();
        if let Statement::CreateExternalTable(table) = &create.statement
            && let Err(text) = role(&table.file_type.to_uppercase(), table.unbounded)
        {
            return Err(at(&create.place, format!("table '{name}': {text}")));
        }
        if let Some(first) = places.get(&name) {
            return Err(at(&create.place, format!("'{name}' is declared a second time, it is there already at {first}")));
        }
        places.insert(name, &create.place);
    }
    Ok(())
}
