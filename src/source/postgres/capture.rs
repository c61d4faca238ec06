//! The capture of one slot: a thread with a connection, which begins again after every fault that may pass.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use parking_lot::Mutex;
use pgwire_replication::{Lsn as WireLsn, PgWireError, ReplicationClient, ReplicationEvent};
use tokio::sync::{Notify, mpsc};
use twox_hash::XxHash3_64;

use super::PostgresSource;
use super::buffer::Buffer;
use super::copy;
use super::mark::Place;
use super::options::PostgresOptions;
use super::resume::{config, stand_at};
use super::server::Server;
use super::spool::Spool;
use super::stream::{Between, Numbering};
use crate::backoff::Backoff;
use crate::error::{Action, Error, Kind, Result};
use crate::memory::{Share, Use};
use crate::pgoutput::Relations;
use crate::postgres::EVENTS_MAX;
use crate::source::{Keeper, Mark};

/// Changes that wait on the disk for lanes that are slow. When there are so many nothing more is received until a lane has gone on.
const SPILL_BYTES_MAX: u64 = 4 << 30;
/// How often a new mark is made durable, which is how far a restart goes back; and how soon Postgres hears of it.
pub(super) const MARK_INTERVAL: Duration = Duration::from_millis(250);
/// How often a message is put into the WAL, so that the slot goes on while only others write.
const BEAT_INTERVAL: Duration = Duration::from_secs(10);
/// After what was received was handed over, so long nothing is read: Postgres sends each change by itself, and reading it by itself
/// costs both sides more than anything else they do.
const REST: Duration = Duration::from_millis(1);

/// How soon a connection that broke is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Postgres counts from 2000-01-01.
const EPOCH_US: i64 = 946_684_800_000_000;

/// One table of a capture.
pub(super) struct Table {
    pub(super) options: PostgresOptions,
    pub(super) location: String,
    pub(super) spool: Spool,
    pub(super) buffer: Arc<Buffer>,
    pub(super) relations: Relations,
}

/// What the thread, the sources and the keeper share.
pub(super) struct Shared {
    pub(super) tables: Vec<Table>,
    pub(super) state: Mutex<State>,
    /// Wakes the thread: a mark was kept, or it is to end.
    pub(super) wake: Notify,
    /// Wakes the keeper: there may be a new mark.
    pub(super) marked: Notify,
    room: Arc<Notify>,
    questions: mpsc::Sender<SyncSender<Vec<i64>>>,
}

#[derive(Default)]
pub(super) struct State {
    /// The newest place before which every lane is done.
    pub(super) done: Option<Place>,
    /// The newest place that is durable.
    pub(super) kept: Option<Place>,
    failed: Option<Error>,
    stop: bool,
    ended: bool,
    /// Somebody waits for `done` to be up to date.
    asked: bool,
}

/// A replication slot and the tables that are read over it. As a [`Keeper`] it must begin before its sources can be read.
pub struct Capture {
    shared: Arc<Shared>,
    questions: Mutex<Option<mpsc::Receiver<SyncSender<Vec<i64>>>>>,
}

impl Capture {
    /// A capture of tables that have the [same slot](PostgresOptions::same_slot), each with the lanes that will acknowledge.
    /// Connects to nothing yet. What lies in memory counts for `memory`; in `folder` lies what does not fit into memory, and the rows
    /// of snapshots.
    pub fn new(tables: Vec<(PostgresOptions, Vec<String>)>, folder: &Path, memory: &Share) -> Self {
        let room = Arc::new(Notify::new());
        let table = |(options, lanes): (PostgresOptions, Vec<String>)| {
            let spool = Spool::new(folder.join(folder_name(&options)));
            Table {
                location: options.location(),
                buffer: Arc::new(Buffer::new(
                    options.location(),
                    &lanes,
                    spool.clone(),
                    Arc::clone(&room),
                    memory.account(Use::Tail),
                )),
                spool,
                relations: Relations::default(),
                options,
            }
        };
        let tables: Vec<Table> = tables.into_iter().map(table).collect();
        // Each source asks one at a time.
        let (send, receive) = mpsc::channel(tables.len().max(1) * 4);
        let shared =
            Shared { tables, state: Mutex::default(), wake: Notify::new(), marked: Notify::new(), room, questions: send };
        Self { shared: Arc::new(shared), questions: Mutex::new(Some(receive)) }
    }

    /// The source of the table at `index` in the list that the capture was made of.
    pub fn source(&self, index: usize) -> PostgresSource {
        PostgresSource { shared: Arc::clone(&self.shared), table: index }
    }
}

/// A folder's name that two tables do not share, whatever they are called.
fn folder_name(options: &PostgresOptions) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let location = options.location();
    format!(
        "{}.{}-{:08x}",
        options.slot,
        location.chars().map(plain).collect::<String>(),
        XxHash3_64::oneshot(location.as_bytes()) as u32
    )
}

