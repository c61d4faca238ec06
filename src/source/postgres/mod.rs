//! The changes of Postgres tables as sources: one slot, read once, for all tables that name it.
//!
//! ```text
//!  Postgres ──pgoutput──▶ capture thread ──▶ buffer of each table ──▶ readers: the table's log, recoveries
//!     ▲                        │ numbers the changes                      │
//!     └── acknowledged ◀── mark made durable ◀── what every lane is done with
//! ```
//!
//! A change's offset is its number among the changes of its table since the slot's beginning. Postgres always sends the same
//! changes in the same order (of commits, and within a transaction as they were made), so that counting from a *mark*, a place
//! between two transactions with the offsets there, gives every change its number again. What is acknowledged is gone; before that
//! the mark behind it is durable ([`Keeper`](crate::source::Keeper)). A lane reads again from the buffer; after a restart, the slot sends again whatever lies
//! behind the mark.
//!
//! * [`options`]: what a user may write, checked without a network;
//! * `server`: checks, publication and slot, by ordinary SQL;
//! * `capture`: the thread; `resume`: where it begins; `session`: its connection; `stream`: what it makes of the messages;
//! * `copy`: the rows that are there before the first change;
//! * `buffer`: the changes between that thread and the readers; `spool`: those that lie on the disk;
//! * `mark`: places in the WAL;
//! * `slot`: what `falaj capture` shows and drops.

mod buffer;
mod capture;
mod copy;
mod mark;
pub mod options;
mod resume;
mod server;
mod session;
mod slot;
mod spool;
mod stream;

use std::sync::Arc;
use std::time::Duration;

pub use self::capture::Capture;
pub use self::options::PostgresOptions;
pub use self::slot::SlotTables;

use self::buffer::{BufferReader, PARTITION};
use self::capture::Shared;
use crate::error::{Error, Kind, Result};
use crate::pgoutput::Relations;
use crate::position::Positions;
use crate::source::{Reader, Source, Start};

/// A server that does not let us in for so long is taken as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a question of a lane waits for the capture to begin, or to catch up.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// The changes of one table of a [`Capture`].
pub struct PostgresSource {
    shared: Arc<Shared>,
    table: usize,
}

impl PostgresSource {
    /// What the table's rows looked like, for the decoder.
    pub fn relations(&self) -> Relations {
        Arc::clone(&self.shared.tables[self.table].relations)
    }

    fn open(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        let buffer = Arc::clone(&self.shared.tables[self.table].buffer);
        let at = match from.get(PARTITION) {
            Some(at) => at,
            None => buffer.first(ASK_TIMEOUT)?,
        };
        Ok(Box::new(BufferReader { buffer, at }))
    }
}

impl Source for PostgresSource {
    fn topic(&self) -> &str {
        &self.shared.tables[self.table].location
    }

    fn start(&self, start: Start) -> Result<Positions> {
        match start {
            Start::Earliest => {
                Ok([(PARTITION, self.shared.tables[self.table].buffer.first(ASK_TIMEOUT)?)].into_iter().collect())
            }
            Start::Latest => self.log_ends(),
            Start::At(_) => Err(Error::new(Kind::Usage, "a WAL cannot be read again from a time")),
        }
    }

    fn log_ends(&self) -> Result<Positions> {
        let ends = self.shared.ends(ASK_TIMEOUT)?;
        Ok([(PARTITION, ends[self.table])].into_iter().collect())
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        self.open(from)
    }

    fn reader_of(&self, from: &Positions) -> Result<Box<dyn Reader>> {
        self.open(from)
    }

    fn acknowledge(&self, lane: &str, positions: &Positions) {
        if let Some(at) = positions.get(PARTITION) {
            self.shared.tables[self.table].buffer.acknowledge(lane, at);
        }
    }

    fn waits_for(&self, lane: &str) -> bool {
        self.shared.tables[self.table].buffer.waits_for(lane)
    }
}
