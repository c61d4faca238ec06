//! How much a lane takes at once, and when it rests: a backlog makes large epochs, but none that lasts; rows that come one by one
//! share an epoch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::Segment;
use crate::error::Result;
use crate::source::log::LogReader;

/// What a lane begins with: some thousand records.
const TAKE_BYTES_FIRST: usize = 256 << 10;
/// What it takes at least, when even that is much work: some fifty records, each of which may end hundreds of windows.
const TAKE_BYTES_LEAST: usize = 16 << 10;
/// An epoch that works longer than this is followed by smaller ones: a lane must be able to stop within seconds.
const BUSY_MAX: Duration = Duration::from_secs(1);
/// One that works less than this, by larger ones.
const BUSY_LEAST: Duration = Duration::from_millis(250);

/// The pace of one lane.
#[derive(Debug)]
pub struct Pace {
    take_bytes: usize,
    take_bytes_max: usize,
    linger: Duration,
    /// Since when the lane works on what it took.
    began: Instant,
    /// Until when it rests, because it had taken all that there was.
    rests_until: Option<Instant>,
    took_all: bool,
    left_some: bool,
}

impl Pace {
    /// Takes at most about `take_bytes_max`; begins work that leaves nothing to take every `linger` at most.
    pub fn new(take_bytes_max: usize, linger: Duration) -> Self {
        let take_bytes = TAKE_BYTES_FIRST.min(take_bytes_max);
        Self { take_bytes, take_bytes_max, linger, began: Instant::now(), rests_until: None, took_all: true, left_some: false }
    }

    /// Rests, then takes what there is: at once, or within `wait`. Dropping the future loses nothing.
    pub async fn take(&mut self, reader: &mut LogReader, wait: Duration) -> Result<Vec<Arc<Segment>>> {
        if let Some(until) = self.rests_until.take() {
            tokio::time::sleep_until(until.into()).await;
        }
        let segments = reader.take(self.take_bytes, wait).await?;
        self.began = Instant::now();
        self.took_all = !reader.has_more();
        self.left_some = segments.iter().map(|segment| segment.bytes).sum::<usize>() >= self.take_bytes;
        Ok(segments)
    }

    /// Whether as much was taken as may be taken at once, so that there is a backlog.
    pub fn left_some(&self) -> bool {
        self.left_some
    }

    /// What was taken last is done.
    pub fn done(&mut self) {
        let busy = self.began.elapsed();
        // What comes while it works waits, too: so the time counts from the beginning. A lane that works for longer leaves the
        // processor to others for a moment.
        let rest = self.linger.saturating_sub(busy).max(self.linger / 4);
        self.rests_until = self.took_all.then(|| Instant::now() + rest);
        if busy > BUSY_MAX {
            self.take_bytes = (self.take_bytes / 2).max(TAKE_BYTES_LEAST).min(self.take_bytes_max);
        } else if busy < BUSY_LEAST && !self.took_all {
            self.take_bytes = (self.take_bytes * 2).min(self.take_bytes_max);
        }
    }
}
