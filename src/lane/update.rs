//! `emit 'update'`: what changed in each open window since the epoch before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, SortField};

use crate::batch::Output;
use crate::error::Result;

/// The rows last shown of each open window, by the window's end.
#[derive(Debug)]
pub struct Shown {
    schema: SchemaRef,
    key: Vec<usize>,
    windows: BTreeMap<i64, RecordBatch>,
    bytes: usize,
}

impl Shown {
    /// Nothing shown yet. `key` are the columns by which the sink tells rows apart.
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Self {
        Self { schema, key, windows: BTreeMap::new(), bytes: 0 }
    }

    /// Takes what a window is now; gives what to write and what to delete.
    pub fn change(&mut self, end_ns: i64, now: RecordBatch) -> Result<(RecordBatch, RecordBatch)> {
        let empty = RecordBatch::new_empty(self.schema.clone());
        self.bytes += now.get_array_memory_size();
        let before = self.windows.insert(end_ns, now.clone()).unwrap_or(empty);
        self.bytes = self.bytes.saturating_sub(before.get_array_memory_size());
        let (old_keys, new_keys) = (self.rows(&before, true)?, self.rows(&now, true)?);
        let (old_rows, new_rows) = (self.rows(&before, false)?, self.rows(&now, false)?);
        let old: HashMap<&OwnedRow, usize> = old_keys.iter().enumerate().map(|(row, key)| (key, row)).collect();
        let changed =
            new_keys.iter().enumerate().filter(|(row, key)| old.get(key).is_none_or(|&at| old_rows[at] != new_rows[*row]));
        let upserts: UInt32Array = changed.map(|(row, _)| row as u32).collect::<Vec<_>>().into();
        let new: BTreeSet<&OwnedRow> = new_keys.iter().collect();
        let left = old_keys.iter().enumerate().filter(|(_, key)| !new.contains(key)).map(|(row, _)| row as u32);
        let deletes: UInt32Array = left.collect::<Vec<_>>().into();
        Ok((take_record_batch(&now, &upserts)?, take_record_batch(&before, &deletes)?))
    }

    fn rows(&self, batch: &RecordBatch, key_only: bool) -> Result<Vec<OwnedRow>> {
        let columns: Vec<usize> = if key_only { self.key.clone() } else { (0..batch.num_columns()).collect() };
        let batch = batch.project(&columns)?;
        let fields = batch.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(batch.columns())?;
        Ok(rows.iter().map(|row| row.owned()).collect())
    }

    /// Forgets windows that are final: what they showed stays.
    pub fn forget_until(&mut self, watermark_ns: i64) {
        if self.windows.first_key_value().is_some_and(|(&end, _)| end <= watermark_ns) {
            self.windows = self.windows.split_off(&watermark_ns.saturating_add(1));
            self.bytes = self.windows.values().map(RecordBatch::get_array_memory_size).sum();
        }
    }

    /// Forgets all: what is there now is new.
    pub fn clear(&mut self) {
        self.windows.clear();
        self.bytes = 0;
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// One output of all windows' changes; none if nothing changed.
    pub fn output(&self, changes: &[(RecordBatch, RecordBatch)]) -> Result<Option<Output>> {
        let upserts = concat_batches(&self.schema, changes.iter().map(|(upserts, _)| upserts))?;
        let deletes = concat_batches(&self.schema, changes.iter().map(|(_, deletes)| deletes))?;
        let none = upserts.num_rows() == 0 && deletes.num_rows() == 0;
        Ok((!none).then_some(Output::Changes { upserts, deletes }))
    }
}
