//! The capture of one slot: a thread with a connection, which begins again after every fault that may pass.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pgwire_replication::{PgWireError, ReplicationClient};
use tokio::sync::{Notify, mpsc};
use twox_hash::XxHash3_64;

use super::PostgresSource;
use super::buffer::Buffer;
use super::copy;
use super::mark::{Lsn, Place};
use super::options::{PostgresOptions, Snapshot};
use super::resume::config;
use super::server::Server;
use super::spool::Spool;
use super::stream::Numbering;
use crate::backoff::Backoff;
use crate::error::{Action, Error, Kind, Result};
use crate::memory::{Share, Use};
use crate::pgoutput::Relations;
use crate::source::{Keeper, Mark};
use crate::status::CaptureStatus;

/// How often a new mark is made durable, which is how far a restart goes back; and how soon Postgres hears of it.
pub(super) const MARK_INTERVAL: Duration = Duration::from_millis(250);

/// How soon a connection that broke is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

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
    pub(super) room: Arc<Notify>,
    pub(super) status: Arc<CaptureStatus>,
    /// When so much waits on the disk nothing more is received until a lane has gone on.
    spool_bytes_max: u64,
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
    pub(super) asked: bool,
}

/// A replication slot and the tables that are read over it. As a [`Keeper`] it must begin before its sources can be read.
pub struct Capture {
    shared: Arc<Shared>,
    questions: Mutex<Option<mpsc::Receiver<SyncSender<Vec<i64>>>>>,
}

impl Capture {
    /// A capture of tables that have the [same slot](PostgresOptions::same_slot), each with the lanes that will acknowledge.
    /// Connects to nothing yet. What lies in memory counts for `memory`; in `folder` lies what does not fit into memory, up to
    /// `spool_bytes_max`, and the rows of snapshots.
    pub fn new(
        tables: Vec<(PostgresOptions, Vec<String>)>,
        folder: &Path,
        spool_bytes_max: u64,
        memory: &Share,
        status: Arc<CaptureStatus>,
    ) -> Self {
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
        let (state, wake, marked) = (Mutex::default(), Notify::new(), Notify::new());
        let shared = Shared { tables, state, wake, marked, room, status, spool_bytes_max, questions: send };
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

    /// Whether more is to be received: what fits into memory; and more, which goes to the disk, if lanes stand still and somebody waits for
    /// what comes behind. Else it waits where it is kept anyhow, at Postgres.
    pub(super) fn has_room(&self) -> bool {
        let tables = || self.tables.iter().map(|table| &table.buffer);
        let mut full = tables().filter(|buffer| buffer.is_full()).peekable();
        if full.peek().is_none() {
            return true;
        }
        let spilt: u64 = tables().map(|buffer| buffer.spilt_bytes()).sum();
        full.all(|buffer| buffer.is_stuck()) && tables().any(|buffer| buffer.is_waited_for()) && spilt < self.spool_bytes_max
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

/// What runs on the thread.
pub(super) struct Thread {
    pub(super) shared: Arc<Shared>,
    /// Where to go on.
    pub(super) place: Option<Place>,
    pub(super) questions: mpsc::Receiver<SyncSender<Vec<i64>>>,
}

impl Thread {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while !self.shared.stopped() {
            let began = Instant::now();
            let error = match self.attempt().await {
                Ok(()) if self.shared.stopped() => return,
                // It goes on behind rows that were copied again.
                Ok(()) => continue,
                Err(error) => error,
            };
            if error.kind().action() != Action::Retry {
                self.shared.tables.iter().for_each(|table| table.buffer.fail(error.clone()));
                self.shared.state.lock().failed = Some(error);
                self.shared.marked.notify_one();
                return;
            }
            if began.elapsed() > Duration::from_secs(10) {
                backoff.reset();
            }
            self.shared.status.set_trouble(Some(error.to_string()));
            self.shared.tables.iter().for_each(|table| table.buffer.wait_for(Some(error.clone())));
            tokio::select! {
                () = tokio::time::sleep(backoff.wait()) => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Connects and streams until it is to stop, rows were copied again, or something fails. It begins where the durable mark says: a
    /// new connection acknowledges the place from which it reads.
    async fn attempt(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        self.place = shared.state.lock().kept.clone().or(self.place.take());
        let options = shared.options();
        let server = Server::connect(options).await?;
        if shared.tables.iter().all(|table| table.options.snapshot == Snapshot::Only) {
            return self.only_copy(&server).await;
        }
        server.check().await?;
        let mut catalogs = Vec::new();
        for table in &shared.tables {
            server.check_table(&table.options).await?;
            // Before the slot: a slot knows of publications as they were.
            server.publish(&table.options).await?;
            catalogs.push(server.catalog(&table.options).await?);
        }
        let place = self.place(&server).await?;
        let mut client = ReplicationClient::connect_gated(config(options, place.lsn)).await.map_err(|e| self.problem(e))?;
        let system = client.identify_system().await.map_err(|e| self.problem(e))?.system_id;
        let place = self.of_system(place, system)?;
        let place = self.with_tables(place, &server).await?;
        self.begin(&place)?;
        client.start().await.map_err(|e| self.problem(e))?;
        client.wait_started().await.map_err(|e| self.problem(e))?;
        self.set_well();
        let mut numbering = Numbering::new(&shared.tables, &place, catalogs);
        numbering.skip_received();
        let streamed = self.stream(&mut client, &server, &mut numbering).await;
        // What was received of a transaction stays: the rest follows when it is sent again.
        let handed_over = numbering.hand_over();
        client.stop();
        handed_over?;
        match streamed? {
            Some(asked) => self.copy_again(asked, numbering.offsets()[asked.table], &server).await,
            None => Ok(()),
        }
    }

    /// Copies the rows of tables whose changes nobody wants, which needs no slot, and answers until it is to stop.
    async fn only_copy(&mut self, server: &Server<'_>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        for table in &shared.tables {
            server.check_table(&table.options).await?;
        }
        let place = self.place.clone().unwrap_or_else(|| self.fresh(Lsn::default()));
        let place = self.with_tables(place, server).await?;
        self.begin(&place)?;
        self.set_well();
        shared.tables.iter().for_each(|table| table.buffer.set_at_end(true));
        let ends: Vec<i64> = shared.tables.iter().map(|table| table.buffer.next()).collect();
        while !shared.stopped() {
            shared.state.lock().asked = false;
            tokio::select! {
                Some(question) = self.questions.recv() => {
                    // Who asked may have gone.
                    let _ = question.try_send(ends.clone());
                }
                () = shared.wake.notified() => {}
            }
        }
        Ok(())
    }

    /// Says where each table's changes begin, if that is not known yet.
    fn begin(&mut self, place: &Place) -> Result<()> {
        self.place = Some(place.clone());
        for table in self.shared.tables.iter().filter(|table| !table.buffer.has_begun()) {
            let at = place.tables.get(&table.location).copied().unwrap_or_default();
            table.buffer.begin(at.offset, copy::spooled(table, at, &place.copies)?);
        }
        Ok(())
    }

    fn set_well(&self) {
        self.shared.status.set_trouble(None);
        self.shared.tables.iter().for_each(|table| table.buffer.wait_for(None));
    }

    /// What an error of the replication connection means.
    pub(super) fn problem(&self, error: PgWireError) -> Error {
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
