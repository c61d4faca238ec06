//! The columns of tables that declare none: from their schema, as the option `schema` or the registry has it.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::decode::framed;
use crate::error::{Error, Kind, Result};
use crate::query::project::{Project, SqlFile};
use crate::query::tables::Columns;
use crate::registry::http::HttpRegistry;
use crate::registry::id::SchemaId;
use crate::registry::options::RegistryOptions;
use crate::registry::schemas::{Known, newest};
use crate::registry::{Schema, SchemaType};
use crate::secrets::Secrets;
use crate::source::kafka::{Format, KafkaOptions};
use crate::table::TableDef;

/// How long a registry that is away is left alone between two questions.
const RETRY_LEAST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Whether a schema registry is asked for columns that are left out.
pub enum Ask {
    /// Nobody is asked: such a table is an error, unless it has the option `schema`.
    Nobody,
    /// The registry is asked, and waited for until this becomes true.
    Registry(watch::Receiver<bool>),
}

/// Reads the files of a project.
pub async fn read(files: Vec<SqlFile>, ask: Ask) -> Result<Project> {
    let mut columns = Columns::new();
    for table in Project::without_columns(&files).await? {
        if let Some(found) = columns_of(&table, &ask).await? {
            columns.insert(table.name, found);
        }
    }
    Project::read_with(files, columns).await
}

/// The columns of a table that declares none; `None`: it must declare them, as will be said when it is read.
async fn columns_of(table: &TableDef, ask: &Ask) -> Result<Option<SchemaRef>> {
    if table.stored_as != "KAFKA" || !table.unbounded {
        return Ok(None);
    }
    let secrets = if matches!(ask, Ask::Nobody) { Secrets::Optional } else { Secrets::Needed };
    let table = secrets.resolve(table)?;
    let Format::Framed(schema_type, registry) = KafkaOptions::from_table(&table)?.format else { return Ok(None) };
    let known = match (table.options.get("schema"), ask) {
        (Some(text), _) => given(text, schema_type),
        (None, Ask::Nobody) => return Ok(None),
        (None, Ask::Registry(stop)) => asked(&table, &registry, stop.clone()).await?,
    };
    let (columns, others) = framed::columns(&known).map_err(|why| table.error(format!("its schema has no columns: {why}")))?;
    if columns.fields().is_empty() {
        return Err(table.error("its schema has no field that can be a column"));
    }
    if !others.is_empty() {
        tracing::info!(
            "table '{}' has no columns for the fields {}: they hold no single values",
            table.name,
            others.join(", ")
        );
    }
    Ok(Some(Arc::new(columns)))
}

fn given(text: &str, schema_type: SchemaType) -> Known {
    let schema = Schema { schema_type, text: text.to_string(), references: Vec::new() };
    Known { id: SchemaId::Id(0), names: Vec::new(), schema, references: Vec::new() }
}

async fn asked(table: &TableDef, options: &RegistryOptions, mut stop: watch::Receiver<bool>) -> Result<Known> {
    let registry = HttpRegistry::new(options).map_err(|error| error.at(&table.place))?;
    let mut backoff = Backoff::new(RETRY_LEAST, RETRY_MOST);
    let mut told = false;
    loop {
        match newest(&registry, &options.subject).await {
            Ok(Some(known)) => return Ok(known),
            Ok(None) => {
                let why = format!("the registry has no schema of subject '{}' yet: declare the columns", options.subject);
                return Err(table.error(why));
            }
            Err(error) if error.kind() == Kind::Unreachable && !*stop.borrow() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("waiting: {}", error.chain());
                }
                let stopped = async { stop.wait_for(|stop| *stop).await.is_ok() };
                let _ = tokio::time::timeout(backoff.wait(), stopped).await;
            }
            Err(error) if *stop.borrow() => {
                return Err(Error::new(Kind::Unreachable, "stopped before the columns were known").because(error));
            }
            Err(error) => return Err(error.at(&table.place)),
        }
    }
}
