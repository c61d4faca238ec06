//! `falaj status`: what a running falaj says of itself, from another terminal. It asks the page of that process.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::remote::{Remote, RemoteArgs};
use crate::error::{Error, Kind, Result};
use crate::status::{LaneSnapshot, LaneState, Snapshot};
use crate::web::{Answer, Point};

const HEADS: [&str; 11] = ["lane", "state", "in/s", "out/s", "lag", "late", "dead", "p50", "p95", "p99", "behind"];
const COLUMNS: usize = HEADS.len();

/// What `falaj status` takes.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Print all that the process says, as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the status of a running process. The error says that a lane has stopped, or that nobody answers.
pub async fn run(args: StatusArgs) -> Result<()> {
    let (answer, bytes) = Remote::new(&args.remote)?.ask().await?;
    if args.json {
        println!("{}", String::from_utf8_lossy(&bytes));
    } else {
        lines(&answer).iter().for_each(|line| println!("{line}"));
    }
    let stopped: Vec<String> = answer.status.lanes.iter().filter(|lane| lane.state == LaneState::Stopped).map(named).collect();
    if stopped.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Unreachable, format!("stopped: {}", stopped.join(", "))))
}

fn named(lane: &LaneSnapshot) -> String {
    format!("lane '{}'", lane.name)
}

/// A table of the lanes, then what is in the way of anything. Latency is from the event to the sink, over the last minute.
fn lines(answer: &Answer) -> Vec<String> {
    let Snapshot { lanes, lookups, captures, .. } = &answer.status;
    let mut table = vec![HEADS.map(String::from)];
    table.extend(lanes.iter().map(|lane| row(lane, &answer.points, answer.now_ms)));
    let of_lanes = lanes.iter().filter_map(|lane| Some((named(lane), lane.error.as_ref().or(lane.waits_for.as_ref())?)));
    let of_lookups = lookups.iter().filter_map(|of| Some((format!("lookup '{}'", of.name), of.trouble.as_ref()?)));
    let of_captures = captures.iter().filter_map(|of| Some((format!("capture '{}'", of.slot), of.trouble.as_ref()?)));
    let troubles = of_lanes.chain(of_lookups).chain(of_captures).map(|(name, why)| format!("{name}: {why}"));
    aligned(&table).into_iter().chain(troubles).collect()
}

fn row(lane: &LaneSnapshot, points: &BTreeMap<String, Point>, now_ms: i64) -> [String; COLUMNS] {
    let point = points.get(&lane.name).copied().unwrap_or_default();
    let took = |us: u64| if us == 0 { "-".to_string() } else { duration(Duration::from_micros(us)) };
    let behind = lane.watermark_ns.map(|at| Duration::from_millis((now_ms - at / 1_000_000).max(0).unsigned_abs()));
    let state = match lane.state {
        LaneState::Starting => "starting",
        LaneState::Running => "running",
        LaneState::Done => "done",
        LaneState::Stopped => "stopped",
    };
    [
        lane.name.clone(),
        state.to_string(),
        format!("{:.0}", point.records),
        format!("{:.0}", point.rows),
        lane.lag.max(0).to_string(),
        lane.late.to_string(),
        (lane.dead + lane.refused).to_string(),
        took(lane.event_latency_p50_us),
        took(lane.event_latency_p95_us),
        took(lane.event_latency_p99_us),
        behind.map_or("-".to_string(), duration),
    ]
}

/// Texts to the left, figures to the right.
fn aligned(table: &[[String; COLUMNS]]) -> Vec<String> {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    table.iter().map(line).collect()
}

/// Three digits are enough to judge it by.
fn duration(took: Duration) -> String {
    match took.as_secs() {
        0 if took.as_millis() < 10 => format!("{:.1} ms", took.as_secs_f64() * 1e3),
        0 => format!("{} ms", took.as_millis()),
        seconds @ 1..60 => format!("{}.{} s", seconds, took.subsec_millis() / 100),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::status::Status;

    #[test]
    fn lanes_are_a_table_and_what_is_in_the_way_follows() {
        let status = Status::default();
        let lane = status.lane("top_content");
        lane.set_state(LaneState::Running);
        lane.lag.store(12, Ordering::Relaxed);
        lane.late.store(3, Ordering::Relaxed);
        lane.dead.store(2, Ordering::Relaxed);
        lane.refused.store(1, Ordering::Relaxed);
        lane.watermark_ns.store(1_000_000_000, Ordering::Relaxed);
        lane.record_event_latency(27_000);
        let partner = status.lane("partner");
        partner.set_trouble(Some("the disk is full".to_string()), None);
        partner.set_state(LaneState::Stopped);
        status.lookup("content").set_trouble(Some("Postgres is away".to_string()));
        let point = Point { records: 1_993.4, rows: 870.0, lag: 12, p99_ms: 27.0 };
        let answer = Answer {
            version: "1".to_string(),
            uptime_ms: 1,
            now_ms: 6_000,
            status: status.snapshot(),
            boards: BTreeMap::new(),
            point: 1,
            points: BTreeMap::from([("top_content".to_string(), point)]),
        };
        let expected = "\
lane         state    in/s  out/s  lag  late  dead    p50    p95    p99  behind
partner      stopped     0      0    0     0     0      -      -      -       -
top_content  running  1993    870   12     3     3  27 ms  27 ms  27 ms   5.0 s
lane 'partner': the disk is full
lookup 'content': Postgres is away";
        assert_eq!(lines(&answer).join("\n"), expected);
    }

    #[test]
    fn times_have_some_three_digits() {
        let words =
            [(0.0042, "4.2 ms"), (0.2, "200 ms"), (59.99, "59.9 s"), (61.0, "1 min"), (7_200.0, "2 h"), (2e6, "23 days")];
        for (seconds, word) in words {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), word);
        }
    }
}
