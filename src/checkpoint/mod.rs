//! What survives a process: for each lane one log of records 0, 1, 2 …, each created only if it does not exist.
//!
//! [`record`] says what stands in a record, [`read`] reads them, [`recover`] finds what a lane needs to go on, [`lane_log`] claims, appends and purges,
//! [`verify`] looks at everything, [`fork`] begins a new lineage, [`handover`] goes on from a backfill's result, [`local`], [`s3`] and [`memory`] keep the bytes.

pub mod fork;
pub mod handover;
pub mod lane_log;
pub mod local;
pub mod memory;
pub mod read;
pub mod record;
pub mod recover;
pub mod s3;
#[cfg(test)]
mod tests;
pub mod verify;

use std::time::SystemTime;

use async_trait::async_trait;

use crate::error::Result;

/// One name of a folder, as [`CheckpointStore::look`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Without the folder.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// When it was created, if that is known.
    pub created: Option<SystemTime>,
}

/// Where records and snapshots are kept. Any method may be called by many at once, in this process and in others, and again after
/// an error; what `Ok` says is durable (but for removals: after a power cut what was removed may be there again).
/// Names are `lineage.json`, `<lane>/<20 digits>.json`, `<lane>/state-<20 digits>-<incarnation>-<what>.arrow`, and
/// `<lane>/lineage-<lineage>.json` of a lane that was handed over.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Writes `bytes` under `name` if nothing is there: `false` when something is. All or nothing: whoever reads sees nothing or
    /// all of it. After an error, or when the future was dropped, the name may be taken, by all of `bytes`.
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool>;

    /// The bytes under `name`, if any.
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// The names in a folder, without the folder, sorted. A folder that does not exist is empty. `""` is the top, with the
    /// folders' names among the others.
    async fn list(&self, folder: &str) -> Result<Vec<String>>;

    /// The same names but for folders, with what a person may want to know of each.
    async fn look(&self, folder: &str) -> Result<Vec<Stored>>;

    /// Removes what is there of `names`, in this order where there is one.
    async fn remove(&self, names: Vec<String>) -> Result<()>;
}
