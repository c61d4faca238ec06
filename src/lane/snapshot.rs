//! Snapshots of window state: which panes are in which file, when to write one, and how it is read back.
//!
//! A snapshot writes the panes that have changed since the one before, in a task of its own while epochs go on: panes are lists of
//! immutable batches, so taking them costs a few pointers. Its record follows when the file is durable. In the file each batch
//! of Arrow IPC is one pane, with the pane's index as a first column.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use tokio::task::JoinHandle;

use super::LaneParts;
use crate::checkpoint::lane_log::{LaneLog, StateWriter};
use crate::checkpoint::record::{Intent, Snapshot, StateFile};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::memory::{Account, Use};
use crate::window::base::Base;
use crate::window::panes::{PaneStates, bytes_of};
use crate::window::state::WindowState;

/// A snapshot may take a part of the time that is one in so many: 3 %.
const COST_SHARE: u32 = 33;
/// A lane that has caught up never has more than so many times `snapshot_records` to read again, whatever a snapshot costs.
const OVERDUE: u64 = 4;
/// Epochs between two snapshots at most: their records are read at the next start, in some 50 µs each.
const EPOCHS_MAX: u64 = 1000;
/// The least that a file holds when there is more.
const FILE_BYTES: usize = 16 << 20;

/// The snapshots of one lane.
pub(super) struct Snapshots {
    /// What the panes hold.
    fingerprint: String,
    /// What each file counts for, as of the last snapshot.
    files: Vec<StateFile>,
    writing: Option<Writing>,
    records: u64,
    epochs: u64,
    cost: Duration,
    last: Option<Instant>,
}

/// A snapshot whose file is being written.
struct Writing {
    intent: Intent,
    /// The first record after its epoch.
    from: u64,
    /// Panes before this one were gone.
    first_pane: i64,
    from_pane: i64,
    task: JoinHandle<Result<Written>>,
}

struct Written {
    changed: Vec<StateFile>,
    merged: Option<StateFile>,
    took: Duration,
}

impl Snapshots {
    /// None yet, of panes that hold what `fingerprint` says.
    pub(super) fn new(fingerprint: String) -> Self {
        Self { fingerprint, files: vec![], writing: None, records: 0, epochs: 0, cost: Duration::ZERO, last: None }
    }

    /// Stands where a snapshot that was read stands.
    pub(super) fn stand_at(&mut self, files: Vec<StateFile>) {
        self.files = files;
    }

    /// Notes records that were absorbed after the last snapshot, in one epoch.
    pub(super) fn absorbed(&mut self, records: u64) {
        self.records += records;
        self.epochs += 1;
    }

    /// Between two epochs, the last of which is `intent`: records a snapshot that is written by now, and begins one when reading
    /// again would take long and writing has not taken more than 3 % of the time, or the lane has just worked off a backlog.
    pub(super) async fn advance(
        &mut self,
        parts: &LaneParts,
        log: &mut LaneLog,
        intent: &Intent,
        state: &mut WindowState,
        caught_up: bool,
    ) -> Result<()> {
        if self.writing.as_ref().is_some_and(|writing| writing.task.is_finished()) {
            self.record(parts, log).await?;
        }
        let many = self.records >= parts.bounds.snapshot_records || self.epochs >= EPOCHS_MAX;
        let cheap = self.last.is_none_or(|last| last.elapsed() > self.cost * COST_SHARE);
        // After a backlog the share may be used up for minutes, and what a start would read again is the backlog.
        let overdue = caught_up && self.records >= parts.bounds.snapshot_records.saturating_mul(OVERDUE);
        if self.writing.is_none() && many && (cheap || overdue) {
            self.begin(parts, log, intent, state);
        }
        Ok(())
    }

    /// Before a clean stop: everything is in a snapshot when it returns.
    pub(super) async fn finish(
        &mut self,
        parts: &LaneParts,
        log: &mut LaneLog,
        intent: &Intent,
        state: &mut WindowState,
    ) -> Result<()> {
        if self.writing.is_some() {
            self.record(parts, log).await?;
        }
        if self.records == 0 {
            return Ok(());
        }
        self.begin(parts, log, intent, state);
        self.record(parts, log).await
    }

    fn begin(&mut self, parts: &LaneParts, log: &LaneLog, intent: &Intent, state: &mut WindowState) {
        let account = parts.plan.memory.account(Use::Snapshot);
        let (changed, merged) = (state.panes_mut().take_changed(), state.base().cloned());
        let (writer, epoch) = (log.state_writer(), intent.epoch);
        let first_pane = state.panes().bounds().map_or(i64::MAX, |(first, _)| first);
        let task = tokio::spawn(async move { write(&writer, epoch, changed, merged, account).await });
        let from_pane = state.complete_from();
        self.writing = Some(Writing { intent: intent.clone(), from: log.next(), first_pane, from_pane, task });
        (self.records, self.epochs, self.last) = (0, 0, Some(Instant::now()));
    }