impl Shared {
    /// The offset after the last change that is committed now, of each table.
    pub(super) fn ends(&self, wait: Duration) -> Result<Vec<i64>> {
        let (send, receive) = sync_channel(1);
        let asked = self.questions.try_send(send).is_ok();
        match receive.recv_timeout(wait) {
            Ok(ends) if asked => Ok(ends),
            _ => {
                let why = self.state.lock().failed.clone();
                let text = "what is committed in Postgres by now is still being received";
                Err(why.unwrap_or_else(|| Error::new(Kind::Unreachable, text)))
            }
        }
    }

    pub(super) fn options(&self) -> &PostgresOptions {
        &self.tables[0].options
    }

    fn has_room(&self) -> bool {
        self.tables.iter().map(|table| table.buffer.spilt_bytes()).sum::<u64>() < SPILL_BYTES_MAX
    }

    pub(super) fn stopped(&self) -> bool {
        self.state.lock().stop
    }
}

#[async_trait]
impl Keeper for Capture {
    fn name(&self) -> String {
        self.shared.options().keeper()
    }

    fn interval(&self) -> Duration {
        MARK_INTERVAL
    }

    async fn begin(&self, mark: Option<Mark>) -> Result<()> {
        let place = mark.map(Place::of).transpose()?;
        self.shared.state.lock().kept = place.clone();
        let Some(questions) = self.questions.lock().take() else {
            return Err(Error::new(Kind::Bug, "a capture was begun twice"));
        };
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let no_thread = |why: std::io::Error| Error::new(Kind::Full, "no more threads can be started").because(why);
        let runtime = runtime.map_err(no_thread)?;
        let run = move || {
            runtime.block_on(Thread { shared: Arc::clone(&shared), place, questions }.run());
            shared.state.lock().ended = true;
            shared.marked.notify_one();
        };
        thread::Builder::new().name("pg-capture".into()).spawn(run).map(drop).map_err(no_thread)
    }

