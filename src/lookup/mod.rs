//! Tables asked by key: the port to where they live, the index that holds them, and the operator that joins with it.
//!
//! [`index`] holds a table in memory, [`refresh`] keeps it fresh from its store, [`join`] joins streams with it;
//! [`postgres`] and [`memory`] are the stores.

pub mod index;
pub mod join;
pub mod memory;
mod misses;
pub mod options;
pub mod postgres;
pub mod refresh;
mod version;

use arrow::array::{ArrayRef, RecordBatch};
use async_trait::async_trait;

use crate::error::Result;

/// Where a lookup table lives. Called by one refresher and, for misses, by the lanes; at once from several of them.
/// Every batch has the declared columns of the table in their order. `Err(Unreachable)`: ask again later.
#[async_trait]
pub trait LookupStore: Send + Sync {
    /// All rows, as they are now.
    async fn load(&self) -> Result<RecordBatch>;

    /// Begins to follow the table's changes: what is committed after it returns comes out of [`Follower::next`]. It ends when it is
    /// dropped. `Err(Unreachable)`: try again later.
    async fn follow(&self) -> Result<Box<dyn Follower>>;

    /// The rows whose key is in `keys` (distinct, not null, of the key column's type, at most some thousands).
    /// A key without a row is simply not in the answer.
    async fn fetch(&self, keys: ArrayRef) -> Result<RecordBatch>;
}

/// The changes of a table, as they are committed.
#[async_trait]
pub trait Follower: Send {
    /// Waits for the next changes. Whoever asks the store then sees them. After an error it is of no use any more, and changes may
    /// have been missed: follow again, and load. Dropping the future may lose changes, too.
    async fn next(&mut self) -> Result<Changed>;
}

/// What has changed.
#[derive(Debug)]
pub enum Changed {
    /// The rows of these keys (distinct, not null, of the key column's type): new, other, or gone.
    Keys(ArrayRef),
    /// Maybe all rows.
    All,
}
