//! `falaj dlq` on a real broker: what is mended and replayed counts once, and where it should (I10), whatever dies.

mod purged;
mod replayed;

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::Value;

use crate::end_to_end::found;
use crate::support::falaj::Falaj;
use crate::support::kafka::Record;
use crate::support::project::Project;

/// Two lanes that use every event, and two for which the CAST fails, where `device` is no number; each kind with and without windows.
const LANES: [(&str, &str, &str); 4] = [
    ("rows", "id BIGINT, duration_ms BIGINT", "SELECT id, duration_ms FROM engagement_events"),
    ("numbers", "id BIGINT, device BIGINT", "SELECT id, CAST(device AS BIGINT) FROM engagement_events"),
    (
        "tens",
        "window_end TIMESTAMP, events BIGINT, duration_ms BIGINT",
        "SELECT window_end, count(*), sum(duration_ms) FROM tumble(engagement_events, event_ts, INTERVAL '10 seconds') GROUP BY window_start, window_end",
    ),
    (
        "sums",
        "window_end TIMESTAMP, events BIGINT, devices BIGINT",
        "SELECT window_end, count(*), sum(CAST(device AS BIGINT)) FROM tumble(engagement_events, event_ts, INTERVAL '10 seconds') GROUP BY window_start, window_end",
    ),
];

/// A project with those lanes alone.
struct Scene {
    project: Project,
}

impl Scene {
    async fn new(partitions: i32) -> Self {
        let project = Project::new(partitions).await;
        project.remove(&["lookups", "sinks", "enriched", "bigquery", "partner", "top_content", "top_content_seconds"]);
        for (lane, columns, query) in LANES {
            let options = "OPTIONS ('roll.interval' '100ms', 'on_new_lineage' 'append')";
            let sink = format!("CREATE EXTERNAL TABLE {lane} ({columns}) STORED AS JSON LOCATION 'data/{lane}/' {options};\n");
            project.write(lane, &format!("{sink}INSERT INTO {lane} {query};"));
        }
        Self { project }
    }

    /// Sends records to a partition.
    fn send(&self, partition: i32, payloads: &[String]) {
        let records: Vec<Record> = payloads.iter().map(|payload| Record::of(payload.as_bytes())).collect();
        self.project.topic.produce(partition, &records);
    }

    /// Runs to the log's end.
    fn run(&self) -> String {
        self.project.run_until_latest("http://127.0.0.1:1")
    }

    /// `falaj dlq` with these arguments; it must succeed. What it printed.
    fn dlq(&self, args: &[&str]) -> String {
        let output = self.try_dlq(args, "");
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {out}{err}");
        out
    }

    /// The same with a place to die at; it may fail.
    fn try_dlq(&self, args: &[&str], failpoint: &str) -> Output {
        let args: Vec<&str> = ["dlq"].into_iter().chain(args.iter().copied()).collect();
        self.project.command(&args).env("FALAJ_FAILPOINT", failpoint).output().unwrap()
    }

    /// The rows of a lane.
    fn found(&self, lane: &str) -> Vec<Value> {
        found::files(&self.project.path(&format!("data/{lane}")), "json").iter().flat_map(|path| found::json(path)).collect()
    }

    /// How often each id is there.
    fn ids(&self, lane: &str) -> BTreeMap<i64, usize> {
        let mut ids = BTreeMap::new();
        self.found(lane).iter().for_each(|row| *ids.entry(row["id"].as_i64().unwrap()).or_default() += 1);
        ids
    }

    /// The windows by their end, each once, with the two other columns.
    fn windows(&self, lane: &str, column: &str) -> BTreeMap<String, (i64, i64)> {
        let mut windows = BTreeMap::new();
        for row in self.found(lane) {
            let (end, figures) = (row["window_end"].as_str().unwrap()[11..19].to_string(), (&row["events"], &row[column]));
            let figures = (figures.0.as_i64().unwrap(), figures.1.as_i64().unwrap_or(0));
            assert_eq!(windows.insert(end, figures), None, "twice: {row}");
        }
        windows
    }

    /// The letters that are there, without marks.
    fn letters(&self) -> Vec<Record> {
        let is_letter = |record: &Record| record.headers.iter().any(|(name, _)| name == "falaj.dlq.stage");
        self.project.topic.letters().into_iter().filter(is_letter).collect()
    }
}

/// An event so many seconds after 2026-01-01.
fn event(id: usize, second: usize, device: &str) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!(
        r#"{{"id":{id},"content_id":"a","event_ts":"2026-01-01T00:{minute:02}:{second:02}Z","duration_ms":1000,"device":"{device}"}}"#
    )
}

/// Each id once.
fn once(ids: std::ops::Range<usize>) -> BTreeMap<i64, usize> {
    ids.map(|id| (id as i64, 1)).collect()
}

#[tokio::test]
async fn a_row_of_a_window_that_cannot_be_written_stops_its_lane_with_a_sentence_since_no_record_is_at_fault() {
    let scene = Scene::new(1).await;
    let from = "FROM tumble(engagement_events, event_ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, device";
    scene.project.replace("sums", LANES[3].2, &format!("SELECT window_end, count(*), CAST(device AS BIGINT) {from}"));
    scene.project.replace("tens", LANES[2].2, &format!("SELECT window_end, count(*), NULLIF(count(*), 1) {from}"));
    scene.project.replace("tens", "duration_ms BIGINT", "duration_ms BIGINT NOT NULL");
    scene.send(0, &[event(0, 10, "web"), event(1, 60, "7")]);
    let mut command = scene.project.command(&["run", "queries", "--until", "latest", "--no-web"]);
    let (status, said) = Falaj::start(&mut command).end();
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("lane 'sums' stopped: SQL fails for a row of a window; guard it in the query"), "{said}");
    let null =
        "lane 'tens' stopped: column 'duration_ms' of table 'tens' is declared NOT NULL, and a row of a window has NULL for it";
    assert!(said.contains(null), "{said}");
    // The others go on.
    assert_eq!(scene.ids("rows"), once(0..2));
    scene.project.finish().await;
}
