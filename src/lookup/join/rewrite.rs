//! From DataFusion's joins to lookup joins, and the sentences for what they cannot do.

use std::sync::Arc;

use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use super::exec::{Join, LookupJoinExec, Output};
use super::scan::LookupScanExec;
use super::side::{Side, reindex};
use crate::error::{Error, Kind, Result};
use crate::lookup::index::LookupTable;

type Plan = Arc<dyn ExecutionPlan>;

/// The same plan with a [`LookupJoinExec`] for each hash join of a stream with a lookup table; names and order of columns stay.
/// A LEFT join of which no column is used goes: keys are unique, so it changes nothing.
/// `Err(Sql)` says which join cannot be done, and how to write it instead.
pub fn use_lookup_joins(plan: Plan) -> Result<Plan> {
    let mut children = Vec::new();
    let mut changed = false;
    for child in plan.children() {
        let new = use_lookup_joins(Arc::clone(child))?;
        changed |= !Arc::ptr_eq(child, &new);
        children.push(new);
    }
    let plan = if changed {
        plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute)).map_err(unplanned)?
    } else {
        plan
    };
    if let Some(join) = plan.downcast_ref::<HashJoinExec>()
        && let Some(replaced) = replace(join)?
    {
        return Ok(replaced);
    }
    if plan.children().len() > 1
        && let Some(table) = plan.children().into_iter().find_map(lookup_below)
    {
        return Err(cannot(plan.as_ref(), &table));
    }
    Ok(plan)
}

fn replace(join: &HashJoinExec) -> Result<Option<Plan>> {
    let left = Side::of(join.left()).map_err(unplanned)?;
    let right = Side::of(join.right()).map_err(unplanned)?;
    let (side, input, lookup_is) = match (left, right) {
        (None, None) => return Ok(None),
        (Some(left), Some(right)) => {
            return Err(Error::new(
                Kind::Sql,
                format!(
                    "lookup tables '{}' and '{}' cannot be joined with each other: join each of them with the stream, \
                     … LEFT JOIN {} ON … LEFT JOIN {} ON …",
                    left.table.name(),
                    right.table.name(),
                    left.table.name(),
                    right.table.name()
                ),
            ));
        }
        (Some(side), None) => (side, join.right(), JoinSide::Left),
        (None, Some(side)) => (side, join.left(), JoinSide::Right),
    };
    if lookup_below(input).is_some() {
        return Ok(None);
    }
    let keeps_all = check_type(join, &side.table, lookup_is)?;
    let key = check_key(join, &side, lookup_is)?;
    put_in(join, &side, Arc::clone(input), lookup_is, keeps_all, key).map(Some).map_err(unplanned)
}

/// Whether all rows of the stream stay.
fn check_type(join: &HashJoinExec, table: &LookupTable, lookup_is: JoinSide) -> Result<bool> {
    let name = table.name();
    let text = match (join.join_type(), lookup_is) {
        (JoinType::Inner, _) => return Ok(false),
        (JoinType::Left, JoinSide::Right) | (JoinType::Right, JoinSide::Left) => return Ok(true),
        (JoinType::Left | JoinType::Right, _) => format!(
            "a join that keeps the rows of lookup table '{name}' which no event has would have to wait for the end of the stream: \
             write stream LEFT JOIN {name}, or stream JOIN {name}"
        ),
        (JoinType::Full, _) => format!(
            "a FULL join with lookup table '{name}' would have to wait for the end of the stream: write stream LEFT JOIN {name}"
        ),
        (JoinType::LeftSemi | JoinType::RightSemi, _) => format!(
            "IN and EXISTS over lookup table '{name}' cannot be done yet: write stream JOIN {name} ON … = {name}.{}, which keeps \
             the same rows",
            table.key_name()
        ),
        _ => format!(
            "NOT IN and NOT EXISTS over lookup table '{name}' cannot be done yet: write stream LEFT JOIN {name} ON … = {name}.{key} \
             WHERE {name}.{key} IS NULL",
            key = table.key_name()
        ),
    };
    Err(Error::new(Kind::Sql, text))
}

/// The place of the key among the join's equalities, if a lookup can do the join.
fn check_key(join: &HashJoinExec, side: &Side, lookup_is: JoinSide) -> Result<usize> {
    let pairs = join.on().iter().map(|(left, right)| match lookup_is {
        JoinSide::Left => (right, left),
        _ => (left, right),
    });
    let table = &side.table;
    let (name, key) = (table.name(), table.key_name());
    let inner = *join.join_type() == JoinType::Inner;
    let mut key_at = None;
    let mut other = None;
    for (at, (stream, lookup)) in pairs.enumerate() {
        match side.is_key(lookup).map_err(unplanned)? {
            true if key_at.is_none() => key_at = Some(at),
            _ => other = Some((words(stream), words(lookup))),
        }
    }
    let text = match (key_at, other) {
        (None, other) => {
            let (stream, lookup) = other.unwrap_or_default();
            format!(
                "'{stream} = {lookup}' does not look '{name}' up by its key: join {name} on its key column '{key}', \
                 … JOIN {name} ON {stream} = {name}.{key} (or declare the table once more with another 'key')"
            )
        }
        (Some(_), _) if join.null_equality() == NullEquality::NullEqualsNull => {
            format!("IS NOT DISTINCT FROM cannot look '{name}' up: an empty key has no row, write … = {name}.{key}")
        }
        (Some(_), Some((stream, lookup))) if !inner => format!(
            "'{stream} = {lookup}' cannot stand beside the key in a LEFT join with '{name}': join on {name}.{key} alone, and put \
             the rest into CASE WHEN {stream} = {name}.{lookup} THEN {name}.… END"
        ),
        (Some(_), None) if join.filter().is_some() && !inner => format!(
            "a LEFT join with '{name}' can only be ON {name}.{key} = …, and conditions on {name} alone: put a condition on \
             both sides into CASE WHEN … THEN {name}.… END"
        ),
        (Some(at), _) => return Ok(at),
    };
    Err(Error::new(Kind::Sql, text))
}

