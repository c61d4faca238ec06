//! A leaf of a plan that hands over the batches put into its cell: this is how one plan, made once, runs for ever.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions, collect};
use parking_lot::Mutex;

/// The batches that the next run of a plan reads. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Cell(Arc<Mutex<Vec<RecordBatch>>>);

impl Cell {
    fn put(&self, batches: Vec<RecordBatch>) {
        *self.0.lock() = batches;
    }

    fn take(&self) -> Vec<RecordBatch> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// The leaf: one partition, in memory, read once a run.
#[derive(Debug)]
pub struct CellExec {
    name: String,
    cell: Cell,
    properties: Arc<PlanProperties>,
}

impl CellExec {
    /// A leaf with this schema over `cell`; `name` is what `explain` shows.
    pub fn new(name: impl Into<String>, schema: SchemaRef, cell: Cell) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self { name: name.into(), cell, properties }
    }

    /// The cell that it reads.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }
}

impl DisplayAs for CellExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let columns: Vec<_> = self.schema().fields().iter().map(|field| field.name().clone()).collect();
        write!(f, "CellExec: {} [{}]", self.name, columns.join(", "))
    }
}

impl ExecutionPlan for CellExec {
    fn name(&self) -> &str {
        "CellExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(Box::pin(MemoryStream::try_new(self.cell.take(), self.schema(), None)?))
    }
}

/// A physical plan with its cell, to be run over batch after batch.
#[derive(Debug, Clone)]
pub struct Runner {
    plan: Arc<dyn ExecutionPlan>,
    cell: Cell,
    context: Arc<TaskContext>,
}

impl Runner {
    /// A runner of `plan`, which must read `cell` and nothing else.
    pub fn new(plan: Arc<dyn ExecutionPlan>, cell: Cell, context: Arc<TaskContext>) -> Self {
        Self { plan, cell, context }
    }

    /// The plan, for `explain` and for cutting.
    pub fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }

    /// The columns of what a run gives.
    pub fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// Runs the plan over `batches`, which have the cell's columns.
    pub async fn run(&self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, DataFusionError> {
        self.cell.put(batches);
        // Fresh state, and fresh metrics: a plan that is run for ever would gather them for ever.
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        collect(plan, Arc::clone(&self.context)).await
    }
}
