//! The log: the tail of one source, read and decoded once, shared by every lane.
//!
//! One thread polls the [`Reader`](super::Reader); decode threads (a partition always on the same one, so that its order is
//! kept) make segments of what it hands over; the segments lie here, bounded in bytes, until every lane has passed them. A lane
//! that is much slower than the others is detached: it then reads by itself, through a private log, until it has caught up.

mod intake;
mod lane_reader;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

pub use self::lane_reader::{LogReader, SpanReader};
use self::state::State;
use super::Source;
use crate::decode::Decoder;
use crate::error::Result;
use crate::position::{Positions, Span};

/// Makes a decoder for one decode thread.
pub type MakeDecoder = Arc<dyn Fn() -> Result<Box<dyn Decoder>> + Send + Sync>;

/// The bounds of a log.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// Decoded bytes in memory.
    pub bytes_max: usize,
    /// How many lanes will subscribe: reading begins with the last of them, so that all can begin together.
    pub lanes: usize,
    /// Decode threads.
    pub threads: usize,
}

// How long the first lane waits for the others before reading begins without them.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(3);
// The log of one lane that reads by itself.
const PRIVATE_BYTES_MAX: usize = 16 << 20;

/// One source's log. Dropping the last handle ends its threads.
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn Source>,
    make_decoder: MakeDecoder,
    limits: LogLimits,
    state: Mutex<State>,
    /// Something was appended, or went wrong.
    news: Notify,
    /// A lane took something, or subscribed.
    space: Condvar,
    stop: AtomicBool,
}

impl Log {
    /// A log over `source`. Nothing is read before the lanes have subscribed.
    pub fn open(source: Arc<dyn Source>, make_decoder: MakeDecoder, limits: LogLimits) -> Arc<Self> {
        let shared = Arc::new(Shared {
            source,
            make_decoder,
            limits,
            state: Mutex::new(State::default()),
            news: Notify::new(),
            space: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        intake::start(Arc::clone(&shared));
        Arc::new(Self { shared })
    }

    /// A reader for one lane that stands at `from`.
    pub fn subscribe(self: &Arc<Self>, from: Positions) -> LogReader {
        LogReader::new(Arc::clone(self), from)
    }

    /// What the log waits for (a broker that is away), if it waits.
    pub fn waits_for(&self) -> Option<String> {
        self.shared.state.lock().waits_for.clone()
    }

    /// Reads exact spans again, apart from the log.
    pub fn spans(&self, spans: &[Span]) -> SpanReader {
        SpanReader::new(self.private(), spans)
    }

    fn private(&self) -> Arc<Log> {
        let limits = LogLimits { bytes_max: PRIVATE_BYTES_MAX, lanes: 1, threads: 1 };
        Log::open(Arc::clone(&self.shared.source), Arc::clone(&self.shared.make_decoder), limits)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.space.notify_all();
    }
}

#[cfg(test)]
mod tests;
