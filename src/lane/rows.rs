//! A lane whose rows go through one by one: filter, projection, lookup join.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};

use super::LaneParts;
use super::epoch::{Open, Taken};
use super::pace::Pace;
use crate::batch::{DeadLetter, Output, RowIds, Segment, Stage};
use crate::checkpoint::record::Intent;
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::query::plan::Leaf;
use crate::query::tables::OFFSET;
use crate::source::log::LogReader;
use crate::window::state::last_column_offsets;

// How long an epoch that rolls waits for more before it looks at the time again, and an idle lane before it looks at anything.
const WAIT: Duration = Duration::from_millis(100);

/// The columns of a segment that a leaf reads, with the offsets as a last one where it wants them.
pub fn input_of(segment: &Segment, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        if field.name() == OFFSET {
            columns.push(Arc::new(segment.offsets.clone()));
            continue;
        }
        let column = segment
            .rows
            .column_by_name(field.name())
            .ok_or_else(|| Error::new(Kind::Bug, format!("the column '{}' was not decoded", field.name())))?;
        columns.push(Arc::clone(column));
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(segment.rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// Runs a leaf over a batch whose last column is the offset. Rows for which SQL fails are taken out and become letters.
pub async fn run_rows(
    leaf: &Leaf,
    input: RecordBatch,
    partition: i32,
    letters: &mut Vec<DeadLetter>,
) -> Result<Vec<RecordBatch>> {
    let mut done = Vec::new();
    // Halves of what failed, in order: one bad row of n costs some 2·log₂(n) runs.
    let mut waiting = vec![input];
    while let Some(batch) = waiting.pop() {
        match leaf.runner.run(vec![batch.clone()]).await {
            Ok(batches) => done.extend(batches),
            Err(error) => {
                if let Some(ours) = own_error(&error) {
                    return Err(ours);
                }
                let rows = batch.num_rows();
                if rows == 1 {
                    let offset = last_column_offsets(&batch).first().copied().unwrap_or(-1);
                    let message = error.strip_backtrace();
                    letters.push(DeadLetter {
                        partition,
                        offset,
                        stage: Stage::Sql,
                        code: "evaluation",
                        message,
                        schema_id: None,
                    });
                    continue;
                }
                waiting.push(batch.slice(rows / 2, rows - rows / 2));
                waiting.push(batch.slice(0, rows / 2));
            }
        }
    }
    Ok(done)
}

/// An error of ours inside one of DataFusion's (a lookup that is away): it is not the row's fault.
pub fn own_error(error: &datafusion::error::DataFusionError) -> Option<Error> {
    use datafusion::error::DataFusionError as E;
    match error.find_root() {
        E::External(inner) => inner.downcast_ref::<Error>().cloned(),
        E::ResourcesExhausted(text) => Some(Error::new(Kind::Full, text.clone())),
        E::Internal(text) => Some(Error::new(Kind::Bug, format!("the query failed: {text}"))),
        _ => None,
    }
}

/// Runs the plan over one segment, to outputs for the sink.
async fn outputs(parts: &LaneParts, leaf: &Leaf, segment: &Segment, taken: &mut Taken) -> Result<Vec<Output>> {
    taken.add(segment);
    let (segment, others) = segment.for_lane(&parts.plan.name)?;
    taken.filtered += others;
    if segment.rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    if let Some(times) = parts.event_column().and_then(|column| segment.rows.column_by_name(column)) {
        let times = times.as_primitive_opt::<TimestampNanosecondType>();
        taken.event_ns = taken.event_ns.max(times.and_then(arrow::compute::max));
    }
    let input = input_of(&segment, &leaf.input)?;
    let partition = segment.span.partition;
    let letters_before = taken.letters.len();
    let batches = run_rows(leaf, input, partition, &mut taken.letters).await?;
    let mut outputs = Vec::new();
    let mut used = 0;
    for batch in batches {
        let batch = without_nulls(&parts.plan.sink.schema, batch, partition, &mut taken.letters)?;
        if batch.num_rows() == 0 {
            continue;
        }
        let offsets: Int64Array = last_column_offsets(&batch).into();
        let columns: Vec<usize> = (0..batch.num_columns() - 1).collect();
        let rows = to_sink(parts, batch.project(&columns)?)?;
        used += rows.num_rows();
        let topic = Arc::from(parts.source.topic());
        outputs.push(Output::Rows { rows, ids: RowIds::Offsets { topic, partition, offsets } });
    }
    let failed = taken.letters.len() - letters_before;
    taken.used += used as u64;
    taken.filtered += (segment.rows.num_rows() - failed).saturating_sub(used) as u64;
    Ok(outputs)
}

/// The rows without those that are NULL where the sink table is declared NOT NULL, which become letters. The last column is the offset.
fn without_nulls(sink: &SchemaRef, batch: RecordBatch, partition: i32, letters: &mut Vec<DeadLetter>) -> Result<RecordBatch> {
    let mut good: Option<NullBuffer> = None;
    for (field, column) in sink.fields().iter().zip(batch.columns()).filter(|(field, _)| !field.is_nullable()) {
        let Some(nulls) = column.logical_nulls().filter(|nulls| nulls.null_count() > 0) else { continue };
        let offsets = last_column_offsets(&batch);
        // One letter for a row, whatever else is NULL in it.
        let is_new = |row: &usize| nulls.is_null(*row) && good.as_ref().is_none_or(|good| good.is_valid(*row));
        letters.extend((0..batch.num_rows()).filter(is_new).map(|row| DeadLetter {
            partition,
            offset: offsets[row],
            stage: Stage::Sql,
            code: "null_value",
            message: format!("column '{}' of the sink is declared NOT NULL, and the row has NULL for it", field.name()),
            schema_id: None,
        }));
        good = NullBuffer::union(good.as_ref(), Some(&nulls));
    }
    match good {
        Some(good) => Ok(filter_record_batch(&batch, &BooleanArray::new(good.into_inner(), None))?),
        None => Ok(batch),
    }
}

/// The same columns under the sink table's names. `Err(Sql)`: one has NULL where the sink table is declared NOT NULL; of rows that come from a
/// record [`without_nulls`] has none left.
pub fn to_sink(parts: &LaneParts, rows: RecordBatch) -> Result<RecordBatch> {
    let schema = &parts.plan.sink.schema;
    let mut required = schema.fields().iter().zip(rows.columns()).filter(|(field, _)| !field.is_nullable());
    if let Some((field, _)) = required.find(|(_, column)| column.logical_null_count() > 0) {
        let name = field.name();
        let text = format!(
            "column '{name}' of table '{}' is declared NOT NULL, and a row of a window has NULL for it; leave such rows out in the query \
             (WHERE … IS NOT NULL), or declare the column without NOT NULL, and start again: the state is kept",
            parts.plan.sink.name
        );
        return Err(Error::new(Kind::Sql, text));
    }
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(Arc::clone(column))
        } else {
            arrow::compute::cast(column, field.data_type())
        }
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// Takes one epoch's segments and runs it to its commit. `false` when there was nothing to do.
pub async fn epoch(parts: &LaneParts, leaf: &Leaf, open: &mut Open, reader: &mut LogReader, pace: &mut Pace) -> Result<bool> {
    let mut segments = pace.take(reader, WAIT).await?;
    parts.status.set_lags(reader.lags(parts.clock.now_ms()));
    if segments.is_empty() {
        settle(parts, open).await?;
        return Ok(false);
    }
    let (epoch, now_ns, began) = (open.epoch + 1, parts.clock.now_ns(), Instant::now());
    parts.plan.time.set(now_ns);
    let mut taken = Taken::default();
    let mut kept = Vec::new();
    loop {
        for segment in &Segment::merge_small(segments)? {
            for output in outputs(parts, leaf, segment, &mut taken).await? {
                if open.sink.stages() {
                    open.sink.write(epoch, output).await?
                } else {
                    kept.push(output)
                }
                failpoint::hit(&parts.plan.name, "stage.middle");
            }
        }
        parts.status.set_lags(reader.lags(parts.clock.now_ms()));
        let Some((roll_bytes, roll_interval)) = parts.bounds.roll else { break };
        let over = open.sink.written_bytes() >= roll_bytes || began.elapsed() >= roll_interval;
        let done = *parts.stop.borrow() || parts.reached(reader.positions());
        if over || done {
            break;
        }
        pace.done();
        segments = pace.take(reader, WAIT).await?;
    }
    let intent = Intent {
        epoch,
        spans: taken.spans(),
        positions: reader.positions().clone(),
        now_ns,
        event_times_ns: BTreeMap::new(),
        ..Intent::default()
    };
    let before = open.positions.clone();
    open.finish(parts, intent, kept, taken).await?;
    open.log.needs_only_the_last();
    let committed = if open.owed.is_some() { &before } else { &open.positions };
    parts.source.acknowledge(&parts.plan.name, committed);
    pace.done();
    Ok(true)
}

/// Commits the last epoch, if that waits: to be called when there is nothing more to take.
pub async fn settle(parts: &LaneParts, open: &mut Open) -> Result<()> {
    if open.owed.is_some() {
        open.settle(parts).await?;
        parts.source.acknowledge(&parts.plan.name, &open.positions);
    }
    Ok(())
}

/// Finishes an epoch that was left open. What was staged is published as it is; its rows are only read again for letters.
pub async fn redo(parts: &LaneParts, leaf: &Leaf, open: &mut Open, intent: Intent) -> Result<()> {
    let mut taken = Taken::default();
    let mut kept = Vec::new();
    if !open.sink.stages() || intent.letters > 0 {
        parts.plan.time.set(intent.now_ns);
        let mut spans = parts.log.spans(&intent.spans);
        while let Some(segments) = spans.next().await? {
            for segment in &segments {
                kept.extend(outputs(parts, leaf, segment, &mut taken).await?);
            }
        }
    }
    let kept = if open.sink.stages() { Vec::new() } else { kept };
    open.redo(parts, intent, kept, taken).await?;
    settle(parts, open).await
}
