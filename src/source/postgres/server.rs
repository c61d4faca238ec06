//! What is asked of Postgres by ordinary SQL: whether the table, publication and slot are there and fit; what is missing is made.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::mark::Lsn;
use super::options::PostgresOptions;
use crate::error::{Error, Kind, Result};
use crate::pgoutput::{Relation, RelationColumn};
use crate::postgres::{self, quoted};

/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// A replication slot as it stands.
pub(super) struct Slot {
    /// What was acknowledged: changes before it are not sent any more.
    pub(super) confirmed: Lsn,
    /// The oldest WAL that is kept for it.
    pub(super) restart: Lsn,
    /// The server process that reads it.
    pub(super) active_pid: Option<i32>,
}

/// What the messages of the WAL do not say of a table.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// The columns of the primary key.
    key: Vec<String>,
    /// Of each domain, the type that it is made of, with its modifier.
    domains: HashMap<u32, (u32, i32)>,
}

impl Catalog {
    /// The relation as others see it: its key is the primary key, though the replica identity may be the whole row or nothing; a
    /// domain is what it is made of.
    pub(super) fn complete(&self, mut relation: Relation) -> Relation {
        for column in &mut relation.columns {
            if matches!(relation.identity, b'f' | b'n') {
                column.is_key = self.key.contains(&column.name);
            }
            // Domains over domains end: each is made after what it is made of.
            while let Some(&(type_id, modifier)) = self.domains.get(&column.type_id) {
                (column.type_id, column.type_modifier) = (type_id, modifier);
            }
        }
        relation
    }
}

/// An ordinary connection.
pub(super) struct Server<'a> {
    client: Client,
    options: &'a PostgresOptions,
}

impl<'a> Server<'a> {
    /// Connects. `options` are those of any of the tables.
    pub(super) async fn connect(options: &'a PostgresOptions) -> Result<Self> {
        let connected = timeout(ASK_TIMEOUT, options.address.connect(|error| problem(options, error))).await;
        let client = connected.unwrap_or_else(|_| Err(late(options)))?;
        Ok(Self { client, options })
    }

