//! The cut: DataFusion plans the aggregate, and its plan is taken apart at DataFusion's own Partial/Final border.
//!
//! ```text
//! segment ─▶ partial ─▶ (pane, groups, states) ─▶ panes ─▶ reduce ─▶ finish ─▶ upper ─▶ rows of one window
//! ```
//!
//! *partial* is stateless and runs over each segment. *reduce* merges states (`AggregateMode::PartialReduce`; a group may
//! still stand twice after it), *finish* turns merged states into the aggregate's rows, *upper* is all that stood above the
//! aggregate: HAVING, ORDER BY, LIMIT, projections. It runs once for each window, so LIMIT applies to each window.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, displayable};

use super::cell::{Cell, CellExec, Runner};
use super::windows::{Edge, PaneFunction};

/// An aggregate, taken apart.
#[derive(Debug, Clone)]
pub struct Cut {
    /// Over a segment: `[pane start, group columns…, state columns…]`.
    pub partial: Runner,
    /// From states to fewer states: `[group columns…, state columns…]` in and out.
    pub reduce: Runner,
    /// From states to the aggregate's rows: `[group columns…, aggregates…]`.
    pub finish: Runner,
    /// From the aggregate's columns (see `aggregate`) to the lane's output.
    pub upper: Runner,
    /// The columns that `upper` reads, each with where it comes from.
    pub aggregate: Vec<AggregateColumn>,
    /// The schema that `upper` reads.
    pub aggregate_schema: SchemaRef,
    /// How many group columns a state has.
    pub groups: usize,
    /// What its states hold, as text: the plan below the border, and their types. Two plans of one text have the same states.
    pub holds: String,
    /// Set when every aggregate is a count, whose state can be subtracted: which of them counts all rows of the group.
    pub counts: Option<usize>,
}

/// Where a column of the aggregate's result comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregateColumn {
    /// A bound of the window.
    Window(Edge),
    /// A column of what `finish` gives.
    Finished(usize),
}

/// Takes `plan` apart at its lowest aggregate. `leaf` is the cell that its source reads.
pub(crate) fn cut(plan: &Arc<dyn ExecutionPlan>, leaf: Cell, context: &Arc<TaskContext>) -> Result<Cut> {
    let Some(whole) = lowest_aggregate(plan) else {
        return plan_err!("a window without GROUP BY has no rows to emit: GROUP BY window_start, window_end, …");
    };
    let (Some(aggregate), Some(inner)) = (whole.downcast_ref::<AggregateExec>(), inner_aggregate(&whole)) else {
        return plan_err!("the aggregate was planned in a way that cannot be cut");
    };
    if inner.group_expr().has_grouping_set() {
        return plan_err!("GROUPING SETS, CUBE and ROLLUP cannot be windowed: write one lane for each grouping");
    }
    let below = Arc::clone(inner.input());
    let mut pane = None;
    let mut groups = Vec::new();
    let mut columns = Vec::new();
    for (expr, name) in inner.group_expr().expr() {
        match edge_of(expr, &below) {
            Some(edge) => {
                pane = Some(Arc::clone(expr));
                columns.push(AggregateColumn::Window(edge));
            }
            None => {
                columns.push(AggregateColumn::Finished(groups.len()));
                groups.push((Arc::clone(expr), name.clone()));
            }
        }
    }
    let Some(pane) = pane else {
        return plan_err!("put window_start, window_end into GROUP BY: without them the groups of all windows would be one");
    };
    if groups.is_empty() {
        // An aggregate without groups has a row even for no input; one constant group has not.
        let one: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Int8(Some(0))));
        groups.push((one, "_all".to_string()));
    }
    let aggregates = inner.aggr_expr().to_vec();
    columns.extend((0..aggregates.len()).map(|index| AggregateColumn::Finished(groups.len() + index)));
    let filters = inner.filter_expr().to_vec();
    let none = vec![None; aggregates.len()];
    let input_schema = below.schema();

    let mut keyed = vec![(pane, "_pane".to_string())];
    keyed.extend(groups.iter().cloned());
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        PhysicalGroupBy::new_single(keyed),
        aggregates.clone(),
        filters,
        Arc::clone(&below),
        Arc::clone(&input_schema),
    )?;
    let state_schema = Arc::new(Schema::new(partial.schema().fields().iter().skip(1).cloned().collect::<Vec<_>>()));
    let merged = |mode, cell: &Cell| -> Result<Arc<dyn ExecutionPlan>> {
        let by = groups.iter().enumerate().map(|(index, (_, name))| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, index));
            (column, name.clone())
        });
        let leaf = Arc::new(CellExec::new("panes", Arc::clone(&state_schema), cell.clone()));
        let by = PhysicalGroupBy::new_single(by.collect());
        let exec = AggregateExec::try_new(mode, by, aggregates.clone(), none.clone(), leaf, Arc::clone(&input_schema))?;
        Ok(Arc::new(exec))
    };
    let (reduce_cell, finish_cell, upper_cell) = (Cell::default(), Cell::default(), Cell::default());
    let aggregate_schema = aggregate.schema();
    let upper = replace(plan, &whole, Arc::new(CellExec::new("window", Arc::clone(&aggregate_schema), upper_cell.clone())))?;
    let runner = |plan, cell| Runner::new(plan, cell, Arc::clone(context));
    let types: Vec<_> = state_schema.fields().iter().map(|field| field.data_type().clone()).collect();
    let holds = format!("{}{types:?}", displayable(&partial).indent(false));
    Ok(Cut {
        holds,
        partial: runner(Arc::new(partial), leaf),
        reduce: runner(merged(AggregateMode::PartialReduce, &reduce_cell)?, reduce_cell),
        finish: runner(merged(AggregateMode::Final, &finish_cell)?, finish_cell),
        upper: runner(upper, upper_cell),
        aggregate: columns,
        aggregate_schema,
        groups: groups.len(),
        counts: counts(&aggregates, inner.filter_expr()),
    })
}

