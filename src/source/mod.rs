//! Where events enter: the port that a source implements, and the log that lanes read.
//!
//! A [`Source`] knows a topic; a [`Reader`] walks over it. Neither decodes: that is [`crate::decode`].
//! The [`log`] puts both together once per source, whatever the number of lanes.

pub mod kafka;
pub mod log;
pub mod memory;
pub mod order;
pub mod postgres;
pub mod watermark;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::batch::Payloads;
use crate::error::Result;
use crate::position::Positions;

/// Where a lane without a checkpoint begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record that is still there.
    Earliest,
    /// Only what comes from now on.
    Latest,
    /// The first record that was appended at this time (ms since 1970) or later; where there is none, the log end.
    At(i64),
}

/// One topic of an outside log. All methods may block for as long as the client's own time-outs allow (seconds); they are
/// called from threads that may block, at once from several of them, and may be called again after any error.
pub trait Source: Send + Sync {
    /// The name that row ids and dead letters carry.
    fn topic(&self) -> &str;

    /// The first position of every partition that exists now.
    fn start(&self, start: Start) -> Result<Positions>;

    /// The log end of every partition that exists now: the offset that the next record will get.
    fn log_ends(&self) -> Result<Positions>;

    /// A new reader that stands at `from`. Partitions that are not in `from` are read from their beginning.
    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>>;

    /// Says that `lane` will never read before `positions` again, not even after a crash. A lane calls it with its positions at the
    /// start, and whenever later ones are durable. For a source that must keep what is not acknowledged.
    fn acknowledge(&self, lane: &str, positions: &Positions);

    /// Whether the source holds much that only `lane` has not acknowledged yet, so that a record of its positions is worth its cost now.
    fn waits_for(&self, lane: &str) -> bool;

    /// As [`Source::reader`], but over the partitions of `from` only, and no new ones.
    fn reader_of(&self, from: &Positions) -> Result<Box<dyn Reader>>;
}

/// A walk over one source, used by one thread. Dropping it ends it.
pub trait Reader: Send {
    /// Waits up to `wait` for records and hands them over, at most one [`Payloads`] for each partition and some 16 384 records
    /// or 4 MiB in each; returns at once when something is there. `Ok` without a call of `take` means that nothing came.
    /// `Err(Unreachable)`: call again later, nothing is lost. `Err(Lost)`: offsets are gone, and the sentence has the spans.
    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(Payloads)) -> Result<()>;

    /// The next offset of every partition, as far as `poll` has handed records over (gaps at the end included).
    fn positions(&self) -> Positions;

    /// The partitions whose position was the log end when they were last polled.
    fn at_log_end(&self, partition: i32) -> bool;

    /// The log end of every partition as last heard of, for showing lag. Asks nobody.
    fn log_ends(&self) -> Positions;
}

/// Where a source may be begun again: the source's own words, of no meaning to others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(pub serde_json::Value);

/// The keeper of sources that forget what is acknowledged (a WAL): before it acknowledges, the place from which it can be read
/// again must be durable. Order of calls: [`Keeper::begin`] once, then [`Keeper::next`] and [`Keeper::kept`] in turn, then
/// [`Keeper::end`]. Its sources wait until it has begun.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// The name under which its marks are kept.
    fn name(&self) -> String;

    /// How long to wait between two marks: how far a restart goes back.
    fn interval(&self) -> Duration;

    /// Begins to read where the newest durable mark says; without one, where the sources' options say.
    async fn begin(&self, mark: Option<Mark>) -> Result<()>;

    /// Waits until there is a newer mark to make durable. With `now`, returns at once what there is. Dropping the future loses
    /// nothing. `Err`: it has failed for good, and so have its sources.
    async fn next(&self, now: bool) -> Result<Option<Mark>>;

    /// `mark` is durable: what lies before it is acknowledged.
    fn kept(&self, mark: &Mark);

    /// Ends the reading, after the last mark was acknowledged. Takes a second at most.
    async fn end(&self);
}
