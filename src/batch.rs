//! What flows: payloads as they were read, segments as they were decoded, outputs as sinks take them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::{concat, concat_batches, filter, filter_record_batch};
use arrow::error::ArrowError;

use crate::headers::{ForLane, Known, RecordHeader, VALUE_BYTES_MAX};
use crate::position::Span;
use crate::registry::id::SchemaId;

/// Undecoded records of one partition, in offset order: one arena, no allocation per record.
#[derive(Debug, Clone, Default)]
pub struct Payloads {
    /// Where the records come from; `to` is the reader's position after them, so it may lie past the last record.
    pub span: Span,
    /// All payloads, one after the other.
    pub bytes: Vec<u8>,
    /// The end of each payload in `bytes`; it begins where the one before ends.
    pub ends: Vec<usize>,
    /// The offset of each record.
    pub offsets: Vec<i64>,
    /// Indexes of records without a payload (tombstones); their slice in `bytes` is empty.
    pub tombstones: Vec<usize>,
    /// The headers that falaj reads, in the order of the records; ordinary records have none.
    pub headers: Vec<RecordHeader>,
    /// When the last record was appended to the log, in ms since 1970; 0 if unknown.
    pub appended_ms: i64,
    /// How many of its offsets the log no longer had, when the user has said to go on without them.
    pub lost: u64,
}

impl Payloads {
    /// How many records there are, tombstones included.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a record; `None` is a tombstone.
    pub fn push(&mut self, offset: i64, payload: Option<&[u8]>) {
        match payload {
            Some(payload) => self.bytes.extend_from_slice(payload),
            None => self.tombstones.push(self.ends.len()),
        }
        self.ends.push(self.bytes.len());
        self.offsets.push(offset);
    }

    /// Gives the record that was added last a header.
    pub fn push_header(&mut self, name: Known, value: &[u8]) {
        let value = value[..value.len().min(VALUE_BYTES_MAX)].into();
        self.headers.push(RecordHeader { record: self.ends.len().saturating_sub(1), name, value });
    }

    /// The records that are for one lane only, in offset order.
    pub fn for_lanes(&self) -> Vec<ForLane> {
        let mut found: Vec<ForLane> = Vec::new();
        for header in self.headers.iter().filter(|header| header.name == Known::Lane) {
            let name = String::from_utf8_lossy(&header.value);
            let lane = match found.last() {
                Some(before) if *before.lane == *name => Arc::clone(&before.lane),
                _ => name.into(),
            };
            found.push(ForLane { offset: self.offsets[header.record], lane });
        }
        found
    }

    /// The payload of record `index`; empty for a tombstone.
    pub fn payload(&self, index: usize) -> &[u8] {
        let from = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[from..self.ends[index]]
    }
}

/// A record that could not be decoded, or a row that could not be used or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands in its source, when it comes from one.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// In which step it failed.
    pub stage: Stage,
    /// A short stable word for machines: `truncated`, `type_mismatch`, `late`, `http_400`, …
    pub code: &'static str,
    /// One sentence for people; at most 8 KiB are written.
    pub message: String,
    /// The schema that its record was written by, where it says one.
    pub schema_id: Option<SchemaId>,
}

/// The step in which a dead letter failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The payload is not what the format says.
    Decode,
    /// The payload does not fit its schema.
    Schema,
    /// SQL could not be evaluated for the row.
    Sql,
    /// The row's windows are all final, or its event time lies too far ahead.
    Late,
    /// The sink refused the row.
    Sink,
}

impl Stage {
    /// The word written into headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Schema => "schema",
            Stage::Sql => "sql",
            Stage::Late => "late",
            Stage::Sink => "sink",
        }
    }
}

/// A decoded, contiguous piece of one partition. Shared by all lanes; never changed.
/// Records in the span = rows + dead letters + tombstones.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The offsets that it covers, gaps included.
    pub span: Span,
    /// One row for each good record: the table's columns that some query uses, in the table's order.
    pub rows: RecordBatch,
    /// The offset of each row; as long as `rows`.
    pub offsets: Int64Array,
    /// The records that could not be decoded.
    pub dead: Arc<[DeadLetter]>,
    /// The offsets of the records without a payload.
    pub tombstones: Arc<[i64]>,
    /// The records that are for one lane only, in offset order: see [`Segment::for_lane`].
    pub for_lanes: Arc<[ForLane]>,
    /// When the last record was appended to the log, in ms since 1970; 0 if unknown.
    pub appended_ms: i64,
    /// How many of its offsets the source no longer had, when the user has said to go on without them.
    pub lost: u64,
    /// Memory held by the segment, for the log's bound.
    pub bytes: usize,
}