/// The aggregate that counts all rows, `count(*)`, if there is one and all others are counts, too.
fn counts(aggregates: &[Arc<AggregateFunctionExpr>], filters: &[Option<Arc<dyn PhysicalExpr>>]) -> Option<usize> {
    let is_count = |aggregate: &Arc<AggregateFunctionExpr>| aggregate.fun().name() == "count" && !aggregate.is_distinct();
    let counts_all = |aggregate: &Arc<AggregateFunctionExpr>| {
        let arguments = aggregate.expressions();
        arguments.iter().all(|argument| argument.downcast_ref::<Literal>().is_some_and(|literal| !literal.value().is_null()))
    };
    if !aggregates.iter().all(is_count) {
        return None;
    }
    let all_rows = |(aggregate, filter): (&Arc<_>, &Option<_>)| filter.is_none() && counts_all(aggregate);
    aggregates.iter().zip(filters).position(all_rows)
}

/// The column that [`Cut::partial`] puts first.
pub fn pane_field() -> Field {
    Field::new("_pane", DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None), true)
}

fn lowest_aggregate(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let below = plan.children().into_iter().find_map(lowest_aggregate);
    // A Final over its Partial is one aggregate: the upper half stands for both.
    match (below, plan.downcast_ref::<AggregateExec>()) {
        (Some(below), Some(aggregate)) => {
            let halves = matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned);
            let is_partial = below.downcast_ref::<AggregateExec>().is_some_and(|inner| *inner.mode() == AggregateMode::Partial);
            Some(if halves && is_partial { Arc::clone(plan) } else { below })
        }
        (Some(below), None) => Some(below),
        (None, Some(_)) => Some(Arc::clone(plan)),
        (None, None) => None,
    }
}

fn inner_aggregate(plan: &Arc<dyn ExecutionPlan>) -> Option<&AggregateExec> {
    let aggregate = plan.downcast_ref::<AggregateExec>()?;
    match aggregate.mode() {
        AggregateMode::Single | AggregateMode::SinglePartitioned | AggregateMode::Partial => Some(aggregate),
        _ => plan.children().into_iter().find_map(inner_aggregate),
    }
}

/// Follows a group expression down to the marker function that it hands through, if it does.
fn edge_of(expr: &Arc<dyn PhysicalExpr>, input: &Arc<dyn ExecutionPlan>) -> Option<Edge> {
    if let Some(function) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return function.fun().inner().downcast_ref::<PaneFunction>().map(|pane| pane.edge);
    }
    let column = expr.downcast_ref::<Column>()?;
    if let Some(projection) = input.downcast_ref::<ProjectionExec>() {
        let below = projection.expr().get(column.index())?;
        return edge_of(&below.expr, projection.input());
    }
    if let Some(filter) = input.downcast_ref::<FilterExec>() {
        let index = filter.projection().as_ref().map_or(Some(column.index()), |kept| kept.get(column.index()).copied())?;
        let below: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), index));
        return edge_of(&below, filter.input());
    }
    // Through any other node (a lookup join) by name: markers are made once, so the name is theirs alone.
    let edge = [Edge::Start, Edge::End].into_iter().find(|edge| edge.column() == column.name())?;
    input.children().into_iter().find_map(|child| {
        let index = child.schema().index_of(column.name()).ok()?;
        let below: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), index));
        edge_of(&below, child).filter(|found| *found == edge)
    })
}

fn replace(
    plan: &Arc<dyn ExecutionPlan>,
    old: &Arc<dyn ExecutionPlan>,
    new: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    Arc::clone(plan)
        .transform_down(|node| {
            if Arc::ptr_eq(&node, old) {
                Ok(Transformed::new(Arc::clone(&new), true, datafusion::common::tree_node::TreeNodeRecursion::Jump))
            } else {
                Ok(Transformed::no(node))
            }
        })
        .data()
}

/// The leaf that reads the source, and the columns that it wants.
pub(crate) fn leaf_of(plan: &Arc<dyn ExecutionPlan>) -> Result<(Cell, SchemaRef)> {
    fn find(plan: &Arc<dyn ExecutionPlan>, found: &mut Vec<(Cell, SchemaRef)>) {
        if let Some(leaf) = plan.downcast_ref::<CellExec>() {
            found.push((leaf.cell().clone(), leaf.schema()));
        }
        for child in plan.children() {
            find(child, found);
        }
    }
    let mut found = Vec::new();
    find(plan, &mut found);
    if plan.output_partitioning().partition_count() != 1 {
        return Err(DataFusionError::Plan("the query was planned with more than one partition".to_string()));
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => plan_err!(
            "the query reads no stream: a lane needs a source (CREATE UNBOUNDED EXTERNAL TABLE … STORED AS KAFKA) in FROM"
        ),
        _ => plan_err!("the query reads its stream more than once: a self-join or a sub-query over a stream cannot be done"),
    }
}
