//! The records of a lane's checkpoint: JSON that a person can read, with a checksum.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result};
use crate::position::{Positions, Span};
use crate::sink::Staged;
use crate::source::Mark;

/// The version of the format that this build writes, and the only one that it reads.
pub const VERSION: u32 = 2;

/// One record. Its number is its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version.
    pub version: u32,
    /// The record's number, from 0 without a gap.
    pub number: u64,
    /// The id of the checkpoint's history.
    pub lineage: String,
    /// The lane.
    pub lane: String,
    /// The claim under which it was written.
    pub incarnation: u64,
    /// What it says, in order: a commit and the next intent may stand in one record.
    pub entries: Vec<Entry>,
}

/// What a record says: `{"intent":{…}}`. (A tag inside the object would make serde buffer it, and then the numbers that are keys
/// of positions cannot be read back.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// This process drives the lane from here on.
    Claim {
        /// When, ms since 1970.
        at_ms: i64,
    },
    /// Epoch e is these spans, decided so.
    Intent(Intent),
    /// Epoch e is applied.
    Commit {
        /// The epoch.
        epoch: u64,
    },
    /// The state as of an epoch is in files of its own.
    Snapshot(Snapshot),
    /// A step on the lane's way to a result that a backfill has made.
    Handover(Handover),
}

/// A step of a handover: [`super::handover`] has the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The step.
    pub step: Step,
    /// The lineage of the backfill.
    pub lineage: String,
    /// The claim that drove the lane before, and may go on afterwards; 0 when nobody did.
    pub before: u64,
    /// What the backfill's query is ([`crate::query::plan::LanePlan::query`]): whoever goes on must have the same.
    pub query: String,
}

/// How far a handover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The lane stands still, between two epochs.
    Stop,
    /// The results are being exchanged.
    Swap,
    /// The lane goes on from the backfill's last epoch, which is in the same record. It is the first of the new lineage.
    Done,
    /// It is given up: the lane goes on as it was.
    Off,
}

impl Handover {
    /// Whether the lane stands still.
    pub fn is_open(&self) -> bool {
        matches!(self.step, Step::Stop | Step::Swap)
    }
}

/// The decision of an epoch: what is read, and every time that has a say in the result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The epoch's number, from 1 without a gap.
    pub epoch: u64,
    /// What it reads; empty when only time moved on.
    pub spans: Vec<Span>,
    /// The positions after it.
    pub positions: Positions,
    /// What `now()` answers, ns since 1970.
    pub now_ns: i64,
    /// The greatest event time of each partition after it, ns since 1970.
    pub event_times_ns: BTreeMap<i32, i64>,
    /// The partitions that did not hold the watermark back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<i32>,
    /// The watermark before it, by which its rows are judged, ns since 1970; none before the first.
    pub watermark_before_ns: Option<i64>,
    /// The watermark after it, ns since 1970.
    pub watermark_ns: Option<i64>,
    /// T, the time that a `latest` board shows, ns since 1970.
    pub board_ns: Option<i64>,
    /// How many of its rows are dead letters of this lane's own (late, or SQL failed).
    #[serde(default)]
    pub letters: u64,
    /// Of a source's own log: where it may be begun again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// What is staged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<Staged>,
}

impl Intent {
    /// The positions before it.
    pub fn positions_before(&self) -> Positions {
        let mut positions = self.positions.clone();
        for span in self.spans.iter().rev() {
            positions.set(span.partition, span.from);
        }
        positions
    }
}

/// A snapshot of window state. Later epochs may have been committed before its record was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The state is that after this epoch's commit.
    pub epoch: u64,
    /// That epoch's intent: positions and times.
    pub intent: Intent,
    /// What its panes hold ([`crate::query::plan::Windows::fingerprint`]): only of the same may be gone on from.
    #[serde(default)]
    pub fingerprint: String,
    /// The first pane of which every row is in it; those before may be gone. The least index when none is.
    #[serde(default)]
    pub from_pane: i64,
    /// The files with its panes: the ones that changed are in the last, the others where an earlier snapshot put them.
    pub files: Vec<StateFile>,
    /// The file with a merged part of the panes, `[from, to)`, where that can be gone on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<StateFile>,
}

impl Snapshot {
    /// Every file that it needs.
    pub fn all_files(&self) -> impl Iterator<Item = &StateFile> {
        self.files.iter().chain(&self.merged)
    }
}

