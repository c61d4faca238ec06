//! A slot and its publications, as an operator sees them.

use super::mark::Lsn;
use super::options::{PostgresOptions, Snapshot};
use super::server::Server;
use crate::error::{Error, Kind, Result};
use crate::memory::shown_bytes;

/// A replication slot and the tables that name it.
pub struct SlotTables {
    tables: Vec<PostgresOptions>,
}

impl SlotTables {
    /// One for each slot that the tables name.
    pub fn of(tables: Vec<PostgresOptions>) -> Vec<Self> {
        let mut slots: Vec<Self> = Vec::new();
        for table in tables {
            match slots.iter_mut().find(|slot| slot.tables.iter().all(|other| other.same_slot(&table))) {
                Some(slot) => slot.tables.push(table),
                None => slots.push(Self { tables: vec![table] }),
            }
        }
        slots
    }

    /// A line for the slot.
    pub async fn show(&self) -> Result<Vec<String>> {
        let options = &self.tables[0];
        let server = Server::connect(options).await?;
        let (name, end) = (&options.slot, server.wal_end().await?);
        Ok(vec![match server.slot().await? {
            None => format!("{name}: there is no such slot at {}", options.server()),
            Some(slot) => {
                let behind = |at: Lsn| shown_bytes(end.0.saturating_sub(at.0));
                let reader =
                    slot.active_pid.map_or("nobody reads it".to_string(), |pid| format!("read by process {pid} of Postgres"));
                let (read, kept) = (behind(slot.confirmed), behind(slot.restart));
                format!("{name}: acknowledged up to {}, {read} behind; {kept} of WAL are kept for it; {reader}", slot.confirmed)
            }
        }])
    }

    /// Asks the falaj that reads the slot for the rows of `table` (its name in SQL), if it is one of these. Says so.
    pub async fn ask_for_rows(&self, table: &str) -> Result<Option<String>> {
        let Some(options) = self.tables.iter().find(|options| options.name == table) else { return Ok(None) };
        if options.snapshot == Snapshot::Only {
            let text = format!("table '{table}' has 'snapshot' 'only': its rows are copied once, into a new checkpoint");
            return Err(Error::new(Kind::Usage, text));
        }
        let server = Server::connect(options).await?;
        let read_by = match server.slot().await? {
            None => {
                let text = format!("there is no slot '{}' at {}: start falaj first", options.slot, options.server());
                return Err(Error::new(Kind::Refused, text));
            }
            Some(slot) if slot.active_pid.is_some() => "falaj copies them now",
            Some(_) => "falaj copies them when it runs again",
        };
        server.ask_for_rows(options).await?;
        Ok(Some(format!("{}: its rows are asked for; {read_by}", options.location())))
    }

    /// Drops the slot, and each publication that has no table but these. Says what it did.
    pub async fn drop_all(&self) -> Result<Vec<String>> {
        let options = &self.tables[0];
        let server = Server::connect(options).await?;
        let name = &options.slot;
        let mut lines = Vec::new();
        match server.slot_to_drop().await? {
            None => lines.push(format!("{name}: there is no such slot at {}", options.server())),
            Some(Some(pid)) => {
                let text = format!("slot '{name}' is read by process {pid} of Postgres: stop falaj first");
                return Err(Error::new(Kind::Refused, text));
            }
            Some(None) => {
                server.drop_slot().await?;
                lines.push(format!("{name}: the slot is dropped; begin again with a new checkpoint"));
            }
        }
        let mut publications: Vec<&str> = self.tables.iter().map(|table| table.publication.as_str()).collect();
        publications.dedup();
        for publication in publications {
            let ours = self.tables.iter().map(|table| (table.schema.clone(), table.table.clone())).collect::<Vec<_>>();
            lines.extend(server.drop_publication(publication, &ours).await?);
        }
        Ok(lines)
    }
}
