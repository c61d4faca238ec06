//! A private reading of the source: for a lane that is behind the log, and for spans that are read again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::state::weight;
use super::{BYTES_LEAST, Backoff, MakeDecoder, read, spawn as spawn_thread};
use crate::batch::{Payloads, Segment};
use crate::error::{Error, Kind, Result};
use crate::memory::{Account, Share, Use};
use crate::position::Positions;
use crate::source::{Reader, Source};

/// How long a poll or a wait for room lasts at most: how late the thread notices that it should end.
const TICK: Duration = Duration::from_millis(50);

/// Segments that one thread reads and decodes ahead of one taker. Dropping it ends the thread.
pub(super) struct Feed {
    inner: Arc<Inner>,
}

/// The bounds of one feed.
pub(super) struct FeedLimits {
    /// Memory for segments that wait for the taker.
    pub(super) bytes_max: usize,
    /// What the reader holds by itself.
    pub(super) reader_bytes: usize,
    /// Where both count. When memory is short the feed reads less ahead.
    pub(super) memory: Share,
}

struct Inner {
    state: Mutex<State>,
    room: Condvar,
    news: Arc<Notify>,
    log_stopped: Arc<AtomicBool>,
}

struct State {
    limits: FeedLimits,
    account: Account,
    stop: bool,
    queues: BTreeMap<i32, VecDeque<Arc<Segment>>>,
    bytes: usize,
    /// The taker waits for a partition that is not in the queues: the bound may be passed to get to it.
    hungry: bool,
    /// Up to where the queues have been filled; `None` before the source was opened.
    fed_to: Option<Positions>,
    error: Option<Error>,
    waiting: Option<String>,
}

impl Feed {
    /// Starts to read at `from`: only its partitions, or all. `news` is notified of every segment and of an error.
    pub(super) fn spawn(
        source: Arc<dyn Source>,
        make_decoder: MakeDecoder,
        from: Positions,
        only: bool,
        limits: FeedLimits,
        news: Arc<Notify>,
        log_stopped: Arc<AtomicBool>,
    ) -> Result<Self> {
        let inner = Arc::new(Inner { state: Mutex::new(State::new(limits)), room: Condvar::new(), news, log_stopped });
        let thread = Arc::clone(&inner);
        spawn_thread("log-feed", move || {
            if let Err(error) = thread.run(source.as_ref(), &make_decoder, &from, only) {
                thread.state.lock().error = Some(error);
                thread.news.notify_waiters();
            }
        })?;
        Ok(Self { inner })
    }

    /// Ends the reading if `enough` says so of the positions that the queues reach; what is queued can still be taken.
    /// Returns those positions.
    pub(super) fn close_if(&self, enough: impl FnOnce(&Positions) -> bool) -> Option<Positions> {
        let mut state = self.inner.state.lock();
        let fed_to = state.fed_to.clone().filter(enough)?;
        state.stop = true;
        drop(state);
        self.inner.room.notify_all();
        Some(fed_to)
    }

    /// The next segments, each partition's in order, one of each in turn: about `bytes_max`, at least one if there is one.
    pub(super) fn take(&self, bytes_max: usize) -> Vec<Arc<Segment>> {
        let mut state = self.inner.state.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max {
            let before = taken.len();
            for queue in state.queues.values_mut() {
                if bytes < bytes_max
                    && let Some(segment) = queue.pop_front()
                {
                    bytes += weight(&segment);
                    taken.push(segment);
                }
            }
            if taken.len() == before {
                break;
            }
        }
        state.bytes -= bytes;
        state.settle();
        drop(state);
        self.inner.room.notify_all();
        taken
    }

    /// The next segment of one partition.
    pub(super) fn take_of(&self, partition: i32) -> Option<Arc<Segment>> {
        let mut state = self.inner.state.lock();
        let segment = state.queues.get_mut(&partition)?.pop_front()?;
        state.bytes -= weight(&segment);
        state.settle();
        drop(state);
        self.inner.room.notify_all();
        Some(segment)
    }

    /// Says whether the taker is stuck without more.
    pub(super) fn set_hungry(&self, hungry: bool) {
        self.inner.state.lock().hungry = hungry;
        self.inner.room.notify_all();
    }

    /// Whether it was closed and everything is taken.
    pub(super) fn is_over(&self) -> bool {
        let state = self.inner.state.lock();
        state.stop && state.queues.values().all(VecDeque::is_empty)
    }

