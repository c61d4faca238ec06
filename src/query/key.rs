//! The key of a windowed query's rows: the columns that name the group, so that a row has the same id whatever its measures are.

use std::collections::BTreeSet;

use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

/// The columns of `query` that hand through a column of its GROUP BY, without the window's bounds: the window stands in the id
/// anyway. `None` if some column of the GROUP BY is not among them: then they do not tell all rows apart.
pub(crate) fn group_key(query: &LogicalPlan, aggregate: &Aggregate) -> Option<Vec<usize>> {
    let is_bound = |expr: &Expr| matches!(expr, Expr::Column(column) if matches!(column.name(), "window_start" | "window_end"));
    let groups = aggregate.group_expr.iter().enumerate().filter(|(_, expr)| !is_bound(expr));
    let groups: BTreeSet<usize> = groups.map(|(index, _)| index).collect();
    let (mut key, mut named) = (Vec::new(), BTreeSet::new());
    for column in 0..query.schema().fields().len() {
        if let Some(group) = group_of(query, column).filter(|group| groups.contains(group)) {
            key.push(column);
            named.insert(group);
        }
    }
    (named == groups).then_some(key)
}

/// The column of the GROUP BY that column `index` of `plan` hands through; a cast, as INSERT adds it, changes nothing.
fn group_of(plan: &LogicalPlan, index: usize) -> Option<usize> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => (index < aggregate.group_expr.len()).then_some(index),
        LogicalPlan::Projection(projection) => {
            let mut expr = projection.expr.get(index)?;
            loop {
                expr = match expr {
                    Expr::Alias(alias) => &alias.expr,
                    Expr::Cast(cast) => &cast.expr,
                    Expr::Column(column) => {
                        return group_of(&projection.input, projection.input.schema().maybe_index_of_column(column)?);
                    }
                    _ => return None,
                };
            }
        }
        LogicalPlan::SubqueryAlias(alias) => group_of(&alias.input, index),
        LogicalPlan::Filter(filter) => group_of(&filter.input, index),
        LogicalPlan::Sort(sort) => group_of(&sort.input, index),
        LogicalPlan::Limit(limit) => group_of(&limit.input, index),
        LogicalPlan::Window(window) if index < window.input.schema().fields().len() => group_of(&window.input, index),
        _ => None,
    }
}
