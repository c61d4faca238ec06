//! The tables of a lane's session: sources with their cell, sinks by their columns, and how a statement becomes one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::{CreateExternalTable, Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

use super::cell::{Cell, CellExec};
use crate::lookup::index::LookupTable;
use crate::lookup::join::LookupProvider;
use crate::table::TableDef;

/// The hidden last column of a source: the offset of each row. SQL never sees it.
pub const OFFSET: &str = "_falaj_offset";

/// A source, as one lane's plan reads it.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// What the user declared.
    pub def: Arc<TableDef>,
    cell: Cell,
    schema: SchemaRef,
}

impl SourceTable {
    fn new(def: Arc<TableDef>) -> Self {
        let schema = Arc::clone(&def.schema);
        Self { def, cell: Cell::default(), schema }
    }

    /// The same source with [`OFFSET`] as its last column.
    pub fn with_offset(&self) -> Self {
        let mut fields: Vec<_> = self.def.schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(OFFSET, DataType::Int64, false)));
        Self { schema: Arc::new(Schema::new(fields)), cell: Cell::default(), def: Arc::clone(&self.def) }
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema(),
        };
        Ok(Arc::new(CellExec::new(self.def.name.clone(), schema, self.cell.clone())))
    }
}

/// A sink, as SQL sees it: columns to insert into.
#[derive(Debug)]
pub struct SinkTable {
    /// What the user declared.
    pub def: Arc<TableDef>,
}

#[async_trait]
impl TableProvider for SinkTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.def.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan_err!("'{}' is a sink: it can be written with INSERT INTO, not read", self.def.name)
    }
}

/// What a table may be stored as.
pub(crate) const STORED_AS: [&str; 7] = ["KAFKA", "POSTGRES", "REDIS", "PARQUET", "JSON", "HTTP", "PRINT"];

/// What a declared table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read as a log.
    Source,
    /// Asked by key.
    Lookup,
    /// Written.
    Sink,
}

/// The role of a table by its words, or a sentence that says why there is none.
pub fn role(stored_as: &str, unbounded: bool) -> Result<Role, String> {
    match (stored_as, unbounded) {
        ("KAFKA" | "POSTGRES", true) => Ok(Role::Source),
        ("POSTGRES", false) => Ok(Role::Lookup),
        ("KAFKA" | "REDIS" | "PARQUET" | "JSON" | "HTTP" | "PRINT", false) => Ok(Role::Sink),
        ("REDIS" | "PARQUET" | "JSON" | "HTTP" | "PRINT", true) => {
            Err("a sink is not UNBOUNDED: leave the word out".to_string())
        }
        (other, _) => {
            let hint = crate::table::did_you_mean(other, STORED_AS)
                .map_or_else(|| format!("known are {}", STORED_AS.join(", ")), |word| format!("did you mean {word}?"));
            Err(format!("there is no STORED AS {other}; {hint}"))
        }
    }
}

/// Whether a lane may write the table. A topic that is read may be written, too.
pub fn is_written(table: &TableDef) -> bool {
    table.stored_as == "KAFKA" || role(&table.stored_as, table.unbounded) == Ok(Role::Sink)
}

/// Makes tables of `CREATE EXTERNAL TABLE` statements, and remembers each definition.
#[derive(Debug, Clone, Default)]
pub struct TableFactory {
    made: Arc<Mutex<BTreeMap<String, Arc<TableDef>>>>,
    place: Arc<Mutex<String>>,
    lookups: Arc<HashMap<String, Arc<LookupTable>>>,
    columns: Arc<Mutex<Columns>>,
}

/// The columns of tables that declare none, by the table's name.
pub type Columns = HashMap<String, SchemaRef>;

/// The formats whose schema says a table's columns.
const FRAMED: [&str; 3] = ["avro", "json-schema", "protobuf"];

/// Whether a table may leave its columns out: then they come from its schema.
fn may_leave_columns_out(table: &TableDef) -> bool {
    let format = table.options.get("format").map(|format| format.to_lowercase());
    table.unbounded && table.stored_as == "KAFKA" && format.is_some_and(|format| FRAMED.contains(&format.as_str()))
}

impl TableFactory {
    /// A factory whose lookup tables are these (by name). While only reading the files there is none.
    pub fn new(lookups: HashMap<String, Arc<LookupTable>>) -> Self {
        Self { lookups: Arc::new(lookups), ..Self::default() }
    }

    /// Says where the next statement stands (`file:line:column`).
    pub fn set_place(&self, place: &str) {
        *self.place.lock() = place.to_string();
    }

    /// Says which columns the tables have that declare none.
    pub fn set_columns(&self, columns: &Columns) {
        *self.columns.lock() = columns.clone();
    }

    /// All definitions so far, by name.
    pub fn tables(&self) -> BTreeMap<String, Arc<TableDef>> {
        self.made.lock().clone()
    }
}

#[async_trait]
impl TableProviderFactory for TableFactory {
    async fn create(&self, _: &dyn Session, command: &CreateExternalTable) -> Result<Arc<dyn TableProvider>> {
        let name = command.name.table().to_string();
        let [location] = command.locations.as_slice() else {
            return plan_err!("table '{name}': exactly one LOCATION is needed");
        };
        // DataFusion puts `format.` in front of options without a dot.
        let options = command.options.iter().map(|(key, value)| {
            let key = key.strip_prefix("format.").unwrap_or(key);
            (key.to_lowercase(), value.clone())
        });
        let mut def = TableDef {
            name: name.clone(),
            stored_as: command.file_type.to_uppercase(),
            unbounded: command.unbounded,
            location: location.clone(),
            schema: Arc::new(command.schema.as_arrow().clone()),
            partition_by: command.table_partition_cols.clone(),
            options: options.collect(),
            place: self.place.lock().clone(),
        };
        if def.schema.fields().is_empty() {
            def.schema = match self.columns.lock().get(&name) {
                Some(columns) => Arc::clone(columns),
                None if may_leave_columns_out(&def) => {
                    return plan_err!(
                        "table '{name}': its columns are in the schema registry, which is not asked here: declare them, or give the \
                         schema itself, for instance 'schema' '${{file:schemas/{name}.avsc}}'"
                    );
                }
                None => return plan_err!("table '{name}': declare its columns"),
            };
        }
        let def = Arc::new(def);
        let table: Arc<dyn TableProvider> = match role(&def.stored_as, def.unbounded) {
            Ok(Role::Source) => Arc::new(SourceTable::new(Arc::clone(&def))),
            Ok(Role::Sink) => Arc::new(SinkTable { def: Arc::clone(&def) }),
            Ok(Role::Lookup) => match self.lookups.get(&name) {
                Some(lookup) => Arc::new(LookupProvider::new(Arc::clone(lookup))),
                None => Arc::new(SinkTable { def: Arc::clone(&def) }),
            },
            Err(text) => return plan_err!("table '{name}': {text}"),
        };
        self.made.lock().insert(name, def);
        Ok(table)
    }
}