    /// How much WAL Postgres keeps for the slot.
    pub(super) async fn retained(&self) -> Result<u64> {
        let sql = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1";
        let row = within(self.options, self.client.query_opt(sql, &[&self.options.slot])).await?;
        Ok(row.and_then(|row| row.get::<_, Option<i64>>(0)).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0))
    }

    /// Asks whoever reads the slot to copy the rows of a table again: see [`super::session`].
    pub(super) async fn ask_for_rows(&self, options: &PostgresOptions) -> Result<()> {
        let sql = "SELECT pg_logical_emit_message(true, $1, $2)::text";
        let text = format!("{} {}", options.slot, options.location());
        within(self.options, self.client.query_one(sql, &[&super::session::ROWS_ASKED, &text.as_str()])).await.map(|_| ())
    }

    /// Whether changes can be read here at all.
    pub(super) async fn check(&self) -> Result<()> {
        let sql = "SELECT current_setting('wal_level'), pg_is_in_recovery(),
                          (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), current_user::text";
        let row = within(self.options, self.client.query_one(sql, &[])).await?;
        let (level, replica): (&str, bool) = (row.get(0), row.get(1));
        let (may, user): (Option<bool>, &str) = (row.get(2), row.get(3));
        let server = self.options.server();
        if level != "logical" {
            let text = format!(
                "{server} has wal_level = {level}, so its changes cannot be read: set wal_level = logical in postgresql.conf and restart it"
            );
            return Err(Error::new(Kind::Denied, text));
        }
        if may == Some(false) {
            let text = format!("user '{user}' may not read the WAL of {server}: ALTER ROLE {user} REPLICATION");
            return Err(Error::new(Kind::Denied, text));
        }
        if replica {
            let text = format!("{server} is a standby: name the primary in 'url', or wait until this one is promoted");
            return Err(Error::new(Kind::Unreachable, text));
        }
        Ok(())
    }

    /// Whether the table has the declared columns.
    pub(super) async fn check_table(&self, options: &PostgresOptions) -> Result<()> {
        let sql =
            "SELECT a.attname::text, a.atttypid, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                   WHERE n.nspname = $1 AND c.relname = $2 ORDER BY a.attnum";
        let rows = within(self.options, self.client.query(sql, &[&options.schema, &options.table])).await?;
        let table = options.location();
        let wrong = |text: String| Err(Error::new(Kind::Sql, format!("{}: table '{}': {text}", options.place, options.name)));
        let Some(first) = rows.first() else {
            let text = format!(
                "table {table} does not exist yet at {}; create it, or mend LOCATION of '{}'",
                options.server(),
                options.name
            );
            return Err(Error::new(Kind::Unreachable, text));
        };
        if !matches!(first.get::<_, &str>(2), "r" | "p") {
            return wrong(format!("{table} is no table: only tables have changes"));
        }
        for (name, data_type) in &options.columns {
            let Some(row) = rows.iter().find(|row| row.get::<_, &str>(0) == name) else {
                let has: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
                let hint = crate::table::did_you_mean(name, has.iter().copied())
                    .map_or_else(|| format!("it has {}", has.join(", ")), |hint| format!("did you mean '{hint}'?"));
                return wrong(format!("{table} has no column '{name}'; {hint}"));
            };
            let column = RelationColumn { name: name.clone(), is_key: false, type_id: row.get(1), type_modifier: -1 };
            if let Err(is) = column.fits(data_type) {
                return wrong(format!("column '{name}' is {is} in {table}, which does not fit {data_type}; VARCHAR takes any"));
            }
        }
        Ok(())
    }

    /// What the WAL will not say of the table.
    pub(super) async fn catalog(&self, options: &PostgresOptions) -> Result<Catalog> {
        let sql = "SELECT a.attname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
                   WHERE i.indisprimary AND n.nspname = $1 AND c.relname = $2";
        let key = within(self.options, self.client.query(sql, &[&options.schema, &options.table])).await?;
        let sql = "SELECT oid, typbasetype, typtypmod FROM pg_type WHERE typtype = 'd'";
        let domains = within(self.options, self.client.query(sql, &[])).await?;
        Ok(Catalog {
            key: key.iter().map(|row| row.get(0)).collect(),
            domains: domains.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect(),
        })
    }

    /// Makes the publication, or adds the table to it, where that is missing.
    pub(super) async fn publish(&self, options: &PostgresOptions) -> Result<()> {
        let place = (options.publication.as_str(), options.schema.as_str(), options.table.as_str());
        let publish = postgres::publish(&self.client, place, |error| problem(self.options, error));
        timeout(ASK_TIMEOUT, publish).await.unwrap_or_else(|_| Err(late(self.options)))
    }

    /// The slot, if there is one of this name. `Err`: it is another's, or of no use any more.
    pub(super) async fn slot(&self) -> Result<Option<Slot>> {
        let sql = "SELECT plugin::text, database::text = current_database(), confirmed_flush_lsn::text, wal_status, active_pid, restart_lsn::text
                   FROM pg_replication_slots WHERE slot_name = $1";
        let slot = &self.options.slot;
        let Some(row) = within(self.options, self.client.query_opt(sql, &[slot])).await? else { return Ok(None) };
        let (plugin, here): (Option<&str>, Option<bool>) = (row.get(0), row.get(1));
        if plugin != Some("pgoutput") || here != Some(true) {
            let text = format!(
                "replication slot '{slot}' is of another plugin or database: give table '{}' the option 'slot'",
                self.options.name
            );
            return Err(Error::new(Kind::Denied, text));
        }
        if row.get::<_, Option<&str>>(3) == Some("lost") {
            let text = format!(
                "replication slot '{slot}' was invalidated: Postgres removed WAL that was not read yet (max_slot_wal_keep_size); the changes in it \
                 are gone: drop the slot by 'falaj capture drop', and begin again"
            );
            return Err(Error::new(Kind::Lost, text));
        }
        let place = |column: usize| row.get::<_, Option<&str>>(column).and_then(Lsn::parse).unwrap_or_default();
        Ok(Some(Slot { confirmed: place(2), restart: place(5), active_pid: row.get(4) }))
    }

    /// Who reads the slot, if there is one of this name, of whatever kind and in whatever state.
    pub(super) async fn slot_to_drop(&self) -> Result<Option<Option<i32>>> {
        let sql = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
        let row = within(self.options, self.client.query_opt(sql, &[&self.options.slot])).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Drops the slot.
    pub(super) async fn drop_slot(&self) -> Result<()> {
        let sql = "SELECT pg_drop_replication_slot($1)";
        within(self.options, self.client.execute(sql, &[&self.options.slot])).await.map(|_| ())
    }

    /// Drops a publication if it has no table but these. Says what was done, if there is one.
    pub(super) async fn drop_publication(&self, name: &str, tables: &[(String, String)]) -> Result<Option<String>> {
        let sql = "SELECT p.puballtables, t.schemaname::text, t.tablename::text FROM pg_publication p
                   LEFT JOIN pg_publication_tables t ON t.pubname = p.pubname WHERE p.pubname = $1";
        let rows = within(self.options, self.client.query(sql, &[&name])).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let is_ours = |row: &tokio_postgres::Row| match (row.get::<_, Option<&str>>(1), row.get::<_, Option<&str>>(2)) {
            (Some(schema), Some(table)) => tables.iter().any(|ours| ours.0 == schema && ours.1 == table),
            _ => true,
        };
        if rows[0].get::<_, bool>(0) || !rows.iter().all(is_ours) {
            return Ok(Some(format!("{name}: the publication has other tables, too, and stays")));
        }
        within(self.options, self.client.batch_execute(&format!("DROP PUBLICATION {}", quoted(name)))).await?;
        Ok(Some(format!("{name}: the publication is dropped")))
    }

    /// Makes the slot. Its changes begin at the returned place.
    pub(super) async fn create_slot(&self) -> Result<Lsn> {
        let sql = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')";
        // It waits for transactions that are open.
        let row = self.client.query_one(sql, &[&self.options.slot]).await.map_err(|error| problem(self.options, error))?;
        Lsn::parse(row.get(0)).ok_or_else(|| Error::new(Kind::Bug, "Postgres named a place in its WAL that cannot be read"))
    }

    /// Ends the server process that still reads the slot for a process of ours that is gone or fenced.
    pub(super) async fn end_reader(&self, pid: i32) -> Result<()> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = 'falaj'";
        within(self.options, self.client.execute(sql, &[&pid])).await.map(|_| ())
    }

    /// Where the WAL ends.
    pub(super) async fn wal_end(&self) -> Result<Lsn> {
        let row = within(self.options, self.client.query_one("SELECT pg_current_wal_lsn()::text", &[])).await?;
        Lsn::parse(row.get(0)).ok_or_else(|| Error::new(Kind::Bug, "Postgres named a place in its WAL that cannot be read"))
    }

    /// Puts a message into the WAL, which comes back behind every change that was committed before it.
    pub(super) async fn beat(&self, text: &str) -> Result<()> {
        let sql = "SELECT pg_logical_emit_message(false, 'falaj', $1)::text";
        within(self.options, self.client.query_one(sql, &[&text])).await.map(|_| ())
    }
}