// Beyond it the costs of a batch no longer count, and a copy would.
const MERGED_ROWS_MAX: usize = 4096;

impl Segment {
    /// How many records it covers.
    pub fn records(&self) -> u64 {
        (self.rows.num_rows() + self.dead.len() + self.tombstones.len()) as u64
    }

    /// What `lane` is to see of it, and how many rows it is not to see: those of records that are for another lane only.
    pub fn for_lane(&self, lane: &str) -> Result<(Cow<'_, Segment>, u64), ArrowError> {
        let others: Vec<i64> = self.for_lanes.iter().filter(|one| *one.lane != *lane).map(|one| one.offset).collect();
        if others.is_empty() {
            return Ok((Cow::Borrowed(self), 0));
        }
        let keep: BooleanArray = self.offsets.values().iter().map(|at| Some(others.binary_search(at).is_err())).collect();
        let kept = self.filter(&keep)?;
        let left_out = self.rows.num_rows() - kept.rows.num_rows();
        Ok((Cow::Owned(kept), left_out as u64))
    }

    /// The same with those of its rows that `keep` has.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Segment, ArrowError> {
        let offsets = filter(&self.offsets, keep)?.as_primitive().clone();
        Ok(Segment { rows: filter_record_batch(&self.rows, keep)?, offsets, ..self.clone() })
    }

    /// Puts small neighbours of the same partition together, so that what a batch costs is not paid for a handful of rows. Takes
    /// segments in order within each partition, and gives them so.
    pub fn merge_small(segments: Vec<Arc<Segment>>) -> Result<Vec<Arc<Segment>>, ArrowError> {
        let mut runs: Vec<(usize, Vec<Arc<Segment>>)> = Vec::new();
        let mut run_of: BTreeMap<i32, usize> = BTreeMap::new();
        for segment in segments {
            let (partition, rows) = (segment.span.partition, segment.rows.num_rows());
            let run = run_of.get(&partition).and_then(|&run| runs.get_mut(run));
            match run.filter(|(rows_before, _)| rows_before + rows <= MERGED_ROWS_MAX) {
                Some((rows_before, run)) => {
                    *rows_before += rows;
                    run.push(segment);
                }
                None => {
                    run_of.insert(partition, runs.len());
                    runs.push((rows, vec![segment]));
                }
            }
        }
        runs.into_iter().map(|(_, run)| Self::concat(run)).collect()
    }

    fn concat(run: Vec<Arc<Segment>>) -> Result<Arc<Segment>, ArrowError> {
        let [first, .., last] = run.as_slice() else { return Ok(Arc::clone(&run[0])) };
        let offsets: Vec<&dyn Array> = run.iter().map(|part| &part.offsets as &dyn Array).collect();
        Ok(Arc::new(Segment {
            span: Span { to: last.span.to, ..first.span },
            rows: concat_batches(first.rows.schema_ref(), run.iter().map(|part| &part.rows))?,
            offsets: concat(&offsets)?.as_primitive().clone(),
            dead: run.iter().flat_map(|part| part.dead.iter().cloned()).collect(),
            tombstones: run.iter().flat_map(|part| part.tombstones.iter().copied()).collect(),
            for_lanes: run.iter().flat_map(|part| part.for_lanes.iter().cloned()).collect(),
            appended_ms: run.iter().map(|part| part.appended_ms).max().unwrap_or(0),
            lost: run.iter().map(|part| part.lost).sum(),
            bytes: run.iter().map(|part| part.bytes).sum(),
        }))
    }

    /// The part of this segment from `offset` on (for a lane that stands inside it).
    pub fn from_offset(&self, offset: i64) -> Segment {
        if offset <= self.span.from {
            return self.clone();
        }
        let first = self.offsets.values().partition_point(|&at| at < offset);
        let length = self.offsets.len() - first;
        Segment {
            span: Span { from: offset.min(self.span.to), ..self.span },
            rows: self.rows.slice(first, length),
            offsets: self.offsets.slice(first, length),
            dead: self.dead.iter().filter(|letter| letter.offset >= offset).cloned().collect(),
            tombstones: self.tombstones.iter().copied().filter(|&at| at >= offset).collect(),
            for_lanes: self.for_lanes.iter().filter(|one| one.offset >= offset).cloned().collect(),
            appended_ms: self.appended_ms,
            // Gaps come first.
            lost: self.lost.saturating_sub(offset.abs_diff(self.span.from)),
            bytes: self.bytes * length / self.offsets.len().max(1),
        }
    }

    /// The first part of this segment, of about `bytes_max` (one row at least).
    pub fn first_part(self: Arc<Self>, bytes_max: usize) -> Arc<Segment> {
        let rows = self.rows.num_rows();
        let kept = (rows as u128 * bytes_max as u128 / self.bytes.max(1) as u128).max(1) as usize;
        if kept >= rows { self } else { Arc::new(self.to_offset(self.offsets.value(kept))) }
    }

    /// The part of this segment before `offset` (for a lane that redoes a span that ends inside it).
    pub fn to_offset(&self, offset: i64) -> Segment {
        if offset >= self.span.to {
            return self.clone();
        }
        let length = self.offsets.values().partition_point(|&at| at < offset);
        Segment {
            span: Span { to: offset.max(self.span.from), ..self.span },
            rows: self.rows.slice(0, length),
            offsets: self.offsets.slice(0, length),
            dead: self.dead.iter().filter(|letter| letter.offset < offset).cloned().collect(),
            tombstones: self.tombstones.iter().copied().filter(|&at| at < offset).collect(),
            for_lanes: self.for_lanes.iter().filter(|one| one.offset < offset).cloned().collect(),
            appended_ms: self.appended_ms,
            lost: self.lost.min(offset.saturating_sub(self.span.from).max(0).unsigned_abs()),
            bytes: self.bytes * length / self.offsets.len().max(1),
        }
    }
}

