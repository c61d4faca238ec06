//! The changes of a lookup's table, out of the WAL: which keys are to be asked for again.
//!
//! Only keys are taken from it; the rows are asked for as for a miss, so that there is one way to read a value. The replication slot is a
//! temporary one, which goes with its connection: nothing is kept in Postgres for a process that is gone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::FutureExt;
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationEvent};
use tokio_postgres::Client;

use super::{CONNECT, FETCH, Place};
use crate::error::{Error, Kind, Result};
use crate::lookup::{Changed, Follower};
use crate::pgoutput::{Change, Malformed, Message, Tuple, Value};
use crate::postgres::publish;

/// Keys that are told at once.
const KEYS_MAX: usize = 4_096;
/// How soon Postgres hears how far we are: the WAL of so long is kept.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is asked whether a transaction has ended that was heard of.
const ENDED_TICK: Duration = Duration::from_millis(1);

/// A replication connection, and an ordinary one for questions about it.
pub(super) struct PostgresFollower {
    wal: ReplicationClient,
    client: Client,
    server: String,
    schema: String,
    table: String,
    key: String,
    key_type: DataType,
    /// Of each table heard of, whether it is ours, and which of its columns is the key.
    relations: HashMap<u32, Option<usize>>,
    /// The transaction that is being received, or was last.
    xid: u32,
    within: bool,
    keys: BTreeSet<String>,
    xids: BTreeSet<u32>,
    all: bool,
}

impl PostgresFollower {
    /// Follows what is committed from now on.
    pub(super) async fn open(place: &Place) -> Result<Self> {
        let client = place.address.connect(|error| place.problem(error)).await?;
        let sql = "SELECT n.nspname::text, c.relname::text, c.relkind::text FROM pg_class c
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";
        let row = client.query_opt(sql, &[&place.from]).await.map_err(|error| place.problem(error))?;
        let Some(row) = row else {
            return Err(Error::new(
                Kind::Unreachable,
                format!("table {} does not exist yet at {}", place.table, place.server()),
            ));
        };
        let (schema, table, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        if !matches!(kind.as_str(), "r" | "p") {
            return Err(place.wrong(format!("{} is no table, so it has no changes: give 'refresh' an interval", place.table)));
        }
        publish(&client, (&place.publication, &schema, &table), |error| place.problem(error)).await?;
        let slot = format!("falaj_lookup_{}", uuid::Uuid::now_v7().simple());
        let config = place.address.replication(&slot, &place.publication, 0, STATUS_INTERVAL);
        let failed = |error| failed(&place.server(), &place.table, error);
        let mut wal = ReplicationClient::connect_gated(config).await.map_err(failed)?;
        let make = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT");
        wal.simple_query(&make).await.map_err(failed)?;
        wal.start().await.map_err(failed)?;
        wal.wait_started().await.map_err(failed)?;
        let key = place.schema.field(place.key);
        Ok(Self {
            wal,
            client,
            server: place.server(),
            schema,
            table,
            key: key.name().clone(),
            key_type: key.data_type().clone(),
            relations: HashMap::new(),
            xid: 0,
            within: false,
            keys: BTreeSet::new(),
            xids: BTreeSet::new(),
            all: false,
        })
    }

    fn has_some(&self) -> bool {
        self.all || !self.keys.is_empty()
    }

    fn take(&mut self, event: std::result::Result<Option<ReplicationEvent>, PgWireError>) -> Result<()> {
        match event.map_err(|error| failed(&self.server, &self.table, error))? {
            Some(ReplicationEvent::Begin { xid, .. }) => (self.xid, self.within) = (xid, true),
            Some(ReplicationEvent::XLogData { data, .. }) => self.read(&data).map_err(|Malformed(why)| {
                Error::new(Kind::Unreachable, format!("a message of {} cannot be read: it {why}", self.server))
            })?,
            Some(ReplicationEvent::Commit { end_lsn, .. }) => {
                self.within = false;
                self.wal.update_applied_lsn(end_lsn);
            }
            Some(ReplicationEvent::KeepAlive { wal_end, .. }) => self.wal.update_applied_lsn(wal_end),
            Some(ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. }) => {}
            None => return Err(Error::new(Kind::Unreachable, format!("{} ended the connection", self.server))),
        }
        Ok(())
    }

