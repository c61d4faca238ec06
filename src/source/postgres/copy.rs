//! The rows that a table has already: copied into the spool as of one place in the WAL, so that the changes go on from there without a
//! gap and without a double.
//!
//! A temporary replication slot names that place and exports the snapshot of the database that belongs to it (PostgreSQL
//! documentation, "Streaming Replication Protocol", `CREATE_REPLICATION_SLOT … EXPORT_SNAPSHOT`). It lives as long as its connection
//! is idle. Large tables are copied over several connections, each a part of their pages. How far it is stands in the status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, pin_mut};
use pgwire_replication::ReplicationClient;
use tokio_postgres::Client;

use super::capture::Table;
use super::mark::{CopyAgain, Lsn, TablePlace};
use super::options::Snapshot;
use super::resume::config;
use super::server::{Catalog, Server};
use super::spool::Written;
use crate::batch::Payloads;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::pgoutput::{Change, Op, Relation, RelationColumn};
use crate::position::Span;
use crate::postgres::quoted;
use crate::status::CaptureStatus;

/// A piece of the spool.
const PIECE_BYTES: usize = 4 << 20;
const PIECE_ROWS: usize = 65_536;
/// A connection more for so many pages (of 8 KiB), up to so many.
const PAGES_PER_CONNECTION: i64 = 16_384;
const CONNECTIONS_MAX: i64 = 4;

/// Copies the table's rows, which get the offsets from `first` on. Everything of it is durable when it returns, and of no meaning
/// before the place is, too.
pub(super) async fn copy(table: &Table, first: i64, server: &Server<'_>, status: &CaptureStatus) -> Result<TablePlace> {
    let catalog = server.catalog(&table.options).await?;
    let done = try_copy(table, first, &catalog, status).await;
    if done.is_err() {
        status.copy_failed(&table.location);
    }
    done
}

async fn try_copy(table: &Table, first: i64, catalog: &Catalog, status: &CaptureStatus) -> Result<TablePlace> {
    let options = &table.options;
    let exported = Exported::of(table).await?;
    table.spool.clear_from(first);
    let main = Part::open(table, &exported.name).await?;
    let (relation, estimate, pages) = describe(&main.client, table).await?;
    let relation = catalog.complete(relation);
    let copied = Copied {
        table,
        next: AtomicI64::new(first),
        first,
        generation: generation(table, &relation),
        from: if exported.from == Lsn::MAX { Lsn::default() } else { exported.from },
        estimate: estimate as u64,
        status,
        now_us: Clock::system().now_ns() / 1000,
    };
    let began = Instant::now();
    status.copied(&table.location, 0, copied.estimate, false);
    let parts = (pages / PAGES_PER_CONNECTION + 1).clamp(1, CONNECTIONS_MAX);
    let mut others = Vec::new();
    for _ in 1..parts {
        others.push(Part::open(table, &exported.name).await?);
    }
    let each = pages / parts + 1;
    let work = std::iter::once(main).chain(others).zip(0..).map(|(part, number)| {
        let from = (number > 0).then_some(number * each);
        let to = (number + 1 < parts).then_some((number + 1) * each);
        part.copy(&copied, &relation, from, to)
    });
    futures::future::try_join_all(work).await?;
    let next = copied.next.load(Ordering::SeqCst);
    keep_relation(table, copied.generation, relation)?;
    table.spool.sync()?;
    failpoint::hit(&options.keeper(), "copy.done");
    let rows = next - first;
    status.copied(&table.location, rows as u64, rows as u64, true);
    tracing::info!("{}: {rows} rows copied in {:.1} s", table.location, began.elapsed().as_secs_f64());
    Ok(TablePlace { offset: next, rows: next, from: exported.from })
}

/// A snapshot of the database that other connections can see, as long as this lives.
struct Exported {
    name: String,
    /// What was committed before this place is in it.
    from: Lsn,
    _holder: Holder,
}

/// What keeps an exported snapshot alive: a connection that is idle.
enum Holder {
    Slot { _client: ReplicationClient },
    Transaction { _client: Client },
}

impl Exported {
    /// Of a table whose changes are read, too, as of a place in the WAL; else without one, which needs no `wal_level`.
    async fn of(table: &Table) -> Result<Self> {
        if table.options.snapshot == Snapshot::Only {
            let client = connect(table).await?;
            let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            client.batch_execute(sql).await.map_err(|e| failed(table, e))?;
            let row = client.query_one("SELECT pg_export_snapshot()", &[]).await.map_err(|e| failed(table, e))?;
            return Ok(Self { name: row.get(0), from: Lsn::MAX, _holder: Holder::Transaction { _client: client } });
        }
        let mut client =
            ReplicationClient::connect_gated(config(&table.options, Lsn::default())).await.map_err(|e| failed(table, e))?;
        let slot = format!("falaj_copy_{}", uuid::Uuid::now_v7().simple());
        let sql = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT");
        let made = client.simple_query(&sql).await.map_err(|e| failed(table, e))?;
        let text = |column: usize| {
            let value = made.first().and_then(|row| row.get(column)).and_then(Option::as_ref);
            value.and_then(|bytes| str::from_utf8(bytes).ok()).map(str::to_string)
        };
        match (text(1).as_deref().and_then(Lsn::parse), text(2)) {
            (Some(from), Some(name)) => Ok(Self { name, from, _holder: Holder::Slot { _client: client } }),
            _ => Err(Error::new(Kind::Bug, "Postgres exported a snapshot without a name")),
        }
    }
}

