//! What a windowed lane's sink is to show: final windows, the newest window, or what changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::epoch::Open;
use super::rows::{own_error, to_sink};
use super::windowed::Windowed;
use super::{Emit, LaneParts};
use crate::batch::{Output, RowIds};
use crate::checkpoint::record::Intent;
use crate::error::{Error, Kind, Result};

impl Windowed {
    /// What the sink is to show because of this epoch. A sink that stages gets each window at once, since they can be many.
    pub(super) async fn emit(
        &mut self,
        parts: &LaneParts,
        open: &mut Open,
        intent: &Intent,
        touched: &BTreeSet<i64>,
    ) -> Result<Vec<Output>> {
        match parts.emit {
            Emit::Final => {
                let Some(watermark) = intent.watermark_ns else { return Ok(Vec::new()) };
                let mut outputs = Vec::new();
                for end in self.state.ends(intent.watermark_before_ns.unwrap_or(i64::MIN), watermark) {
                    if let Some(rows) = self.state.result(end).await.map_err(failed)?.filter(|rows| rows.num_rows() > 0) {
                        let rows = to_sink(parts, rows)?;
                        let ids = RowIds::Keys(keys(&parts.plan.name, end, self.key.as_deref(), &rows)?);
                        let output = Output::Rows { rows, ids };
                        if open.sink.stages() { open.sink.write(intent.epoch, output).await? } else { outputs.push(output) }
                    }
                }
                Ok(outputs)
            }
            Emit::Latest => {
                let Some(board_ns) = intent.board_ns else { return Ok(Vec::new()) };
                let rows = self.state.latest(self.spec().first_end(board_ns)).await.map_err(failed)?;
                let rows = rows.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&parts.plan.sink.schema)));
                self.board_is_empty = rows.num_rows() == 0;
                Ok(vec![Output::Board(to_sink(parts, rows)?)])
            }
            Emit::Update { .. } => self.changes(parts, touched).await,
        }
    }

    async fn changes(&mut self, parts: &LaneParts, touched: &BTreeSet<i64>) -> Result<Vec<Output>> {
        let spec = self.spec();
        let mut ends = BTreeSet::new();
        for &pane in touched {
            let mut end = spec.first_end(pane);
            while end <= spec.last_end(pane) {
                ends.insert(end);
                end += spec.slide_ns;
            }
        }
        let watermark = self.time.watermark();
        let mut changes = Vec::new();
        for end in ends {
            let rows = self.state.result(end).await.map_err(failed)?;
            let rows = rows.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&parts.plan.sink.schema)));
            let rows = to_sink(parts, rows)?;
            if let Some(shown) = &mut self.shown {
                changes.push(shown.change(end, rows)?);
            }
        }
        let Some(shown) = &mut self.shown else { return Ok(Vec::new()) };
        let output = shown.output(&changes)?;
        if let Some(watermark) = watermark {
            shown.forget_until(watermark);
        }
        Ok(output.into_iter().collect())
    }

    /// Before the open epoch is redone, `emit 'update'` must know what it had shown: the result of every open window.
    pub(super) async fn remember_shown(&mut self, parts: &LaneParts) -> Result<()> {
        if self.shown.is_none() {
            return Ok(());
        }
        self.changes(parts, &self.open_panes()).await.map(|_| ())
    }

    /// The last pane of each window that is not final.
    pub(super) fn open_panes(&self) -> BTreeSet<i64> {
        let after = self.time.watermark().unwrap_or(i64::MIN);
        self.state.ends(after, i64::MAX).into_iter().map(|end| end - self.spec().pane_ns()).collect()
    }
}

fn failed(error: datafusion::error::DataFusionError) -> Error {
    // The row of no single record that could be put aside.
    let text = "SQL fails for a row of a window; guard it in the query (TRY_CAST, NULLIF) and start again: the state is kept";
    own_error(&error).unwrap_or_else(|| Error::new(Kind::Sql, text).because(error))
}

/// `lane/window end/group key`: stable, so that a receiver can upsert. Without a key every column that is not a measure of
/// floating point stands for it. A '/' in a value is `%2F`, a '%' is `%25`, NULL is a `%` alone.
fn keys(lane: &str, end_ns: i64, key: Option<&[usize]>, rows: &RecordBatch) -> Result<StringArray> {
    let is_key = |index: usize, column: &ArrayRef| match key {
        Some(key) => key.contains(&index),
        None => !column.data_type().is_floating(),
    };
    let mut texts = Vec::new();
    for (_, column) in rows.columns().iter().enumerate().filter(|(index, column)| is_key(*index, column)) {
        texts.push(cast(column, &DataType::Utf8)?);
    }
    let texts: Vec<&StringArray> = texts.iter().map(|column| column.as_string::<i32>()).collect();
    let id = |row: usize| {
        let mut id = format!("{lane}/{end_ns}");
        for column in &texts {
            id.push('/');
            match column.is_null(row) {
                true => id.push('%'),
                false => id.push_str(&column.value(row).replace('%', "%25").replace('/', "%2F")),
            }
        }
        id
    };
    Ok((0..rows.num_rows()).map(|row| Some(id(row))).collect())
}
