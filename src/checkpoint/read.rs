//! What stands in a checkpoint: its lineage, and the records and files of its lanes, each checked.

use futures::future::join_all;

use super::CheckpointStore;
use super::record::{Record, StateFile, foreign, hash_hex};
use crate::error::{Error, Kind, Result};

/// Records that are read at the same time: each waits for the disk for some microseconds, or for a store for milliseconds.
pub(super) const READS: usize = 32;

/// How often a lane is read again that another process drives meanwhile: each time that process must have written on since.
const READ_TRIES: usize = 10;

pub(super) const ADVICE: &str = "put back a copy of the folder, or move it away to begin a new lineage";

/// The file that names the checkpoint's history.
pub const LINEAGE: &str = "lineage.json";

/// What `lineage.json` says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lineage {
    /// The id of the checkpoint's history.
    pub lineage: String,
    /// The one that it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
}

impl Lineage {
    /// The file's bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let broken = |cause| Error::new(Kind::Bug, "a lineage could not be written as JSON").because(cause);
        let mut bytes = serde_json::to_vec(self).map_err(broken)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The lineage of a checkpoint; none when there is no checkpoint.
pub async fn lineage(store: &dyn CheckpointStore) -> Result<Option<Lineage>> {
    let Some(bytes) = store.read(LINEAGE).await? else { return Ok(None) };
    let lineage = serde_json::from_slice(&bytes).map_err(|cause| {
        Error::new(Kind::Corrupt, format!("the checkpoint's {LINEAGE} is torn; put back a copy of the folder")).because(cause)
    })?;
    Ok(Some(lineage))
}

/// The lanes that have records, sorted.
pub async fn lanes(store: &dyn CheckpointStore) -> Result<Vec<String>> {
    let mut lanes = Vec::new();
    for name in store.list("").await? {
        if name != LINEAGE && !numbers(store, &name).await?.is_empty() {
            lanes.push(name);
        }
    }
    Ok(lanes)
}

/// The numbers of a lane's records, sorted.
pub async fn numbers(store: &dyn CheckpointStore, lane: &str) -> Result<Vec<u64>> {
    Ok(numbers_in(&store.list(lane).await?))
}

pub(super) fn numbers_in(names: &[String]) -> Vec<u64> {
    let is_number = |text: &&str| text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |name: &String| name.strip_suffix(".json").filter(is_number)?.parse().ok();
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// Every record of a lane that there is, or why it cannot be read. `Err`: the store does not answer.
pub async fn all(store: &dyn CheckpointStore, lineage: &str, lane: &str) -> Result<Vec<(u64, Result<Record>)>> {
    let numbers = numbers(store, lane).await?;
    let mut records = Vec::with_capacity(numbers.len());
    for some in numbers.chunks(READS) {
        for (&number, read) in some.iter().zip(join_all(some.iter().map(|&number| record(store, lineage, lane, number))).await)
        {
            match read {
                Err(error) if error.kind() != Kind::Corrupt => return Err(error),
                read => records.push((number, read)),
            }
        }
    }
    Ok(records)
}

/// Reads one record, checked.
pub async fn record(store: &dyn CheckpointStore, lineage: &str, lane: &str, number: u64) -> Result<Record> {
    let name = record_name(lane, number);
    let bytes = store.read(&name).await?;
    let bytes = bytes.ok_or_else(|| Error::new(Kind::Corrupt, format!("the checkpoint record {name} is missing; {ADVICE}")))?;
    record_of(store, lineage, lane, number, &bytes).await
}

/// The record of these bytes, checked.
pub(super) async fn record_of(
    store: &dyn CheckpointStore,
    lineage: &str,
    lane: &str,
    number: u64,
    bytes: &[u8],
) -> Result<Record> {
    let name = record_name(lane, number);
    let record = Record::decode_of_any(bytes, &name, lane, number)?;
    let is_ours = record.lineage == lineage || was_handed_over(store, lane, &record.lineage).await?;
    if is_ours { Ok(record) } else { Err(foreign(&name)) }
}

/// The newest record of a lane; none when there is none.
pub async fn newest(store: &dyn CheckpointStore, lineage: &str, lane: &str) -> Result<Option<Record>> {
    let mut tries = Tries::default();
    loop {
        let read = match numbers(store, lane).await?.last() {
            None => return Ok(None),
            Some(&last) => record(store, lineage, lane, last).await,
        };
        match read {
            Err(error) => tries.again(store, lane, error).await?,
            Ok(record) => return Ok(Some(record)),
        }
    }
}

/// Whoever drives a lane may purge what was listed before it is read, and a folder's names are not listed at one moment: so what is
/// corrupt is read again if the log has grown.
#[derive(Default)]
pub(super) struct Tries {
    done: usize,
    newest: Option<u64>,
}

impl Tries {
    /// `Err`: the error stands.
    pub(super) async fn again(&mut self, store: &dyn CheckpointStore, lane: &str, error: Error) -> Result<()> {
        if error.kind() != Kind::Corrupt || self.done == READ_TRIES {
            return Err(error);
        }
        let newest = numbers(store, lane).await?.pop();
        if self.done > 0 && self.newest == newest {
            return Err(error);
        }
        (self.done, self.newest) = (self.done + 1, newest);
        Ok(())
    }
}

async fn was_handed_over(store: &dyn CheckpointStore, lane: &str, lineage: &str) -> Result<bool> {
    // It becomes a part of a path.
    let is_id = lineage.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    Ok(is_id && store.read(&lineage_name(lane, lineage)).await?.is_some())
}

/// The file which says that the lane was, or is about to be, handed over to `lineage`.
pub(super) fn lineage_name(lane: &str, lineage: &str) -> String {
    format!("{lane}/lineage-{lineage}.json")
}

/// The bytes of a file of window state, checked.
pub async fn state_file(store: &dyn CheckpointStore, lane: &str, file: &StateFile) -> Result<Vec<u8>> {
    let name = format!("{lane}/{}", file.file);
    let bytes = store.read(&name).await?.unwrap_or_default();
    if bytes.len() as u64 != file.size_bytes || hash_hex(&bytes) != file.hash {
        return Err(Error::new(Kind::Corrupt, format!("the snapshot {name} is missing, torn or changed; {ADVICE}")));
    }
    Ok(bytes)
}

/// Where the last run of numbers without a gap begins. Before it stand only claims, which a purge leaves; if something else is
/// missing there, it will be missed.
pub(super) fn last_run(numbers: &[u64]) -> usize {
    (1..numbers.len()).rev().find(|&at| numbers[at] != numbers[at - 1] + 1).unwrap_or(0)
}

pub(super) fn record_name(lane: &str, number: u64) -> String {
    format!("{lane}/{number:020}.json")
}