    fn read(&mut self, message: &[u8]) -> std::result::Result<(), Malformed> {
        match Message::parse(message)? {
            Message::Relation(relation) => {
                let is_ours = relation.schema == self.schema && relation.name == self.table;
                let key = relation.columns.iter().position(|column| column.name == self.key);
                self.relations.insert(relation.id, key.filter(|_| is_ours));
            }
            Message::Row { relation, op, body } => {
                if let Some(&Some(key)) = self.relations.get(&relation) {
                    let change =
                        Change { op, generation: 0, lsn: 0, commit_lsn: 0, before_lsn: 0, commit_us: 0, xid: self.xid, body };
                    let rows = change.rows()?;
                    let mut known = false;
                    for row in [rows.old, rows.new].into_iter().flatten() {
                        known |= self.note(row, key)?;
                    }
                    // A key that is not part of the replica identity is not told of a row that is gone.
                    self.all |= !known;
                    self.xids.insert(self.xid);
                }
            }
            Message::Truncate { relations } => {
                if relations.iter().any(|relation| matches!(self.relations.get(relation), Some(Some(_)))) {
                    self.all = true;
                    self.xids.insert(self.xid);
                }
            }
            Message::Other => {}
        }
        Ok(())
    }

    fn note(&mut self, mut row: Tuple<'_>, key: usize) -> std::result::Result<bool, Malformed> {
        let Some(Value::Text(text)) = row.nth(key).transpose()? else { return Ok(false) };
        let text = str::from_utf8(text).map_err(|_| Malformed("has a key that is not UTF-8"))?;
        self.keys.insert(text.to_string());
        Ok(true)
    }

    /// Waits until whoever asks sees what the transactions did: the WAL tells of a commit a moment before that. A transaction holds a
    /// lock on its own number until then.
    async fn ended(&mut self) -> Result<()> {
        let xids: Vec<String> = std::mem::take(&mut self.xids).iter().map(ToString::to_string).collect();
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND transactionid::text = ANY($1)";
        loop {
            let asked = tokio::time::timeout(FETCH, self.client.query_one(sql, &[&xids])).await;
            let row = asked
                .map_err(|_| Error::new(Kind::Unreachable, format!("{} did not answer within {FETCH:?}", self.server)))?
                .map_err(|error| failed(&self.server, &self.table, error))?;
            if row.get::<_, i64>(0) == 0 {
                return Ok(());
            }
            tokio::time::sleep(ENDED_TICK).await;
        }
    }
}

#[async_trait]
impl Follower for PostgresFollower {
    async fn next(&mut self) -> Result<Changed> {
        // A transaction is sent whole, so what is missing of it is on its way.
        while !self.has_some() || (self.within && self.keys.len() < KEYS_MAX) {
            let event = self.wal.recv().await;
            self.take(event)?;
        }
        while self.keys.len() < KEYS_MAX
            && let Some(event) = self.wal.recv().now_or_never()
        {
            self.take(event)?;
        }
        self.ended().await?;
        let keys: StringViewArray = std::mem::take(&mut self.keys).into_iter().map(Some).collect();
        if std::mem::take(&mut self.all) {
            return Ok(Changed::All);
        }
        Ok(Changed::Keys(cast(&(Arc::new(keys) as ArrayRef), &self.key_type)?))
    }
}

fn failed(server: &str, table: &str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    let advice = "check wal_level = logical, free replication slots and the role's REPLICATION";
    Error::new(Kind::Unreachable, format!("the changes of {table} at {server} cannot be followed; {advice}")).because(cause)
}

/// How long it may take until changes are followed: a slot waits for open transactions.
pub(super) const FOLLOW: Duration = Duration::from_secs(CONNECT.as_secs() * 6);
