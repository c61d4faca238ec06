//! One replication connection: what comes over it, in the order of the commits.
//!
//! Two kinds of messages come back through the WAL (`pg_logical_emit_message`): *beats*, behind which everything is known that was
//! committed before, so that a question for the log end can be answered, and the slot goes on while only others write; and
//! [`ROWS_ASKED`], by which somebody asks for a table's rows again, at a place that is the same after every restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use pgwire_replication::{Lsn as WireLsn, PgWireError, ReplicationClient, ReplicationEvent};

use super::capture::{MARK_INTERVAL, Shared, Thread};
use super::mark::Lsn;
use super::resume::stand_at;
use super::server::Server;
use super::stream::Numbering;
use crate::error::{Error, Kind, Result};
use crate::postgres::EVENTS_MAX;

/// The prefix of the message that asks for a table's rows: its text is the slot and `schema.table`.
pub(super) const ROWS_ASKED: &str = "falaj.snapshot";

/// How often a message is put into the WAL, so that the slot goes on while only others write.
const BEAT_INTERVAL: Duration = Duration::from_secs(10);
/// After what was received was handed over, so long nothing is read: Postgres sends each change by itself, and reading it by itself
/// costs both sides more than anything else they do.
const REST: Duration = Duration::from_millis(1);
/// But only so long where much comes: a Unix socket holds some 270 messages, which Postgres has written again in a millisecond.
const REST_WHERE_MUCH: Duration = Duration::from_micros(200);
const MUCH: usize = 64;

/// Postgres counts from 2000-01-01.
const EPOCH_US: i64 = 946_684_800_000_000;

/// What one connection knows beside the numbering.
pub(super) struct Session {
    /// Tells its messages in the WAL from those of others.
    id: String,
    /// The message that was sent last, and the one that came back last.
    sent: u64,
    back: u64,
    /// Each question, with the message behind which it can be answered.
    asked: Vec<(u64, SyncSender<Vec<i64>>)>,
    /// Where the WAL ends, as Postgres said last.
    wal_end: u64,
    /// The table whose rows are to be copied again, when the transaction that says so is whole.
    rows_asked: Option<RowsAsked>,
}

/// A transaction asks for a table's rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowsAsked {
    pub(super) table: usize,
    /// Where it ends; known when it is whole.
    pub(super) end: Lsn,
}

impl Session {
    pub(super) fn new() -> Self {
        Self { id: uuid::Uuid::now_v7().to_string(), sent: 0, back: 0, asked: Vec::new(), wal_end: 0, rows_asked: None }
    }

    /// Sends a message through the WAL.
    async fn beat(&mut self, server: &Server<'_>) -> Result<()> {
        self.sent += 1;
        server.beat(&format!("{} {}", self.id, self.sent)).await
    }

    fn heard(&mut self, shared: &Shared, prefix: &str, content: &[u8]) {
        let Some((first, second)) = str::from_utf8(content).ok().and_then(|text| text.split_once(' ')) else { return };
        if prefix == "falaj" && first == self.id {
            self.back = self.back.max(second.parse().unwrap_or(0));
        } else if prefix == ROWS_ASKED && first == shared.options().slot {
            let table = shared.tables.iter().position(|table| table.location == second);
            self.rows_asked = table.map(|table| RowsAsked { table, end: Lsn::default() });
        }
    }

    fn answer(&mut self, numbering: &Numbering<'_>) {
        self.asked.retain(|(number, question)| {
            if self.back >= *number {
                // Who asked may have gone.
                let _ = question.try_send(numbering.offsets().to_vec());
            }
            self.back < *number
        });
    }
}

