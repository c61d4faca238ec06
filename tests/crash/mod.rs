//! Every failpoint × every sink: the process kills itself there, is started again, and in the end nothing is lost or doubled.
//!
//! One project with a lane for each kind of sink. Each case adds some events, runs until it dies at its place, and leaves the rest to
//! the next case, so that every start is a recovery. After the cases of a lane everything is compared (I1–I4, I6, I12 of a run that
//! was killed some hundred times in all).

mod handover;
mod replaced;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use falaj::tool::generate::{Contents, Event};

use crate::end_to_end::oracle::{Oracle, Row};
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, boards, events, found, send, windows};
use crate::support::falaj::Falaj;
use crate::support::kafka::{self, Record};
use crate::support::project::Project;
use crate::support::receiver::Receiver;

const EVENTS: usize = 80_000;
/// Small epochs, so that each start makes some; snapshots all the time; nothing kept that is not needed.
const SETTINGS: &str = "SET falaj.listen = '127.0.0.1:0'; SET falaj.epoch_bytes_max = 20000;
  SET falaj.snapshot_records = 200; SET falaj.records_kept = 0;";
/// A purge waits for 64 records behind the last one, and a lane that rolls files may write three in a start, so it has some starts.
const STEPS_OF_A_PURGE: usize = 6;
const STARTS_TO_A_PURGE: usize = 30;

/// What every lane comes by, in the order of an epoch. `<name>*2`: the second time after the start.
const EVERYWHERE: &[&str] = &[
    "claimed",
    "record.written",
    "record.linked",
    "intent.before",
    "intent.after",
    "intent.after*2",
    "apply.after",
    "commit.after",
];
/// A claim, an epoch, and a crash in between; then in the recovery from it, twice in a row.
const RECOVERY: &[&str] = &["intent.after", "recovery.loaded", "recovery.absorbed", "recovery.absorbed", "claimed"];
const WINDOWS: &[&str] = &["plan.done", "snapshot.written", "snapshot.recorded", "purge"];
const STAGED: &[&str] = &["stage.middle", "seal.before"];

/// The lanes, each with the places that it comes by beside those of all.
fn lanes() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("top_content", [WINDOWS, RECOVERY, &["redis.staged", "redis.before"]].concat()),
        ("by_device", [WINDOWS, RECOVERY].concat()),
        ("bigquery", [STAGED, &["files.closed", "files.renamed", "purge"]].concat()),
        ("partner", [STAGED, &["http.sent", "http.sent*2", "purge"]].concat()),
        ("of_content", [WINDOWS, RECOVERY, &["seal.before", "files.closed", "files.renamed"]].concat()),
        ("plays", vec!["kafka.sent", "kafka.committed", "kafka.sent*2", "kafka.committed*2"]),
        ("engagement_events.dlq", vec!["letters.after", "dead.sent", "dead.committed"]),
    ]
}

const BY_DEVICE: &str = "
CREATE EXTERNAL TABLE by_device (device VARCHAR, events BIGINT, duration_ms BIGINT)
STORED AS REDIS LOCATION '{key}' OPTIONS ('url' '${env:REDIS_URL}', 'type' 'hash', 'key' 'device');";
const BY_DEVICE_LANE: &str = "
INSERT INTO by_device
SELECT device, count(*), sum(duration_ms) FROM tumble(enriched, event_ts, INTERVAL '1 hour') GROUP BY window_start, window_end, device;";

/// Declared as a table that could be read, too.
const PLAYS: &str = "
CREATE UNBOUNDED EXTERNAL TABLE plays (id BIGINT, content_id VARCHAR, event_ts TIMESTAMP, engagement_pct DOUBLE)
STORED AS KAFKA LOCATION '{topic}' OPTIONS ('brokers' '${env:KAFKA_BROKERS}', 'key' 'content_id', 'partitions' '2');";
const PLAYS_LANE: &str = "INSERT INTO plays SELECT id, content_id, event_ts, engagement_pct FROM enriched;";

