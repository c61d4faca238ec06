//! What the adapters of Postgres share: addresses and connections, publications, and names.

mod address;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

pub(crate) use self::address::Address;
use crate::error::{Error, Kind, Result};

/// Messages between the task that reads the socket of a replication connection and whoever takes them.
pub(crate) const EVENTS_MAX: usize = 1024;

/// A name as SQL takes it, whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Makes a publication, or adds the table to it, where that is missing. `Err(Denied)` has the statement that somebody else must run;
/// any other error of Postgres' is the cause of what `problem` makes of it.
pub(crate) async fn publish(
    client: &Client,
    (publication, schema, table): (&str, &str, &str),
    problem: impl Fn(tokio_postgres::Error) -> Error,
) -> Result<()> {
    let sql = "SELECT p.puballtables, EXISTS (SELECT 1 FROM pg_publication_tables t
                 WHERE t.pubname = p.pubname AND t.schemaname = $2 AND t.tablename = $3)
               FROM pg_publication p WHERE p.pubname = $1";
    let found = client.query_opt(sql, &[&publication, &schema, &table]).await.map_err(&problem)?;
    let (publication, table) = (quoted(publication), format!("{}.{}", quoted(schema), quoted(table)));
    let make = match found {
        None => format!("CREATE PUBLICATION {publication} FOR TABLE {table} WITH (publish_via_partition_root = true)"),
        Some(row) if row.get::<_, bool>(0) || row.get::<_, bool>(1) => return Ok(()),
        Some(_) => format!("ALTER PUBLICATION {publication} ADD TABLE {table}"),
    };
    match client.batch_execute(&make).await {
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let text = format!("the publication that is needed cannot be made; let an owner of the table do it: {make}");
            Err(Error::new(Kind::Denied, text).because(error))
        }
        // Somebody else was faster.
        Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => Ok(()),
        done => done.map_err(problem),
    }
}
