//! Where results leave: the port that every sink implements, and the sinks.

pub(crate) mod cells;
pub mod files;
pub mod http;
pub(crate) mod json;
pub mod kafka;
pub mod memory;
pub mod print;
pub mod redis;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::batch::{DeadLetter, Output};
use crate::error::Result;

/// Who writes: every apply is idempotent under `(lineage, lane, epoch)`, and fenced by `incarnation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The id (UUIDv7) of the checkpoint's history; a later one is greater as text.
    pub lineage: String,
    /// The lane's name.
    pub lane: String,
    /// The number of this claim in the lineage.
    pub incarnation: u64,
}

/// Something written and durable, but not yet visible to a reader; listed in the intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Where it is staged, relative to the sink's own place.
    pub staged: String,
    /// Where it will be visible, likewise; for an outbox the idempotency key.
    pub published: String,
    /// Its size.
    pub size_bytes: u64,
    /// XXH3-64 of its bytes, in hex.
    pub hash: String,
    /// How many rows it has.
    pub rows: u64,
    /// How it becomes visible in a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

/// A multipart upload whose parts are all there: an object once it is completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// The ETag of each part.
    pub parts: Vec<String>,
}

/// What an apply did.
#[derive(Debug, Default, Clone)]
pub struct Applied {
    /// Rows that a reader can see now because of it.
    pub rows: u64,
    /// Rows that the other side refused for good, for the lane's dead letters.
    pub refused: Vec<DeadLetter>,
    /// Rows of windows that have no place there: they come from no single record that could be a dead letter.
    pub left_out: u64,
    /// Attempts beyond the first.
    pub retries: u64,
}

/// One table's sink, driven by one lane: `open` once, then for each epoch `write`…, `seal`, `apply`.
/// After any error the lane drops the sink, makes a new one and recovers: there is no undo.
#[async_trait]
pub trait Sink: Send {
    /// Whether an epoch is made durable by `write` and `seal` before its intent, and published byte for byte by `apply`
    /// (files, HTTP). Otherwise the lane may compute the epoch again and `write` it again (Redis, Kafka).
    fn stages(&self) -> bool;

    /// Called before `open` when the lane does not begin: what it writes from here on is not its whole result.
    fn goes_on(&mut self) {}

    /// Connects, checks who else wrote there, and says the greatest epoch of `(lineage, lane)` that is visible there, if it
    /// can be asked. `Err(Fenced)`: another lane, or a newer claim, owns the place.
    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>>;

    /// Deletes what is staged and not in `keep` (the last intent's list). Called once after `open`, before the first `write`.
    async fn discard(&mut self, keep: &[Staged]) -> Result<()>;

    /// Takes a part of `epoch`. May be called any number of times before `seal`; nothing becomes visible.
    async fn write(&mut self, epoch: u64, output: Output) -> Result<()>;

    /// How much the open epoch has taken so far; a lane ends an epoch when it reaches the sink's bound.
    fn written_bytes(&self) -> u64 {
        0
    }

    /// Ends the taking: everything written in `epoch` is durable (fsync of file and folder) and listed. Not visible.
    /// A sink that does not stage may send ahead what `apply` makes visible; it is called while the intent is being written.
    async fn seal(&mut self, epoch: u64) -> Result<Vec<Staged>>;

    /// Makes `epoch` visible, whole. Safe to call again after a crash with the same `staged`.
    /// Retries what can be retried by itself, within its bounds, and reports what was refused.
    async fn apply(&mut self, epoch: u64, staged: &[Staged]) -> Result<Applied>;

    /// Called after the epoch's commit is durable: what is staged may be forgotten. A sink that does not stage may have the next epoch
    /// open by then.
    async fn committed(&mut self, epoch: u64, staged: &[Staged]) -> Result<()>;

    /// Called when the lane has read all that there was when it began, or stands at the log end of every partition: between
    /// epochs, after the last one's commit, when nothing is open; again and again, so it must cost nothing when there is nothing
    /// to do. For a sink that shows a result only once it is whole.
    async fn caught_up(&mut self) -> Result<()> {
        Ok(())
    }
}