    /// Waits for the files, and appends the record.
    async fn record(&mut self, parts: &LaneParts, log: &mut LaneLog) -> Result<()> {
        let Some(Writing { intent, from, first_pane, from_pane, task }) = self.writing.take() else { return Ok(()) };
        let broken = |cause| Err(Error::new(Kind::Bug, "writing a snapshot was broken off").because(cause));
        let written = task.await.unwrap_or_else(broken)?;
        for file in &mut self.files {
            let newer = written.changed.iter().map(|newer| newer.panes.as_slice());
            // Without any newer one, what is before the first pane goes all the same.
            for replaced in newer.chain([&[] as &[_]]) {
                file.panes = without(&file.panes, replaced, first_pane);
            }
        }
        self.files.retain(|file| !file.panes.is_empty());
        self.files.extend(written.changed);
        self.cost = written.took;
        let (files, merged, fingerprint) = (self.files.clone(), written.merged, self.fingerprint.clone());
        let positions = intent.positions.clone();
        log.snapshot(Snapshot { epoch: intent.epoch, intent, fingerprint, from_pane, files, merged }, from).await?;
        failpoint::hit(&parts.plan.name, "snapshot.recorded");
        parts.source.acknowledge(&parts.plan.name, &positions);
        parts.status.note_snapshot(written.took, parts.clock.now_ms());
        Ok(())
    }
}

/// A lane that begins again does not wait for the file of the one before.
impl Drop for Snapshots {
    fn drop(&mut self) {
        if let Some(writing) = &self.writing {
            writing.task.abort();
        }
    }
}

/// What is on its way to the checkpoint is in memory a second time, so it goes in files of some [`FILE_BYTES`].
async fn write(
    writer: &StateWriter,
    epoch: u64,
    changed: Vec<PaneStates>,
    merged: Option<Base>,
    mut account: Account,
) -> Result<Written> {
    let began = Instant::now();
    let mut files = Vec::new();
    for (number, states) in pieces(changed).into_iter().enumerate() {
        account.set(states.iter().flat_map(|(_, parts)| parts).map(bytes_of).sum());
        let panes = runs(states.iter().map(|(pane, _)| *pane));
        files.extend(write_file(writer, epoch, &format!("panes-{number}"), states, panes).await?);
    }
    account.set(0);
    // It only saves time at the next start, so it is left out when memory is short.
    let merged = merged.filter(|base| account.try_set(base.bytes()).is_ok());
    let merged = match merged {
        Some(Base { from, to, states }) => write_file(writer, epoch, "merged", vec![(from, states)], vec![(from, to)]).await?,
        None => None,
    };
    Ok(Written { changed: files, merged, took: began.elapsed() })
}

/// The same panes in parts of some [`FILE_BYTES`]. A pane may be parted too: all its parts count.
fn pieces(panes: Vec<PaneStates>) -> Vec<Vec<PaneStates>> {
    let (mut pieces, mut open, mut bytes) = (Vec::new(), Vec::<PaneStates>::new(), 0);
    for (pane, states) in panes {
        for states in states.iter().flat_map(sliced) {
            bytes += bytes_of(&states);
            match open.last_mut() {
                Some((last, parts)) if *last == pane => parts.push(states),
                _ => open.push((pane, vec![states])),
            }
            if bytes >= FILE_BYTES {
                pieces.push(std::mem::take(&mut open));
                bytes = 0;
            }
        }
    }
    pieces.extend(Some(open).filter(|open| !open.is_empty()));
    pieces
}

/// A batch in slices none of which is much more than [`FILE_BYTES`].
fn sliced(states: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let rows = states.num_rows();
    let slices = (bytes_of(states) / FILE_BYTES + 1).min(rows.max(1));
    (0..slices).map(move |index| {
        let (from, to) = (rows * index / slices, rows * (index + 1) / slices);
        states.slice(from, to - from)
    })
}

async fn write_file(
    writer: &StateWriter,
    epoch: u64,
    what: &str,
    states: Vec<PaneStates>,
    panes: Vec<(i64, i64)>,
) -> Result<Option<StateFile>> {
    let encoded = tokio::task::spawn_blocking(move || encode(&states)).await;
    let bytes = encoded.unwrap_or_else(|cause| Err(Error::new(Kind::Bug, "a snapshot could not be made").because(cause)))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    writer.write(epoch, what, bytes, panes).await.map(Some)
}

