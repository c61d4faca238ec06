//! A folder of SQL files, read: settings, tables, views, and one lane for each file with an `INSERT`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParserBuilder, ResetStatement, Statement};
use datafusion::sql::sqlparser::ast::{ObjectName, Statement as SqlStatement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::problem::{at, sql_error};
use super::tables::{Role, TableFactory, role};
use super::time::EpochTime;
use super::windows::{Tables, WindowFunction};
use crate::error::{Error, Kind, Result};
use crate::lookup::index::LookupTable;
use crate::settings::Settings;
use crate::table::TableDef;

/// One file of the folder.
#[derive(Debug, Clone)]
pub struct SqlFile {
    /// Its path, as messages name it.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A statement with its place.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) file: Arc<SqlFile>,
    pub(crate) place: String,
    pub(crate) statement: Statement,
}

/// The one `INSERT` of a file.
#[derive(Debug, Clone)]
pub struct LaneSql {
    /// The lane's name: the file's, without `.sql`.
    pub name: String,
    pub(crate) insert: Placed,
}

/// All files, read and checked as far as that goes without planning the lanes.
#[derive(Debug, Clone)]
pub struct Project {
    settings: Settings,
    tables: BTreeMap<String, Arc<TableDef>>,
    lanes: Vec<LaneSql>,
    creates: Vec<Placed>,
    sets: Vec<Placed>,
}

impl Project {
    /// Reads the files. Errors name file, line and column.
    pub async fn read(files: Vec<SqlFile>) -> Result<Self> {
        let (mut sets, mut tables, mut views, mut lanes) = (Vec::new(), Vec::new(), Vec::new(), Vec::<LaneSql>::new());
        for file in files {
            let file = Arc::new(file);
            for placed in statements(&file)? {
                match &placed.statement {
                    Statement::CreateExternalTable(_) => tables.push(placed),
                    Statement::Statement(statement) => match statement.as_ref() {
                        SqlStatement::Set(_) => sets.push(placed),
                        SqlStatement::CreateView(_) => views.push(placed),
                        SqlStatement::Insert(_) => push_lane(&mut lanes, placed)?,
                        _ => return Err(refused(&placed)),
                    },
                    _ => return Err(refused(&placed)),
                }
            }
        }
        let mut project = Project {
            settings: Settings::default(),
            tables: BTreeMap::new(),
            lanes,
            sets,
            creates: tables.into_iter().chain(views).collect(),
        };
        let factory = TableFactory::default();
        let session = project.session(&EpochTime::default(), &factory).await?;
        if let Some(settings) = session.state().config_options().extensions.get::<Settings>() {
            project.settings = settings.clone();
        }
        project.tables = factory.tables();
        Ok(project)
    }

    /// The process's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All tables by name.
    pub fn tables(&self) -> &BTreeMap<String, Arc<TableDef>> {
        &self.tables
    }

    /// The tables of one role.
    pub fn tables_of(&self, wanted: Role) -> impl Iterator<Item = &Arc<TableDef>> {
        self.tables.values().filter(move |table| role(&table.stored_as, table.unbounded) == Ok(wanted))
    }

    /// The lanes, in the order of their files.
    pub fn lanes(&self) -> &[LaneSql] {
        &self.lanes
    }

    /// The lookup tables, empty, for planning without a network.
    pub fn empty_lookups(&self) -> Result<HashMap<String, Arc<LookupTable>>> {
        self.tables_of(Role::Lookup).map(|def| Ok((def.name.clone(), LookupTable::declared(def)?))).collect()
    }

    /// A session in which all tables and views exist. Each lane has one of its own, since functions and cells belong to it.
    pub(crate) async fn session(&self, time: &EpochTime, factory: &TableFactory) -> Result<SessionContext> {
        let tables = Tables::default();
        let session = new_session(time, factory, &tables);
        for set in &self.sets {
            run(&session, factory, set).await?;
        }
        let mut waiting: VecDeque<&Placed> = self.creates.iter().collect();
        // A view may name a view of a later file: those that fail go to the end, until none succeeds any more.
        let mut failed_in_a_row = 0;
        while let Some(create) = waiting.pop_front() {
            match run(&session, factory, create).await {
                Ok(()) => failed_in_a_row = 0,
                Err(error) if failed_in_a_row >= waiting.len() || is_table(create) => return Err(error),
                Err(_) => {
                    failed_in_a_row += 1;
                    waiting.push_back(create);
                }
            }
            if failed_in_a_row == 0 {
                fill(&session, &tables).await;
            }
        }
        Ok(session)
    }
}

fn is_table(placed: &Placed) -> bool {
    matches!(placed.statement, Statement::CreateExternalTable(_))
}

fn push_lane(lanes: &mut Vec<LaneSql>, insert: Placed) -> Result<()> {
    let path = std::path::Path::new(&insert.file.path);
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if lanes.iter().any(|lane| lane.name == name) {
        return Err(at(&insert.place, "a second INSERT in this file; one file is one lane, so give it a file of its own"));
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err(at(&insert.place, "a lane is named after its file: use letters, digits, '_' and '-' only"));
    }
    lanes.push(LaneSql { name, insert });
    Ok(())
}

fn refused(placed: &Placed) -> Error {
    at(&placed.place, "only SET, CREATE EXTERNAL TABLE, CREATE VIEW and INSERT INTO … SELECT belong into this folder")
}

fn new_session(time: &EpochTime, factory: &TableFactory, tables: &Tables) -> SessionContext {
    // Batches as large as a segment's: one input batch gives one output batch.
    let mut config =
        SessionConfig::new().with_target_partitions(1).with_batch_size(65_536).with_option_extension(Settings::default());
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.execution.coalesce_batches = false;
    // Plans are run again and again, which dynamic filters do not survive.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_aggregation = false;
    // The tables of a lane have no statistics worth the work of gathering them.
    options.execution.collect_statistics = false;
    let mut builder = SessionStateBuilder::new().with_config(config).with_default_features();
    if let Some(optimizer) = builder.optimizer().as_mut() {
        // It would turn one count(DISTINCT) into two aggregates, of which only one can be cut.
        optimizer.rules.retain(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
    }
    for name in ["KAFKA", "POSTGRES", "REDIS", "PARQUET", "JSON", "HTTP", "PRINT", "CSV", "AVRO", "ARROW"] {
        builder = builder.with_table_factory(name.to_string(), Arc::new(factory.clone()));
    }
    let session = SessionContext::new_with_state(builder.build());
    for function in time.functions() {
        session.register_udf(function.as_ref().clone());
    }
    for (name, function) in WindowFunction::all(tables) {
        session.register_udtf(name, function);
    }
    session
}

async fn fill(session: &SessionContext, tables: &Tables) {
    for catalog in session.catalog_names() {
        let Some(catalog) = session.catalog(&catalog) else { continue };
        for schema in catalog.schema_names() {
            let Some(schema) = catalog.schema(&schema) else { continue };
            for name in schema.table_names() {
                if let Ok(Some(table)) = schema.table(&name).await {
                    tables.insert(&name, table);
                }
            }
        }
    }
}

async fn run(session: &SessionContext, factory: &TableFactory, placed: &Placed) -> Result<()> {
    factory.set_place(&placed.place);
    let planned = session.state().statement_to_plan(placed.statement.clone()).await;
    let done = match planned {
        Ok(plan) => session.execute_logical_plan(plan).await.map(|_| ()),
        Err(error) => Err(error),
    };
    done.map_err(|error| sql_error(placed, &error, &known_names(session, factory)))
}

pub(crate) fn known_names(session: &SessionContext, factory: &TableFactory) -> Vec<String> {
    let mut names: Vec<String> = factory.tables().into_keys().collect();
    for entry in session.state().config_options().entries() {
        names.push(entry.key);
    }
    names.extend(Settings::default_names());
    names
}

impl Settings {
    /// The full names of all settings.
    pub fn default_names() -> Vec<String> {
        use datafusion::common::config::ExtensionOptions;
        Settings::default().entries().into_iter().map(|entry| format!("falaj.{}", entry.key)).collect()
    }
}

/// The statements of a file, each with the place of its first word.
fn statements(file: &Arc<SqlFile>) -> Result<Vec<Placed>> {
    let whole = |error: &datafusion::error::DataFusionError| {
        let placed = Placed { file: Arc::clone(file), place: file.path.clone(), statement: empty_statement() };
        sql_error(&placed, error, &[])
    };
    let mut parser = DFParserBuilder::new(file.text.as_str()).build().map_err(|error| whole(&error))?;
    let parsed = parser.parse_statements().map_err(|error| whole(&error))?;
    let places = statement_places(file)?;
    Ok(parsed
        .into_iter()
        .enumerate()
        .map(|(index, statement)| {
            let place =
                places.get(index).map_or_else(|| file.path.clone(), |(line, column)| format!("{}:{line}:{column}", file.path));
            Placed { file: Arc::clone(file), place, statement }
        })
        .collect())
}

// Only stands where a file as a whole is meant.
fn empty_statement() -> Statement {
    Statement::Reset(ResetStatement::Variable(ObjectName(Vec::new())))
}

fn statement_places(file: &SqlFile) -> Result<Vec<(u64, u64)>> {
    let tokens = Tokenizer::new(&GenericDialect {}, &file.text).tokenize_with_location().map_err(|error| {
        Error::new(Kind::Sql, format!("{}:{}:{}: {}", file.path, error.location.line, error.location.column, error.message))
    })?;
    let mut places = Vec::new();
    let mut fresh = true;
    for token in tokens {
        match token.token {
            Token::Whitespace(_) => {}
            Token::SemiColon => fresh = true,
            _ if fresh => {
                places.push((token.span.start.line, token.span.start.column));
                fresh = false;
            }
            _ => {}
        }
    }
    Ok(places)
}