#[tokio::test]
async fn a_process_that_dies_at_any_place_of_the_protocol_loses_and_doubles_nothing() {
    let mut run = Run::new().await;
    for (lane, places) in lanes() {
        let all = EVERYWHERE.iter().chain(&places).copied();
        for place in all.filter(|place| comes_by(lane, place)) {
            run.dies_at(lane, place).await;
        }
        run.is_exact(lane).await;
    }
    kafka::remove(&run.project.brokers, &run.plays()).await;
    run.project.finish().await;
}

#[test]
fn every_failpoint_of_the_source_has_a_case() {
    let (mut folders, mut found) = (vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.split("failpoint::hit(").skip(1).filter_map(|after| after.split(';').next());
            let hits = calls.filter_map(|call| call.split('"').nth(1));
            found.extend(hits.map(str::to_string));
        }
    }
    let lanes = lanes();
    let in_bucket = crate::s3::crash::LANES.iter().flat_map(|(_, places)| *places);
    let steps = replaced::STEPS.iter().chain(handover::STEPS).map(|(step, _)| step).chain(handover::OF_THE_LANES);
    let all = lanes
        .iter()
        .flat_map(|(_, places)| places)
        .chain(EVERYWHERE)
        .chain(steps)
        .chain(&crate::capture::killed::PLACES)
        .chain(in_bucket);
    let cases: BTreeSet<String> = all.map(|place| place.split('*').next().unwrap().to_string()).collect();
    // Some names come by way of a field, and die in their cases all the same.
    assert!(found.len() > 20, "{found:?}");
    assert_eq!(found.difference(&cases).collect::<Vec<_>>(), Vec::<&String>::new(), "die there too");
}

/// The lane of undecodable records has no sink, so it comes by fewer places; one that rolls files has one epoch for each start.
fn comes_by(lane: &str, place: &str) -> bool {
    match lane {
        "engagement_events.dlq" => !matches!(place, "intent.before" | "intent.after*2" | "apply.after" | "commit.after"),
        // Its records are few, so a purge is far.
        "of_content" => !matches!(place, "intent.after*2" | "purge"),
        _ => true,
    }
}

pub(crate) struct Run {
    pub(crate) project: Project,
    pub(crate) receiver: Receiver,
    pub(crate) contents: Contents,
    pub(crate) events: Vec<(i32, Event)>,
    /// How many of them are on the topic.
    pub(crate) sent: usize,
    /// How many records there are no events.
    poison: usize,
    step: usize,
}

impl Run {
    pub(crate) async fn new() -> Self {
        let project = Project::new(PARTITIONS).await;
        project.replace("sinks", "'30s'", "'100ms'");
        windows::write_queries(&project);
        project.remove(&["of_type"]);
        project.write("by_device_table", &BY_DEVICE.replace("{key}", &project.board_key("by_device")));
        project.write("by_device", BY_DEVICE_LANE);
        project.write("plays_table", &PLAYS.replace("{topic}", &format!("{}_plays", project.name)));
        project.write("plays", PLAYS_LANE);
        project.write("settings", SETTINGS);
        project.fill_content(CONTENTS, SEED);
        let cases: usize = lanes().iter().map(|(_, places)| places.len() + EVERYWHERE.len() + STEPS_OF_A_PURGE).sum();
        let receiver = Receiver::start(project.path("received"));
        let contents = Contents::new(CONTENTS, SEED);
        Self { project, receiver, contents, events: events(EVENTS), sent: 0, poison: 0, step: EVENTS / cases }
    }

    /// Some more events, and one record that is none.
    pub(crate) fn produce(&mut self) {
        let more = self.sent..(self.sent + self.step).min(EVENTS);
        self.sent = more.end;
        send(&self.project, &self.events[more]);
        self.produce_poison();
    }

    fn produce_poison(&mut self) {
        self.project.topic.send((self.poison as i32) % PARTITIONS, &Record::of("{\"id\": 1, \"content_id\": "));
        self.project.topic.flush();
        self.poison += 1;
    }