impl Thread {
    /// Receives until it is to stop, or a table's rows are asked for: then gives that table.
    pub(super) async fn stream(
        &mut self,
        client: &mut ReplicationClient,
        server: &Server<'_>,
        numbering: &mut Numbering<'_>,
    ) -> Result<Option<RowsAsked>> {
        let shared = Arc::clone(&self.shared);
        let (mut ticks, mut beats) = (tokio::time::interval(MARK_INTERVAL), tokio::time::interval(BEAT_INTERVAL));
        let mut session = Session::new();
        loop {
            let (mut taken, has_room) = (0, shared.has_room());
            // Whatever is there, without a look at anything else in between.
            while has_room
                && taken < EVENTS_MAX
                && session.rows_asked.is_none()
                && let Some(event) = tokio::task::unconstrained(client.recv()).now_or_never()
            {
                self.take(event, numbering, &mut session)?;
                taken += 1;
            }
            numbering.hand_over()?;
            if session.rows_asked.is_some() && numbering.is_between() {
                return Ok(session.rows_asked);
            }
            if taken == EVENTS_MAX && !shared.stopped() {
                continue;
            }
            session.answer(numbering);
            let at_end = session.back > 0 && numbering.is_between();
            shared.tables.iter().for_each(|table| table.buffer.set_at_end(at_end));
            self.note_done(numbering);
            self.show(numbering, &session);
            if shared.stopped() {
                return self.part(client).await.map(|()| None);
            }
            if taken > 0 {
                thread::sleep(if taken > MUCH { REST_WHERE_MUCH } else { REST });
            }
            let has_room = shared.has_room();
            tokio::select! {
                event = client.recv(), if has_room => self.take(event, numbering, &mut session)?,
                () = shared.room.notified(), if !has_room => {}
                Some(question) = self.questions.recv() => {
                    session.beat(server).await?;
                    session.asked.push((session.sent, question));
                }
                () = shared.wake.notified() => self.acknowledge(client),
                _ = ticks.tick() => {}
                _ = beats.tick() => {
                    session.beat(server).await?;
                    shared.status.retained_bytes.store(server.retained().await?, Ordering::Relaxed);
                }
            }
        }
    }

    fn take(
        &self,
        event: std::result::Result<Option<ReplicationEvent>, PgWireError>,
        numbering: &mut Numbering<'_>,
        session: &mut Session,
    ) -> Result<()> {
        match event.map_err(|error| self.problem(error))? {
            Some(ReplicationEvent::XLogData { wal_start, wal_end, data, .. }) => {
                session.wal_end = session.wal_end.max(wal_end.as_u64());
                numbering.take(wal_start.as_u64(), &data)?;
            }
            Some(ReplicationEvent::Begin { final_lsn, xid, commit_time_micros }) => {
                numbering.begin(final_lsn.as_u64(), commit_time_micros + EPOCH_US, xid);
            }
            Some(ReplicationEvent::Commit { end_lsn, .. }) => {
                let end = Lsn(end_lsn.as_u64());
                match &mut session.rows_asked {
                    // They are not copied yet: no place lies behind this transaction before they are.
                    Some(asked) if !numbering.has_copied(end) => {
                        asked.end = end;
                        numbering.break_off();
                    }
                    _ => {
                        session.rows_asked = None;
                        numbering.commit(end)?;
                    }
                }
            }
            Some(ReplicationEvent::KeepAlive { wal_end, .. }) => {
                session.wal_end = session.wal_end.max(wal_end.as_u64());
                numbering.stand(wal_end.as_u64());
            }
            Some(ReplicationEvent::Message { lsn, prefix, content, .. }) => {
                session.heard(&self.shared, &prefix, &content);
                numbering.stand(lsn.as_u64());
            }
            Some(ReplicationEvent::StoppedAt { .. }) => {}
            None => {
                let text = format!("{} ended the connection", self.shared.options().server());
                return Err(Error::new(Kind::Unreachable, text));
            }
        }
        Ok(())
    }

    /// Tells the keeper of a place that every lane has passed.
    fn note_done(&self, numbering: &mut Numbering<'_>) {
        let done = numbering.done();
        let mut state = self.shared.state.lock();
        state.asked = false;
        let (Some(done), Some(place)) = (done, &self.place) else { return };
        if state.done.as_ref().is_none_or(|known| known.lsn < done.lsn) {
            state.done = Some(stand_at(place, &self.shared.tables, &done));
            drop(state);
            self.shared.marked.notify_one();
        }
    }

    /// Puts the figures into the status.
    fn show(&self, numbering: &mut Numbering<'_>, session: &Session) {
        let Shared { tables, status, state, .. } = &*self.shared;
        let kept = state.lock().kept.as_ref().map_or(0, |kept| kept.lsn.0);
        status.changes.fetch_add(numbering.take_received(), Ordering::Relaxed);
        status.lag_bytes.store(session.wal_end.saturating_sub(kept), Ordering::Relaxed);
        let waiting = tables.iter().map(|table| table.buffer.waiting_bytes()).sum();
        status.waiting_bytes.store(waiting, Ordering::Relaxed);
    }

    fn acknowledge(&self, client: &ReplicationClient) {
        if let Some(kept) = &self.shared.state.lock().kept {
            client.update_applied_lsn(WireLsn::from_u64(kept.lsn.0));
        }
    }

    /// The last acknowledgement, then the end.
    async fn part(&self, client: &mut ReplicationClient) -> Result<()> {
        self.acknowledge(client);
        // It is sent when the interval is over.
        tokio::time::sleep(MARK_INTERVAL).await;
        Ok(())
    }
}
