//! `falaj.memory_limit` on real Kafka: a state that is too large stops its own lane only, and a sink that stands still makes the
//! others wait for nothing and the process no larger.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use chrono::DateTime;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::found;
use crate::support::falaj::Falaj;
use crate::support::kafka::Record;
use crate::support::project::{Project, lane, memory, wait_until};

const PARTITIONS: usize = 2;
const LIMIT_BYTES: u64 = 64 << 20;
/// What the process is beside what is accounted for: itself, stacks, librdkafka's and the allocator's spare room, copies under way.
const BESIDE_BYTES: u64 = 160 << 20;
const FROM_TIME_MS: i64 = 1_767_225_600_000; // 2026-01-01
const WATERMARK_DELAY_MS: i64 = 5_000;
const MINUTE_MS: i64 = 60_000;
const KINDS: usize = 7;

const SETTINGS: &str = "SET falaj.listen = '127.0.0.1:0'; SET falaj.memory_limit = '64MiB';";

const TABLES: &str = "
CREATE EXTERNAL TABLE users (window_end TIMESTAMP, user_id VARCHAR, events BIGINT) STORED AS JSON LOCATION 'data/users/';
CREATE EXTERNAL TABLE kinds (window_end TIMESTAMP, kind VARCHAR, events BIGINT) STORED AS JSON LOCATION 'data/kinds/';
CREATE EXTERNAL TABLE rows_of_all (id BIGINT, user_id VARCHAR, kind VARCHAR) STORED AS PARQUET LOCATION 'data/rows/'
OPTIONS ('roll.interval' '2s');
CREATE EXTERNAL TABLE receiver (id BIGINT, user_id VARCHAR, kind VARCHAR) STORED AS HTTP LOCATION '${env:PARTNER_URL:-http://unset}'
OPTIONS ('timeout' '60s');";

const USERS: &str = "INSERT INTO users SELECT window_end, user_id, count(*) FROM tumble(events, at, INTERVAL '1 day')
GROUP BY window_start, window_end, user_id;";

const KINDS_OF_MINUTE: &str = "INSERT INTO kinds SELECT window_end, kind, count(*) FROM tumble(events, at, INTERVAL '1 minute')
GROUP BY window_start, window_end, kind;";

