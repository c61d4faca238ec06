//! `falaj status`: what a running falaj says of itself, from another terminal. It asks the page of that process.

use std::time::Duration;

use clap::Args;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};

/// The page answers from counters; whoever takes longer is no falaj, or stands still.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A status of a thousand lanes is a tenth of this.
const BODY_BYTES_MAX: usize = 16 << 20;

/// What `falaj status` takes.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the page of the process is
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Print all that the process says, as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the status of a running process. The error says that a lane has stopped, or that nobody answers.
pub async fn run(args: StatusArgs) -> Result<()> {
    let url = format!("{}/api/v1/status", args.url.trim_end_matches('/'));
    let answer = ask(&url).await?;
    let status = &answer["status"];
    if args.json {
        println!("{answer:#}");
    } else {
        lines(status, Clock::system().now_ns()).iter().for_each(|line| println!("{line}"));
    }
    let stopped = names(status, |lane| lane["state"] == "stopped");
    if stopped.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Unreachable, format!("stopped: {}", stopped.join(", "))))
}

async fn ask(url: &str) -> Result<Value> {
    let away = |cause: reqwest::Error| {
        let text = format!("no falaj answers at {url}: start one with 'falaj run', or say where its page is with --url");
        Error::new(Kind::Unreachable, text).because(cause.without_url())
    };
    let client = Client::builder().timeout(TIMEOUT).no_proxy().build().map_err(away)?;
    let mut answer = client.get(url).send().await.map_err(away)?;
    let status = answer.status();
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(away)?.filter(|_| bytes.len() <= BODY_BYTES_MAX) {
        bytes.extend_from_slice(&part);
    }
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(found) if status == StatusCode::OK && found["status"]["lanes"].is_array() => Ok(found),
        _ => Err(Error::new(
            Kind::Usage,
            format!("what answers {status} at {url} is no falaj: say where its page is with --url"),
        )),
    }
}

fn names(status: &Value, is: impl Fn(&Value) -> bool) -> Vec<String> {
    let lanes = status["lanes"].as_array().into_iter().flatten().filter(|lane| is(lane));
    lanes.filter_map(|lane| lane["name"].as_str()).map(|name| format!("lane '{name}'")).collect()
}

/// A table of the lanes, then what is in the way of anything.
fn lines(status: &Value, now_ns: i64) -> Vec<String> {
    let heads = ["lane", "state", "lag", "records", "rows out", "late", "dead", "p50", "p99", "behind"].map(String::from);
    let mut table = vec![heads];
    let mut troubles = Vec::new();
    for lane in status["lanes"].as_array().into_iter().flatten() {
        let name = lane["name"].as_str().unwrap_or_default();
        let count = |figure: &str| lane[figure].as_i64().unwrap_or_default().to_string();
        let took = |figure: &str| match lane[figure].as_u64() {
            None | Some(0) => "-".to_string(),
            Some(us) => duration(Duration::from_micros(us)),
        };
        let behind = lane["watermark_ns"].as_i64().map(|at| now_ns.saturating_sub(at).max(0).unsigned_abs());
        let behind = behind.map_or("-".to_string(), |ns| duration(Duration::from_nanos(ns)));
        let refused = lane["dead"].as_i64().unwrap_or_default() + lane["refused"].as_i64().unwrap_or_default();
        table.push([
            name.to_string(),
            lane["state"].as_str().unwrap_or("-").to_string(),
            count("lag"),
            count("records"),
            count("emitted"),
            count("late"),
            refused.to_string(),
            took("latency_p50_us"),
            took("latency_p99_us"),
            behind,
        ]);
        let trouble = ["error", "waits_for"].iter().find_map(|figure| lane[*figure].as_str());
        troubles.extend(trouble.map(|why| format!("lane '{name}': {why}")));
    }
    for (kind, name) in [("lookups", "name"), ("captures", "slot")] {
        for part in status[kind].as_array().into_iter().flatten() {
            let (name, kind) = (part[name].as_str().unwrap_or_default(), kind.trim_end_matches('s'));
            troubles.extend(part["trouble"].as_str().map(|why| format!("{kind} '{name}': {why}")));
        }
    }
    aligned(&table).into_iter().chain(troubles).collect()
}

/// Texts to the left, figures to the right.
fn aligned(table: &[[String; 10]]) -> Vec<String> {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 10] = std::array::from_fn(width);
    let line = |row: &[String; 10]| {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn lanes_are_a_table_and_what_is_in_the_way_follows() {
        let status = json!({
            "lanes": [
                {"name": "top_content", "state": "running", "lag": 12, "records": 1_000_000, "emitted": 5_200, "late": 3, "dead": 2,
                    "refused": 1, "latency_p50_us": 27_000, "latency_p99_us": 1_450_000, "watermark_ns": 1_000_000_000_i64},
                {"name": "partner", "state": "stopped", "lag": 0, "error": "the disk is full", "latency_p50_us": 0},
            ],
            "lookups": [{"name": "content", "trouble": "Postgres is away"}],
            "captures": [{"slot": "falaj", "trouble": null}],
        });
        let expected = "\
lane         state    lag  records  rows out  late  dead    p50    p99  behind
top_content  running   12  1000000      5200     3     3  27 ms  1.4 s   5.0 s
partner      stopped    0        0         0     0     0      -      -       -
lane 'partner': the disk is full
lookup 'content': Postgres is away";
        assert_eq!(lines(&status, 6_000_000_000).join("\n"), expected);
        assert_eq!(names(&status, |lane| lane["state"] == "stopped"), ["lane 'partner'"]);
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
