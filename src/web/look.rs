//! What every visitor sees: looked at for all of them together, however many ask and however often.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize};

use super::events::Events;
use super::history::{History, Point};
use super::ready::Ready;
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
    #[serde(deserialize_with = "boards_of")]
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
    answer: Fresh<Bytes>,
    metrics: Fresh<Bytes>,
    ready: Fresh<Arc<Ready>>,
    events: Events,
}

impl WebState {
    /// Shows `status` and `boards`; the uptime counts from here.
    pub fn new(status: Status, boards: Boards) -> Self {
        let (history, events) = (Mutex::default(), Events::default());
        let (answer, metrics, ready) = (Fresh::default(), Fresh::default(), Fresh::default());
        Self(Arc::new(Shared { status, boards, started: Instant::now(), history, answer, metrics, ready, events }))
    }

    pub(super) fn events(&self) -> &Events {
        &self.0.events
    }

    /// Whether everything does what it is there for.
    pub(super) fn ready(&self) -> Result<Arc<Ready>> {
        self.0.ready.get(|| Ok(Arc::new(Ready::of(self.0.status.snapshot()))))
    }

    /// [`Answer`] as JSON. Those who ask at the same time wait for one look.
    pub(super) fn answer(&self) -> Result<Bytes> {
        self.0.answer.get(|| self.look())
    }

    /// The metrics as Prometheus' text.
    pub(super) fn metrics(&self) -> Result<Bytes> {
        self.0.metrics.get(|| metrics::text(&self.0.status).map(Bytes::from))
    }

    /// The last minutes as JSON.
    pub(super) fn points(&self) -> Result<Bytes> {
        json(&self.0.history.lock().points())
    }

    /// Takes a point of the history, if it is time for one.
    pub(super) fn note(&self) {
        let (now, mut history) = (Instant::now(), self.0.history.lock());
        if history.is_due(now) {
            history.note(&self.0.status.snapshot().lanes, now);
        }
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

/// Something that was looked at, and when.
struct Fresh<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Fresh<T> {
    /// What was looked at a moment ago, or what `look` finds now.
    fn get(&self, look: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut kept = self.0.lock();
        if let Some((_, found)) = kept.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(found.clone());
        }
        let found = look()?;
        *kept = Some((Instant::now(), found.clone()));
        Ok(found)
    }
}

/// A score that is no number, or beyond all of them, is null in JSON.
fn boards_of<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<BTreeMap<String, Board>, D::Error> {
    let read = BTreeMap::<String, Vec<(String, Option<f64>)>>::deserialize(from)?;
    let score = |(member, score): (String, Option<f64>)| (member, score.unwrap_or(f64::NAN));
    Ok(read.into_iter().map(|(name, members)| (name, members.into_iter().map(score).collect())).collect())
}

fn json(value: &impl Serialize) -> Result<Bytes> {
    let broken = |cause| Error::new(Kind::Bug, "the status could not be written as JSON").because(cause);
    serde_json::to_vec(value).map(Bytes::from).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_beyond_all_numbers_can_be_read_again() {
        let members = vec![("a".to_string(), f64::INFINITY), ("b".to_string(), f64::NAN), ("c".to_string(), 1.5)];
        let state = WebState::new(Status::default(), Arc::new(move || BTreeMap::from([("top".to_string(), members.clone())])));
        let answer: Answer = serde_json::from_slice(&state.answer().unwrap()).unwrap();
        let scores: Vec<f64> = answer.boards["top"].iter().map(|(_, score)| *score).collect();
        assert!(scores[0].is_nan() && scores[1].is_nan() && scores[2] == 1.5, "{scores:?}");
    }
}
