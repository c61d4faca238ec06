//! Where events enter: the port that a source implements, and the log that lanes read.
//!
//! A [`Source`] knows a topic; a [`Reader`] walks over it. Neither decodes: that is [`crate::decode`].
//! The [`log`] puts both together once per source, whatever the number of lanes.

pub mod kafka;
pub mod log;
pub mod memory;

use std::time::Duration;

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