/// The `_id` of each row of an output: the same whenever the same input is read again, whatever the lineage.
#[derive(Debug, Clone)]
pub enum RowIds {
    /// `topic/partition/offset`: one row of one record.
    Offsets {
        /// The topic.
        topic: Arc<str>,
        /// The partition that all rows come from.
        partition: i32,
        /// The offset of each row.
        offsets: Int64Array,
    },
    /// `lane/window end/group key`, already made.
    Keys(StringArray),
}

impl RowIds {
    /// Appends the id of `row` to `text`.
    pub fn write(&self, row: usize, text: &mut String) {
        match self {
            RowIds::Offsets { topic, partition, offsets } => {
                // Writing to a String cannot fail.
                let _ = write!(text, "{topic}/{partition}/{}", offsets.value(row));
            }
            RowIds::Keys(keys) => text.push_str(keys.value(row)),
        }
    }

    /// Where `row` stands in its source, when it is a row of one record.
    pub fn origin(&self, row: usize) -> Option<(i32, i64)> {
        match self {
            RowIds::Offsets { partition, offsets, .. } => Some((*partition, offsets.value(row))),
            RowIds::Keys(_) => None,
        }
    }
}

/// What a lane hands to its sink; every batch has exactly the sink table's columns, in its order.
#[derive(Debug, Clone)]
pub enum Output {
    /// Rows to append.
    Rows {
        /// The rows.
        rows: RecordBatch,
        /// Their ids; as many as rows.
        ids: RowIds,
    },
    /// The whole present result, which replaces what was there (`emit 'latest'`).
    Board(RecordBatch),
    /// What changed since the epoch before (`emit 'update'`).
    Changes {
        /// Rows that are new or have new values.
        upserts: RecordBatch,
        /// Rows that left the result, with their last values.
        deletes: RecordBatch,
    },
}

