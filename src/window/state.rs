//! What a windowed lane knows: its panes, and how it makes the rows of one window out of them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use datafusion::error::{DataFusionError, Result};

use super::base::{Base, without_zeros};
use super::panes::Panes;
use super::spec::WindowSpec;
use crate::query::cut::{AggregateColumn, Cut};
use crate::query::windows::Edge;

/// The state of one windowed query. All times are ns since 1970.
#[derive(Debug)]
pub struct WindowState {
    cut: Cut,
    spec: WindowSpec,
    panes: Panes,
    base: Option<Base>,
    complete_from: i64,
}

// The newest panes still get rows each epoch: events come a little out of order.
const HOT_PANES: i64 = 8;

impl WindowState {
    /// No rows absorbed yet.
    pub fn new(cut: Cut, spec: WindowSpec) -> Self {
        let panes = Panes::new(cut.reduce.clone());
        Self { cut, spec, panes, base: None, complete_from: i64::MIN }
    }

    /// The windows' shape.
    pub fn spec(&self) -> WindowSpec {
        self.spec
    }

    /// The panes, to be measured.
    pub fn panes(&self) -> &Panes {
        &self.panes
    }

    /// The panes, to be written.
    pub fn panes_mut(&mut self) -> &mut Panes {
        &mut self.panes
    }

    /// Absorbs input rows (the columns that the plan reads; none of them late, none without a time).
    pub async fn absorb(&mut self, rows: RecordBatch) -> Result<()> {
        for partial in self.cut.partial.run(vec![rows]).await? {
            self.absorb_states(partial).await?;
        }
        Ok(())
    }

    async fn absorb_states(&mut self, partial: RecordBatch) -> Result<()> {
        let starts = partial
            .column(0)
            .as_primitive_opt::<TimestampNanosecondType>()
            .ok_or_else(|| DataFusionError::Execution("the pane column is not a timestamp".to_string()))?;
        let width = self.spec.pane_ns();
        let mut by_pane: HashMap<i64, Vec<u32>> = HashMap::new();
        for (row, start) in starts.values().iter().enumerate() {
            by_pane.entry(start.div_euclid(width)).or_default().push(row as u32);
        }
        let states = partial.project(&(1..partial.num_columns()).collect::<Vec<_>>())?;
        let one_pane = by_pane.len() == 1;
        for (pane, rows) in by_pane {
            let part = if one_pane { states.clone() } else { take_record_batch(&states, &UInt32Array::from(rows))? };
            self.restore(pane, part).await?;
        }
        Ok(())
    }

    /// Puts states into a pane: absorbed ones, or those of a snapshot.
    pub async fn restore(&mut self, pane: i64, states: RecordBatch) -> Result<()> {
        match self.base.as_mut().filter(|base| base.from <= pane && pane < base.to) {
            Some(base) if self.cut.counts.is_some() => base.add(&self.panes, &states).await?,
            Some(_) => self.base = None,
            None => {}
        }
        self.panes.add(pane, states).await
    }

    /// The rows of the window that ends at `end_ns`: none if no event is in it.
    pub async fn result(&mut self, end_ns: i64) -> Result<Option<RecordBatch>> {
        let (from, to) = self.pane_range(end_ns);
        let states = self.panes.window(from, to, i64::MAX).await?;
        self.finish(states, end_ns).await
    }

    /// The same for the window that `emit 'latest'` shows: it is asked for each epoch, so its older part is kept merged.
    pub async fn latest(&mut self, end_ns: i64) -> Result<Option<RecordBatch>> {
        let (from, to) = self.pane_range(end_ns);
        let newest = self.panes.bounds().map_or(to, |(_, last)| last + 1).min(to);
        let hot = (newest - HOT_PANES).clamp(from, to);
        let fits = |base: &Base| base.from == from && base.to <= to && newest - base.to <= 2 * HOT_PANES;
        match &mut self.base {
            Some(base) if fits(base) => {}
            Some(base) if base.reaches(&self.cut, from) && base.to <= to => {
                base.slide(&mut self.panes, &self.cut, from, hot).await?;
            }
            base => *base = Some(Base::of(&mut self.panes, &self.cut, from, hot).await?),
        }
        let Some(base) = &self.base else { return Ok(None) };
        let mut states = base.states.clone();
        let base_to = base.to;
        states.extend(self.panes.window(base_to, to, base_to).await?);
        self.finish(states, end_ns).await
    }

