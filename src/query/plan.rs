//! A lane's plan, made once: what runs over each segment, and for windows what runs over the panes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::DATAFUSION_VERSION;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use twox_hash::XxHash3_64;

use super::cell::Runner;
use super::cut::{Cut, cut, leaf_of};
use super::insert::checked_sink;
use super::key::group_key;
use super::problem::{at, sql_error};
use super::project::{LaneSql, Project};
use super::stream::{carry_offset, lookups_of, source_of, window_of};
use super::tables::{OFFSET, TableFactory};
use super::time::{EpochTime, is_epoch_time};
use super::wording::Known;
use crate::error::Result;
use crate::lookup::index::LookupTable;
use crate::lookup::join::use_lookup_joins;
use crate::memory::Share;
use crate::table::TableDef;
use crate::window::spec::WindowSpec;

/// A lane, planned.
#[derive(Debug, Clone)]
pub struct LanePlan {
    /// The lane's name.
    pub name: String,
    /// The source that it reads.
    pub source: Arc<TableDef>,
    /// The table that it writes.
    pub sink: Arc<TableDef>,
    /// What `now()` answers in it.
    pub time: EpochTime,
    /// The columns of the source that it needs.
    pub columns: BTreeSet<String>,
    /// The lookup tables that it asks, by name.
    pub lookups: BTreeSet<String>,
    /// What it does.
    pub work: Work,
    /// The memory that its plans, and all else of it, ask for.
    pub memory: Share,
    /// What it makes of its records: the query with the views that it names, and both tables as they are declared. Two plans with
    /// the same give the same result.
    pub query: String,
}

/// What a lane does with its rows.
#[derive(Debug, Clone)]
pub enum Work {
    /// Each row by itself. The runner gives the sink's columns and the row's offset as a last one.
    Rows(Leaf),
    /// Windows.
    Windows(Box<Windows>),
}

/// A runner with the columns that its leaf reads; the last is [`OFFSET`] where it is asked for.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The plan.
    pub runner: Runner,
    /// The columns of its input.
    pub input: SchemaRef,
}

/// The plan of a windowed lane.
#[derive(Debug, Clone)]
pub struct Windows {
    /// The windows' shape.
    pub spec: WindowSpec,
    /// The source's column with the event time.
    pub time_column: String,
    /// The columns that `cut.partial` reads.
    pub input: SchemaRef,
    /// The aggregate, taken apart.
    pub cut: Cut,
    /// Says which rows the query would have used: their offsets. Run only over rows that come too late.
    pub used: Leaf,
    /// The columns of the result that name a row's group; none if they do not tell all groups apart.
    pub key: Option<Vec<usize>>,
    /// What its panes hold: source, filter, lookups, grouping, aggregates, the width of a pane. Not the size of a window, nor what
    /// becomes of the aggregates' rows.
    pub fingerprint: String,
}

/// Plans `lane`. `lookups` are the lookup tables by name, in memory; planning needs no network. What runs later asks `memory`.
pub async fn plan_lane(
    project: &Project,
    lane: &LaneSql,
    lookups: &HashMap<String, Arc<LookupTable>>,
    memory: Share,
) -> Result<LanePlan> {
    let factory = TableFactory::new(lookups.clone());
    let time = EpochTime::default();
    let session = project.session(&time, &factory, &memory).await?;
    let sink = checked_sink(project, lane, &session).await?;
    let known = Known::of(&session);
    let wrong = |error| sql_error(&lane.insert, &error, &known);

    let logical = session.state().statement_to_plan(lane.insert.statement.clone()).await.map_err(wrong)?;
    let LogicalPlan::Dml(insert) = logical else {
        return Err(at(&lane.insert.place, "write INSERT INTO sink SELECT …"));
    };
    let query = insert.input.as_ref();
    refuse_volatile(query).map_err(wrong)?;
    let Some(source) = source_of(query) else {
        return Err(at(
            &lane.insert.place,
            "the query reads no stream: a lane needs a source (CREATE UNBOUNDED EXTERNAL TABLE … STORED AS KAFKA) in FROM",
        ));
    };
    let work = match window_of(query) {
        Some((spec, column)) => {
            let time_column = column.map_err(wrong)?;
            check_time_column(&source, &time_column, &lane.insert.place)?;
            let windows = plan_windows(&session, query, spec, time_column, &source).await.map_err(wrong)?;
            Work::Windows(Box::new(windows))
        }
        None => Work::Rows(plan_rows(&session, query).await.map_err(wrong)?),
    };
    let columns = needed(&work);
    // Without what it does not use of a view.
    let used = session.state().optimize(query).map_err(wrong)?;
    let lookups = lookups_of(&used).map_err(wrong)?;
    let query = query_text(&used, &source, &sink, &work);
    Ok(LanePlan { name: lane.name.clone(), source, sink, time, columns, lookups, work, memory, query })
}

