//! The merged older part of the window that `emit 'latest'` shows, kept from epoch to epoch.
//!
//! Where every aggregate of the query is a count, a pane that leaves is taken out again: its counts are merged with their signs
//! turned, and groups of which no row is left are removed. So a slide costs one merge, whatever the number of panes. (Subtract-on-
//! evict: Tangwongsan et al., "In-order sliding-window aggregation". Counts are never NULL and never drift, which is why only they
//! are subtracted.) For all other aggregates the part is put together anew from the panes' tiers.

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::numeric::neg_wrapping;
use arrow::datatypes::Int64Type;
use datafusion::error::{DataFusionError, Result};

use super::panes::{PARTS_MAX, Panes, size_of};
use crate::query::cut::Cut;

/// The states of the panes `[from, to)`, merged into few parts.
#[derive(Debug, Clone)]
pub struct Base {
    /// The first pane.
    pub from: i64,
    /// The pane after the last.
    pub to: i64,
    /// A group may stand in several of them.
    pub states: Vec<RecordBatch>,
}

impl Base {
    /// Merges the panes `[from, to)`.
    pub(super) async fn of(panes: &mut Panes, cut: &Cut, from: i64, to: i64) -> Result<Self> {
        // Tiers are worth their making if they are used again: not where panes are subtracted.
        let hot = if cut.counts.is_some() { from } else { to };
        let states = panes.window(from, to, hot).await?;
        let states = panes.merge(states).await?;
        Ok(Self { from, to, states })
    }

    /// Whether [`Self::slide`] leads to the panes `[from, …)`.
    pub(super) fn reaches(&self, cut: &Cut, from: i64) -> bool {
        cut.counts.is_some() && self.from <= from && from < self.to
    }

    /// Takes the panes before `from` out, and those up to `to` in.
    pub(super) async fn slide(&mut self, panes: &mut Panes, cut: &Cut, from: i64, to: i64) -> Result<()> {
        let to = to.max(self.to);
        for left in panes.window(self.from, from, self.from).await? {
            self.states.push(negative(&left, cut.groups)?);
        }
        self.states.extend(panes.window(self.to, to, self.to).await?);
        (self.from, self.to) = (from, to);
        let merged = panes.merge(std::mem::take(&mut self.states)).await?;
        self.states = merged.iter().map(|part| present(part, cut)).collect::<Result<_>>()?;
        Ok(())
    }

    /// Adds states that came late into one of its panes.
    pub(super) async fn add(&mut self, panes: &Panes, states: &RecordBatch) -> Result<()> {
        self.states.push(states.clone());
        if self.states.len() > PARTS_MAX {
            self.states = panes.merge(std::mem::take(&mut self.states)).await?;
        }
        Ok(())
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        size_of(&self.states)
    }
}

/// The same groups with the signs of their counts turned.
fn negative(states: &RecordBatch, groups: usize) -> Result<RecordBatch> {
    let turned = states.columns().iter().enumerate().map(|(index, column)| match index < groups {
        true => Ok(column.clone()),
        false => neg_wrapping(column),
    });
    let columns: Vec<ArrayRef> = turned.collect::<std::result::Result<_, _>>()?;
    Ok(RecordBatch::try_new(states.schema(), columns)?)
}

/// Without the groups of which no row is left.
fn present(states: &RecordBatch, cut: &Cut) -> Result<RecordBatch> {
    match cut.counts {
        Some(index) => without_zeros(states, cut.groups + index),
        None => Ok(states.clone()),
    }
}

/// Without the rows whose count in column `index` is 0.
pub(super) fn without_zeros(rows: &RecordBatch, index: usize) -> Result<RecordBatch> {
    let counts = rows.column(index).as_primitive_opt::<Int64Type>();
    let counts = counts.ok_or_else(|| DataFusionError::Internal("a count is not a whole number".to_string()))?;
    if counts.values().iter().all(|&count| count != 0) {
        return Ok(rows.clone());
    }
    let keep: BooleanArray = counts.values().iter().map(|&count| Some(count != 0)).collect();
    Ok(filter_record_batch(rows, &keep)?)
}