    async fn next(&self, now: bool) -> Result<Option<Mark>> {
        if now {
            self.shared.state.lock().asked = true;
            self.shared.wake.notify_one();
            let answered = async {
                while self.shared.state.lock().asked {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            // The thread may wait for Postgres, or have ended.
            let _ = tokio::time::timeout(MARK_INTERVAL, answered).await;
        }
        loop {
            {
                let state = self.shared.state.lock();
                if let Some(why) = &state.failed {
                    return Err(why.clone());
                }
                if let Some(done) = state.done.as_ref().filter(|done| state.kept.as_ref() != Some(*done)) {
                    return Ok(Some(done.to_mark()));
                }
                if now || state.ended {
                    return Ok(None);
                }
            }
            self.shared.marked.notified().await;
        }
    }

    fn kept(&self, mark: &Mark) {
        if let Ok(place) = Place::of(mark.clone()) {
            self.shared.state.lock().kept = Some(place);
            self.shared.wake.notify_one();
        }
    }

    async fn end(&self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_one();
        self.shared.room.notify_one();
        let ended = async {
            while !self.shared.state.lock().ended {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
    }
}

/// What one connection knows beside the numbering.
struct Session {
    /// Tells its messages in the WAL from those of others.
    id: String,
    /// The message that was sent last, and the one that came back last.
    sent: u64,
    back: u64,
    /// Each question, with the message behind which it can be answered.
    asked: Vec<(u64, SyncSender<Vec<i64>>)>,
}

impl Session {
    fn new() -> Self {
        Self { id: uuid::Uuid::now_v7().to_string(), sent: 0, back: 0, asked: Vec::new() }
    }

    /// Sends a message through the WAL.
    async fn beat(&mut self, server: &Server<'_>) -> Result<()> {
        self.sent += 1;
        server.beat(&format!("{} {}", self.id, self.sent)).await
    }

    fn heard(&mut self, prefix: &str, content: &[u8]) {
        let own = str::from_utf8(content).ok().filter(|_| prefix == "falaj").and_then(|text| text.split_once(' '));
        if let Some((_, number)) = own.filter(|(id, _)| *id == self.id) {
            self.back = self.back.max(number.parse().unwrap_or(0));
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

/// What runs on the thread.
pub(super) struct Thread {
    pub(super) shared: Arc<Shared>,
    /// Where to go on.
    pub(super) place: Option<Place>,
    questions: mpsc::Receiver<SyncSender<Vec<i64>>>,
}

impl Thread {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while !self.shared.stopped() {
            let began = Instant::now();
            let Err(error) = self.attempt().await else { return };
            if error.kind().action() != Action::Retry {
                self.shared.tables.iter().for_each(|table| table.buffer.fail(error.clone()));
                self.shared.state.lock().failed = Some(error);
                self.shared.marked.notify_one();
                return;
            }
            if began.elapsed() > Duration::from_secs(10) {
                backoff.reset();
            }
            self.shared.tables.iter().for_each(|table| table.buffer.wait_for(Some(error.clone())));
            tokio::select! {
                () = tokio::time::sleep(backoff.wait()) => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Connects and streams until it is to stop, or something fails.
    async fn attempt(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let options = shared.options();
        let server = Server::connect(options).await?;
        server.check().await?;
        for table in &shared.tables {
            server.check_table(&table.options).await?;
            // Before the slot: a slot knows of publications as they were.
            server.publish(&table.options).await?;
        }
        let place = self.place(&server).await?;
        let mut client = ReplicationClient::connect_gated(config(options, place.lsn)).await.map_err(|e| self.problem(e))?;
        let system = client.identify_system().await.map_err(|e| self.problem(e))?.system_id;
        let place = self.of_system(place, system)?;
        let place = self.with_tables(place).await?;
        self.place = Some(place.clone());
        let at = |table: &Table| place.tables.get(&table.location).copied().unwrap_or_default();
        let between = Between { lsn: place.lsn, offsets: shared.tables.iter().map(|table| at(table).offset).collect() };
        for table in shared.tables.iter().filter(|table| !table.buffer.has_begun()) {
            let spooled = copy::spooled(table, at(table).rows)?;
            table.buffer.begin(at(table).offset, spooled);
        }
        client.start().await.map_err(|e| self.problem(e))?;
        client.wait_started().await.map_err(|e| self.problem(e))?;
        shared.tables.iter().for_each(|table| table.buffer.wait_for(None));
        let from = shared.tables.iter().map(|table| at(table).from).collect();
        let mut numbering = Numbering::new(&shared.tables, between, from);
        numbering.skip_received();
        let streamed = self.stream(&mut client, &server, &mut numbering).await;
        // What was received of a transaction stays: the rest follows when it is sent again.
        let handed_over = numbering.hand_over();
        if let (Some(place), Some(last)) = (&mut self.place, numbering.last()) {
            *place = stand_at(place, &shared.tables, last);
        }
        client.stop();
        streamed.and(handed_over)
    }

    async fn stream(
        &mut self,
        client: &mut ReplicationClient,
        server: &Server<'_>,
        numbering: &mut Numbering<'_>,
    ) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let (mut ticks, mut beats) = (tokio::time::interval(MARK_INTERVAL), tokio::time::interval(BEAT_INTERVAL));
        let mut session = Session::new();
        loop {
            let mut taken = 0;
            // Whatever is there, without a look at anything else in between.
            while taken < EVENTS_MAX
                && let Some(event) = tokio::task::unconstrained(client.recv()).now_or_never()
            {
                self.take(event, numbering, &mut session)?;
                taken += 1;
            }
            numbering.hand_over()?;
            if taken == EVENTS_MAX && shared.has_room() {
                continue;
            }
            session.answer(numbering);
            let at_end = session.back > 0 && numbering.is_between();
            shared.tables.iter().for_each(|table| table.buffer.set_at_end(at_end));
            self.note_done(numbering);
            if shared.stopped() {
                return self.part(client).await;
            }
            if taken > 0 {
                thread::sleep(REST);
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
                _ = beats.tick() => session.beat(server).await?,
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
            Some(ReplicationEvent::XLogData { wal_start, data, .. }) => numbering.take(wal_start.as_u64(), &data)?,
            Some(ReplicationEvent::Begin { final_lsn, xid, commit_time_micros }) => {
                numbering.begin(final_lsn.as_u64(), commit_time_micros + EPOCH_US, xid);
            }
            Some(ReplicationEvent::Commit { end_lsn, .. }) => numbering.commit(end_lsn.as_u64()),
            Some(ReplicationEvent::KeepAlive { wal_end, .. }) => numbering.stand(wal_end.as_u64()),
            Some(ReplicationEvent::Message { lsn, prefix, content, .. }) => {
                session.heard(&prefix, &content);
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

    /// What an error of the replication connection means.
    fn problem(&self, error: PgWireError) -> Error {
        let options = self.shared.options();
        let (server, slot) = (options.server(), &options.slot);
        let text = error.to_string();
        let told = match &error {
            PgWireError::Server(_)
                if text.contains("can no longer get changes") || text.contains("has already been removed") =>
            {
                Error::new(Kind::Lost, format!("replication slot '{slot}' of {server} has lost WAL that was not read yet"))
            }
            PgWireError::Server(_) if text.contains("max_wal_senders") => {
                Error::new(Kind::Unreachable, format!("{server} has no free sender: raise max_wal_senders"))
            }
            PgWireError::Auth(_) => Error::new(
                Kind::Denied,
                format!("{server} refuses table '{}': check user and password in its 'url'", options.name),
            ),
            _ => Error::new(Kind::Unreachable, format!("{server} broke off the changes of slot '{slot}'")),
        };
        told.because(error)
    }
}
