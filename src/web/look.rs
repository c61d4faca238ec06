//! What every visitor sees: looked at for all of them together, however many ask and however often.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::events::Events;
use super::history::{History, Point};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::metrics;
use crate::status::{Snapshot, Status};

/// A look that is no older serves the next who asks.
const FRESH: Duration = Duration::from_millis(100);

/// The members of one leaderboard with their scores, the leader first.
pub type Board = Vec<(String, f64)>;
/// Answers all leaderboards by name as they are now. Called for each look at the status, so it must be quick.
pub type Boards = Arc<dyn Fn() -> BTreeMap<String, Board> + Send + Sync>;

/// What `/api/v1/status` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The version that runs.
    pub version: String,
    /// Since when it serves.
    pub uptime_ms: u64,
    /// The clock of its machine, ms since 1970.
    pub now_ms: i64,
    /// Lanes, lookups, captures, memory.
    pub status: Snapshot,
    /// The leaderboards by name.
    pub boards: BTreeMap<String, Board>,
    /// The number of the newest points.
    pub point: u64,
    /// What each lane did in the last seconds.
    pub points: BTreeMap<String, Point>,
}

/// What the pages show. Clones share it.
#[derive(Clone)]
pub struct WebState(Arc<Shared>);

struct Shared {
    status: Status,
    boards: Boards,
    started: Instant,
    history: Mutex<History>,
    answer: Mutex<Option<(Instant, Bytes)>>,
    metrics: Mutex<Option<(Instant, Bytes)>>,
    events: Events,
}

impl WebState {
    /// Shows `status` and `boards`; the uptime counts from here.
    pub fn new(status: Status, boards: Boards) -> Self {
        let (history, answer, metrics) = (Mutex::default(), Mutex::default(), Mutex::default());
        let events = Events::default();
        Self(Arc::new(Shared { status, boards, started: Instant::now(), history, answer, metrics, events }))
    }

    pub(super) fn events(&self) -> &Events {
        &self.0.events
    }

    /// All figures as they are now.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.0.status.snapshot()
    }

    /// [`Answer`] as JSON. Those who ask at the same time wait for one look.
    pub(super) fn answer(&self) -> Result<Bytes> {
        fresh(&self.0.answer, || self.look())
    }

    /// The metrics as Prometheus' text.
    pub(super) fn metrics(&self) -> Result<Bytes> {
        fresh(&self.0.metrics, || metrics::text(&self.0.status).map(Bytes::from))
    }

    /// The last minutes as JSON.
    pub(super) fn points(&self) -> Result<Bytes> {
        json(&self.0.history.lock().points())
    }

    /// Takes a point of the history, if it is time for one.
    pub(super) fn note(&self) {
        self.0.history.lock().note(&self.0.status.snapshot().lanes, Instant::now());
    }

    fn look(&self) -> Result<Bytes> {
        let now_ms = Clock::system().now_ms();
        let (point, points) = self.0.history.lock().newest();
        json(&Answer {
            version: super::VERSION.to_string(),
            uptime_ms: u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            now_ms,
            status: self.0.status.snapshot(),
            boards: (self.0.boards)(),
            point,
            points,
        })
    }
}

impl fmt::Debug for WebState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebState").field("status", &self.0.status).finish_non_exhaustive()
    }
}

fn fresh(kept: &Mutex<Option<(Instant, Bytes)>>, look: impl FnOnce() -> Result<Bytes>) -> Result<Bytes> {
    let mut kept = kept.lock();
    if let Some((_, bytes)) = kept.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        return Ok(bytes.clone());
    }
    let bytes = look()?;
    *kept = Some((Instant::now(), bytes.clone()));
    Ok(bytes)
}

fn json(value: &impl Serialize) -> Result<Bytes> {
    let broken = |cause| Error::new(Kind::Bug, "the status could not be written as JSON").because(cause);
    serde_json::to_vec(value).map(Bytes::from).map_err(broken)
}
