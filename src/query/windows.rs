//! `tumble` and `hop`: table functions that add `window_start` and `window_end` to a table or view.
//!
//! In the plan both columns are marker functions over the time column. They answer the start of a row's *pane*; the cut
//! ([`crate::query::cut`]) finds them by their type, groups by the pane, and puts the window's true bounds in afterwards.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampNanosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Column, DFSchema, ExprSchema, ScalarValue, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TableType,
    Volatility,
};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::RwLock;

use super::wording::type_name;
use crate::window::spec::WindowSpec;

/// The tables and views that a window function can name. Shared with the session that fills it: a table function is called
/// while planning, where nothing can be awaited.
#[derive(Debug, Clone, Default)]
pub struct Tables(Arc<RwLock<HashMap<String, Arc<dyn TableProvider>>>>);

impl Tables {
    /// Adds a table or view under its SQL name.
    pub fn insert(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.0.write().insert(name.to_string(), table);
    }
}

/// `tumble(table, time, size)` or `hop(table, time, slide, size)`.
#[derive(Debug)]
pub struct WindowFunction {
    name: &'static str,
    tables: Tables,
}

impl WindowFunction {
    /// Both functions over `tables`, with their names.
    pub fn all(tables: &Tables) -> Vec<(&'static str, Arc<dyn TableFunctionImpl>)> {
        ["tumble", "hop", "cumulate", "session"]
            .into_iter()
            .map(|name| {
                let function: Arc<dyn TableFunctionImpl> = Arc::new(WindowFunction { name, tables: tables.clone() });
                (name, function)
            })
            .collect()
    }

    fn usage(&self) -> &'static str {
        match self.name {
            "tumble" => "tumble(table, time, size), for instance tumble(events, event_ts, INTERVAL '1 minute')",
            _ => {
                "hop(table, time, slide, size), for instance hop(events, event_ts, INTERVAL '1 second', INTERVAL '10 minutes')"
            }
        }
    }
}

impl TableFunctionImpl for WindowFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        self.table(args.exprs()).map_err(|error| match error {
            DataFusionError::Plan(text) => DataFusionError::Plan(format!("{}(): {text}", self.name)),
            other => other,
        })
    }
}

impl WindowFunction {
    fn table(&self, args: &[Expr]) -> Result<Arc<dyn TableProvider>> {
        let (table, time, size, slide) = match (self.name, args) {
            ("tumble", [table, time, size]) => (table, time, size, size),
            ("hop", [table, time, slide, size]) => (table, time, size, slide),
            ("cumulate" | "session", _) => return plan_err!("it is not there yet; use tumble or hop"),
            _ => return plan_err!("{} arguments are too many or too few; write {}", args.len(), self.usage()),
        };
        let spec = WindowSpec::new(interval_ns(size)?, interval_ns(slide)?);
        let spec = spec.map_err(|error| DataFusionError::Plan(error.to_string()))?;
        let (Expr::Column(table), Expr::Column(time)) = (table, time) else {
            return plan_err!("takes a table's name and a column's name first; write {}", self.usage());
        };
        let name = table.name();
        let Some(provider) = self.tables.0.read().get(name).cloned() else {
            let tables = self.tables.0.read();
            let hint = crate::table::did_you_mean(name, tables.keys().map(String::as_str))
                .map_or_else(String::new, |word| format!("; did you mean '{word}'?"));
            return plan_err!("there is no table or view '{name}'{hint}");
        };
        let plan = windowed(name, provider, time.name(), spec)?;
        Ok(Arc::new(WindowedTable { schema: Arc::new(plan.schema().as_arrow().clone()), plan }))
    }
}

fn windowed(name: &str, provider: Arc<dyn TableProvider>, time: &str, spec: WindowSpec) -> Result<LogicalPlan> {
    let input = LogicalPlanBuilder::scan(name, provider_as_source(provider), None)?.build()?;
    let column = time_column(input.schema(), name, time)?;
    let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    for edge in [Edge::Start, Edge::End] {
        let pane = ScalarUDF::from(PaneFunction::new(edge, spec)).call(vec![Expr::Column(column.clone())]);
        exprs.push(pane.alias(edge.column()));
    }
    LogicalPlanBuilder::from(input).project(exprs)?.build()
}