    /// What [`Self::latest`] keeps merged, if that cannot be had again without reading every pane.
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref().filter(|_| self.cut.counts.is_some())
    }

    /// Puts what [`Self::base`] gave back, after all its panes.
    pub fn restore_base(&mut self, base: Base) {
        self.base = Some(base);
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.panes.bytes() + self.base.as_ref().map_or(0, Base::bytes)
    }

    fn pane_range(&self, end_ns: i64) -> (i64, i64) {
        let width = self.spec.pane_ns();
        ((end_ns - self.spec.size_ns).div_euclid(width), end_ns.div_euclid(width))
    }

    async fn finish(&self, states: Vec<RecordBatch>, end_ns: i64) -> Result<Option<RecordBatch>> {
        if states.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(None);
        }
        let finished = self.cut.finish.run(states).await?;
        let mut windows = Vec::with_capacity(finished.len());
        for batch in finished {
            let batch = match self.cut.counts {
                // A group that was taken out, if the merge left it in two parts.
                Some(index) => without_zeros(&batch, self.cut.groups + index)?,
                None => batch,
            };
            windows.push(self.with_bounds(&batch, end_ns)?);
        }
        let rows = self.cut.upper.run(windows).await?;
        let schema = self.cut.upper.schema();
        Ok(Some(arrow::compute::concat_batches(&schema, &rows)?))
    }

    fn with_bounds(&self, finished: &RecordBatch, end_ns: i64) -> Result<RecordBatch> {
        let count = finished.num_rows();
        let bound = |at_ns: i64| -> ArrayRef { Arc::new(TimestampNanosecondArray::from_value(at_ns, count)) };
        let columns = self.cut.aggregate.iter().map(|column| match column {
            AggregateColumn::Window(Edge::Start) => bound(end_ns - self.spec.size_ns),
            AggregateColumn::Window(Edge::End) => bound(end_ns),
            AggregateColumn::Finished(index) => Arc::clone(finished.column(*index)),
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.cut.aggregate_schema), columns.collect())?)
    }

    /// The ends of all windows with events in `(after_ns, up_to_ns]`, in order.
    pub fn ends(&self, after_ns: i64, up_to_ns: i64) -> Vec<i64> {
        let width = self.spec.pane_ns();
        let mut ends = Vec::new();
        let mut pane = self.panes.first_from(i64::MIN);
        // The next end to look at; a gap without panes is jumped over.
        let mut next = i64::MIN;
        while let Some(index) = pane {
            let start = index * width;
            let mut end = self.spec.first_end(start).max(next);
            if end > up_to_ns {
                break;
            }
            let last = self.spec.last_end(start);
            while end <= last && end <= up_to_ns {
                if end > after_ns {
                    ends.push(end);
                }
                end += self.spec.slide_ns;
            }
            next = end;
            pane = self.panes.first_from(index + 1);
        }
        ends
    }

    /// Drops what no window that ends after `end_ns` can hold.
    pub fn forget(&mut self, end_ns: i64) {
        // A watermark lies between two ends; the next window begins where its end says, not a slide after that.
        let first_needed = self.spec.first_end(end_ns).saturating_sub(self.spec.size_ns);
        let first_needed = first_needed.div_euclid(self.spec.pane_ns());
        self.set_complete_from(first_needed);
        // What is merged is subtracted later.
        let first_merged = self.base().map_or(first_needed, |base| base.from);
        self.panes.drop_before(first_needed.min(first_merged));
    }

    /// The first pane of which nothing was forgotten.
    pub fn complete_from(&self) -> i64 {
        self.complete_from
    }

    /// Something of the panes before `pane` may be missing. What is missing never comes back.
    pub fn set_complete_from(&mut self, pane: i64) {
        self.complete_from = self.complete_from.max(pane);
    }
}

/// The least and the greatest time of a column, and whether some row has none.
pub fn time_bounds(times: &TimestampNanosecondArray) -> (Option<(i64, i64)>, bool) {
    use arrow::array::Array;
    let least = arrow::compute::min(times);
    let greatest = arrow::compute::max(times);
    (least.zip(greatest), times.null_count() > 0)
}

/// The offsets in the last column of a batch.
pub fn last_column_offsets(batch: &RecordBatch) -> Vec<i64> {
    let column = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.map_or_else(Vec::new, |offsets| offsets.values().to_vec())
}
