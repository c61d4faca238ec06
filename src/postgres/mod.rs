//! What the adapters of Postgres share: publications, replication connections, and names.

use std::time::Duration;

use pgwire_replication::{Lsn, ReplicationConfig, TlsConfig};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

use crate::error::{Error, Kind, Result};

/// Messages between the task that reads the socket of a replication connection and whoever takes them.
pub(crate) const EVENTS_MAX: usize = 1024;

/// A name as SQL takes it, whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `Postgres at host:port`.
pub(crate) fn server(config: &Config) -> String {
    format!("Postgres at {}:{}", host(config), port(config))
}

fn host(config: &Config) -> String {
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_string(),
    }
}

fn port(config: &Config) -> u16 {
    config.get_ports().first().copied().unwrap_or(5432)
}

/// The settings of a connection that replicates from `from` on, telling Postgres each `status` how far it is. Values come as
/// [`crate::decode`]rs expect them: times in ISO and UTC, bytes in hex.
pub(crate) fn replication(config: &Config, slot: &str, publication: &str, from: u64, status: Duration) -> ReplicationConfig {
    let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned()).unwrap_or_default();
    let user = config.get_user().unwrap_or("postgres");
    let database = config.get_dbname().unwrap_or(user);
    ReplicationConfig::new(host(config), user, password, database, slot, publication)
        .with_port(port(config))
        .with_tls(TlsConfig::disabled())
        .with_start_lsn(Lsn::from_u64(from))
        .with_status_interval(status)
        .with_buffer_size(EVENTS_MAX)
        .with_application_name("falaj")
        .with_options("-c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=1 -c bytea_output=hex")
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
