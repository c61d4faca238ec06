//! The clock: the only place that asks the machine for the time, so that tests can hold it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time in nanoseconds since 1970, UTC. Cheap to clone; clones of a held clock share its time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    held: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now_ns` until it is [`set`](Self::set).
    pub fn held(now_ns: i64) -> Self {
        Self { held: Some(Arc::new(AtomicI64::new(now_ns))) }
    }

    /// Moves a held clock; does nothing to the machine's.
    pub fn set(&self, now_ns: i64) {
        if let Some(held) = &self.held {
            held.store(now_ns, Ordering::SeqCst);
        }
    }

    /// Nanoseconds since 1970, UTC.
    #[allow(clippy::disallowed_methods, reason = "the one place that may")]
    pub fn now_ns(&self) -> i64 {
        match &self.held {
            Some(held) => held.load(Ordering::SeqCst),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64),
        }
    }

    /// Milliseconds since 1970, UTC.
    pub fn now_ms(&self) -> i64 {
        self.now_ns() / 1_000_000
    }
}
