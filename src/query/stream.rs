//! What can stream: a walk over a logical plan that carries each row's offset through it, and refuses what cannot stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, plan_err};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias};

use super::tables::{OFFSET, SourceTable};
use super::windows::PaneFunction;
use crate::lookup::join::LookupProvider;
use crate::table::TableDef;
use crate::window::spec::WindowSpec;

/// The source that `plan` reads, if it reads one.
pub(crate) fn source_of(plan: &LogicalPlan) -> Option<Arc<TableDef>> {
    if let LogicalPlan::TableScan(scan) = plan {
        let provider = source_as_provider(&scan.source).ok()?;
        return provider.downcast_ref::<SourceTable>().map(|source| Arc::clone(&source.def));
    }
    plan.inputs().into_iter().find_map(source_of)
}

/// The lookup tables that `plan` asks, by name.
pub(crate) fn lookups_of(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && source_as_provider(&scan.source)?.downcast_ref::<LookupProvider>().is_some()
        {
            names.insert(scan.table_name.table().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

/// The same plan with [`OFFSET`] as a further column at its end, and how that column is called there.
/// `None` for a plan that reads no source. Fails with a sentence where the plan holds something that cannot stream.
pub(crate) fn carry_offset(plan: &LogicalPlan) -> Result<(LogicalPlan, Option<Column>)> {
    if source_of(plan).is_none() {
        return Ok((plan.clone(), None));
    }
    match plan {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source)?;
            let Some(source) = provider.downcast_ref::<SourceTable>() else { return Ok((plan.clone(), None)) };
            let twin = provider_as_source(Arc::new(source.with_offset()));
            let carried = LogicalPlanBuilder::scan(scan.table_name.clone(), twin, None)?.build()?;
            Ok((carried, Some(Column::new(Some(scan.table_name.clone()), OFFSET))))
        }
        LogicalPlan::Projection(projection) => {
            let (input, offset) = carry_offset(&projection.input)?;
            let mut exprs = projection.expr.clone();
            exprs.extend(offset.clone().map(Expr::Column));
            Ok((LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?), offset))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, offset) = carry_offset(&alias.input)?;
            let carried = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
            Ok((LogicalPlan::SubqueryAlias(carried), offset.map(|_| Column::new(Some(alias.alias.clone()), OFFSET))))
        }
        LogicalPlan::Filter(filter) => {
            let (input, offset) = carry_offset(&filter.input)?;
            Ok((plan.with_new_exprs(vec![filter.predicate.clone()], vec![input])?, offset))
        }
        LogicalPlan::Join(join) => carry_through_join(plan, join),
        other => refuse(other),
    }
}

fn carry_through_join(plan: &LogicalPlan, join: &Join) -> Result<(LogicalPlan, Option<Column>)> {
    let (left, left_offset) = carry_offset(&join.left)?;
    let (right, right_offset) = carry_offset(&join.right)?;
    if left_offset.is_some() && right_offset.is_some() {
        return plan_err!("a join of two streams cannot be done: join a stream with a lookup table (STORED AS POSTGRES)");
    }
    let keeps_stream = match join.join_type {
        JoinType::Inner => true,
        JoinType::Left => left_offset.is_some(),
        JoinType::Right => right_offset.is_some(),
        _ => false,
    };
    if !keeps_stream {
        return plan_err!(
            "a {} JOIN would have to wait for the end of the stream: write stream LEFT JOIN lookup, or stream JOIN lookup",
            join.join_type.to_string().to_uppercase()
        );
    }
    let carried = plan.with_new_exprs(plan.expressions(), vec![left, right])?;
    Ok((carried, left_offset.or(right_offset)))
}

fn refuse<T>(plan: &LogicalPlan) -> Result<T> {
    match plan {
        LogicalPlan::Sort(_) => plan_err!(
            "ORDER BY over a stream would wait for its end: order within a window (FROM tumble(…) or hop(…) … GROUP BY \
             window_start, window_end), or leave ORDER BY out"
        ),
        LogicalPlan::Limit(_) => plan_err!(
            "LIMIT over a stream would end it: use it within a window (FROM tumble(…) or hop(…) … GROUP BY window_start, \
             window_end), or leave it out"
        ),
        LogicalPlan::Aggregate(_) => plan_err!(
            "GROUP BY over a stream without a window never ends: read FROM tumble(t, ts, INTERVAL '1 minute') or FROM \
             hop(t, ts, slide, size), and put window_start, window_end into GROUP BY"
        ),
        LogicalPlan::Distinct(_) => plan_err!(
            "DISTINCT over a stream would have to remember every row: use count(DISTINCT …) or GROUP BY within a window"
        ),
        LogicalPlan::Window(_) => plan_err!(
            "OVER (…) over a stream would wait for its end: use it on the result of a window (FROM tumble(…) or hop(…))"
        ),
        LogicalPlan::Union(_) => {
            plan_err!("UNION of a stream cannot be done: write two lanes, or one with CASE or WHERE … OR …")
        }
        other => {
            let text = other.display().to_string();
            let name = text.split([':', ' ']).next().unwrap_or_default().to_string();
            plan_err!("'{name}' cannot be done over a stream: use projections, filters, lookup joins and windowed GROUP BY")
        }
    }
}

/// The window that a plan's rows belong to, and the column of the source that it is taken from.
pub(crate) fn window_of(plan: &LogicalPlan) -> Option<(WindowSpec, Result<String>)> {
    if let LogicalPlan::Projection(projection) = plan {
        for expr in &projection.expr {
            if let Some((spec, Expr::Column(time))) = marker(expr) {
                return Some((spec, source_column(&projection.input, time)));
            }
        }
    }
    plan.inputs().into_iter().find_map(window_of)
}

fn marker(expr: &Expr) -> Option<(WindowSpec, &Expr)> {
    match expr {
        Expr::Alias(alias) => marker(&alias.expr),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let pane = func.inner().downcast_ref::<PaneFunction>()?;
            Some((pane.spec(), args.first()?))
        }
        _ => None,
    }
}

/// The column of the source that `column` of `plan` hands through unchanged.
fn source_column(plan: &LogicalPlan, column: &Column) -> Result<String> {
    let changed = || {
        Err(DataFusionError::Plan(format!(
            "the time column '{}' of a window must be the source's watermark column, handed through unchanged",
            column.name
        )))
    };
    match plan {
        LogicalPlan::TableScan(_) => Ok(column.name.clone()),
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.index_of_column(column)?;
            let mut expr = &projection.expr[index];
            while let Expr::Alias(alias) = expr {
                expr = &alias.expr;
            }
            match expr {
                Expr::Column(inner) => source_column(&projection.input, inner),
                _ => changed(),
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.index_of_column(column)?;
            let (qualifier, field) = alias.input.schema().qualified_field(index);
            source_column(&alias.input, &Column::new(qualifier.cloned(), field.name()))
        }
        LogicalPlan::Filter(filter) => source_column(&filter.input, column),
        LogicalPlan::Join(join) => {
            for side in [&join.left, &join.right] {
                if side.schema().has_column(column) && source_of(side).is_some() {
                    return source_column(side, column);
                }
            }
            changed()
        }
        _ => changed(),
    }
}
