//! Rows as hashes: one key for each row, absolute values, under one fence.

use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use hashbrown::HashMap;
use redis::Script;

use super::connection::{Answer, Call, Connection};
use crate::batch::Output;
use crate::error::{Kind, Result};
use crate::sink::{Writer, cells};

/// Rows in one script: with ten fields each it runs for some 10 ms.
const PART_ROWS: usize = 1_000;

/// What a row and each of its fields cost here: entry, text, and the allocator's share.
const ROW_BYTES: usize = 128;
const FIELD_BYTES: usize = 64;

/// The hashes of one table, and what of the open epoch they have taken.
pub(super) struct Rows {
    pub(super) key: usize,
    columns: Vec<String>,
    location: String,
    fence: String,
    ttl: Duration,
    script: Script,
    /// The fields of a row by its key, or `None` when it leaves. `None` for a field: NULL.
    pending: HashMap<String, Option<Vec<Option<String>>>>,
    /// Rows of the open epoch without a key.
    pub(super) skipped: u64,
}

impl Rows {
    pub(super) fn new(location: String, fence: String, key: usize, columns: Vec<String>, ttl: Duration) -> Self {
        let script = super::script(include_str!("lua/rows.lua"));
        Self { key, columns, location, fence, ttl, script, pending: HashMap::new(), skipped: 0 }
    }

    /// Takes a part of the open epoch; of a key that comes twice the last counts.
    pub(super) fn write(&mut self, connection: &Connection, output: Output) -> Result<()> {
        match output {
            Output::Board(_) => {
                Err(connection.error(Kind::Sql, "hashes take 'emit' 'update' or 'final'; a whole board needs 'type' 'zset'"))
            }
            Output::Rows { rows, .. } => self.upsert(&rows),
            Output::Changes { upserts, deletes } => {
                for key in cells::texts(deletes.column(self.key))?.iter().flatten() {
                    self.pending.insert(key.into(), None);
                }
                self.upsert(&upserts)
            }
        }
    }

    /// How many rows the open epoch has taken.
    pub(super) fn pending_rows(&self) -> usize {
        self.pending.len()
    }

    /// Memory held by that.
    pub(super) fn memory_bytes(&self) -> usize {
        self.pending_rows() * (ROW_BYTES + self.columns.len() * FIELD_BYTES)
    }

    /// Forgets what the open epoch has taken.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.skipped = 0;
    }

    /// Makes `epoch` visible, key by key, and says how many rows it wrote.
    pub(super) async fn apply(&mut self, connection: &mut Connection, writer: &Writer, epoch: u64) -> Result<u64> {
        let rows: Vec<_> = std::mem::take(&mut self.pending).into_iter().collect();
        let parts = rows.len().div_ceil(PART_ROWS);
        for (index, part) in rows.chunks(PART_ROWS).enumerate() {
            let keys: Vec<String> = part.iter().map(|(key, _)| format!("{}:{key}", self.location)).collect();
            let mut names = vec![self.location.as_str(), &self.fence, &self.location];
            names.extend(keys.iter().map(String::as_str));
            let mut call = Call::new(&self.script, &names, writer, epoch, self.ttl);
            call.arg(u8::from(index + 1 == parts));
            for (_, fields) in part {
                self.write_row(&mut call, fields.as_deref());
            }
            if connection.run(&call).await? == Answer::Applied {
                break;
            }
        }
        Ok(rows.len() as u64)
    }

    fn write_row(&self, call: &mut Call<'_>, fields: Option<&[Option<String>]>) {
        let Some(fields) = fields else {
            call.arg(-1).arg(0);
            return;
        };
        let named =
            || self.columns.iter().zip(fields).enumerate().filter(|(index, _)| *index != self.key).map(|(_, field)| field);
        let set = named().filter(|(_, value)| value.is_some()).count();
        call.arg(set).arg(self.columns.len() - 1 - set);
        for (name, value) in named() {
            if let Some(value) = value {
                call.arg(name).arg(value);
            }
        }
        for (name, _) in named().filter(|(_, value)| value.is_none()) {
            call.arg(name);
        }
    }

    fn upsert(&mut self, rows: &RecordBatch) -> Result<()> {
        let columns = rows.columns().iter().map(cells::texts).collect::<Result<Vec<StringArray>>>()?;
        for row in 0..rows.num_rows() {
            let Some(key) = cells::text(&columns[self.key], row) else {
                self.skipped += 1;
                continue;
            };
            let fields = columns.iter().map(|column| cells::text(column, row).map(str::to_owned)).collect();
            self.pending.insert(key.to_owned(), Some(fields));
        }
        Ok(())
    }
}