    /// The error that ended the reading.
    pub(super) fn error(&self) -> Option<Error> {
        self.inner.state.lock().error.clone()
    }

    /// What the reading waits for.
    pub(super) fn waits_for(&self) -> Option<String> {
        self.inner.state.lock().waiting.clone()
    }
}

impl State {
    fn new(limits: FeedLimits) -> Self {
        Self {
            account: limits.memory.account(Use::ReadAgain),
            limits,
            stop: false,
            queues: BTreeMap::new(),
            bytes: 0,
            hungry: false,
            fed_to: None,
            error: None,
            waiting: None,
        }
    }

    /// The bound as of now.
    fn bound(&self) -> usize {
        let fair = self.account.fair().saturating_sub(self.limits.reader_bytes);
        self.limits.bytes_max.min(fair.max(BYTES_LEAST))
    }

    fn settle(&mut self) {
        let reader = if self.fed_to.is_some() { self.limits.reader_bytes } else { 0 };
        self.account.set(self.bytes + reader);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.inner.state.lock().stop = true;
        self.inner.room.notify_all();
    }
}

impl Inner {
    fn run(&self, source: &dyn Source, make: &MakeDecoder, from: &Positions, only: bool) -> Result<()> {
        let mut reader = None;
        let (mut decoder, mut backoff, mut pieces) = (None, Backoff::default(), Vec::<Payloads>::new());
        let mut probe = self.state.lock().limits.memory.account(Use::ReadAgain);
        while self.wait_for_room() {
            match self.step(source, from, only, &mut reader, &mut pieces) {
                Ok(()) => backoff.reset(),
                Err(error) if error.kind() == Kind::Unreachable => self.pause(&error, backoff.next()),
                Err(error) => return Err(error),
            }
            for piece in pieces.drain(..) {
                let wait = &mut |error: &Error, time| {
                    self.pause(error, time);
                    !self.stopped(&self.state.lock())
                };
                let Some(segment) = read::decode(make, &mut decoder, piece, wait)? else { return Ok(()) };
                if self.is_over() {
                    // What the taker waits for lies behind what must be kept meanwhile, which only the limit bounds. Asked
                    // without the lock: the log may have to give up something, and has a lock of its own.
                    probe.try_set(weight(&segment))?;
                    probe.set(0);
                }
                self.push(segment)?;
            }
        }
        Ok(())
    }

    /// Opens the reader if there is none, then polls it once.
    fn step(
        &self,
        source: &dyn Source,
        from: &Positions,
        only: bool,
        reader: &mut Option<Box<dyn Reader>>,
        pieces: &mut Vec<Payloads>,
    ) -> Result<()> {
        let reader = match reader {
            Some(reader) => reader,
            None => {
                let opened = reader.insert(if only { source.reader_of(from) } else { source.reader(from) }?);
                self.state.lock().fed_to = Some(opened.positions());
                opened
            }
        };
        reader.poll(TICK, &mut |piece| pieces.push(piece))?;
        self.state.lock().waiting = None;
        // The taker may wait for nothing but to hear how far the reading has come.
        self.news.notify_waiters();
        Ok(())
    }

    /// Whether more is held than should be, for a taker that is stuck without more.
    fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.bytes >= state.bound()
    }

    fn push(&self, segment: Segment) -> Result<()> {
        let mut state = self.state.lock();
        // Closed meanwhile, at the positions that were named then.
        if state.stop {
            return Ok(());
        }
        if let Some(fed_to) = &mut state.fed_to {
            fed_to.advance(segment.span)?;
        }
        state.bytes += weight(&segment);
        state.settle();
        state.queues.entry(segment.span.partition).or_default().push_back(Arc::new(segment));
        drop(state);
        self.news.notify_waiters();
        Ok(())
    }

    fn stopped(&self, state: &State) -> bool {
        state.stop || self.log_stopped.load(Ordering::SeqCst)
    }

    fn wait_for_room(&self) -> bool {
        let mut state = self.state.lock();
        while !self.stopped(&state) && state.bytes >= state.bound() && !state.hungry {
            self.room.wait_for(&mut state, TICK);
        }
        !self.stopped(&state)
    }

    fn pause(&self, error: &Error, time: Duration) {
        let mut state = self.state.lock();
        state.waiting = Some(error.chain());
        if !self.stopped(&state) {
            self.room.wait_for(&mut state, time);
        }
    }
}
