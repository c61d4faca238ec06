//! A backfill into each kind of sink: hashes, windows that are final, HTTP and Kafka.

use std::collections::{BTreeMap, BTreeSet};

use super::{backfill, edit, new_rows, project};
use crate::end_to_end::oracle::{Oracle, Row};
use crate::end_to_end::{CONTENTS, SEED, events, found, send, windows};
use crate::support::kafka;
use crate::support::project::Project;
use crate::support::receiver::Receiver;

use falaj::tool::generate::Contents;

const EVENTS: usize = 12_000;
/// The events until well before midnight.
const FIRST: usize = EVENTS / 2;

const BY_DEVICE: &str = "
CREATE EXTERNAL TABLE by_device (device VARCHAR, events BIGINT)
STORED AS REDIS LOCATION '{key}' OPTIONS ('url' '${env:REDIS_URL}', 'type' 'hash', 'key' 'device');";
const BY_DEVICE_LANE: &str = "INSERT INTO by_device SELECT device, count(*) FROM tumble(enriched, event_ts, INTERVAL '1 day') GROUP BY window_start, window_end, device;";

#[tokio::test]
async fn a_hash_and_final_windows_are_the_new_querys_over_all_of_history() {
    let project = project().await;
    windows::write_queries(&project);
    project.remove(&["bigquery", "top_content", "top_content_seconds"]);
    project.write("by_device_table", &BY_DEVICE.replace("{key}", &project.board_key("by_device")));
    let shipped = "FROM tumble(enriched, event_ts";
    project.write("by_device", &BY_DEVICE_LANE.replace("count(*)", "count(*) + 1000"));
    let of_content = std::fs::read_to_string(project.path("queries/of_content.sql")).unwrap();
    // At first the windows count something else.
    assert!(of_content.contains("enriched"));
    project.write("of_content", &of_content.replace("(enriched,", "(few,"));
    project.write("few", "CREATE VIEW few AS SELECT * FROM enriched WHERE event_type = 'play';");
    let all = events(2 * EVENTS);
    send(&project, &all[..FIRST]);
    project.run_until_latest("http://unused");
    let before = devices(&project).await;
    assert!(before.values().any(|count| *count > 1000), "{before:?}");

    project.write("of_content", &of_content);
    project.write("by_device", BY_DEVICE_LANE);
    assert!(BY_DEVICE_LANE.contains(shipped));
    backfill(&project, &[]);
    project.run_until_latest("http://unused");
    assert_eq!(devices(&project).await, expected_devices(&all[..FIRST]), "without a new row every row is told anew");
    send(&project, &all[FIRST..]);
    project.run_until_latest("http://unused");
    let oracle = Oracle::new(&all, &Contents::new(CONTENTS, SEED));
    assert_eq!(devices(&project).await, expected_devices(&all));
    assert!(windows::sixty_panes_are_exact(&project, &oracle) > 10);
    project.finish().await;
}

/// The newest day's events of each device. All shipped events lie on two days.
fn expected_devices(events: &[(i32, falaj::tool::generate::Event)]) -> BTreeMap<String, i64> {
    let day = |row: &Row| row.event_ts / 86_400_000;
    let rows = Oracle::new(events, &Contents::new(CONTENTS, SEED)).rows;
    let mut devices: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for row in &rows {
        let (last, count) = devices.entry(row.device.clone()).or_default();
        if day(row) > *last {
            (*last, *count) = (day(row), 0);
        }
        *count += i64::from(day(row) == *last);
    }
    devices.into_iter().map(|(device, (_, count))| (device, count)).collect()
}

async fn devices(project: &Project) -> BTreeMap<String, i64> {
    let mut redis = project.redis().await;
    let prefix = format!("{}:", project.board_key("by_device"));
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}*")).query_async(&mut redis).await.unwrap();
    let mut found = BTreeMap::new();
    for key in keys.iter().filter(|key| !key.contains('{')) {
        let count = redis::cmd("HGET").arg(key).arg("events").query_async(&mut redis).await.unwrap();
        found.insert(key[prefix.len()..].to_string(), count);
    }
    found
}

#[tokio::test]
async fn http_and_kafka_get_every_row_a_second_time_if_that_is_asked_for() {
    let project = Project::new(crate::end_to_end::PARTITIONS).await;
    project.remove(&["bigquery", "top_content", "top_content_seconds"]);
    project.fill_content(CONTENTS, SEED);
    let topic = format!("{}_plays", project.name);
    let table = "CREATE EXTERNAL TABLE plays (id BIGINT, title VARCHAR) STORED AS KAFKA LOCATION '{topic}'
      OPTIONS ('brokers' '${env:KAFKA_BROKERS}', 'partitions' '1');";
    project.write("plays_table", &table.replace("{topic}", &topic));
    project.write("plays", "INSERT INTO plays SELECT id, title FROM enriched;");
    let receiver = Receiver::start(project.path("received"));
    let all = events(EVENTS);
    send(&project, &all[..EVENTS / 2]);
    project.run_until_latest(&receiver.url);

    edit(&project);
    let mut command = project.command(&["backfill", "queries", "--no-web"]);
    let refused = command.env("PARTNER_URL", &receiver.url).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("lane 'partner' would send every row a second time, with the same _id; --send-again lets it"),
        "{said}"
    );
    let done = command.arg("--send-again").output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    send(&project, &all[EVENTS / 2..]);
    project.run_until_latest(&receiver.url);

    // By `_id` the last one of each counts.
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for line in receiver.rows() {
        let mut row: Row = serde_json::from_str(&line).unwrap();
        rows.insert(row.row_id.take().unwrap(), row);
    }
    found::assert_same("HTTP", &new_rows(&all), &rows.into_values().map(|row| (row.id, row)).collect());
    assert_eq!(receiver.counts().await["key_conflicts"], 0);
    let mut times: BTreeMap<i64, BTreeSet<Option<String>>> = BTreeMap::new();
    for record in kafka::committed(&project.brokers, &topic) {
        let row: serde_json::Value = serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap();
        let title = row["title"].as_str().map(str::to_string);
        assert!(times.entry(row["id"].as_i64().unwrap()).or_default().insert(title.clone()) || title.is_none(), "twice: {row}");
    }
    let expected: BTreeMap<i64, BTreeSet<Option<String>>> = new_rows(&all)
        .into_values()
        .map(|row| {
            let is_first_half = row.id <= all[EVENTS / 2 - 1].1.id as i64;
            let old = row.title.as_ref().map(|title| title.trim_start_matches("new ").to_string());
            (row.id, BTreeSet::from_iter([row.title].into_iter().chain(is_first_half.then_some(old))))
        })
        .collect();
    found::assert_same("Kafka", &expected, &times);
    kafka::remove(&project.brokers, &topic).await;
    project.finish().await;
}
