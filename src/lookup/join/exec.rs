//! The operator: for each batch of a stream, the rows of a lookup table by key.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options, filter};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::TryStreamExt;

use super::side::{Computed, SideColumn, external, places};
use crate::lookup::index::{Found, LookupTable, Version};
use crate::lookup::refresh::fetch_missing;

/// Where a column of the output comes from.
#[derive(Debug, Clone)]
pub(super) enum Output {
    /// A column of the stream.
    Stream(usize),
    /// One of the lookup.
    Lookup(SideColumn),
}

/// What the join does; shared by all runs of the plan.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) table: Arc<LookupTable>,
    /// The key, over the stream's columns.
    pub(super) key: Arc<dyn PhysicalExpr>,
    /// Whether rows of the stream stay that have no row in the lookup.
    pub(super) keeps_all: bool,
    /// What a row of the lookup fulfils, or it is as if it were not there.
    pub(super) filters: Vec<Computed>,
    pub(super) output: Vec<Output>,
    pub(super) schema: SchemaRef,
}

/// A stream with the rows of a lookup table: one batch out for each batch in, rows in the order of the stream.
/// It has no state. A batch waits until the table is loaded, and for missing keys where the table fetches them.
#[derive(Debug)]
pub struct LookupJoinExec {
    input: Arc<dyn ExecutionPlan>,
    join: Arc<Join>,
    properties: Arc<PlanProperties>,
}

impl LookupJoinExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, join: Arc<Join>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&join.schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        ));
        Self { input, join, properties }
    }

    /// The lookup table.
    pub fn table(&self) -> &Arc<LookupTable> {
        &self.join.table
    }
}

impl DisplayAs for LookupJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let join = &self.join;
        let kind = if join.keeps_all { "Left" } else { "Inner" };
        write!(f, "LookupJoinExec: {kind} {} on {} = {}", join.table.name(), join.key, join.table.key_name())?;
        for filter in &join.filters {
            write!(f, " and {filter}")?;
        }
        let columns: Vec<_> = join.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, ", columns=[{}]", columns.join(", "))
    }
}

impl ExecutionPlan for LookupJoinExec {
    fn name(&self) -> &str {
        "LookupJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        f(&self.join.key)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input, Arc::clone(&self.join)))),
            _ => datafusion::common::internal_err!("a lookup join has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let join = Arc::clone(&self.join);
        let output = input.and_then(move |batch| {
            let join = Arc::clone(&join);
            async move { join.run(batch).await }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}

impl Join {
    async fn run(&self, batch: RecordBatch) -> Result<RecordBatch> {
        if !self.table.is_loaded() {
            self.table.wait_loaded().await;
        }
        let keys = self.keys(&batch)?;
        let mut version = self.table.version();
        let mut found = version.find(&keys).map_err(external)?;
        if found.misses() > 0 && self.table.miss_store().is_some() {
            let missing = self.table.missing_of(&keys, &found).map_err(external)?;
            if !missing.is_empty() {
                fetch_missing(&self.table, &missing).await.map_err(external)?;
                version = self.table.version();
                found = version.find(&keys).map_err(external)?;
            }
        }
        self.put_together(&batch, &version, found)
    }

    /// The keys of a batch, as the table's key column has them. What does not fit into its type matches no row.
    fn keys(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let keys = self.key.evaluate(batch)?.into_array(batch.num_rows())?;
        if keys.data_type() == self.table.key_type() {
            return Ok(keys);
        }
        Ok(cast_with_options(&keys, self.table.key_type(), &CastOptions { safe: true, ..CastOptions::default() })?)
    }

    fn put_together(&self, batch: &RecordBatch, version: &Version, mut found: Found) -> Result<RecordBatch> {
        for filter in &self.filters {
            found = filter.keep(version, &found)?;
        }
        let mut chosen = None;
        if !self.keeps_all
            && let Some(hits) = found.hits()
        {
            chosen = Some(BooleanArray::new(hits.inner().clone(), None));
            found = found.choose(&places(hits.inner())).map_err(external)?;
        }
        let column = |output: &Output| match (output, &chosen) {
            (Output::Stream(column), None) => Ok(Arc::clone(batch.column(*column))),
            (Output::Stream(column), Some(chosen)) => Ok(filter(batch.column(*column), chosen)?),
            (Output::Lookup(column), _) => column.gather(version, &found),
        };
        let columns = self.output.iter().map(column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(found.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}
