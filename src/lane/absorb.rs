//! How rows come into panes: judged by the intent's times, the good ones absorbed, the others dead letters.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, BooleanArray, TimestampNanosecondArray};
use arrow::datatypes::TimestampNanosecondType;

use super::LaneParts;
use super::epoch::Taken;
use super::rows::{input_of, own_error, run_rows};
use super::windowed::Windowed;
use crate::batch::{DeadLetter, Segment, Stage};
use crate::error::{Error, Kind, Result};
use crate::query::plan::Windows;
use crate::window::state::{last_column_offsets, time_bounds};

impl Windowed {
    /// Judges a segment's rows by the intent's times and absorbs the good ones.
    #[allow(clippy::too_many_arguments, reason = "all of them belong to one epoch, which has no name of its own")]
    pub(super) async fn absorb(
        &mut self,
        parts: &LaneParts,
        windows: &Windows,
        segment: &Segment,
        watermark: Option<i64>,
        now_ns: i64,
        taken: &mut Taken,
        touched: &mut BTreeSet<i64>,
    ) -> Result<()> {
        taken.add(segment);
        let (segment, others) = segment.for_lane(&parts.plan.name)?;
        let segment = segment.as_ref();
        taken.filtered += others;
        if segment.rows.num_rows() == 0 {
            return Ok(());
        }
        let times = times_of(windows, segment)?;
        let earliest = watermark.map_or(i64::MIN, |watermark| self.spec().late_before(watermark));
        let latest = self.time.latest_allowed(now_ns);
        let (bounds, nulls) = time_bounds(times);
        let all_good = !nulls && bounds.is_some_and(|(least, greatest)| least >= earliest && greatest <= latest);
        let mut good = segment.clone();
        if !all_good {
            let keep: BooleanArray = times.iter().map(|at| Some(at.is_some_and(|at| earliest <= at && at <= latest))).collect();
            let bad = segment.filter(&arrow::compute::not(&keep)?)?;
            self.refuse(parts, windows, &bad, earliest, taken).await?;
            good = segment.filter(&keep)?;
        }
        let rows = good.rows.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let times = times_of(windows, &good)?;
        if let Some(greatest) = arrow::compute::max(times) {
            self.time.absorb(segment.span.partition, greatest, now_ns);
            taken.event_ns = taken.event_ns.max(Some(greatest));
        }
        if self.shown.is_some() {
            touched.extend(times.values().iter().map(|at| self.spec().pane_start(*at)));
        }
        self.absorb_good(windows, good, taken).await?;
        self.account()
    }

    /// Absorbs again those rows of a segment that a window holds which is not final yet, whatever they were judged when they came.
    pub(super) async fn absorb_needed(
        &mut self,
        parts: &LaneParts,
        windows: &Windows,
        segment: &Segment,
        now_ns: i64,
    ) -> Result<()> {
        let (segment, _) = segment.for_lane(&parts.plan.name)?;
        if segment.rows.num_rows() == 0 {
            return Ok(());
        }
        let earliest = self.judged_by(&parts.emit).map_or(i64::MIN, |watermark| self.spec().late_before(watermark));
        let latest = self.time.latest_allowed(now_ns);
        let times = times_of(windows, &segment)?;
        let keep: BooleanArray = times.iter().map(|at| Some(at.is_some_and(|at| earliest <= at && at <= latest))).collect();
        match keep.true_count() {
            0 => Ok(()),
            _ => self.absorb_good(windows, segment.filter(&keep)?, &mut Taken::default()).await,
        }
    }

    async fn absorb_good(&mut self, windows: &Windows, good: Segment, taken: &mut Taken) -> Result<()> {
        // Halves of what SQL failed for, until the bad row stands alone.
        let mut waiting = vec![good];
        while let Some(segment) = waiting.pop() {
            let rows = segment.rows.num_rows();
            match self.state.absorb(input_of(&segment, &windows.input)?).await {
                Ok(()) => taken.used += rows as u64,
                Err(error) => {
                    if let Some(ours) = own_error(&error) {
                        return Err(ours);
                    }
                    let (partition, offset) = (segment.span.partition, segment.offsets.value(0));
                    if rows == 1 {
                        let message = error.strip_backtrace();
                        taken.letters.push(DeadLetter {
                            partition,
                            offset,
                            stage: Stage::Sql,
                            code: "evaluation",
                            message,
                            schema_id: None,
                        });
                        continue;
                    }
                    waiting.push(part(&segment, rows / 2, rows - rows / 2));
                    waiting.push(part(&segment, 0, rows / 2));
                }
            }
        }
        Ok(())
    }

    /// Late, far ahead, or without a time: dead letters, but only of rows that the query would have used.
    async fn refuse(
        &self,
        parts: &LaneParts,
        windows: &Windows,
        bad: &Segment,
        earliest: i64,
        taken: &mut Taken,
    ) -> Result<()> {
        let partition = bad.span.partition;
        let input = input_of(bad, &windows.used.input)?;
        let before = taken.letters.len();
        let used = run_rows(&windows.used, input, partition, &mut taken.letters).await?;
        let used: BTreeSet<i64> = used.iter().flat_map(last_column_offsets).collect();
        let times = bad
            .rows
            .column_by_name(&windows.time_column)
            .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
        let Some(times) = times else { return Ok(()) };
        for (row, &offset) in bad.offsets.values().iter().enumerate().filter(|(_, offset)| used.contains(offset)) {
            let (code, message) = if times.is_null(row) {
                ("no_time", format!("'{}' is NULL, so the row belongs to no window", windows.time_column))
            } else if times.value(row) < earliest {
                ("late", "every window that holds the row is final".to_string())
            } else {
                (
                    "ahead",
                    format!(
                        "the event time lies further ahead than 'watermark.max_ahead' of '{}' allows",
                        parts.plan.source.name
                    ),
                )
            };
            taken.letters.push(DeadLetter { partition, offset, stage: Stage::Late, code, message, schema_id: None });
        }
        taken.filtered += (bad.rows.num_rows() - (taken.letters.len() - before)) as u64;
        Ok(())
    }
}

fn times_of<'s>(windows: &Windows, segment: &'s Segment) -> Result<&'s TimestampNanosecondArray> {
    let missing = || Error::new(Kind::Bug, format!("the time column '{}' was not decoded", windows.time_column));
    let column = segment.rows.column_by_name(&windows.time_column).ok_or_else(missing)?;
    column.as_primitive_opt::<TimestampNanosecondType>().ok_or_else(missing)
}

fn part(segment: &Segment, from: usize, length: usize) -> Segment {
    Segment { rows: segment.rows.slice(from, length), offsets: segment.offsets.slice(from, length), ..segment.clone() }
}