/// What the rows in the spool look like, by the number by which they name it.
type Spooled = BTreeMap<u32, Relation>;

fn read_relations(table: &Table) -> Result<Spooled> {
    let unread = |cause| Error::new(Kind::Corrupt, format!("the spool of {} cannot be read", table.location)).because(cause);
    table.spool.read_relations()?.map_or(Ok(Spooled::new()), |text| serde_json::from_slice(&text).map_err(unread))
}

fn keep_relation(table: &Table, generation: u32, relation: Relation) -> Result<()> {
    let mut relations = read_relations(table)?;
    relations.insert(generation, relation);
    let text = serde_json::to_vec(&relations)
        .map_err(|cause| Error::new(Kind::Bug, "a relation could not be written").because(cause))?;
    table.spool.write_relations(&text)
}

/// The number of `relation` among those of the table; it gets one if it is new.
fn generation(table: &Table, relation: &Relation) -> u32 {
    let mut relations = table.relations.write();
    if relations.last().is_none_or(|last| **last != *relation) {
        relations.push(Arc::new(relation.clone()));
    }
    relations.len() as u32 - 1
}

/// After a restart: finds the rows of snapshots that are still needed, and what they look like; what lies beside them is removed.
/// Gives those of the snapshot before `at`; the others follow in their place.
pub(super) fn spooled(table: &Table, at: TablePlace, copies: &[CopyAgain]) -> Result<Vec<Span>> {
    let copies = copies.iter().filter(|copy| copy.table == table.location).map(|copy| (copy.first, copy.behind.rows));
    table.spool.keep(&std::iter::once((0, at.rows)).chain(copies).collect::<Vec<_>>());
    let mut relations = table.relations.write();
    for (generation, relation) in read_relations(table)? {
        let relation = Arc::new(relation);
        // Those between are not known any more, and nothing names them.
        while relations.len() <= generation as usize {
            relations.push(Arc::clone(&relation));
        }
    }
    Ok(table.spool.spans(0, at.rows))
}

/// What the connections of one copy share.
struct Copied<'a> {
    table: &'a Table,
    /// The offset of the next row, and of the first.
    next: AtomicI64,
    first: i64,
    generation: u32,
    /// The place of the snapshot; 0 where it has none.
    from: Lsn,
    /// How many rows there are, as Postgres guesses.
    estimate: u64,
    status: &'a CaptureStatus,
    now_us: i64,
}

impl Copied<'_> {
    fn write(&self, mut piece: Payloads) -> Result<()> {
        let rows = piece.len() as i64;
        let from = self.next.fetch_add(rows, Ordering::SeqCst);
        piece.span = Span { partition: super::buffer::PARTITION, from, to: from + rows };
        piece.appended_ms = self.now_us / 1000;
        self.table.spool.write(&piece, Written::Durably)?;
        self.status.copied(&self.table.location, (from + rows - self.first) as u64, self.estimate, false);
        failpoint::hit(&self.table.options.keeper(), "copy.middle");
        Ok(())
    }
}

/// One connection that sees the snapshot.
struct Part {
    client: Client,
}

impl Part {
    async fn open(table: &Table, snapshot: &str) -> Result<Self> {
        let client = connect(table).await?;
        // The name comes from Postgres and has hexadecimal digits and dashes only.
        let sql = format!(
            "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex';
             BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}'"
        );
        client.batch_execute(&sql).await.map_err(|e| failed(table, e))?;
        Ok(Self { client })
    }

    /// Copies the rows on the pages `[from, to)`.
    async fn copy(self, copied: &Copied<'_>, relation: &Relation, from: Option<i64>, to: Option<i64>) -> Result<()> {
        let table = copied.table;
        let columns: Vec<String> = relation.columns.iter().map(as_text).collect();
        let bounds = [(from, ">="), (to, "<")].into_iter().filter_map(|(page, is)| Some(format!("ctid {is} '({},0)'", page?)));
        let bounds: Vec<String> = bounds.collect();
        let only = if bounds.is_empty() { String::new() } else { format!(" WHERE {}", bounds.join(" AND ")) };
        let sql = format!(
            "COPY (SELECT {} FROM {}.{}{only}) TO STDOUT (FORMAT binary)",
            columns.join(", "),
            quoted(&table.options.schema),
            quoted(&table.options.table)
        );
        let stream = self.client.copy_out(&sql).await.map_err(|e| failed(table, e))?;
        pin_mut!(stream);
        let mut rows = CopyRows::default();
        let (mut piece, mut body) = (Payloads::default(), Vec::new());
        while let Some(bytes) = stream.next().await {
            rows.add(bytes.map_err(|e| failed(table, e))?);
            while rows.next(relation.columns.len(), &mut body).ok_or_else(|| malformed(table))? {
                let change = Change {
                    op: Op::Read,
                    generation: copied.generation,
                    lsn: copied.from.0,
                    commit_lsn: 0,
                    before_lsn: 0,
                    commit_us: copied.now_us,
                    xid: 0,
                    body: &body,
                };
                change.write(&mut piece.bytes);
                piece.ends.push(piece.bytes.len());
                piece.offsets.push(0);
            }
            if piece.bytes.len() >= PIECE_BYTES || piece.len() >= PIECE_ROWS {
                copied.write(std::mem::take(&mut piece))?;
            }
        }
        if piece.is_empty() { Ok(()) } else { copied.write(piece) }
    }
}

