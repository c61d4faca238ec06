//! Bars on the terminal, and log lines that do not tear them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::LazyLock;
use std::time::Duration;

use chrono::DateTime;
use indicatif::{HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use crate::status::{BackfillSnapshot, BackfillStep, Status};

/// How often bars are looked after.
const TICK: Duration = Duration::from_millis(250);
/// A copy that is done sooner has no bar.
const SHOWN_FROM_ROWS: u64 = 100_000;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Standard error for log lines: what bars there are step aside for each of them.
#[derive(Debug, Default)]
pub struct BesideBars;

impl Write for BesideBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Shows how far the copies of tables' rows are, as long as it is polled. Nothing is drawn where there is no terminal.
pub async fn show_copies(status: Status) {
    let mut bars: HashMap<String, ProgressBar> = HashMap::new();
    loop {
        tokio::time::sleep(TICK).await;
        for copy in status.snapshot().captures.into_iter().flat_map(|capture| capture.copies) {
            if copy.done {
                bars.remove(&copy.table).inspect(ProgressBar::finish_and_clear);
            } else if copy.rows_estimate.max(copy.rows) >= SHOWN_FROM_ROWS {
                let bar = bars.entry(copy.table.clone()).or_insert_with(|| BARS.add(bar(&copy.table)));
                bar.set_length(copy.rows_estimate.max(copy.rows));
                bar.set_position(copy.rows);
            }
        }
    }
}

/// Shows how far the lanes of a backfill are, as long as it is polled.
pub async fn show_backfills(status: Status) {
    let mut bars: HashMap<String, ProgressBar> = HashMap::new();
    let template = "{prefix} {bar:30} {percent} %, {msg}";
    loop {
        tokio::time::sleep(TICK).await;
        for backfill in status.snapshot().backfills {
            let bar = bars.entry(backfill.lane.clone()).or_insert_with(|| {
                let bar = BARS.add(ProgressBar::new(0).with_prefix(backfill.lane.clone()));
                ProgressStyle::with_template(template).map_or(bar.clone(), |style| bar.with_style(style))
            });
            bar.set_length(backfill.total);
            bar.set_position(backfill.total.saturating_sub(backfill.left));
            bar.set_message(words(&backfill));
        }
    }
}

fn words(backfill: &BackfillSnapshot) -> String {
    match backfill.step {
        BackfillStep::Starting => "starting".to_string(),
        BackfillStep::HandingOver => "handing over".to_string(),
        BackfillStep::Done => "done".to_string(),
        BackfillStep::Stopped => "stopped".to_string(),
        BackfillStep::Reading => {
            let reached = backfill.event_time_ns.map(DateTime::from_timestamp_nanos);
            let reached = reached.map_or(String::new(), |at| format!(", at {}", at.format("%Y-%m-%d %H:%M:%S")));
            let left = backfill.seconds_left.map(|seconds| HumanDuration(Duration::from_secs_f64(seconds.min(1e9))));
            let left = left.map_or(String::new(), |left| format!(", {left} left"));
            format!("{} records/s{reached}{left}", HumanCount(backfill.records_per_second as u64))
        }
    }
}

fn bar(table: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(table.to_string());
    match ProgressStyle::with_template("{prefix} {bar:30} {human_pos} of some {human_len} rows, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
