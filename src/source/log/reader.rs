//! What a lane holds of a log: its own positions, and the next segments after them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::feed::Feed;
use super::state::{State, Tail, weight};
use crate::batch::Segment;
use crate::error::{Error, Kind, Result};
use crate::memory::{Account, Use};
use crate::position::Positions;
use crate::status::PartitionLag;

/// One lane's walk over a log. Its positions move with [`LogReader::take`] only.
pub struct LogReader {
    shared: Arc<Shared>,
    key: u64,
    /// What was handed to the lane.
    positions: Positions,
    /// The partition taken from last, so that the next take begins with the one after it.
    last: i32,
    /// The lane's own reading, while it is behind the log; and until what it had read is taken.
    feed: Option<Feed>,
    /// What it handed over last.
    account: Account,
    /// For each partition: what was appended before this time, ms since 1970, is taken.
    taken_to_ms: BTreeMap<i32, i64>,
}

/// When memory is short a lane still takes so much at once.
const TAKE_BYTES_LEAST: usize = 64 << 10;

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>, from: Positions) -> Self {
        let key = shared.state.lock().add_lane(from.clone());
        shared.room.notify_all();
        let account = Account::unlimited(Use::Epoch);
        Self { shared, key, positions: from, last: -1, feed: None, account, taken_to_ms: BTreeMap::new() }
    }

    /// The same, with what was handed over last on `account`: it counts until the next call of [`LogReader::take`], which hands
    /// over less when memory is short.
    pub fn accounted(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    /// The next segments after the lane's positions, which move over them: about `bytes_max` (of a larger segment, a part; a lane
    /// that reads by itself gets it whole), in order within a partition, the partitions in turn. Returns as soon as there is one; an empty `Vec` after `wait`.
    ///
    /// `Err` when the source or the decoder has failed for good, once what was decoded before is taken; a source that cannot be
    /// reached is no error (see [`LogReader::waits_for`]). Dropping the future loses nothing.
    pub async fn take(&mut self, bytes_max: usize, wait: Duration) -> Result<Vec<Arc<Segment>>> {
        let deadline = Instant::now() + wait;
        let news = Arc::clone(&self.shared.news);
        let mut hunger = None;
        self.account.set(0);
        let bytes_max = bytes_max.min(self.account.fair().max(TAKE_BYTES_LEAST));
        loop {
            // Made before the look, so that nothing that comes after it is missed.
            let heard = news.notified();
            let taken = self.try_take(bytes_max)?;
            if !taken.is_empty() {
                self.account.set(taken.iter().map(|segment| weight(segment)).sum());
                for segment in &taken {
                    self.note_time(segment.span.partition, segment.appended_ms);
                }
                return Ok(taken);
            }
            if hunger.is_none() {
                hunger = Some(Hunger::begin(&self.shared, self.key));
            }
            if timeout_at(deadline, heard).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    /// Where the lane stands: after everything that it has taken.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Every partition, with whether the lane has taken everything of it and it was read to its log end when last polled.
    pub fn at_log_end(&self) -> Vec<(i32, bool)> {
        let state = self.shared.state.lock();
        state.tails.keys().map(|&partition| (partition, self.is_at_end(&state, partition))).collect()
    }

    /// Whether that holds for every partition, and the partitions are known.
    pub fn all_at_log_end(&self) -> bool {
        let state = self.shared.state.lock();
        state.opened && state.tails.keys().all(|&partition| self.is_at_end(&state, partition))
    }

    fn is_at_end(&self, state: &State, partition: i32) -> bool {
        let Some(tail) = state.tails.get(&partition) else { return false };
        let at = self.positions.get(partition).or(tail.beginning);
        tail.at_log_end && at.is_some_and(|at| at >= tail.read_to)
    }

    /// Whether something more can be taken at once; while the lane reads by itself, which it does as long as it is behind, always.
    pub fn has_more(&self) -> bool {
        if self.feed.is_some() {
            return true;
        }
        let state = self.shared.state.lock();
        state.tails.iter().any(|(&partition, tail)| tail.has_next(self.positions.get(partition)))
    }

    /// How many offsets lie between the lane's position in each partition and the log end as last heard of.
    pub(super) fn behind(&self) -> BTreeMap<i32, i64> {
        let state = self.shared.state.lock();
        let left = |(&partition, tail): (&i32, &Tail)| {
            let at = self.positions.get(partition).or(tail.beginning).unwrap_or(0);
            (partition, (tail.log_end - at).max(0))
        };
        state.tails.iter().map(left).collect()
    }

    /// How far the lane is behind the log end of each partition, as last heard of. Where it is not, all that was appended before
    /// `now_ms` is taken.
    pub fn lags(&mut self, now_ms: i64) -> Vec<PartitionLag> {
        let mut lags = Vec::new();
        for (partition, records) in self.behind() {
            if records == 0 {
                self.note_time(partition, now_ms);
            }
            let taken_to_ms = self.taken_to_ms.get(&partition).copied();
            lags.push(PartitionLag { partition, records: records.unsigned_abs(), taken_to_ms });
        }
        lags
    }

    /// 0 is no time.
    fn note_time(&mut self, partition: i32, time_ms: i64) {
        if time_ms > 0 {
            let taken_to = self.taken_to_ms.entry(partition).or_insert(time_ms);
            *taken_to = time_ms.max(*taken_to);
        }
    }

    /// What the lane's reading waits for, when the source cannot be reached: a sentence.
    pub fn waits_for(&self) -> Option<String> {
        let own = self.feed.as_ref().and_then(Feed::waits_for);
        own.or_else(|| {
            let state = self.shared.state.lock();
            state.waiting.clone().or_else(|| state.decoding_waits.clone())
        })
    }

    /// Whether the lane reads by itself at present.
    pub fn is_detached(&self) -> bool {
        self.shared.state.lock().lanes.get(&self.key).is_some_and(|lane| lane.detached)
    }

    fn try_take(&mut self, bytes_max: usize) -> Result<Vec<Arc<Segment>>> {
        if self.shared.stopped() {
            return Err(Error::new(Kind::Bug, "the log was closed while a lane was reading it"));
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        let detached = state.lanes.get(&self.key).is_some_and(|lane| lane.detached);
        // A reading that was ended may still have had a rest to take when the lane fell behind again.
        if detached && self.feed.as_ref().is_none_or(Feed::is_over) {
            self.feed = Some(shared.feed(self.positions.clone(), false, Arc::clone(&shared.news))?);
        }
        if let Some(feed) = &self.feed {
            let joined = detached && self.rejoin(feed, &mut state);
            let taken = feed.take(bytes_max);
            for segment in &taken {
                self.positions.advance(segment.span)?;
            }
            if !taken.is_empty() {
                return Ok(taken);
            }
            if detached && !joined {
                return feed.error().map_or(Ok(taken), Err);
            }
            self.feed = None;
            self.learn_positions(&state);
        }
        let taken = self.take_shared(&mut state, bytes_max)?;
        match &state.error {
            Some(error) if taken.is_empty() => Err(error.clone()),
            _ => Ok(taken),
        }
    }

    /// Goes back to the log if it holds everything after what the feed has read.
    fn rejoin(&self, feed: &Feed, state: &mut State) -> bool {
        let Some(at) = feed.close_if(|fed_to| !state.is_behind(fed_to)) else { return false };
        if let Some(lane) = state.lanes.get_mut(&self.key) {
            lane.at = at;
            lane.detached = false;
        }
        self.shared.room.notify_all();
        true
    }

    /// Partitions without a record have been read too, and stand somewhere since.
    fn learn_positions(&mut self, state: &State) {
        let Some(lane) = state.lanes.get(&self.key) else { return };
        for (partition, at) in lane.at.iter() {
            if self.positions.get(partition).is_none() {
                self.positions.set(partition, at);
            }
        }
    }

    fn take_shared(&mut self, state: &mut State, bytes_max: usize) -> Result<Vec<Arc<Segment>>> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let full = state.held() >= state.bound();
        let State { tails, lanes, .. } = state;
        let Some(lane) = lanes.get_mut(&self.key) else { return Ok(taken) };
        while bytes < bytes_max {
            let before = taken.len();
            let after = tails.range((Bound::Excluded(self.last), Bound::Unbounded));
            for (&partition, tail) in after.chain(tails.range(..=self.last)) {
                let Some(segment) = tail.next(self.positions.get(partition)) else { continue };
                let segment = if taken.is_empty() { segment.first_part(bytes_max) } else { segment };
                self.positions.advance(segment.span)?;
                lane.at.advance(segment.span)?;
                self.last = partition;
                bytes += weight(&segment);
                taken.push(segment);
                if bytes >= bytes_max {
                    break;
                }
            }
            if taken.len() == before {
                break;
            }
        }
        if full && !taken.is_empty() {
            self.shared.room.notify_all();
        }
        Ok(taken)
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.shared.state.lock().lanes.remove(&self.key);
        self.shared.room.notify_all();
    }
}

/// Says that a lane waits with nothing to read, for as long as it lives.
struct Hunger {
    shared: Arc<Shared>,
    key: u64,
}

impl Hunger {
    fn begin(shared: &Arc<Shared>, key: u64) -> Self {
        let hunger = Self { shared: Arc::clone(shared), key };
        hunger.set(true);
        hunger
    }

    fn set(&self, starving: bool) {
        if let Some(lane) = self.shared.state.lock().lanes.get_mut(&self.key) {
            lane.starving = starving;
        }
    }
}

impl Drop for Hunger {
    fn drop(&mut self) {
        self.set(false);
    }
}