async fn within<T>(
    options: &PostgresOptions,
    work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match timeout(ASK_TIMEOUT, work).await {
        Ok(done) => done.map_err(|error| problem(options, error)),
        Err(_) => Err(late(options)),
    }
}

fn late(options: &PostgresOptions) -> Error {
    Error::new(Kind::Unreachable, format!("{} did not answer within {ASK_TIMEOUT:?}", options.server()))
}

/// What an error of Postgres means. Its texts never hold the password.
fn problem(options: &PostgresOptions, error: tokio_postgres::Error) -> Error {
    let (server, user) = (options.server(), options.address.config.get_user().unwrap_or_default());
    let Some(code) = error.code().cloned() else {
        if error.to_string().contains("password") {
            let text =
                format!("{server} asks for a password of user '{user}': put one into the 'url' of table '{}'", options.name);
            return Error::new(Kind::Denied, text);
        }
        return Error::new(Kind::Unreachable, format!("{server} cannot be asked for the changes of {}", options.location()))
            .because(error);
    };
    let denied = |text: String| Error::new(Kind::Denied, text);
    let told = if code == SqlState::INVALID_PASSWORD || code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        denied(format!("{server} refuses user '{user}' of table '{}': check user and password in its 'url'", options.name))
    } else if code == SqlState::INSUFFICIENT_PRIVILEGE {
        denied(format!("user '{user}' of table '{}' may not do what is needed at {server}", options.name))
    } else if code == SqlState::CONFIGURATION_LIMIT_EXCEEDED {
        denied(format!("{server} has no free replication slot: raise max_replication_slots, or drop a slot that nobody reads"))
    } else {
        Error::new(Kind::Unreachable, format!("{server} cannot be asked for the changes of {}", options.location()))
    };
    told.because(error)
}
