//! The log: one source, read and decoded once, shared by every lane.
//!
//! ```text
//!  Source ──▶ reader thread ──▶ decode workers ──▶ tails: segments per partition ──▶ LogReader (one per lane)
//!             stops polling while the log is full   bounded in bytes                  └ feed: own reader, while it is behind
//! ```
//!
//! Order of calls: [`Log::open`], then [`Log::subscribe`] for each lane; later subscribers are welcome. Segments of
//! one partition come in order and without a hole; several partitions are mixed. What is in memory is bounded: when the log is
//! full, what every lane has taken is dropped, and then reading waits for the slowest lane. A lane that holds up the others
//! for long is *detached*: it reads by itself, through a reader of its own, until it has caught up. The lane notices nothing.
//!
//! * [`reader`]: what a lane holds;
//! * [`replay`]: exact spans, read once more (recovery);
//! * `state`: the tails, the lanes' positions, and what is dropped when;
//! * `read`: the threads that read and decode; `pressure`: who holds up whom; `feed`: a detached lane's own reading.

mod feed;
mod pressure;
mod read;
pub mod reader;
pub mod replay;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::decode::Decoder;
use crate::error::{Error, Kind, Result};
use crate::memory::Share;
use crate::position::{Positions, Span};
use crate::source::Source;

pub use reader::LogReader;
pub use replay::{Replay, SpanReader};

use feed::{Feed, FeedLimits};
use state::State;

/// The bounds of one log.
#[derive(Debug, Clone)]
pub struct LogLimits {
    /// Memory for decoded segments and for payloads that are being decoded. One piece more may come on top (some 4 MiB).
    pub bytes_max: usize,
    /// How many lanes will subscribe: reading begins with the last of them, so that all can begin together.
    pub lanes: usize,
    /// How many threads decode. A partition is always decoded by the same one.
    pub threads: usize,
    /// Whose memory it is. When that becomes short the log holds less than `bytes_max`, down to one piece.
    pub memory: Share,
    /// What each reader of the source holds by itself.
    pub reader_bytes: usize,
}

/// How long the first lane waits for the others before reading begins without them.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(3);

/// Memory of each private reading, of a detached lane or of spans that are read again: a few pieces, so that reading and
/// taking go on side by side.
const FEED_BYTES_MAX: usize = 16 << 20;

/// What a log, and each private reading, may always hold: less would be a piece at a time, each waited for.
const BYTES_LEAST: usize = 1 << 20;

/// Makes a decoder for each thread that decodes.
pub type MakeDecoder = Arc<dyn Fn() -> Result<Box<dyn Decoder>> + Send + Sync>;

/// One source's log. Dropping it ends its threads (within some 100 ms) and makes every reader's `take` fail.
pub struct Log {
    shared: Arc<Shared>,
}

/// What the threads and the lanes of one log share.
struct Shared {
    source: Arc<dyn Source>,
    make_decoder: MakeDecoder,
    limits: LogLimits,
    state: Mutex<State>,
    /// Wakes the reader thread: there is room, or a lane, or the log was started or stopped.
    room: Condvar,
    /// Wakes the lanes: there is a segment, or an error.
    news: Arc<Notify>,
    /// Ends all threads, feeds included.
    stop: Arc<AtomicBool>,
}

impl Log {
    /// A log over `source`. Begins to read at the least positions of its lanes, once so many as `limits` says have subscribed
    /// (or some seconds after the first). Trouble comes out of [`LogReader::take`].
    pub fn open(source: Arc<dyn Source>, make_decoder: MakeDecoder, limits: LogLimits) -> Arc<Self> {
        let state = Mutex::new(State::new(&limits));
        let memory = limits.memory.memory();
        let shared = Arc::new(Shared {
            source,
            make_decoder,
            limits,
            state,
            room: Condvar::new(),
            news: Arc::default(),
            stop: Arc::default(),
        });
        let weak = Arc::downgrade(&shared);
        memory.on_shortage(move || weak.upgrade().map(|shared| shared.give_up()).is_some());
        if let Err(error) = read::spawn(&shared) {
            shared.fail(error);
        }
        Arc::new(Self { shared })
    }

    /// A reader for one lane that stands at `from`; partitions that are not in `from` are read from their beginning.
    /// Dropping the reader ends the subscription.
    pub fn subscribe(&self, from: Positions) -> LogReader {
        LogReader::new(Arc::clone(&self.shared), from)
    }

    /// Reads exactly these spans again, apart from the log and its lanes. Name the spans of one partition in order, each
    /// beginning where the one before ends.
    pub fn spans(&self, spans: &[Span]) -> SpanReader {
        SpanReader::new(Arc::clone(&self.shared), spans)
    }

    /// Reads on from `from`, span by span: for many epochs, one after the other. Only the partitions of `from` are read.
    pub fn replay(&self, from: &Positions) -> Result<Replay> {
        Replay::new(&self.shared, from)
    }

    /// Whether the source's partitions are known yet and have all been read to their ends.
    pub fn at_log_end(&self) -> bool {
        self.shared.state.lock().at_log_end()
    }

    /// What the log waits for, when its source, or what decoding needs, cannot be reached: a sentence.
    pub fn waits_for(&self) -> Option<String> {
        let state = self.shared.state.lock();
        state.waiting.clone().or_else(|| state.decoding_waits.clone())
    }

    /// Bytes held now: decoded segments and payloads that are being decoded.
    pub fn bytes(&self) -> usize {
        self.shared.state.lock().held()
    }

    /// How many lanes read by themselves now.
    pub fn detached(&self) -> usize {
        self.shared.state.lock().lanes.values().filter(|lane| lane.detached).count()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Taken once, so that no thread is between its look at the flag and its sleep.
        drop(self.shared.state.lock());
        self.shared.room.notify_all();
        self.shared.news.notify_waiters();
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Ends the log for every lane, once they have taken what there is.
    fn fail(&self, error: Error) {
        self.state.lock().error.get_or_insert(error);
        self.news.notify_waiters();
    }

    /// Memory is short, and somebody is about to be refused: lets go of what can be read again. A lane that has not taken it yet
    /// reads by itself from there on, which needs some memory too: a log that holds little keeps it.
    fn give_up(&self) {
        let mut state = self.state.lock();
        state.evict(0);
        while state.bytes > self.limits.reader_bytes + 4 * BYTES_LEAST
            && let Some(lane) = state.slowest_lane()
        {
            lane.detached = true;
            state.evict(0);
        }
        drop(state);
        self.room.notify_all();
    }

    fn feed(&self, from: Positions, only: bool, news: Arc<Notify>) -> Result<Feed> {
        let (source, decoder) = (Arc::clone(&self.source), Arc::clone(&self.make_decoder));
        let limits = FeedLimits {
            bytes_max: FEED_BYTES_MAX,
            reader_bytes: self.limits.reader_bytes,
            memory: self.limits.memory.clone(),
        };
        Feed::spawn(source, decoder, from, only, limits, news, Arc::clone(&self.stop))
    }
}

/// Starts a thread of the log.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name(name.into()).spawn(run);
    started.map(drop).map_err(|why| Error::new(Kind::Full, "no more threads can be started").because(why))
}

/// How long to wait before the next attempt: from 20 ms, doubled up to half a second, less up to a quarter by chance so that
/// many readers do not come back at once. Short, since what waits here is every lane.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self) -> Duration {
        let full_ms = (20u64 << self.0.min(5)).min(500);
        self.0 += 1;
        let chance = Clock::system().now_ns().unsigned_abs() / 1000 % 256;
        Duration::from_millis(full_ms - full_ms * chance / 1024)
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests;
