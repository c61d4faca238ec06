//! A lookup store in memory, for tests and the demo.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::version::Part;
use super::{Changed, Follower, LookupStore};
use crate::error::Result;

/// Rows that anybody may replace.
#[derive(Debug)]
pub struct MemoryLookup {
    rows: RwLock<RecordBatch>,
    key: usize,
    replaced: watch::Sender<()>,
}

impl MemoryLookup {
    /// A store of `rows` with the declared columns; `key` is the key column's place among them.
    pub fn new(rows: RecordBatch, key: usize) -> Self {
        Self { rows: RwLock::new(rows), key, replaced: watch::Sender::new(()) }
    }

    /// From now on these are the rows.
    pub fn replace(&self, rows: RecordBatch) {
        *self.rows.write() = rows;
        self.replaced.send_replace(());
    }
}

#[async_trait]
impl LookupStore for MemoryLookup {
    async fn load(&self) -> Result<RecordBatch> {
        Ok(self.rows.read().clone())
    }

    async fn follow(&self) -> Result<Box<dyn Follower>> {
        Ok(Box::new(MemoryFollower(self.replaced.subscribe())))
    }

    async fn fetch(&self, keys: ArrayRef) -> Result<RecordBatch> {
        let rows = self.rows.read().clone();
        let wanted = Part::of_keys(keys)?.holds(rows.column(self.key))?;
        Ok(filter_record_batch(&rows, &BooleanArray::from(wanted))?)
    }
}

struct MemoryFollower(watch::Receiver<()>);

#[async_trait]
impl Follower for MemoryFollower {
    async fn next(&mut self) -> Result<Changed> {
        if self.0.changed().await.is_err() {
            // The store is gone, and nothing changes it any more.
            std::future::pending::<()>().await;
        }
        Ok(Changed::All)
    }
}
