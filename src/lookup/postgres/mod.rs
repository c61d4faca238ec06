//! A Postgres table (or view) as a lookup store.
//!
//! LOCATION is `schema.table`, or `table` on the search path. Only the declared columns are read; `columns` says which type of
//! Postgres fits which declared one. Loads and questions for missing keys have a connection each, so that no miss waits for a load.

mod columns;
mod follow;
mod session;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use self::follow::{FOLLOW, PostgresFollower};
use self::session::Session;
use super::index::LookupOptions;
use super::{Follower, LookupStore};
use crate::error::{Error, Kind, Result};
use crate::memory::{Share, Use};
use crate::postgres::{Address, quoted};
use crate::table::TableDef;

/// A server that does not answer for so long is taken as away.
const CONNECT: Duration = Duration::from_secs(5);
/// A whole table: some ten million rows.
const LOAD: Duration = Duration::from_secs(60);
/// A few thousand rows by their key; events wait for it.
const FETCH: Duration = Duration::from_secs(2);

/// The store of one lookup table. Makes its connections when they are needed, and anew after any error.
#[derive(Debug)]
pub struct PostgresLookup {
    place: Place,
    loads: Mutex<Option<Arc<Session>>>,
    fetches: Mutex<Option<Arc<Session>>>,
    memory: Share,
}

/// What is read, and from where; and how errors about it are told.
#[derive(Debug)]
struct Place {
    lookup: String,
    /// `file:line:column` of the declaration.
    declared: String,
    address: Address,
    /// As in LOCATION.
    table: String,
    /// Quoted.
    from: String,
    schema: SchemaRef,
    key: usize,
    publication: String,
    rows_max: u64,
}

impl PostgresLookup {
    /// The store that `def` declares; connects to nothing yet.
    pub fn new(def: &TableDef) -> Result<Self> {
        let options = LookupOptions::from_table(def)?;
        let mut address = Address::read(&options.url).map_err(|problem| def.error(problem))?;
        address.config.connect_timeout(CONNECT).keepalives_idle(Duration::from_secs(30));
        let place = Place {
            lookup: def.name.clone(),
            declared: def.place.clone(),
            address,
            from: quoted_table(&def.location).ok_or_else(|| {
                def.error(format!(
                    "LOCATION '{}' is no table of Postgres: write 'schema.table', for instance 'public.content'",
                    def.location
                ))
            })?,
            table: def.location.clone(),
            schema: Arc::clone(&def.schema),
            key: options.key,
            publication: options.publication,
            rows_max: options.rows_max,
        };
        Ok(Self { place, loads: Mutex::default(), fetches: Mutex::default(), memory: Share::unlimited() })
    }

    /// The same, with rows that are being read accounted for in `memory`: what does not fit is `Err(Full)` midway.
    pub fn with_memory(mut self, memory: Share) -> Self {
        self.memory = memory;
        self
    }

    async fn session(&self, slot: &Mutex<Option<Arc<Session>>>, statement: Duration) -> Result<Arc<Session>> {
        let mut slot = slot.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| session.is_open()) {
            return Ok(Arc::clone(session));
        }
        *slot = None;
        let opened = self.place.within(CONNECT, Session::open(&self.place, statement)).await?;
        let session = Arc::new(opened);
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    /// A session after an error is not used again: it may be in the middle of an answer, or describe columns that have changed.
    async fn drop_after<T>(&self, slot: &Mutex<Option<Arc<Session>>>, used: &Arc<Session>, result: Result<T>) -> Result<T> {
        if result.is_err() {
            let mut slot = slot.lock().await;
            if slot.as_ref().is_some_and(|session| Arc::ptr_eq(session, used)) {
                *slot = None;
            }
        }
        result
    }
}

#[async_trait]
impl LookupStore for PostgresLookup {
    async fn load(&self) -> Result<RecordBatch> {
        let session = self.session(&self.loads, LOAD).await?;
        let rows = self.place.within(LOAD, session.load(&self.place, self.memory.account(Use::Load))).await;
        self.drop_after(&self.loads, &session, rows).await
    }

    async fn follow(&self) -> Result<Box<dyn Follower>> {
        Ok(Box::new(self.place.within(FOLLOW, PostgresFollower::open(&self.place)).await?))
    }

    async fn fetch(&self, keys: ArrayRef) -> Result<RecordBatch> {
        let session = self.session(&self.fetches, FETCH).await?;
        let rows = self.place.within(FETCH, session.fetch(&self.place, &keys, self.memory.account(Use::Load))).await;
        self.drop_after(&self.fetches, &session, rows).await
    }
}

impl Place {
    async fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = || Error::new(Kind::Unreachable, format!("{} did not answer within {limit:?}", self.server()));
        timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
    }

    fn server(&self) -> String {
        self.address.server()
    }

    /// An error of the declaration, with its place.
    fn wrong(&self, text: impl std::fmt::Display) -> Error {
        Error::new(Kind::Sql, format!("{}: table '{}': {text}", self.declared, self.lookup))
    }

    /// What an error of Postgres means. Its texts never hold the password.
    fn problem(&self, error: tokio_postgres::Error) -> Error {
        let (lookup, table, server) = (&self.lookup, &self.table, self.server());
        let user = self.address.config.get_user().unwrap_or_default();
        if let Some(db) = error.as_db_error() {
            let code = db.code();
            if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME {
                let text =
                    format!("table {table} does not exist yet at {server}; create it, or mend LOCATION of lookup '{lookup}'");
                return Error::new(Kind::Unreachable, text);
            }
            if *code == SqlState::UNDEFINED_COLUMN {
                let hint = db.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                return self.wrong(format!("{} in {table}{hint}: mend the declared columns, or add it there", db.message()));
            }
            if *code == SqlState::INSUFFICIENT_PRIVILEGE {
                let text =
                    format!("user '{user}' may not read {table} for lookup '{lookup}': GRANT SELECT ON {table} TO {user}");
                return Error::new(Kind::Denied, text).because(error);
            }
            if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
                let text = format!("{server} refuses user '{user}' of lookup '{lookup}': check user and password in its 'url'");
                return Error::new(Kind::Denied, text).because(error);
            }
            if *code == SqlState::INVALID_CATALOG_NAME {
                let text =
                    format!("{server} does not have the database of lookup '{lookup}' yet; create it, or mend its 'url'");
                return Error::new(Kind::Unreachable, text).because(error);
            }
        } else if error.to_string().contains("password") {
            let text = format!("{server} asks for a password of user '{user}': put one into the 'url' of lookup '{lookup}'");
            return Error::new(Kind::Denied, text);
        }
        Error::new(Kind::Unreachable, format!("{server} cannot be asked for lookup '{lookup}'")).because(error)
    }
}

/// `public.content` as `"public"."content"`.
fn quoted_table(location: &str) -> Option<String> {
    let parts: Vec<&str> = location.split('.').collect();
    let good = parts.len() <= 2 && parts.iter().all(|part| !part.is_empty() && !part.contains('\0'));
    good.then(|| parts.iter().map(|part| quoted(part)).collect::<Vec<_>>().join("."))
}
