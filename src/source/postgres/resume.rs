//! Where a capture begins: the place that it kept, checked against the slot; or the slot's beginning, after the rows of its tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgwire_replication::ReplicationConfig;

use super::capture::{MARK_INTERVAL, Table, Thread};
use super::copy;
use super::mark::{CopyAgain, Lsn, Place, TablePlace};
use super::options::{PostgresOptions, Snapshot};
use super::server::Server;
use super::session::RowsAsked;
use super::stream::Between;
use crate::error::{Error, Kind, Result};

/// How long a slot that another process reads is waited for before that process is ended.
const SLOT_PATIENCE: Duration = Duration::from_secs(2);

impl Thread {
    /// Where to begin: where it was, or where the slot does, which is made if there is none.
    pub(super) async fn place(&self, server: &Server<'_>) -> Result<Place> {
        let options = self.shared.options();
        let slot = &options.slot;
        let began = Instant::now();
        let found = loop {
            match server.slot().await? {
                // Of a process that is gone, or fenced: this one has claimed its log since.
                Some(slot) if slot.active_pid.is_some() && began.elapsed() < SLOT_PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Some(slot) => break Some(slot),
                None => break None,
            }
        };
        if let Some(pid) = found.as_ref().and_then(|slot| slot.active_pid) {
            tracing::warn!("replication slot '{slot}' is still read by another connection of falaj: it is ended");
            server.end_reader(pid).await?;
        }
        // Without a place in the WAL only rows were copied until now.
        match (self.place.as_ref().filter(|place| place.lsn != Lsn::default()), found) {
            (None, None) => {
                let begun = server.create_slot().await?;
                tracing::info!("replication slot '{slot}' was made at {begun}");
                Ok(self.fresh(begun))
            }
            (None, Some(found)) => Ok(self.fresh(found.confirmed)),
            (Some(place), None) => {
                let text = format!(
                    "replication slot '{slot}' is gone from {}, and with it the changes since {}: begin again with a new checkpoint, or \
                     restore the slot",
                    options.server(),
                    place.lsn
                );
                Err(Error::new(Kind::Lost, text))
            }
            (Some(place), Some(found)) if found.confirmed > place.lsn => {
                let text = format!(
                    "replication slot '{slot}' was moved on to {} while this checkpoint stands at {}: somebody else reads it, or it was made \
                     again; the changes between are gone. Give each reader a slot of its own (option 'slot'), and begin again",
                    found.confirmed, place.lsn
                );
                Err(Error::new(Kind::Lost, text))
            }
            (Some(place), Some(_)) => {
                let end = server.wal_end().await?;
                if end < place.lsn {
                    let text = format!(
                        "the WAL of {} ends at {end}, before {}, where this checkpoint stands: it was restored from an older copy, or a \
                         standby that lagged was promoted; begin again with a new checkpoint",
                        options.server(),
                        place.lsn
                    );
                    return Err(Error::new(Kind::Lost, text));
                }
                Ok(place.clone())
            }
        }
    }

    /// The place, if it is one of this cluster.
    pub(super) fn of_system(&self, mut place: Place, system: String) -> Result<Place> {
        let options = self.shared.options();
        if place.system.is_empty() {
            place.system = system;
        } else if place.system != system {
            let text = format!(
                "{} is another cluster than the one that slot '{}' was read from before ({system}, not {}): go back to that one, or begin \
                 again with a new checkpoint",
                options.server(),
                options.slot,
                place.system
            );
            return Err(Error::new(Kind::Lost, text));
        }
        Ok(place)
    }

    /// The same with every table: where one is new, after its rows were copied, if that is asked for. Durable before it is used.
    pub(super) async fn with_tables(&self, mut place: Place, server: &Server<'_>) -> Result<Place> {
        let known = place.clone();
        for table in &self.shared.tables {
            let (found, snapshot) = (place.tables.get(&table.location), table.options.snapshot);
            let offset = match found {
                // Only its snapshot was read until now.
                Some(found) if found.from == Lsn::MAX && snapshot != Snapshot::Only => found.offset,
                Some(_) => continue,
                None => 0,
            };
            let at = match snapshot {
                Snapshot::Initial | Snapshot::Only => copy::copy(table, offset, server, &self.shared.status).await?,
                Snapshot::Never => TablePlace { offset, ..TablePlace::default() },
            };
            place.tables.insert(table.location.clone(), at);
        }
        // A lane's offsets mean nothing without the place that they are counted from.
        if self.place.is_none() || known != place {
            self.keep(&place).await;
        }
        Ok(place)
    }

    /// Copies a table's rows again, since a transaction that ends at `lsn` asks for them, and makes their place durable. `first` is the
    /// table's next offset there.
    pub(super) async fn copy_again(&self, asked: RowsAsked, first: i64, server: &Server<'_>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let RowsAsked { table, end: lsn } = asked;
        let table = &shared.tables[table];
        tracing::info!("{}: its rows are asked for again", table.location);
        let behind = copy::copy(table, first, server, &shared.status).await?;
        let copy = CopyAgain { lsn, table: table.location.clone(), first, behind };
        // What the lanes are not done with yet comes again, and the rows behind it.
        let done = {
            let state = shared.state.lock();
            state.done.clone().or_else(|| state.kept.clone())
        };
        if let Some(mut done) = done {
            done.copies.push(copy);
            self.keep(&done).await;
        }
        Ok(())
    }

    /// Waits until a place is durable.
    async fn keep(&self, place: &Place) {
        self.shared.state.lock().done = Some(place.clone());
        self.shared.marked.notify_one();
        while self.shared.state.lock().kept.as_ref() != Some(place) && !self.shared.stopped() {
            self.shared.wake.notified().await;
        }
    }

    pub(super) fn fresh(&self, begun: Lsn) -> Place {
        let tables = self.place.as_ref().map_or_else(BTreeMap::new, |place| place.tables.clone());
        Place { system: String::new(), slot: self.shared.options().slot.clone(), begun, lsn: begun, tables, copies: Vec::new() }
    }
}

/// `place`, moved on.
pub(super) fn stand_at(place: &Place, tables: &[Table], at: &Between) -> Place {
    let mut place = place.clone();
    place.lsn = at.lsn;
    for passed in place.copies.extract_if(.., |copy| copy.lsn <= at.lsn) {
        place.tables.insert(passed.table, passed.behind);
    }
    for (table, &offset) in tables.iter().zip(&at.offsets) {
        place.tables.entry(table.location.clone()).or_default().offset = offset;
    }
    place
}

/// A connection that replicates from `from` on.
pub(super) fn config(options: &PostgresOptions, from: Lsn) -> ReplicationConfig {
    options.address.replication(&options.slot, &options.publication, from.0, MARK_INTERVAL)
}