/// A hash of all that decides what a lane makes.
fn query_text(query: &LogicalPlan, source: &TableDef, sink: &TableDef, work: &Work) -> String {
    let declared = |table: &TableDef| {
        format!("{} {} {:?} {:?} {:?}", table.stored_as, table.location, table.schema, table.partition_by, table.options)
    };
    let windows = match work {
        Work::Windows(windows) => format!("{:?}", windows.spec),
        Work::Rows(_) => String::new(),
    };
    let text = format!("{}\n{windows}\n{}\n{}", query.display_indent_schema(), declared(source), declared(sink));
    format!("{:016x}", XxHash3_64::oneshot(text.as_bytes()))
}

async fn plan_rows(session: &SessionContext, query: &LogicalPlan) -> DfResult<Leaf> {
    let (carried, _) = carry_offset(query)?;
    leaf(session, &carried).await
}

async fn plan_windows(
    session: &SessionContext,
    query: &LogicalPlan,
    spec: WindowSpec,
    time_column: String,
    source: &TableDef,
) -> DfResult<Windows> {
    let Some(aggregate) = stream_aggregate(query) else {
        // Without an aggregate the rows of a window are only rows: whatever stands in the way is named.
        carry_offset(query)?;
        return plan_err!("a window without GROUP BY has no rows to emit: GROUP BY window_start, window_end, …");
    };
    let LogicalPlan::Aggregate(node) = aggregate else { return plan_err!("the aggregate was not found") };
    refuse_markers(&node.input, &node.aggr_expr)?;
    let (carried, offset) = carry_offset(&node.input)?;
    let Some(offset) = offset else { return plan_err!("the query reads no stream") };
    let survivors = LogicalPlanBuilder::from(carried).project(vec![Expr::Column(offset)])?.build()?;
    let used = leaf(session, &survivors).await?;

    let physical = physical(session, query).await?;
    let (cell, input) = leaf_of(&physical)?;
    let cut = cut(&physical, cell, &session.task_ctx())?;
    // The states of another DataFusion may be others.
    let holds = format!("{DATAFUSION_VERSION}\n{}\n{}\n{}", source.location, spec.pane_ns(), cut.holds);
    let fingerprint = format!("{:016x}", XxHash3_64::oneshot(holds.as_bytes()));
    Ok(Windows { spec, time_column, input, cut, used, key: group_key(query, node), fingerprint })
}

async fn leaf(session: &SessionContext, logical: &LogicalPlan) -> DfResult<Leaf> {
    let plan = physical(session, logical).await?;
    let (cell, input) = leaf_of(&plan)?;
    Ok(Leaf { runner: Runner::new(plan, cell, session.task_ctx()), input })
}

async fn physical(session: &SessionContext, logical: &LogicalPlan) -> DfResult<Arc<dyn ExecutionPlan>> {
    let plan = session.state().create_physical_plan(logical).await?;
    use_lookup_joins(plan).map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))
}

/// The aggregate over the stream itself: the lowest one.
fn stream_aggregate(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    let below = plan.inputs().into_iter().find_map(stream_aggregate);
    below.or_else(|| (matches!(plan, LogicalPlan::Aggregate(_)) && source_of(plan).is_some()).then_some(plan))
}

fn check_time_column(source: &TableDef, column: &str, place: &str) -> Result<()> {
    match source.options.get("watermark.column") {
        Some(watermark) if watermark == column => Ok(()),
        Some(watermark) => Err(at(
            place,
            format!(
                "the window is over '{column}', but the watermark of '{}' follows '{watermark}'; use that column",
                source.name
            ),
        )),
        None => Err(at(
            place,
            format!("a window needs a watermark: give table '{}' the option 'watermark.column' '{column}'", source.name),
        )),
    }
}

/// `window_start` and `window_end` are known once a window is put together, not for a single row.
fn refuse_markers(input: &LogicalPlan, aggregates: &[Expr]) -> DfResult<()> {
    let names = |column: &Column| matches!(column.name(), "window_start" | "window_end");
    let in_aggregate = aggregates.iter().any(|expr| expr.column_refs().into_iter().any(names));
    let mut in_filter = false;
    input.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            in_filter |= filter.predicate.column_refs().into_iter().any(names);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if in_aggregate || in_filter {
        return plan_err!(
            "window_start and window_end belong to the window as a whole: use them in GROUP BY, SELECT and HAVING only"
        );
    }
    Ok(())
}

fn refuse_volatile(plan: &LogicalPlan) -> DfResult<()> {
    plan.apply(|node| {
        for expr in node.expressions() {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(function) = expr
                    && function.func.signature().volatility == Volatility::Volatile
                    && !is_epoch_time(function.func.name())
                {
                    return plan_err!(
                        "{}() answers anew each time, so an epoch could not be redone alike; leave it out of an INSERT",
                        function.func.name()
                    );
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn needed(work: &Work) -> BTreeSet<String> {
    let names =
        |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).filter(|name| name != OFFSET).collect();
    match work {
        Work::Rows(leaf) => names(&leaf.input),
        Work::Windows(windows) => {
            let mut columns: BTreeSet<String> = names(&windows.input);
            columns.extend(names(&windows.used.input));
            columns.insert(windows.time_column.clone());
            columns
        }
    }
}