    pub(crate) async fn dies_at(&mut self, lane: &str, place: &str) {
        let (steps, starts) = if place == "purge" { (STEPS_OF_A_PURGE, STARTS_TO_A_PURGE) } else { (1, 1) };
        (0..steps).for_each(|_| self.produce());
        let (name, times) = place.split_once('*').unwrap_or((place, "1"));
        let mut command = self.project.command(&["run", "queries", "--until", "latest", "--no-web"]);
        command.env("PARTNER_URL", &self.receiver.url).env("FALAJ_FAILPOINT", format!("{lane}/{name}/{times}"));
        for start in 1..=starts {
            let (status, said) = Falaj::start(&mut command).end();
            if status.success() && start < starts {
                self.produce_poison();
                continue;
            }
            assert_eq!(status.signal(), Some(9), "{lane} did not come to {place}, or ended before:\n{said}");
            return;
        }
    }

    /// Runs to the end and compares every sink with what plain Rust makes of the events that were sent.
    async fn is_exact(&mut self, after: &str) {
        self.produce();
        self.project.run_until_latest(&self.receiver.url);
        let oracle = Oracle::new(&self.events[..self.sent], &self.contents);
        let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
        eprintln!("after the cases of '{after}': {} starts, {} events", self.poison, self.sent);
        boards::are_exact(&self.project, &oracle).await;
        found::assert_same("Parquet", &expected, &found::enriched(&self.project.path("data/bigquery_output")));
        found::assert_same("HTTP", &expected, &found::received(&self.receiver, &self.project.name).await);
        windows::sixty_panes_are_exact(&self.project, &oracle);
        self.hash_is_exact(&oracle).await;
        self.topic_is_exact(&expected);
        let letters = self.project.topic.letters();
        let places: BTreeSet<_> = letters
            .iter()
            .map(|letter| (letter.header("__connect.errors.partition"), letter.header("__connect.errors.offset")))
            .collect();
        assert_eq!((letters.len(), places.len()), (self.poison, self.poison), "each undecodable record is a dead letter once");
    }

    fn plays(&self) -> String {
        format!("{}_plays", self.project.name)
    }

    /// Whoever reads committed records finds each event once, with its content.
    fn topic_is_exact(&self, expected: &BTreeMap<i64, Row>) {
        let records = kafka::committed(&self.project.brokers, &self.plays());
        let mut found = BTreeMap::new();
        for record in &records {
            let row: serde_json::Value = serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap();
            assert_eq!(record.key.as_deref().unwrap(), row["content_id"].as_str().unwrap().as_bytes(), "{row}");
            let twice = found.insert(row["id"].as_i64().unwrap(), row["engagement_pct"].as_f64());
            assert!(twice.is_none(), "twice: {row}");
        }
        let expected: BTreeMap<i64, Option<f64>> = expected.iter().map(|(id, row)| (*id, row.engagement_pct)).collect();
        assert_eq!(found.len(), expected.len());
        assert_eq!(found, expected);
    }

    /// The hash has, of each device, the last hour.
    async fn hash_is_exact(&self, oracle: &Oracle) {
        let mut expected: BTreeMap<&str, (i64, (i64, i64))> = BTreeMap::new();
        for row in &oracle.rows {
            let hour = row.event_ts / 3_600_000;
            let (last, (events, duration_ms)) = expected.entry(&row.device).or_default();
            if hour > *last {
                (*last, *events, *duration_ms) = (hour, 0, 0);
            }
            if hour == *last {
                *events += 1;
                *duration_ms += row.duration_ms.unwrap_or(0);
            }
        }
        let mut redis = self.project.redis().await;
        for (device, (_, expected)) in expected {
            let key = format!("{}:{device}", self.project.board_key("by_device"));
            let found: BTreeMap<String, i64> = redis::cmd("HGETALL").arg(&key).query_async(&mut redis).await.unwrap();
            assert_eq!((found["events"], found["duration_ms"]), expected, "{key}: {found:?}");
        }
    }
}
