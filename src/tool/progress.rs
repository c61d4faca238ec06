//! Bars on the terminal, and log lines that do not tear them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::status::Status;

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

fn bar(table: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(table.to_string());
    match ProgressStyle::with_template("{prefix} {bar:30} {human_pos} of some {human_len} rows, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
