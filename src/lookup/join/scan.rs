//! A lookup table as DataFusion plans it: a bounded table, and a leaf that yields all of it.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::lookup::index::LookupTable;

/// A lookup table in SQL. Filters stay above its scan, so that a lookup join can take them along.
#[derive(Debug)]
pub struct LookupProvider {
    table: Arc<LookupTable>,
}

impl LookupProvider {
    /// SQL's view of `table`.
    pub fn new(table: Arc<LookupTable>) -> Self {
        Self { table }
    }
}

#[async_trait]
impl TableProvider for LookupProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.table.schema().fields().len()).collect());
        Ok(Arc::new(LookupScanExec::new(Arc::clone(&self.table), columns)?))
    }
}

/// The leaf: all rows of the version that is present when it runs. Waits for the first load.
#[derive(Debug)]
pub struct LookupScanExec {
    table: Arc<LookupTable>,
    columns: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl LookupScanExec {
    fn new(table: Arc<LookupTable>, columns: Vec<usize>) -> Result<Self> {
        let schema = Arc::new(table.schema().project(&columns)?);
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Ok(Self { table, columns, properties })
    }

    /// The table.
    pub fn table(&self) -> &Arc<LookupTable> {
        &self.table
    }

    /// The places of its columns among the table's.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }
}

impl DisplayAs for LookupScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let columns: Vec<_> = self.schema().fields().iter().map(|field| field.name().clone()).collect();
        write!(f, "LookupScanExec: {} [{}]", self.table.name(), columns.join(", "))
    }
}

impl ExecutionPlan for LookupScanExec {
    fn name(&self) -> &str {
        "LookupScanExec"
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

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (table, columns, schema) = (Arc::clone(&self.table), self.columns.clone(), self.schema());
        let rows_max = context.session_config().batch_size();
        let batches = stream::once(async move {
            table.wait_loaded().await;
            let mut batches = Vec::new();
            let all = table.version().batches().map_err(|error| DataFusionError::External(Box::new(error)))?;
            for rows in all {
                let rows = rows.project(&columns)?;
                let starts = (0..rows.num_rows()).step_by(rows_max);
                batches.extend(starts.map(|from| rows.slice(from, rows_max.min(rows.num_rows() - from))));
            }
            Ok::<_, DataFusionError>(stream::iter(batches).map(Ok))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.try_flatten())))
    }
}
