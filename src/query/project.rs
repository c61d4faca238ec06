//! A folder of SQL files, read: settings, tables, views, and one lane for each file with an `INSERT`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProviderFactory;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{LogicalPlan, Statement as PlannedStatement};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Set, Statement as SqlStatement};

use super::problem::{at, setting_error, sql_error};
use super::statements::{Placed, check_declarations, statements};
use super::tables::{Columns, Role, STORED_AS, TableFactory, role};
use super::time::EpochTime;
use super::windows::{Tables, WindowFunction};
use super::wording::Known;
use crate::error::{Error, Kind, Result};
use crate::lookup::index::LookupTable;
use crate::memory::Share;
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

/// The one `INSERT` of a file.
#[derive(Debug, Clone)]
pub struct LaneSql {
    /// The lane's name: the file's, without `.sql`.
    pub name: String,
    pub(crate) insert: Placed,
}

impl LaneSql {
    /// `file:line:column` of its `INSERT`.
    pub fn place(&self) -> &str {
        &self.insert.place
    }
}

/// All files, read and checked as far as that goes without planning the lanes.
#[derive(Debug, Clone)]
pub struct Project {
    settings: Settings,
    tables: BTreeMap<String, Arc<TableDef>>,
    lanes: Vec<LaneSql>,
    creates: Vec<Placed>,
    sets: Vec<Placed>,
    columns: Columns,
}

impl Project {
    /// Reads the files. Errors name file, line and column.
    pub async fn read(files: Vec<SqlFile>) -> Result<Self> {
        Self::read_with(files, Columns::new()).await
    }

    /// Finds the tables that declare no columns, before the files are read as a whole: what names those columns cannot be read without them.
    pub async fn without_columns(files: &[SqlFile]) -> Result<Vec<TableDef>> {
        let mut bare = Vec::new();
        for file in files {
            for placed in statements(&Arc::new(file.clone()))? {
                let no_columns =
                    matches!(&placed.statement, Statement::CreateExternalTable(create) if create.columns.is_empty());
                if no_columns {
                    bare.push(placed);
                }
            }
        }
        // DataFusion would open the file of a CSV to find its columns.
        check_declarations(bare.iter())?;
        let (factory, time) = (TableFactory::default(), EpochTime::default());
        let none: SchemaRef = Arc::new(Schema::empty());
        factory.set_columns(&bare.iter().map(|placed| (placed.declares(), Arc::clone(&none))).collect());
        let session = new_session(&time, &factory, &Tables::default(), &Share::unlimited())?;
        for placed in &bare {
            run(&session, &factory, placed).await?;
        }
        Ok(factory.tables().into_values().map(|table| table.as_ref().clone()).collect())
    }

