//! Pane state: for each pane the aggregate's states, and coarser tiers over them so that a window is put together from few parts.
//!
//! A pane is a list of immutable batches `[group columns…, state columns…]`. A node of tier k covers 8^k panes, aligned, and
//! holds their states merged; it is made when a window first needs it and dropped when one of its panes changes. So a window
//! of n panes is read from at most some 14·log₈(n) parts, a row is touched once, and nothing grows with the number of panes
//! but the panes themselves. (A radix tree of partial aggregates, as in FlatFAT: Tangwongsan et al., VLDB 2015.)

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::error::DataFusionError;

use crate::query::cell::Runner;

const RADIX: i64 = 8;
// 8^6 panes are more than a window may have.
const TIERS: u32 = 6;
// A pane's parts are merged when there are so many: an open pane of a busy second gets some 20 small ones.
pub(super) const PARTS_MAX: usize = 32;
// What a batch costs beside its columns' bytes: its structs and its columns'.
const BATCH_OVERHEAD: usize = 512;

/// A pane's index, and its states.
pub type PaneStates = (i64, Vec<RecordBatch>);

/// States by pane. Panes are named by their index: start / width.
#[derive(Debug)]
pub struct Panes {
    reduce: Runner,
    panes: BTreeMap<i64, Vec<RecordBatch>>,
    nodes: HashMap<(u32, i64), Vec<RecordBatch>>,
    /// Panes that the last snapshot does not have as they are now.
    changed: BTreeSet<i64>,
    bytes: usize,
}

impl Panes {
    /// No state yet. `reduce` merges states.
    pub fn new(reduce: Runner) -> Self {
        Self { reduce, panes: BTreeMap::new(), nodes: HashMap::new(), changed: BTreeSet::new(), bytes: 0 }
    }

    /// Adds states to a pane.
    pub async fn add(&mut self, pane: i64, states: RecordBatch) -> Result<(), DataFusionError> {
        self.changed.insert(pane);
        self.bytes += bytes_of(&states);
        let parts = self.panes.entry(pane).or_default();
        parts.push(states);
        if parts.len() >= PARTS_MAX {
            let merged = self.reduce.run(std::mem::take(parts)).await?;
            *parts = merged;
            self.bytes = self.count_bytes();
        }
        self.forget_nodes_over(pane);
        Ok(())
    }

    fn forget_nodes_over(&mut self, pane: i64) {
        let mut index = pane;
        for tier in 1..=TIERS {
            index = index.div_euclid(RADIX);
            if let Some(node) = self.nodes.remove(&(tier, index)) {
                self.bytes = self.bytes.saturating_sub(size_of(&node));
            }
        }
    }

    /// The states of the panes `[from, to)`, in few batches; a group may stand in several of them.
    /// Panes from `hot` on still change often: no node is made over them.
    pub async fn window(&mut self, from: i64, to: i64, hot: i64) -> Result<Vec<RecordBatch>, DataFusionError> {
        let mut states = Vec::new();
        // Nothing before the first pane or after the last: a window far from all panes costs nothing.
        let (Some((&first, _)), Some((&last, _))) = (self.panes.first_key_value(), self.panes.last_key_value()) else {
            return Ok(states);
        };
        let (mut at, to) = (from.max(first), to.min(last + 1));
        while at < to {
            let tier = (1..=TIERS).rev().find(|&tier| {
                let width = RADIX.pow(tier);
                at % width == 0 && at + width <= to && at + width <= hot
            });
            match tier {
                Some(tier) => {
                    states.extend(self.node(tier, at / RADIX.pow(tier)).await?);
                    at += RADIX.pow(tier);
                }
                None => {
                    if let Some(parts) = self.panes.get(&at) {
                        states.extend(parts.iter().cloned());
                    }
                    at += 1;
                }
            }
        }
        Ok(states)
    }

    /// The merged states below a node; made bottom-up, tier by tier, where missing.
    async fn node(&mut self, tier: u32, index: i64) -> Result<Vec<RecordBatch>, DataFusionError> {
        for level in 1..=tier {
            let width = RADIX.pow(tier - level);
            for child in index * width..(index + 1) * width {
                self.make_node(level, child).await?;
            }
        }
        Ok(self.nodes.get(&(tier, index)).cloned().unwrap_or_default())
    }

    async fn make_node(&mut self, tier: u32, index: i64) -> Result<(), DataFusionError> {
        if self.nodes.contains_key(&(tier, index)) {
            return Ok(());
        }
        let children = index * RADIX..(index + 1) * RADIX;
        let states: Vec<RecordBatch> = if tier == 1 {
            self.panes.range(children).flat_map(|(_, parts)| parts.iter().cloned()).collect()
        } else {
            children.filter_map(|child| self.nodes.get(&(tier - 1, child))).flatten().cloned().collect()
        };
        let merged = if states.len() < 2 { states } else { self.reduce.run(states).await? };
        self.bytes += size_of(&merged);
        self.nodes.insert((tier, index), merged);
        Ok(())
    }

    /// Merges states, for callers that keep a merged part of their own.
    pub async fn merge(&self, states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, DataFusionError> {
        if states.len() < 2 { Ok(states) } else { self.reduce.run(states).await }
    }

    /// Drops the panes before `pane`.
    pub fn drop_before(&mut self, pane: i64) {
        if self.panes.first_key_value().is_none_or(|(&first, _)| first >= pane) {
            return;
        }
        self.panes = self.panes.split_off(&pane);
        self.changed = self.changed.split_off(&pane);
        self.nodes.retain(|&(tier, index), _| index * RADIX.pow(tier) >= pane);
        self.bytes = self.count_bytes();
    }

    /// The first pane at or after `pane` that has states.
    pub fn first_from(&self, pane: i64) -> Option<i64> {
        self.panes.range(pane..).next().map(|(&pane, _)| pane)
    }

    /// The first and the last pane that have states.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        Some((*self.panes.first_key_value()?.0, *self.panes.last_key_value()?.0))
    }

    /// The panes that have changed since this was asked last, with their states: what a snapshot must write.
    pub fn take_changed(&mut self) -> Vec<PaneStates> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|pane| Some((pane, self.panes.get(&pane)?.clone()))).collect()
    }

    /// What there is now is as a snapshot has it.
    pub fn set_unchanged(&mut self) {
        self.changed.clear();
    }

    /// How many panes have states.
    pub fn len(&self) -> usize {
        self.panes.len()
    }

    /// Whether there is no state.
    pub fn is_empty(&self) -> bool {
        self.panes.is_empty()
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn count_bytes(&self) -> usize {
        self.panes.values().map(|parts| size_of(parts)).sum::<usize>()
            + self.nodes.values().map(|parts| size_of(parts)).sum::<usize>()
    }
}

pub(super) fn size_of(batches: &[RecordBatch]) -> usize {
    batches.iter().map(bytes_of).sum()
}

/// The bytes that a batch shows. (What its buffers hold is more: batches that were read together share theirs.)
pub fn bytes_of(batch: &RecordBatch) -> usize {
    let shown = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View => column.as_string_view().total_buffer_bytes_used() + column.len() * 16,
        DataType::BinaryView => column.as_binary_view().total_buffer_bytes_used() + column.len() * 16,
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    };
    batch.columns().iter().map(shown).sum::<usize>() + BATCH_OVERHEAD
}