/// A file of window state, and what it must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateFile {
    /// Its name in the lane's folder.
    pub file: String,
    /// Its size.
    pub size_bytes: u64,
    /// XXH3-64 of its bytes, in hex.
    pub hash: String,
    /// The panes for which it counts, as runs `[from, to)` of pane indexes. It may hold others, of which a later file has more.
    pub panes: Vec<(i64, i64)>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    record: &'a RawValue,
    xxh3: String,
}

/// XXH3-64 in hex.
pub fn hash_hex(bytes: &[u8]) -> String {
    format!("{:016x}", twox_hash::XxHash3_64::oneshot(bytes))
}

impl Record {
    /// The record's bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let broken = |cause| Error::new(Kind::Bug, "a checkpoint record could not be written as JSON").because(cause);
        let record = serde_json::value::to_raw_value(self).map_err(broken)?;
        let envelope = Envelope { record: &record, xxh3: hash_hex(record.get().as_bytes()) };
        let mut bytes = serde_json::to_vec(&envelope).map_err(broken)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The handover whose step it is.
    pub fn handover(&self) -> Option<&Handover> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Handover(handover) => Some(handover),
            _ => None,
        })
    }

    /// Whether its number must stay taken for a process that slept: a claim, or what has ended one.
    pub(super) fn takes_over(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, Entry::Claim { .. } | Entry::Handover(_)))
    }

    /// Reads a record and checks that it is whole, of this version, and of this place.
    pub fn decode(bytes: &[u8], name: &str, lineage: &str, lane: &str, number: u64) -> Result<Self> {
        let record = Self::decode_of_any(bytes, name, lane, number)?;
        if record.lineage == lineage { Ok(record) } else { Err(foreign(name)) }
    }

    /// The same of whatever lineage.
    pub(super) fn decode_of_any(bytes: &[u8], name: &str, lane: &str, number: u64) -> Result<Self> {
        let corrupt = |what: &str| corrupt(name, what);
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|cause| corrupt("is torn").because(cause))?;
        if hash_hex(envelope.record.get().as_bytes()) != envelope.xxh3 {
            return Err(corrupt("was changed: its checksum does not fit"));
        }
        let record: Record =
            serde_json::from_str(envelope.record.get()).map_err(|cause| corrupt("is of another version").because(cause))?;
        if record.version != VERSION {
            return Err(corrupt(&format!("is of version {}, this build reads {VERSION}", record.version)));
        }
        if record.lane != lane || record.number != number {
            return Err(foreign(name));
        }
        Ok(record)
    }
}

fn corrupt(name: &str, what: &str) -> Error {
    let advice = "put back a copy of the folder, or move it away to begin a new lineage";
    Error::new(Kind::Corrupt, format!("the checkpoint record {name} {what}; {advice}"))
}

pub(super) fn foreign(name: &str) -> Error {
    corrupt(name, "is foreign: it belongs to another lineage, lane or number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_torn_changed_or_foreign_is_named() {
        let intent = Intent {
            epoch: 4,
            positions: [(0, 12), (3, 0)].into_iter().collect(),
            event_times_ns: BTreeMap::from([(0, 17), (3, -1)]),
            ..Intent::default()
        };
        let record = Record {
            version: VERSION,
            number: 7,
            lineage: "l".into(),
            lane: "board".into(),
            incarnation: 2,
            entries: vec![Entry::Commit { epoch: 3 }, Entry::Intent(intent)],
        };
        let bytes = record.encode().unwrap();
        assert_eq!(Record::decode(&bytes, "7", "l", "board", 7).unwrap(), record);
        for cut in 0..bytes.len() - 2 {
            assert_eq!(Record::decode(&bytes[..cut], "7", "l", "board", 7).unwrap_err().kind(), Kind::Corrupt, "cut at {cut}");
        }
        let mut flipped = bytes.clone();
        let at = flipped.iter().position(|&byte| byte == b'3').unwrap();
        flipped[at] ^= 1;
        assert!(Record::decode(&flipped, "7", "l", "board", 7).is_err());
        assert!(Record::decode(&bytes, "7", "other", "board", 7).unwrap_err().to_string().contains("foreign"));
        assert!(Record::decode(&bytes, "7", "l", "board", 8).unwrap_err().to_string().contains("foreign"));
    }
}
