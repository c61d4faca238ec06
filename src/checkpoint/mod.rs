//! What survives a process: for each lane one log of records 0, 1, 2 …, each created only if it does not exist.
//!
//! [`record`] says what stands in a record, [`read`] finds what a lane needs to go on, [`lane_log`] claims, appends and purges,
//! [`local`] and [`memory`] keep the bytes.

pub mod lane_log;
pub mod local;
pub mod memory;
pub mod read;
pub mod record;

use async_trait::async_trait;

use crate::error::Result;

/// Where records and snapshots are kept. Every method may be called again after an error; what `Ok` says is durable.
/// Names are `lineage.json`, `<lane>/<20 digits>.json` and `<lane>/state-<20 digits>.arrow`.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Writes `bytes` under `name` if nothing is there: `false` when something is. All or nothing, and durable.
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool>;

    /// The bytes under `name`, if any.
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// The names in a folder, without the folder, sorted. A folder that does not exist is empty.
    async fn list(&self, folder: &str) -> Result<Vec<String>>;

    /// Removes what is there of `names`.
    async fn remove(&self, names: Vec<String>) -> Result<()>;
}
