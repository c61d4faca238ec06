//! The figures of one lookup table.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The figures of one lookup table.
#[derive(Debug, Default)]
pub struct LookupStatus {
    /// Rows held.
    pub rows: AtomicU64,
    /// Memory held.
    pub bytes: AtomicU64,
    /// When it was last loaded, ms since 1970; 0 if never.
    pub loaded_ms: AtomicI64,
    /// Counts every change of what it holds.
    pub version: AtomicU64,
    /// Keys asked for that were not in memory.
    pub misses: AtomicU64,
    /// Those of them that the store did not answer in time and that were taken as without a row.
    pub unanswered: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl LookupStatus {
    /// Says why it cannot be loaded or asked (`None`: nothing any more).
    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock() = trouble;
    }

    /// What was said last.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    pub(super) fn snapshot(&self, name: &str) -> LookupSnapshot {
        LookupSnapshot {
            name: name.to_string(),
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            loaded_ms: self.loaded_ms.load(Ordering::Relaxed),
            version: self.version.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            unanswered: self.unanswered.load(Ordering::Relaxed),
            trouble: self.trouble(),
        }
    }
}

/// A copy of a [`LookupStatus`]; the fields mean the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on LookupStatus")]
pub struct LookupSnapshot {
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
    pub loaded_ms: i64,
    pub version: u64,
    pub misses: u64,
    pub unanswered: u64,
    /// Why it cannot be loaded or asked, if so.
    pub trouble: Option<String>,
}