/// A project with `count` events, a millisecond apart, each of another user, whose id has `width` digits. Nothing of the shipped
/// queries is in it.
async fn project(count: usize, width: usize) -> Project {
    let project = Project::new(PARTITIONS as i32).await;
    project.remove(&["lookups", "sinks", "enriched", "bigquery", "partner", "top_content", "top_content_seconds"]);
    let source = format!(
        "CREATE UNBOUNDED EXTERNAL TABLE events (id BIGINT, user_id VARCHAR, kind VARCHAR, at TIMESTAMP) STORED AS KAFKA
         LOCATION '{}' OPTIONS ('brokers' '${{env:KAFKA_BROKERS}}', 'format' 'json', 'watermark.column' 'at');",
        project.name
    );
    project.write("sources", &source);
    project.write("settings", SETTINGS);
    project.write("tables", TABLES);
    for id in 0..count {
        let at = DateTime::from_timestamp_millis(FROM_TIME_MS + id as i64).unwrap().to_rfc3339();
        let kind = id % KINDS;
        let payload = format!(r#"{{"id":{id},"user_id":"{id:0>width$}","kind":"kind {kind}","at":"{at}"}}"#);
        project.topic.send((id % PARTITIONS) as i32, &Record::of(payload));
    }
    project.topic.flush();
    project
}

/// How many events of each kind are in each minute that the watermark has passed.
fn kinds_expected(count: usize) -> BTreeMap<(i64, String), i64> {
    let mut expected = BTreeMap::new();
    // The slower partition holds the watermark.
    let watermark_ms = FROM_TIME_MS + (count - PARTITIONS) as i64 - WATERMARK_DELAY_MS;
    for id in 0..count {
        let at_ms = FROM_TIME_MS + id as i64;
        let end_ms = at_ms - at_ms.rem_euclid(MINUTE_MS) + MINUTE_MS;
        if end_ms <= watermark_ms {
            *expected.entry((end_ms, format!("kind {}", id % KINDS))).or_default() += 1;
        }
    }
    expected
}

fn kinds_found(project: &Project) -> BTreeMap<(i64, String), i64> {
    #[derive(Deserialize)]
    struct Window {
        #[serde(deserialize_with = "found::time")]
        window_end: i64,
        kind: String,
        events: i64,
    }
    let mut kinds = BTreeMap::new();
    for window in found::files(&project.path("data/kinds"), "json").iter().flat_map(|path| found::json::<Window>(path)) {
        assert_eq!(kinds.insert((window.window_end, window.kind), window.events), None, "a window is final once");
    }
    kinds
}

#[tokio::test]
async fn a_state_larger_than_the_limit_stops_its_lane_with_a_sentence_and_no_other() {
    // Their users alone are 80 MB, and stand in one pane.
    const EVENTS: usize = 200_000;
    let project = project(EVENTS, 400).await;
    project.write("users", USERS);
    project.write("kinds", KINDS_OF_MINUTE);
    let (status, said) = Falaj::start(&mut project.command(&["run", "queries", "--until", "latest", "--no-web"])).end();
    assert_eq!(status.code(), Some(1), "{said}");
    let sentence = said.lines().last().unwrap();
    eprintln!("{sentence}");
    assert!(sentence.starts_with("falaj: lane 'users' stopped: out of memory: lane 'users' needs "), "{said}");
    for word in ["falaj.memory_limit is 64 MiB", "(lane 'users' ", "raise the limit, or let it hold less"] {
        assert!(sentence.contains(word), "no {word}:\n{said}");
    }
    assert!(!said.contains("lane 'kinds' stopped"), "{said}");
    found::assert_same("kinds", &kinds_expected(EVENTS), &kinds_found(&project));
    assert_eq!(found::files(&project.path("data/users"), "json").len(), 0);
    project.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_sink_that_stands_still_memory_stays_within_its_bound_and_nothing_is_lost() {
    const EVENTS: usize = 600_000;
    let project = project(EVENTS, 100).await;
    project.write("kinds", KINDS_OF_MINUTE);
    project.write("rows", "INSERT INTO rows_of_all SELECT id, user_id, kind FROM events;");
    project.write("slow", "INSERT INTO receiver SELECT id, user_id, kind FROM events;");
    let receiver = Receiver::start().await;

    let (falaj, page) = project.run(&receiver.url, &[]);
    // The receiver answers nothing before the other lanes have read everything past it.
    for name in ["kinds", "rows"] {
        wait_until(name, async || lane(&page, name).await["records"] == EVENTS).await;
    }
    assert_ne!(lane(&page, "slow").await["records"], EVENTS);
    receiver.open.send(true).unwrap();
    wait_until("slow", async || lane(&page, "slow").await["records"] == EVENTS).await;
    let accounted = memory(&page).await;
    let peak = falaj.peak_memory_bytes();
    eprintln!("{} MB at most beside a limit of {} MB; accounted in the end: {accounted}", peak >> 20, LIMIT_BYTES >> 20);
    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");

    assert!(peak < LIMIT_BYTES + BESIDE_BYTES, "{} MB", peak >> 20);
    assert_eq!(accounted["limit_bytes"], LIMIT_BYTES);
    let sum: u64 = accounted["holders"].as_array().unwrap().iter().map(|holder| holder["bytes"].as_u64().unwrap()).sum();
    assert!(0 < sum && accounted["used_bytes"].as_u64().unwrap() <= LIMIT_BYTES, "{accounted}");
    found::assert_same("kinds", &kinds_expected(EVENTS), &kinds_found(&project));
    assert!(receiver.ids().into_iter().eq(0..EVENTS as i64), "each row is received once");
    let mut ids: Vec<i64> = Vec::new();
    for path in found::files(&project.path("data/rows"), "parquet") {
        ids.extend(found::parquet(&path).map(|columns| found::long(&columns[0].1).unwrap()));
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..EVENTS as i64), "each row is in Parquet once");
    project.finish().await;
}

/// Takes rows, but answers only once it is open. A repeated key counts once.
struct Receiver {
    url: String,
    open: watch::Sender<bool>,
    taken: Arc<Mutex<(HashSet<String>, Vec<i64>)>>,
}

impl Receiver {
    async fn start() -> Self {
        let (open, opened) = watch::channel(false);
        let taken: Arc<Mutex<(HashSet<String>, Vec<i64>)>> = Arc::default();
        let app = Router::new().route("/", post(Self::take)).with_state((Arc::clone(&taken), opened));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, open, taken }
    }

    #[allow(clippy::type_complexity, reason = "axum takes the state as it was given")]
    async fn take(
        State((taken, mut opened)): State<(Arc<Mutex<(HashSet<String>, Vec<i64>)>>, watch::Receiver<bool>)>,
        headers: HeaderMap,
        Json(rows): Json<Vec<Value>>,
    ) {
        opened.wait_for(|open| *open).await.unwrap();
        let mut taken = taken.lock();
        if taken.0.insert(headers["idempotency-key"].to_str().unwrap().to_string()) {
            taken.1.extend(rows.iter().map(|row| row["id"].as_i64().unwrap()));
        }
    }

    /// Of all rows, sorted.
    fn ids(&self) -> Vec<i64> {
        let mut ids = self.taken.lock().1.clone();
        ids.sort_unstable();
        ids
    }
}
