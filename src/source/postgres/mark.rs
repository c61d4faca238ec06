//! Places in the WAL, and the mark that says where to begin again.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::source::Mark;

/// A place in the WAL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Lsn(pub(super) u64);

impl Lsn {
    /// Behind every place.
    pub(super) const MAX: Self = Self(u64::MAX);

    /// Reads `16/B374D848`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let part = |text: &str| u32::from_str_radix(text, 16).ok().map(u64::from);
        Some(Self(part(high)? << 32 | part(low)?))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl TryFrom<String> for Lsn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("'{text}' is no place in a WAL"))
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

/// Between two transactions: everything that was committed before `lsn` is numbered, and nothing after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The cluster, since every cluster counts its WAL from the beginning.
    pub(super) system: String,
    pub(super) slot: String,
    /// Where the slot's changes began, which tells a slot that was made again.
    pub(super) begun: Lsn,
    pub(super) lsn: Lsn,
    /// Each table, by `schema.table`.
    pub(super) tables: BTreeMap<String, TablePlace>,
    /// The rows that were copied again behind this place, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) copies: Vec<CopyAgain>,
}

/// Rows of a table that were asked for: they stand between two transactions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CopyAgain {
    /// Where the transaction that asked for them ends.
    pub(super) lsn: Lsn,
    /// `schema.table`
    pub(super) table: String,
    /// The offset of the first row.
    pub(super) first: i64,
    /// The table behind them.
    pub(super) behind: TablePlace,
}

/// Where one table stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TablePlace {
    /// The next offset.
    pub(super) offset: i64,
    /// The offset after the last row of its newest snapshot; 0 without one.
    pub(super) rows: i64,
    /// What was committed before is in the snapshot, or of no interest: [`Lsn::MAX`], if only the snapshot is read.
    pub(super) from: Lsn,
}

impl Place {
    pub(super) fn of(mark: Mark) -> Result<Self> {
        let unread = |cause| Error::new(Kind::Corrupt, "the mark of a replication slot cannot be read").because(cause);
        serde_json::from_value(mark.0).map_err(unread)
    }

    pub(super) fn to_mark(&self) -> Mark {
        Mark(serde_json::to_value(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_wal_is_written_as_postgres_does() {
        for (text, value) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)] {
            assert_eq!(Lsn::parse(text), Some(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for wrong in ["", "1", "1/", "/1", "1/1/1", "x/1", "100000000/0"] {
            assert_eq!(Lsn::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let tables = BTreeMap::from([("public.a".to_string(), TablePlace { offset: 7, rows: 5, from: Lsn(3) })]);
        let place = Place { system: "1".into(), slot: "falaj".into(), begun: Lsn(1), lsn: Lsn(2), tables, copies: Vec::new() };
        assert_eq!(Place::of(place.to_mark()).unwrap(), place);
        assert!(Place::of(Mark(serde_json::json!({"lsn": "x"}))).is_err());
    }
}
