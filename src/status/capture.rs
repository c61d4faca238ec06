//! The figures of the capture over one replication slot.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What is read from one slot, and what Postgres keeps for it.
#[derive(Debug, Default)]
pub struct CaptureStatus {
    /// Changes received, of all tables; those that came again after a restart count again.
    pub changes: AtomicU64,
    /// WAL behind what is acknowledged, as of the last word of Postgres.
    pub lag_bytes: AtomicU64,
    /// WAL that Postgres keeps for the slot, as of the last question (every 10 s).
    pub retained_bytes: AtomicU64,
    /// Changes that wait for a lane, in memory and on the disk.
    pub waiting_bytes: AtomicU64,
    copies: Mutex<BTreeMap<String, Copy>>,
    trouble: Mutex<Option<String>>,
}

/// A copy of the rows that a table had.
#[derive(Debug)]
struct Copy {
    began: Instant,
    rows: u64,
    rows_estimate: u64,
    /// Seconds, when it was done.
    took: Option<f64>,
}

impl CaptureStatus {
    /// Says how far the copy of `table` is; the first call begins it.
    pub fn copied(&self, table: &str, rows: u64, rows_estimate: u64, done: bool) {
        let mut copies = self.copies.lock();
        let began = Instant::now();
        let copy = copies.entry(table.to_string()).or_insert(Copy { began, rows: 0, rows_estimate, took: None });
        if copy.took.is_some() && !done {
            *copy = Copy { began, rows: 0, rows_estimate, took: None }; // It was broken off and begins again.
        }
        (copy.rows, copy.rows_estimate) = (rows, rows_estimate);
        copy.took = done.then(|| copy.began.elapsed().as_secs_f64());
    }

    /// Forgets the copy of `table`: it is begun again.
    pub fn copy_failed(&self, table: &str) {
        self.copies.lock().remove(table);
    }

    /// Says what it waits for (`None`: nothing any more).
    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock() = trouble;
    }

    pub(super) fn snapshot(&self, slot: &str) -> CaptureSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let copies = self.copies.lock();
        CaptureSnapshot {
            slot: slot.to_string(),
            changes: get(&self.changes),
            lag_bytes: get(&self.lag_bytes),
            retained_bytes: get(&self.retained_bytes),
            waiting_bytes: get(&self.waiting_bytes),
            copies: copies.iter().map(|(table, copy)| copy.snapshot(table)).collect(),
            trouble: self.trouble.lock().clone(),
        }
    }
}

impl Copy {
    fn snapshot(&self, table: &str) -> CopySnapshot {
        let seconds = self.took.unwrap_or_else(|| self.began.elapsed().as_secs_f64()).max(0.001);
        let rate = self.rows as f64 / seconds;
        let left = self.rows_estimate.saturating_sub(self.rows) as f64;
        CopySnapshot {
            table: table.to_string(),
            rows: self.rows,
            rows_estimate: self.rows_estimate,
            rows_per_second: rate,
            seconds_left: if self.took.is_some() || rate < 1.0 { 0.0 } else { left / rate },
            done: self.took.is_some(),
        }
    }
}

/// A copy of a [`CaptureStatus`]; the fields mean the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on CaptureStatus")]
pub struct CaptureSnapshot {
    pub slot: String,
    pub changes: u64,
    pub lag_bytes: u64,
    pub retained_bytes: u64,
    pub waiting_bytes: u64,
    pub copies: Vec<CopySnapshot>,
    pub trouble: Option<String>,
}

/// How far the copy of a table's rows is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CopySnapshot {
    /// `schema.table`.
    pub table: String,
    /// Rows copied.
    pub rows: u64,
    /// How many there are, as Postgres guesses.
    pub rows_estimate: u64,
    /// Over the whole copy.
    pub rows_per_second: f64,
    /// 0 when it is done, or not known.
    pub seconds_left: f64,
    /// Whether all of them are durable.
    pub done: bool,
}