impl Output {
    /// How many rows it has.
    pub fn num_rows(&self) -> usize {
        match self {
            Output::Rows { rows, .. } | Output::Board(rows) => rows.num_rows(),
            Output::Changes { upserts, deletes } => upserts.num_rows() + deletes.num_rows(),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn segment(partition: i32, offsets: std::ops::Range<i64>, tombstones: &[i64]) -> Arc<Segment> {
        let values: Int64Array = offsets.clone().filter(|at| !tombstones.contains(at)).collect::<Vec<_>>().into();
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        Arc::new(Segment {
            span: Span { partition, from: offsets.start, to: offsets.end },
            rows: RecordBatch::try_new(schema, vec![Arc::new(values.clone())]).unwrap(),
            offsets: values,
            dead: Arc::from([]),
            tombstones: Arc::from(tombstones),
            for_lanes: Arc::from([]),
            appended_ms: offsets.end,
            lost: 0,
            bytes: 8,
        })
    }

    #[test]
    fn small_neighbours_are_put_together_and_large_ones_are_left() {
        let large = MERGED_ROWS_MAX as i64;
        let taken = vec![segment(0, 0..2, &[]), segment(1, 7..8, &[]), segment(0, 2..5, &[3]), segment(0, 5..5 + large, &[])];
        let merged = Segment::merge_small(taken.clone()).unwrap();
        let spans: Vec<_> = merged.iter().map(|part| (part.span.partition, part.span.from, part.span.to)).collect();
        assert_eq!(spans, [(0, 0, 5), (1, 7, 8), (0, 5, 5 + large)]);
        assert_eq!(merged[0].rows.column(0).as_primitive::<Int64Type>().values(), &[0, 1, 2, 4]);
        assert_eq!((merged[0].offsets.values().as_ref(), merged[0].records()), (&[0, 1, 2, 4][..], 5));
        assert!(Arc::ptr_eq(&merged[2], &taken[3]), "what is large is not copied");
    }

    #[test]
    fn a_segment_is_taken_in_parts_of_about_so_many_bytes() {
        let whole = Arc::new(Segment { bytes: 800, ..(*segment(0, 0..8, &[])).clone() });
        let first = Arc::clone(&whole).first_part(250);
        assert_eq!((first.span.to, first.records(), first.bytes), (2, 2, 200));
        let rest = whole.from_offset(2);
        assert_eq!((rest.records(), rest.bytes), (6, 600));
        assert_eq!(Arc::new(rest).first_part(1).records(), 1, "one at least");
        assert!(Arc::ptr_eq(&Arc::clone(&whole).first_part(800), &whole));
    }

    #[test]
    fn a_cut_segment_counts_the_tombstones_on_its_side() {
        let whole = segment(0, 0..6, &[1, 4]);
        let (before, after) = (whole.to_offset(3), whole.from_offset(3));
        assert_eq!((before.records(), &*before.tombstones), (3, &[1][..]));
        assert_eq!((after.records(), &*after.tombstones), (3, &[4][..]));
    }

    fn for_lanes(offsets: &[(i64, &str)]) -> Arc<[ForLane]> {
        offsets.iter().map(|&(offset, lane)| ForLane { offset, lane: lane.into() }).collect()
    }

    #[test]
    fn a_lane_does_not_see_the_rows_that_are_for_another() {
        let whole = Segment { for_lanes: for_lanes(&[(1, "a"), (2, "b"), (4, "b")]), ..(*segment(0, 0..6, &[2])).clone() };
        // Of the records of other lanes one is a tombstone, which is counted as such.
        for (lane, rows, left_out) in [("a", &[0, 1, 3, 5][..], 1), ("b", &[0, 3, 4, 5], 1), ("c", &[0, 3, 5], 2)] {
            let (seen, others) = whole.for_lane(lane).unwrap();
            assert_eq!((seen.offsets.values().as_ref(), others), (rows, left_out), "{lane}");
            assert_eq!(seen.rows.num_rows(), rows.len());
        }
        let all = Segment { for_lanes: for_lanes(&[(1, "a")]), ..whole };
        assert!(matches!(all.for_lane("a").unwrap(), (Cow::Borrowed(_), 0)), "nothing is copied");
    }

    #[test]
    fn parts_and_neighbours_keep_whom_their_records_are_for() {
        let whole = Segment { for_lanes: for_lanes(&[(1, "a"), (4, "b")]), ..(*segment(0, 0..6, &[])).clone() };
        let (before, after) = (whole.to_offset(3), whole.from_offset(3));
        assert_eq!((&*before.for_lanes, &*after.for_lanes), (&whole.for_lanes[..1], &whole.for_lanes[1..]));
        let merged = Segment::merge_small(vec![Arc::new(before), Arc::new(after)]).unwrap();
        assert_eq!(merged[0].for_lanes, whole.for_lanes);
    }

    #[test]
    fn of_the_headers_of_records_the_lane_says_whom_they_are_for() {
        let mut payloads = Payloads::default();
        payloads.push(7, Some(b"x"));
        payloads.push(9, None);
        payloads.push_header(Known::ValueSchemaId, b"1");
        payloads.push_header(Known::Lane, b"a");
        payloads.push(10, Some(b"y"));
        payloads.push_header(Known::Lane, &[b'n'; 1000]);
        let long = "n".repeat(VALUE_BYTES_MAX);
        assert_eq!(payloads.for_lanes(), *for_lanes(&[(9, "a"), (10, &long)]));
    }
}