    /// As [`Project::read`]; tables that declare no columns have these.
    pub async fn read_with(files: Vec<SqlFile>, columns: Columns) -> Result<Self> {
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
        check_declarations(tables.iter().chain(&views))?;
        let mut project = Project {
            settings: Settings::default(),
            tables: BTreeMap::new(),
            lanes,
            sets,
            columns,
            creates: tables.into_iter().chain(views).collect(),
        };
        let factory = TableFactory::default();
        let session = project.session(&EpochTime::default(), &factory, &Share::unlimited()).await?;
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
    pub(crate) async fn session(&self, time: &EpochTime, factory: &TableFactory, memory: &Share) -> Result<SessionContext> {
        factory.set_columns(&self.columns);
        let tables = Tables::default();
        let session = new_session(time, factory, &tables, memory)?;
        for set in &self.sets {
            run(&session, factory, set).await?;
        }
        // A view may name a view of a later file: those that fail go to the end, until none succeeds any more.
        let mut waiting: VecDeque<&Placed> = self.creates.iter().collect();
        let mut failed: Vec<(&Placed, Error)> = Vec::new();
        while let Some(create) = waiting.pop_front() {
            match run(&session, factory, create).await {
                Ok(()) => {
                    waiting.extend(failed.drain(..).map(|(create, _)| create));
                    fill(&session, &tables).await;
                }
                Err(error) if create.is_table() => return Err(error),
                Err(error) => failed.push((create, error)),
            }
        }
        // Of those, the first that fails for a reason of its own, and not because another one is missing.
        let names: Vec<String> = failed.iter().map(|(create, _)| format!("'{}'", create.declares())).collect();
        let own = failed.iter().position(|(_, error)| !names.iter().any(|name| error.to_string().contains(name)));
        if !failed.is_empty() {
            return Err(failed.swap_remove(own.unwrap_or(0)).1);
        }
        Ok(session)
    }
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

/// Plans ask `memory` before they grow. They have no disk to spill to: one that does not fit fails, which stops its lane.
fn runtime(memory: &Share) -> Result<Arc<RuntimeEnv>> {
    let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let builder = RuntimeEnvBuilder::new().with_memory_pool(memory.pool()).with_disk_manager_builder(no_disk);
    builder.build_arc().map_err(|error| Error::new(Kind::Bug, "DataFusion's surroundings could not be made").because(error))
}

fn new_session(time: &EpochTime, factory: &TableFactory, tables: &Tables, memory: &Share) -> Result<SessionContext> {
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
    let mut builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime(memory)?).with_default_features();
    if let Some(optimizer) = builder.optimizer().as_mut() {
        // It would turn one count(DISTINCT) into two aggregates, of which only one can be cut.
        optimizer.rules.retain(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
    }
    // Nothing but our tables: what DataFusion would make of other words reads files.
    let ours: HashMap<String, Arc<dyn TableProviderFactory>> = STORED_AS
        .map(|name| (name.to_string(), Arc::new(factory.clone()) as Arc<dyn TableProviderFactory>))
        .into_iter()
        .collect();
    let session = SessionContext::new_with_state(builder.with_table_factories(ours).build());
    for function in time.functions() {
        session.register_udf(function.as_ref().clone());
    }
    for (name, function) in WindowFunction::all(tables) {
        session.register_udtf(name, function);
    }
    Ok(session)
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

/// Settings of DataFusion that would let a plan have other memory than `falaj.memory_limit`, files on the disk, or tables that no statement
/// of the folder declares.
const CLOSED: [&str; 2] = ["datafusion.runtime.", "datafusion.catalog."];

async fn run(session: &SessionContext, factory: &TableFactory, placed: &Placed) -> Result<()> {
    factory.set_place(&placed.place);
    let planned = session.state().statement_to_plan(placed.statement.clone()).await;
    if let Ok(LogicalPlan::Statement(PlannedStatement::SetVariable(set))) = &planned
        && CLOSED.iter().any(|closed| set.variable.to_lowercase().starts_with(closed))
    {
        let why = "falaj decides what memory, disk and tables a query has; the memory is SET falaj.memory_limit = '1GiB'";
        return Err(at(&placed.place, format!("setting '{}' cannot be set: {why}", set.variable)));
    }
    let done = match planned {
        Ok(plan) => session.execute_logical_plan(plan).await.map(|_| ()),
        Err(error) => Err(error),
    };
    done.map_err(|error| match &placed.statement {
        Statement::Statement(statement) => match statement.as_ref() {
            SqlStatement::Set(Set::SingleAssignment { variable, values, .. }) => {
                let name = variable.to_string().to_lowercase();
                let value = values.first().map_or_else(String::new, ToString::to_string);
                setting_error(placed, &name, &value, &error, &setting_names(session))
            }
            _ => sql_error(placed, &error, &Known::of(session)),
        },
        _ => sql_error(placed, &error, &Known::of(session)),
    })
}

fn setting_names(session: &SessionContext) -> Vec<String> {
    let mut names: Vec<String> = session.state().config_options().entries().into_iter().map(|entry| entry.key).collect();
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