fn put_in(
    join: &HashJoinExec,
    side: &Side,
    input: Plan,
    lookup_is: JoinSide,
    keeps_all: bool,
    key_at: usize,
) -> DfResult<Plan> {
    let stream = (0..input.schema().fields().len()).map(Output::Stream);
    let lookup = side.columns()?.into_iter().map(Output::Lookup);
    let mut output: Vec<Output> = match lookup_is {
        JoinSide::Left => lookup.chain(stream).collect(),
        _ => stream.chain(lookup).collect(),
    };
    let (left_key, right_key) = &join.on()[key_at];
    let key = Arc::clone(if lookup_is == JoinSide::Left { right_key } else { left_key });
    let (filters, table) = (side.filters()?, Arc::clone(&side.table));
    let Some(condition) = condition(join, key_at)? else {
        if let Some(projection) = &join.projection {
            output = projection.iter().map(|&at| output[at].clone()).collect();
        }
        if keeps_all && let Some(columns) = only_stream(&output) {
            return without_join(join, input, &columns);
        }
        let schema = join.schema();
        return Ok(Arc::new(LookupJoinExec::new(input, Arc::new(Join { table, key, keeps_all, filters, output, schema }))));
    };
    // An inner join with a condition on both sides is the join, then the condition.
    let schema = Arc::clone(join.join_schema());
    let all = LookupJoinExec::new(input, Arc::new(Join { table, key, keeps_all, filters, output, schema }));
    let projection = join.projection.as_ref().map(|columns| columns.to_vec());
    Ok(Arc::new(FilterExecBuilder::new(condition, Arc::new(all)).apply_projection(projection)?.build()?))
}

/// What a join asks beside the equality at `key_at`, over all columns of both sides.
fn condition(join: &HashJoinExec, key_at: usize) -> DfResult<Option<Arc<dyn PhysicalExpr>>> {
    let schema = join.join_schema();
    let left_columns = join.left().schema().fields().len();
    let right_places: Vec<usize> = (left_columns..schema.fields().len()).collect();
    let mut conditions = Vec::new();
    for (_, (left, right)) in join.on().iter().enumerate().filter(|(at, _)| *at != key_at) {
        let right = reindex(right, &right_places, schema)?;
        conditions.push(Arc::new(BinaryExpr::new(Arc::clone(left), Operator::Eq, right)) as Arc<dyn PhysicalExpr>);
    }
    if let Some(filter) = join.filter() {
        let places = filter.column_indices().iter().map(|column| match column.side {
            JoinSide::Left => column.index,
            _ => left_columns + column.index,
        });
        conditions.push(reindex(filter.expression(), &places.collect::<Vec<_>>(), schema)?);
    }
    let and = |left, right| Arc::new(BinaryExpr::new(left, Operator::And, right)) as Arc<dyn PhysicalExpr>;
    Ok(conditions.into_iter().reduce(and))
}

fn only_stream(output: &[Output]) -> Option<Vec<usize>> {
    output.iter().map(|column| if let Output::Stream(at) = column { Some(*at) } else { None }).collect()
}

fn without_join(join: &HashJoinExec, input: Plan, columns: &[usize]) -> DfResult<Plan> {
    let schema = join.schema();
    if columns.iter().copied().eq(0..input.schema().fields().len()) {
        return Ok(input);
    }
    let column = |(&at, field): (&usize, &Arc<arrow::datatypes::Field>)| {
        ProjectionExpr::new(Arc::new(Column::new(field.name(), at)), field.name().clone())
    };
    Ok(Arc::new(ProjectionExec::try_new(columns.iter().zip(schema.fields()).map(column), input)?))
}

/// A lookup table that is scanned in `plan`, whole.
fn lookup_below(plan: &Plan) -> Option<Arc<LookupTable>> {
    match plan.downcast_ref::<LookupScanExec>() {
        Some(scan) => Some(Arc::clone(scan.table())),
        None => plan.children().into_iter().find_map(lookup_below),
    }
}

fn cannot(plan: &dyn ExecutionPlan, table: &LookupTable) -> Error {
    let (name, key) = (table.name(), table.key_name());
    let what = if plan.is::<CrossJoinExec>() {
        "a join without a condition would read all of"
    } else if plan.is::<NestedLoopJoinExec>() {
        "a join without '=' would read, for each event, all of"
    } else if plan.is::<HashJoinExec>() {
        "only projections and filters can stand between the join and"
    } else {
        "a lookup table can only be joined by its key, and this would read all of"
    };
    Error::new(
        Kind::Sql,
        format!("{what} lookup table '{name}': join {name} on its key column '{key}', … JOIN {name} ON … = {name}.{key}"),
    )
}

/// An expression as a user would write it: `content_id@1` is `content_id`.
fn words(expr: &Arc<dyn PhysicalExpr>) -> String {
    match expr.downcast_ref::<Column>() {
        Some(column) => column.name().to_string(),
        None => datafusion::physical_expr_common::physical_expr::fmt_sql(expr.as_ref()).to_string(),
    }
}

fn unplanned(error: datafusion::error::DataFusionError) -> Error {
    Error::new(Kind::Bug, "a lookup join could not be planned").because(error)
}
