//! A lookup store in memory, for tests and the demo.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use async_trait::async_trait;
use parking_lot::RwLock;

use super::LookupStore;
use super::version::Part;
use crate::error::Result;

/// Rows that anybody may replace.
#[derive(Debug)]
pub struct MemoryLookup {
    rows: RwLock<RecordBatch>,
    key: usize,
}

impl MemoryLookup {
    /// A store of `rows` with the declared columns; `key` is the key column's place among them.
    pub fn new(rows: RecordBatch, key: usize) -> Self {
        Self { rows: RwLock::new(rows), key }
    }

    /// From now on these are the rows.
    pub fn replace(&self, rows: RecordBatch) {
        *self.rows.write() = rows;
    }
}

#[async_trait]
impl LookupStore for MemoryLookup {
    async fn load(&self) -> Result<RecordBatch> {
        Ok(self.rows.read().clone())
    }

    async fn fetch(&self, keys: ArrayRef) -> Result<RecordBatch> {
        let rows = self.rows.read().clone();
        let wanted = Part::of_keys(keys)?.holds(rows.column(self.key))?;
        Ok(filter_record_batch(&rows, &BooleanArray::from(wanted))?)
    }
}