fn encode(panes: &[PaneStates]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(states) = panes.iter().flat_map(|(_, parts)| parts).next().map(RecordBatch::schema) else { return Ok(bytes) };
    let mut fields = vec![Arc::new(Field::new("_pane", DataType::Int64, false))];
    fields.extend(states.fields().iter().cloned());
    let schema = Arc::new(Schema::new(fields));
    let mut writer = StreamWriter::try_new(&mut bytes, &schema)?;
    for (pane, parts) in panes {
        let whole = concat_batches(&states, parts)?;
        if whole.num_rows() == 0 {
            continue;
        }
        let index: ArrayRef = Arc::new(Int64Array::from_value(*pane, whole.num_rows()));
        let columns = std::iter::once(index).chain(whole.columns().iter().map(compact)).collect();
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// Views without what they do not show: they may share their bytes with other panes.
fn compact(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}

/// The panes of one file that count.
pub(super) fn decode(bytes: &[u8], panes: &[(i64, i64)]) -> Result<Vec<(i64, RecordBatch)>> {
    let mut found = Vec::new();
    for batch in StreamReader::try_new(bytes, None)? {
        let batch = batch?;
        let index = batch.column(0).as_primitive_opt::<Int64Type>().filter(|index| !index.is_empty());
        let pane = index
            .map(|index| index.value(0))
            .ok_or_else(|| Error::new(Kind::Corrupt, "a snapshot has a part without a pane"))?;
        if panes.iter().any(|(from, to)| (*from..*to).contains(&pane)) {
            found.push((pane, batch.project(&(1..batch.num_columns()).collect::<Vec<_>>())?));
        }
    }
    Ok(found)
}

/// Sorted indexes as runs `[from, to)`.
fn runs(indexes: impl Iterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, to)) if *to == index => *to += 1,
            _ => runs.push((index, index + 1)),
        }
    }
    runs
}

/// What is left of `runs` without those in `gone`, and from `first` on. All are sorted.
fn without(runs: &[(i64, i64)], gone: &[(i64, i64)], first: i64) -> Vec<(i64, i64)> {
    let mut left = Vec::new();
    for &(from, to) in runs {
        let mut from = from.max(first);
        for &(gone_from, gone_to) in gone {
            if gone_to <= from || gone_from >= to {
                continue;
            }
            if from < gone_from {
                left.push((from, gone_from));
            }
            from = from.max(gone_to);
        }
        if from < to {
            left.push((from, to));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_file_counts_for_the_panes_that_no_later_file_has() {
        assert_eq!(runs([3, 4, 5, 9, 11, 12].into_iter()), [(3, 6), (9, 10), (11, 13)]);
        assert_eq!(without(&[(0, 10)], &[(2, 4), (6, 7)], 1), [(1, 2), (4, 6), (7, 10)]);
        assert_eq!(without(&[(0, 10), (20, 30)], &[(5, 25)], i64::MIN), [(0, 5), (25, 30)]);
        assert_eq!(without(&[(0, 10)], &[(0, 10)], 0), []);
        assert_eq!(without(&[(0, 10)], &[], 10), []);
    }

    #[test]
    fn what_is_large_goes_in_several_files_even_a_single_pane() {
        let states = |from: i64, rows: i64| {
            let count: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
            RecordBatch::try_from_iter([("count", count)]).unwrap()
        };
        let rows = FILE_BYTES as i64 / 8;
        let panes =
            vec![(1, vec![states(0, 10)]), (2, vec![states(10, rows * 5 / 2), states(rows * 3, 10)]), (3, vec![states(0, 0)])];
        let pieces = pieces(panes.clone());
        assert!((2..=5).contains(&pieces.len()), "{}", pieces.len());
        let all: Vec<(i64, i64)> = pieces
            .iter()
            .flat_map(|piece| decode(&encode(piece).unwrap(), &[(1, 4)]).unwrap())
            .flat_map(|(pane, batch)| {
                let values: Vec<i64> = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
                values.into_iter().map(move |value| (pane, value))
            })
            .collect();
        let expected = (0..10).map(|value| (1, value)).chain((10..10 + rows * 5 / 2).map(|value| (2, value)));
        assert!(all.into_iter().eq(expected.chain((rows * 3..rows * 3 + 10).map(|value| (2, value)))));
    }

    #[test]
    fn what_is_written_is_read_back_pane_by_pane() {
        let states = |values: Vec<i64>| {
            let ids: ArrayRef = Arc::new(arrow::array::StringViewArray::from_iter_values(
                values.iter().map(|value| format!("a long name that is not inlined {value}")),
            ));
            RecordBatch::try_from_iter([("id", ids), ("count", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap()
        };
        let panes = vec![(7, vec![states(vec![1, 2]), states(vec![3])]), (8, vec![states(vec![4]).slice(0, 1)])];
        let bytes = encode(&panes).unwrap();
        let back: BTreeMap<i64, RecordBatch> = decode(&bytes, &[(7, 9)]).unwrap().into_iter().collect();
        assert_eq!(back[&7], states(vec![1, 2, 3]));
        assert_eq!(back[&8], states(vec![4]));
        assert_eq!(decode(&bytes, &[(8, 9)]).unwrap().len(), 1);
    }
}
