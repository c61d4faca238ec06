//! The lookup's side of a join: what its projections and filters come to, said over the table's own columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;

use super::scan::LookupScanExec;
use crate::error::Error;
use crate::lookup::index::{Found, LookupTable, Version};

type Expr = Arc<dyn PhysicalExpr>;

/// A plan of projections and filters over one lookup table.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) table: Arc<LookupTable>,
    /// Its columns.
    columns: Vec<Expr>,
    /// What each of its rows fulfils.
    filters: Vec<Expr>,
}

impl Side {
    /// The side that `plan` is, if it is nothing but projections and filters over a lookup table.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        if let Some(scan) = plan.downcast_ref::<LookupScanExec>() {
            let fields = scan.table().schema().fields();
            let columns = scan.columns().iter().map(|&at| Arc::new(Column::new(fields[at].name(), at)) as Expr).collect();
            return Ok(Some(Self { table: Arc::clone(scan.table()), columns, filters: Vec::new() }));
        }
        if plan.fetch().is_some() {
            return Ok(None);
        }
        let [input] = plan.children()[..] else { return Ok(None) };
        let Some(mut side) = Self::of(input)? else { return Ok(None) };
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            side.columns = projection.expr().iter().map(|column| side.inline(&column.expr)).collect::<Result<_>>()?;
        } else if let Some(filter) = plan.downcast_ref::<FilterExec>() {
            side.filters.push(side.inline(filter.predicate())?);
            if let Some(columns) = filter.projection() {
                side.columns = columns.iter().map(|&at| Arc::clone(&side.columns[at])).collect();
            }
        } else if !(plan.is::<CoalescePartitionsExec>() || plan.is::<RepartitionExec>() || plan.is::<CooperativeExec>()) {
            return Ok(None);
        }
        Ok(Some(side))
    }

    /// An expression over the side's columns, said over the table's.
    fn inline(&self, expr: &Expr) -> Result<Expr> {
        replace_columns(expr, |at| self.columns.get(at).cloned())
    }

    /// Whether `expr` (over the side's columns) is the table's key, or the key made wider.
    pub(super) fn is_key(&self, expr: &Expr) -> Result<bool> {
        let expr = self.inline(expr)?;
        let key = match expr.downcast_ref::<CastExpr>() {
            Some(cast) if widens(self.table.key_type(), cast.cast_type()) => cast.expr(),
            _ => &expr,
        };
        Ok(key.downcast_ref::<Column>().is_some_and(|column| column.index() == self.table.options().key))
    }

    pub(super) fn columns(&self) -> Result<Vec<SideColumn>> {
        let schema = self.table.schema();
        let column = |expr: &Expr| match expr.downcast_ref::<Column>() {
            Some(column) => Ok(SideColumn::Plain(column.index())),
            None => Ok(SideColumn::Computed(Computed::new(expr, schema)?)),
        };
        self.columns.iter().map(column).collect()
    }

    pub(super) fn filters(&self) -> Result<Vec<Computed>> {
        self.filters.iter().map(|filter| Computed::new(filter, self.table.schema())).collect()
    }
}

/// Casts that keep different keys different.
fn widens(from: &DataType, to: &DataType) -> bool {
    let text = |of: &DataType| matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    (text(from) && text(to))
        || match (from.is_signed_integer(), to.is_signed_integer()) {
            (true, true) => from.primitive_width() <= to.primitive_width(),
            _ => false,
        }
}

fn replace_columns(expr: &Expr, with: impl Fn(usize) -> Option<Expr>) -> Result<Expr> {
    let replace = |node: Expr| match node.downcast_ref::<Column>() {
        Some(column) => {
            let replaced =
                with(column.index()).ok_or_else(|| internal_datafusion_err!("no column {column} below a lookup join"))?;
            Ok(Transformed::yes(replaced))
        }
        None => Ok(Transformed::no(node)),
    };
    Arc::clone(expr).transform_up(replace).data()
}

/// A column that the lookup's side gives to the join.
#[derive(Debug, Clone)]
pub(super) enum SideColumn {
    /// A column of the table.
    Plain(usize),
    /// An expression over some.
    Computed(Computed),
}

impl SideColumn {
    /// Its values at the rows that were found; null where there is none.
    pub(super) fn gather(&self, version: &Version, found: &Found) -> Result<ArrayRef> {
        match self {
            SideColumn::Plain(column) => version.gather(*column, found).map_err(external),
            SideColumn::Computed(computed) => computed.scattered(version, found),
        }
    }
}

/// An expression over the columns of a lookup table, with the columns that it needs.
#[derive(Debug, Clone)]
pub(super) struct Computed {
    columns: Vec<usize>,
    schema: SchemaRef,
    expr: Expr,
}

impl Computed {
    fn new(expr: &Expr, table: &SchemaRef) -> Result<Self> {
        let mut columns: Vec<usize> = collect_columns(expr).iter().map(Column::index).collect();
        columns.sort_unstable();
        let schema = Arc::new(table.project(&columns)?);
        let place = |at: usize| columns.iter().position(|&column| column == at);
        let expr = replace_columns(expr, |at| Some(Arc::new(Column::new(table.field(at).name(), place(at)?)) as Expr))?;
        Ok(Self { columns, schema, expr })
    }

    /// Its values at rows that are all there.
    fn evaluate(&self, version: &Version, found: &Found) -> Result<ArrayRef> {
        let columns = self.columns.iter().map(|&column| version.gather(column, found).map_err(external));
        let options = RecordBatchOptions::new().with_row_count(Some(found.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns.collect::<Result<_>>()?, &options)?;
        self.expr.evaluate(&batch)?.into_array(found.len())
    }

    /// Its values where a row is there. It is never asked where none is: `coalesce(c.title, '-')` must be null there.
    fn scattered(&self, version: &Version, found: &Found) -> Result<ArrayRef> {
        let Some(hits) = found.hits() else { return self.evaluate(version, found) };
        let values = self.evaluate(version, &found.choose(&places(hits.inner())).map_err(external)?)?;
        let mut next = 0;
        let order = hits.iter().map(|hit| {
            next += u32::from(hit);
            hit.then(|| next - 1)
        });
        Ok(take(&values, &order.collect::<UInt32Array>(), None)?)
    }

    /// As a filter: the rows at which it is true.
    pub(super) fn keep(&self, version: &Version, found: &Found) -> Result<Found> {
        let values = self.scattered(version, found)?;
        let values = values.as_any().downcast_ref::<BooleanArray>();
        let values = values.ok_or_else(|| internal_datafusion_err!("a filter is not boolean: {}", self.expr))?;
        let truth = match values.nulls() {
            Some(nulls) => values.values() & nulls.inner(),
            None => values.values().clone(),
        };
        Ok(found.keep(&truth))
    }
}

/// One of our errors on its way through DataFusion.
pub(super) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The places at which `bits` are set.
pub(super) fn places(bits: &BooleanBuffer) -> UInt32Array {
    UInt32Array::from_iter_values(bits.set_indices().map(|place| place as u32))
}

/// `expr` with column `i` at `places[i]` of `schema`.
pub(super) fn reindex(expr: &Expr, places: &[usize], schema: &SchemaRef) -> Result<Expr> {
    replace_columns(expr, |at| {
        let place = *places.get(at)?;
        Some(Arc::new(Column::new(schema.fields().get(place)?.name(), place)))
    })
}

impl std::fmt::Display for Computed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.expr.fmt_sql(f)
    }
}