async fn connect(table: &Table) -> Result<Client> {
    table.options.address.connect(|error| failed(table, error)).await
}

/// The table's columns as a relation; about how many rows and pages it has.
async fn describe(client: &Client, table: &Table) -> Result<(Relation, f32, i64)> {
    let sql =
        "SELECT c.oid, c.reltuples, pg_relation_size(c.oid) / current_setting('block_size')::bigint, c.relreplident::text,
                 a.attname::text, a.atttypid, a.atttypmod, coalesce(a.attnum = ANY(i.indkey), false)
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                 LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
               WHERE n.nspname = $1 AND c.relname = $2 ORDER BY a.attnum";
    let rows: Vec<_> = client
        .query_raw(sql, [&table.options.schema, &table.options.table])
        .await
        .map_err(|e| failed(table, e))?
        .try_collect()
        .await
        .map_err(|e| failed(table, e))?;
    let Some(first) = rows.first() else { return Err(malformed(table)) };
    let column = |row: &tokio_postgres::Row| RelationColumn {
        name: row.get(4),
        is_key: row.get(7),
        type_id: row.get(5),
        type_modifier: row.get(6),
    };
    let relation = Relation {
        id: first.get(0),
        schema: table.options.schema.clone(),
        name: table.options.table.clone(),
        identity: first.get::<_, &str>(3).bytes().next().unwrap_or(b'd'),
        columns: rows.iter().map(column).collect(),
    };
    Ok((relation, first.get::<_, f32>(1).max(0.0), first.get(2)))
}

/// The value as its type's output function writes it, which is what the WAL's messages have. A cast to text is the same and faster, but
/// for a few types.
fn as_text(column: &RelationColumn) -> String {
    let name = quoted(&column.name);
    match column.type_id {
        20 | 21 | 23 | 25 | 114 | 700 | 701 | 1043 | 1082 | 1114 | 1184 | 1700 | 2950 | 3802 => format!("{name}::text"),
        _ => format!("CASE WHEN {name} IS NOT NULL THEN concat({name}) END"),
    }
}

/// Takes the rows of `COPY … (FORMAT binary)` out of the pieces in which it comes (PostgreSQL documentation, "COPY", "Binary Format").
#[derive(Default)]
struct CopyRows {
    bytes: BytesMut,
    begun: bool,
}

impl CopyRows {
    fn add(&mut self, bytes: Bytes) {
        self.bytes.extend_from_slice(&bytes);
    }

    /// Puts the next row into `body`, as `pgoutput` would write it. `Some(false)`: it is not there yet, or there is none.
    fn next(&mut self, columns: usize, body: &mut Vec<u8>) -> Option<bool> {
        const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
        if !self.begun {
            let Some(header) = self.bytes.get(..SIGNATURE.len() + 8) else { return Some(false) };
            let extension = header.get(SIGNATURE.len() + 4..)?.try_into().ok().map(u32::from_be_bytes)?;
            if !header.starts_with(SIGNATURE) || extension != 0 {
                return None;
            }
            self.bytes.advance(SIGNATURE.len() + 8);
            self.begun = true;
        }
        let mut rest = &self.bytes[..];
        let Some(count) = rest.try_get_i16().ok() else { return Some(false) };
        if count == -1 {
            return Some(false);
        }
        if usize::try_from(count) != Ok(columns) {
            return None;
        }
        body.clear();
        body.push(b'N');
        body.extend_from_slice(&count.to_be_bytes());
        for _ in 0..count {
            let Some(length) = rest.try_get_i32().ok() else { return Some(false) };
            match usize::try_from(length) {
                Ok(length) => {
                    let Some((value, after)) = rest.split_at_checked(length) else { return Some(false) };
                    body.push(b't');
                    body.extend_from_slice(&(length as u32).to_be_bytes());
                    body.extend_from_slice(value);
                    rest = after;
                }
                Err(_) => body.push(b'n'),
            }
        }
        let taken = self.bytes.len() - rest.len();
        self.bytes.advance(taken);
        Some(true)
    }
}

fn malformed(table: &Table) -> Error {
    Error::new(Kind::Corrupt, format!("Postgres' copy of {} cannot be read", table.location))
}

fn failed(table: &Table, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    let text = format!("the rows of {} cannot be copied from {} now", table.location, table.options.server());
    Error::new(Kind::Unreachable, text).because(cause)
}
