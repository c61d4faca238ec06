//! Tables, contents and events into Postgres.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Statement};

use super::{Content, Contents, Event, Generated, Job};
use crate::error::{Error, Kind, Result};
use crate::postgres::Address;

/// Rows in one statement: enough to spread the round trip, little enough to stop quickly.
const ROWS_MAX: usize = 2000;
/// How long Postgres may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

// The lock: two runs at once may both find a table missing.
const TABLES: &str = "
BEGIN;
SELECT pg_advisory_xact_lock(7318349394477056);
CREATE TABLE IF NOT EXISTS content (
  id text PRIMARY KEY, slug text NOT NULL, title text NOT NULL, content_type text NOT NULL,
  length_seconds bigint, publish_ts timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS engagement_events (
  id bigint PRIMARY KEY, content_id text NOT NULL, user_id text NOT NULL, event_type text NOT NULL,
  event_ts timestamptz NOT NULL, duration_ms bigint, device text NOT NULL, raw_payload jsonb NOT NULL);
COMMIT";

// Rows that are already so are left alone, so that a second run makes no changes.
const CONTENT: &str = "
INSERT INTO content AS c (id, slug, title, content_type, length_seconds, publish_ts)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[])
ON CONFLICT (id) DO UPDATE SET slug = excluded.slug, title = excluded.title, content_type = excluded.content_type,
  length_seconds = excluded.length_seconds, publish_ts = excluded.publish_ts
WHERE (c.slug, c.title, c.content_type, c.length_seconds, c.publish_ts) IS DISTINCT FROM
  (excluded.slug, excluded.title, excluded.content_type, excluded.length_seconds, excluded.publish_ts)";

const EVENTS: &str = "
INSERT INTO engagement_events (id, content_id, user_id, event_type, event_ts, duration_ms, device, raw_payload)
SELECT id, content_id, user_id, event_type, event_ts, duration_ms, device, raw_payload::jsonb
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], $7::text[], $8::text[])
  AS e (id, content_id, user_id, event_type, event_ts, duration_ms, device, raw_payload)";

/// A connection of our own.
pub(super) struct Database {
    client: Client,
}

impl Database {
    /// Connects to `url`, which is never repeated in an error: it may hold a password.
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let address =
            Address::read(url).map_err(|wrong| Error::new(Kind::Usage, wrong.replace("option 'url'", "the database URL")))?;
        let unreachable =
            || Error::new(Kind::Unreachable, "Postgres does not let us in; is it running, and is DATABASE_URL right?");
        let connect = address.connect(|cause| unreachable().because(cause));
        let client = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(|cause| unreachable().because(cause))??;
        Ok(Self { client })
    }

    /// Makes the tables that are missing.
    pub(super) async fn create_tables(&self) -> Result<()> {
        self.client.batch_execute(TABLES).await.map_err(|cause| failed("the tables could not be made", cause))
    }

    /// Writes every row of `contents`, new or changed, unless `stop` comes up.
    pub(super) async fn fill_content(&self, contents: &Contents, stop: &AtomicBool) -> Result<()> {
        let statement = self.prepare(CONTENT).await?;
        for rows in contents.rows.chunks(ROWS_MAX) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let text = |get: fn(&Content) -> &str| rows.iter().map(get).collect::<Vec<_>>();
            let lengths: Vec<_> = rows.iter().map(|row| row.length_seconds).collect();
            let times: Vec<_> = rows.iter().map(|row| time(row.publish_ts_ms)).collect();
            let (ids, slugs) = (text(|row| &row.id), text(|row| &row.slug));
            let (titles, types) = (text(|row| &row.title), text(|row| row.content_type));
            self.client
                .execute(&statement, &[&ids, &slugs, &titles, &types, &lengths, &times])
                .await
                .map_err(|cause| failed("table content could not be filled", cause))?;
        }
        Ok(())
    }

    /// Inserts the job's events, numbered from `first_id` or from the next free number.
    pub(super) async fn insert_events(&mut self, mut job: Job, first_id: Option<u64>) -> Result<Generated> {
        let statement = self.prepare(EVENTS).await?;
        let renumber = match first_id {
            Some(first) => first - 1,
            None => self.last_id().await?,
        };
        job.start();
        let mut rows = EventRows::default();
        while let Some(due) = job.due() {
            if due == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            rows.clear();
            for _ in 0..due.min(ROWS_MAX as u64) {
                rows.push(&job.next(), renumber);
            }
            rows.insert(&self.client, &statement).await?;
            job.bar.set_position(job.made);
        }
        let confirmed = job.made;
        Ok(job.finish(confirmed))
    }

    async fn last_id(&self) -> Result<u64> {
        let row = self
            .client
            .query_one("SELECT coalesce(max(id), 0)::bigint FROM engagement_events", &[])
            .await
            .map_err(|cause| failed("the last event could not be found", cause))?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    async fn prepare(&self, sql: &str) -> Result<Statement> {
        self.client.prepare(sql).await.map_err(|cause| failed("a table is missing or has other columns", cause))
    }
}

/// The columns of one statement.
#[derive(Default)]
struct EventRows {
    ids: Vec<i64>,
    contents: Vec<String>,
    users: Vec<String>,
    types: Vec<&'static str>,
    times: Vec<DateTime<Utc>>,
    durations: Vec<Option<i64>>,
    devices: Vec<&'static str>,
    payloads: Vec<String>,
}

impl EventRows {
    fn clear(&mut self) {
        *self = Self::default();
    }

    fn push(&mut self, event: &Event, renumber: u64) {
        let text = |write: fn(&Event, &mut Vec<u8>)| {
            let mut out = Vec::new();
            write(event, &mut out);
            String::from_utf8(out).unwrap_or_default()
        };
        self.ids.push((event.id + renumber) as i64);
        self.contents.push(text(Event::write_content_id));
        self.users.push(text(Event::write_user_id));
        self.types.push(event.event_type);
        self.times.push(time(event.event_ts_ms));
        self.durations.push(event.duration_ms);
        self.devices.push(event.device);
        self.payloads.push(text(Event::write_payload));
    }

    async fn insert(&self, client: &Client, statement: &Statement) -> Result<()> {
        let Self { ids, contents, users, types, times, durations, devices, payloads } = self;
        client
            .execute(statement, &[ids, contents, users, types, times, durations, devices, payloads])
            .await
            .map_err(|cause| failed("events could not be inserted", cause))?;
        Ok(())
    }
}

fn time(time_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time_ms).unwrap_or_default()
}

/// An error that Postgres answered is Refused, one without an answer Unreachable.
fn failed(what: &str, cause: tokio_postgres::Error) -> Error {
    match cause.as_db_error().is_some() {
        true => Error::new(Kind::Refused, format!("{what}; Postgres refused it")).because(cause),
        false => Error::new(Kind::Unreachable, format!("{what}; Postgres does not answer any more")).because(cause),
    }
}
