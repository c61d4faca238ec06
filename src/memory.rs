//! One limit for what the process holds in memory (`falaj.memory_limit`), and who holds how much of it.
//!
//! DataFusion's accounting is the accountant: plans ask a [`MemoryPool`] before they grow, and so does everything else that
//! grows with the data. A [`Share`] is the pool of one lane, log or lookup, an [`Account`] one thing in it. What happens when
//! memory becomes short, in this order:
//!
//! 1. whoever can wait holds itself to [`Account::fair`], a part of what is free: logs read less ahead, epochs take less, files end
//!    row groups sooner, fewer requests are under way;
//! 2. before anybody is refused, the logs give up what can be read again ([`Memory::on_shortage`]);
//! 3. who still does not fit is refused with a sentence (`Kind::Full`), which stops its lane. A quarter of the limit is parted among
//!    the lanes and kept for them, so that one that grows too large is refused before it takes what the others run on.
//!
//! Outside of the accounting: the program itself, stacks, the holes of the allocator, and moments in which something stands
//! twice because it is being copied. Together that stayed below 160 MB in our tests.

mod pool;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use serde::{Deserialize, Serialize};

use self::pool::{Books, SharePool};
use crate::error::{Error, Kind, Result};

/// The least limit: below it a log could not even read ahead while a lane works.
pub const LIMIT_LEAST: u64 = 64 << 20;

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The panes of a lane, and what it has put together of them.
    State,
    /// The segments that a lane works on.
    Epoch,
    /// What a lane's sink has taken and not given on yet.
    Sink,
    /// A copy of state on its way to the checkpoint.
    Snapshot,
    /// The tail of a source, and the client that reads it.
    Tail,
    /// What is read once more, by lanes that are behind or begin again.
    ReadAgain,
    /// The rows of a lookup table with their index.
    Rows,
    /// Rows of a lookup table that are being loaded.
    Load,
}

impl Use {
    const ALL: [(Use, &'static str); 8] = [
        (Use::State, "window state"),
        (Use::Epoch, "epoch"),
        (Use::Sink, "sink"),
        (Use::Snapshot, "snapshot"),
        (Use::Tail, "tail"),
        (Use::ReadAgain, "reading again"),
        (Use::Rows, "rows"),
        (Use::Load, "load"),
    ];

    /// Its name in messages and in the status.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(of, _)| *of == self).map_or("", |(_, name)| name)
    }

    /// The names of DataFusion's own consumers mean nothing to a user.
    fn shown(consumer: &str) -> &'static str {
        Self::ALL.iter().find(|(_, name)| *name == consumer).map_or("query", |(_, name)| name)
    }
}

/// The memory of the process. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Books>);

impl Memory {
    /// At most `limit` bytes; `None`: as much as there is.
    pub fn new(limit: Option<u64>) -> Self {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Self(Arc::new(Books::new(limit)))
    }

    /// Without a limit: for checks and tests.
    pub fn unlimited() -> Self {
        Self::new(None)
    }

    /// The share of a lane: a part of the limit is kept for it.
    pub fn lane(&self, name: &str) -> Share {
        Share(SharePool::register(&self.0, format!("lane '{name}'"), true))
    }

    /// The share of something else: `what` is `log of` or `lookup`.
    pub fn share(&self, what: &str, name: &str) -> Share {
        Share(SharePool::register(&self.0, format!("{what} '{name}'"), false))
    }

    /// Asks `gives_up` for what it can do without, before anybody is refused. It is called on any thread that asks for memory, so
    /// it must be quick and must not ask for memory itself; `false` from it: it need not be asked again.
    pub fn on_shortage(&self, gives_up: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.on_shortage(Box::new(gives_up));
    }

    /// The lesser of `bytes` and one part in `parts` of the limit: for bounds that are set once, at the start.
    pub fn at_most(&self, bytes: usize, parts: usize) -> usize {
        bytes.min(self.0.limit() / parts)
    }

    /// Who holds how much now.
    pub fn snapshot(&self) -> MemorySnapshot {
        let holders = self.0.holders();
        let limit = Some(self.0.limit()).filter(|limit| *limit < usize::MAX);
        MemorySnapshot { limit_bytes: limit.map(|limit| limit as u64), used_bytes: self.0.used() as u64, holders }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::unlimited()
    }
}

/// What one lane, log or lookup holds. Clones are the same share.
#[derive(Debug, Clone)]
pub struct Share(Arc<SharePool>);

impl Share {
    /// A share of nothing that is limited.
    pub fn unlimited() -> Self {
        Memory::unlimited().share("", "")
    }

    /// An empty account.
    pub fn account(&self, what: Use) -> Account {
        Account { reservation: MemoryConsumer::new(what.as_str()).register(&self.pool()), share: self.clone() }
    }

    /// The pool for plans that run for it.
    pub fn pool(&self) -> Arc<dyn MemoryPool> {
        Arc::clone(&self.0) as Arc<dyn MemoryPool>
    }

    /// The memory that it is a share of.
    pub fn memory(&self) -> Memory {
        Memory(Arc::clone(self.0.books()))
    }
}

/// The bytes of one thing. Dropping it gives them back.
pub struct Account {
    reservation: MemoryReservation,
    share: Share,
}

impl Account {
    /// An account that is never refused.
    pub fn unlimited(what: Use) -> Self {
        Share::unlimited().account(what)
    }

    /// What it holds.
    pub fn bytes(&self) -> usize {
        self.reservation.size()
    }

    /// Says that it holds `bytes` now. For what has a bound of its own and keeps to [`Account::fair`].
    pub fn set(&mut self, bytes: usize) {
        self.reservation.resize(bytes);
    }

    /// Says that it holds `bytes` now. `Err(Full)`: that is not there, and it holds what it held; the sentence says who holds the rest.
    pub fn try_set(&mut self, bytes: usize) -> Result<()> {
        self.reservation.try_resize(bytes).map_err(|error| match error {
            DataFusionError::ResourcesExhausted(sentence) => Error::new(Kind::Full, sentence),
            other => Error::new(Kind::Bug, "memory could not be accounted for").because(other),
        })
    }

    /// How much it should hold at most if it can wait: a quarter of what would be free without it. Several that keep to this
    /// leave room for those that cannot wait, and hold less the more those need.
    pub fn fair(&self) -> usize {
        self.share.0.free_without(self.bytes()) / 4
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}, {} bytes)", self.reservation.consumer().name(), self.bytes())
    }
}

/// A copy of who holds how much, for pages and terminals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySnapshot {
    /// `falaj.memory_limit`; `None`: there is none.
    pub limit_bytes: Option<u64>,
    /// The sum of all that is accounted for.
    pub used_bytes: u64,
    /// Lanes, logs and lookups, the largest first.
    pub holders: Vec<Holder>,
}

/// One lane, log or lookup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// For instance `lane 'top_content'`.
    pub name: String,
    /// What it holds.
    pub bytes: u64,
    /// Of what: the names of [`Use`], and `query` for running plans.
    pub of: BTreeMap<String, u64>,
}

/// For people: `96 MiB`, `1.5 GiB`.
pub fn shown_bytes(bytes: u64) -> String {
    let (unit, name) = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit)
        .unwrap_or((1, "bytes"));
    let number = format!("{:.1}", bytes as f64 / unit as f64);
    format!("{} {name}", number.strip_suffix(".0").unwrap_or(&number))
}

#[cfg(test)]
mod tests;