fn time_column(schema: &DFSchema, table: &str, time: &str) -> Result<Column> {
    let Some(column) = schema.columns().into_iter().find(|column| column.name() == time) else {
        let names: Vec<String> = schema.columns().into_iter().map(|column| column.name).collect();
        let hint = crate::table::did_you_mean(time, names.iter().map(String::as_str))
            .map_or_else(|| format!("it has {}", names.join(", ")), |word| format!("did you mean '{word}'?"));
        return plan_err!("'{table}' has no column '{time}'; {hint}");
    };
    match schema.field_from_column(&column)?.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok(column),
        other => plan_err!("the time column '{time}' must be a TIMESTAMP, it is {}", type_name(other)),
    }
}

fn interval_ns(expr: &Expr) -> Result<i64> {
    let Expr::Literal(value, _) = expr else {
        return plan_err!("a window's lengths must be literals such as INTERVAL '10 minutes'");
    };
    const DAY_NS: i64 = 86_400_000_000_000;
    let ns = match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            i64::from(interval.days).checked_mul(DAY_NS).and_then(|days| days.checked_add(interval.nanoseconds))
        }
        ScalarValue::IntervalDayTime(Some(interval)) => {
            Some(i64::from(interval.days) * DAY_NS + i64::from(interval.milliseconds) * 1_000_000)
        }
        ScalarValue::IntervalMonthDayNano(_) => {
            return plan_err!(
                "months differ in length, so a window cannot be one; write days, for instance INTERVAL '30 days'"
            );
        }
        _ => None,
    };
    ns.map_or_else(|| plan_err!("a window's lengths are intervals such as INTERVAL '10 minutes', not '{value}'"), Ok)
}

/// The table that a window function stands for: always planned through, never scanned.
#[derive(Debug)]
struct WindowedTable {
    schema: SchemaRef,
    plan: LogicalPlan,
}

#[async_trait]
impl TableProvider for WindowedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_logical_plan(&'_ self) -> Option<std::borrow::Cow<'_, LogicalPlan>> {
        Some(std::borrow::Cow::Borrowed(&self.plan))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        state.create_physical_plan(&self.plan).await
    }
}

/// Which bound of a window a marker stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edge {
    /// `window_start`
    Start,
    /// `window_end`
    End,
}

impl Edge {
    /// The column's name in SQL.
    pub fn column(self) -> &'static str {
        match self {
            Edge::Start => "window_start",
            Edge::End => "window_end",
        }
    }
}

/// The marker: the start of the pane that holds a time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PaneFunction {
    /// Which column it stands for.
    pub edge: Edge,
    size_ns: i64,
    slide_ns: i64,
    signature: Signature,
}

impl PaneFunction {
    fn new(edge: Edge, spec: WindowSpec) -> Self {
        // Volatile would stop projections from being merged; immutable is what it is.
        let signature = Signature::any(1, Volatility::Immutable);
        Self { edge, size_ns: spec.size_ns, slide_ns: spec.slide_ns, signature }
    }

    /// The window that it belongs to.
    pub fn spec(&self) -> WindowSpec {
        WindowSpec { size_ns: self.size_ns, slide_ns: self.slide_ns }
    }
}

impl ScalarUDFImpl for PaneFunction {
    fn name(&self) -> &str {
        match self.edge {
            Edge::Start => "falaj_window_start",
            Edge::End => "falaj_window_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Nanosecond, None))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(times) = times.first().and_then(|array| array.as_primitive_opt::<TimestampNanosecondType>()) else {
            return plan_err!("the time column of a window must be a TIMESTAMP");
        };
        let pane_ns = self.spec().pane_ns();
        let starts: TimestampNanosecondArray = times.unary(|at| at.saturating_sub(at.rem_euclid(pane_ns)));
        let starts: ArrayRef = Arc::new(starts);
        Ok(ColumnarValue::Array(starts))
    }
}
