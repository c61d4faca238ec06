//! The whole chain, table → WAL → topic → board and files, while falaj is killed and Postgres and Kafka with it. It kills servers that
//! others would miss, so `scripts/chaos chain` runs it, on servers of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use parquet::record::Field;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::Capture;
use crate::end_to_end::found;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, content_id text, at timestamptz NOT NULL DEFAULT now(), v text)";
const COLUMNS: &str = "id BIGINT, content_id VARCHAR, at TIMESTAMP, v VARCHAR";

/// A change's `id`, its letter, and `v`.
type Change = (i64, Option<String>, Option<String>);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn service(name: &str, action: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services");
    let done = Command::new(script).args([name, action]).output().unwrap();
    assert!(done.status.success(), "scripts/services {name} {action}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Transactions of 1 to 10 000 rows, mostly new ones.
struct Writer {
    random: Xoshiro256PlusPlus,
    next: i64,
    rows: u64,
}

impl Writer {
    /// Writes one; whether it was committed before a server died, `test_decoding` knows.
    async fn write(&mut self, capture: &mut Capture) {
        let count = [1, 1, 10, 100, 1000, 10_000][self.random.random_range(0..6)];
        let (next, first) = (self.next, self.random.random_range(1..=self.next));
        let sql = match self.random.random_range(0..10) {
            0..8 => {
                self.next += count;
                format!(
                    "INSERT INTO t SELECT i, 'c' || i % 50, clock_timestamp(), 'v' FROM generate_series({next}, {}) i",
                    next + count - 1
                )
            }
            8 => format!("UPDATE t SET v = v || 'u' WHERE id BETWEEN {first} AND {}", first + count),
            _ => format!("DELETE FROM t WHERE id BETWEEN {first} AND {}", first + count / 3),
        };
        if capture.client.batch_execute(&sql).await.is_err() {
            capture.reconnect().await;
        }
        self.rows += count as u64;
    }
}

fn queries(capture: &Capture) {
    let Capture { url, brokers, name, .. } = capture;
    let redis = std::env::var("REDIS_URL").unwrap();
    capture.write(
        "tables",
        &format!(
            "SET falaj.records_kept = 0;
             CREATE UNBOUNDED EXTERNAL TABLE changes ({COLUMNS}, _op VARCHAR) STORED AS POSTGRES LOCATION '{name}.t'
             OPTIONS ('url' '{url}', 'slot' '{name}', 'publication' '{name}', 'changes' 'all');
             CREATE UNBOUNDED EXTERNAL TABLE topic ({COLUMNS}, op VARCHAR) STORED AS KAFKA LOCATION '{name}'
             OPTIONS ('brokers' '{brokers}', 'partitions' '1', 'watermark.column' 'at', 'watermark.delay' '10m');
             CREATE EXTERNAL TABLE files (id BIGINT, op VARCHAR, v VARCHAR) STORED AS PARQUET LOCATION 'files/'
             OPTIONS ('roll.interval' '1s');
             CREATE EXTERNAL TABLE board (content_id VARCHAR, rows BIGINT) STORED AS REDIS LOCATION '{name}'
             OPTIONS ('url' '{redis}', 'type' 'zset', 'member' 'content_id', 'score' 'rows', 'ttl' '1h');"
        ),
    );
    capture.write("capture", "INSERT INTO topic SELECT id, content_id, at, v, _op FROM changes;");
    capture.write("files_lane", "INSERT INTO files SELECT id, op, v FROM topic;");
    capture.write(
        "board_lane",
        "INSERT INTO board SELECT content_id, count(*) AS rows FROM hop(topic, at, INTERVAL '1 second', INTERVAL '1 hour')
         WHERE op = 'c' GROUP BY window_start, window_end, content_id;",
    );
}

#[tokio::test]
#[ignore = "it kills the servers that it runs on: scripts/chaos chain"]
async fn each_change_is_in_the_topic_once_and_the_board_and_the_files_are_right_whatever_is_killed() {
    let (kills, rows) = (number("FALAJ_CHAIN_KILLS", 20), number("FALAJ_CHAIN_ROWS", 200_000));
    let random = Xoshiro256PlusPlus::seed_from_u64(number("FALAJ_CHAOS_SEED", 1));
    let mut capture = Capture::new(TABLE, COLUMNS, "").await.unwrap();
    queries(&capture);
    let mut falaj = Some(capture.start());
    capture.is_read().await;
    capture.watch().await;
    let mut writer = Writer { random, next: 1, rows: 0 };
    let (began, mut restarts) = (Instant::now(), 0);
    for kill in 1..=kills {
        while writer.rows < rows * kill / kills {
            writer.write(&mut capture).await;
        }
        tokio::time::sleep(Duration::from_millis(writer.random.random_range(0..1500))).await;
        match kill % 5 {
            1 | 3 => {
                // Beside a falaj that lives.
                let name = if kill % 5 == 1 { "postgres" } else { "kafka" };
                service(name, "kill");
                service(name, "start");
                restarts += 1;
                capture.reconnect().await;
                writer.write(&mut capture).await;
                tokio::time::sleep(Duration::from_millis(writer.random.random_range(0..3000))).await;
            }
            _ => {}
        }
        if let Some(falaj) = falaj.take() {
            falaj.kill();
        }
        falaj = Some(capture.start());
    }
    drop(falaj);
    writer.write(&mut capture).await;
    capture.run_until_latest();

    let found: Vec<(String, i64)> =
        capture.found().iter().map(|row| (row["op"].as_str().unwrap().to_string(), row["id"].as_i64().unwrap())).collect();
    let truth = capture.truth().await;
    println!("{} changes, {kills} kills, {restarts} restarts of Postgres and Kafka, {:.0?}", truth.len(), began.elapsed());
    assert_eq!(found.len(), truth.len());
    assert!(found == truth, "the order differs");
    assert!(began.elapsed() < Duration::from_secs(3000), "the board's window of an hour must hold all of it");
    assert_eq!(board(&capture).await, counted(&truth), "the board");
    let (mut files, mut expected) = (files(&capture), with_values(&truth));
    files.sort_unstable();
    expected.sort_unstable();
    assert!(files == expected, "the files: {} rows of {}", files.len(), expected.len());
    capture.gone().await;
}

/// New rows by content.
fn counted(truth: &[(String, i64)]) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for (_, id) in truth.iter().filter(|(op, _)| op == "c") {
        *counts.entry(format!("c{}", id % 50)).or_default() += 1;
    }
    counts
}

async fn board(capture: &Capture) -> BTreeMap<String, i64> {
    let client = redis::Client::open(std::env::var("REDIS_URL").unwrap()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let found: Vec<(String, f64)> =
        redis::cmd("ZRANGE").arg(&capture.name).arg(0).arg(-1).arg("WITHSCORES").query_async(&mut connection).await.unwrap();
    found.into_iter().map(|(member, score)| (member, score as i64)).collect()
}

/// The changes with the value of each: what is left of a deleted row is its key.
fn with_values(truth: &[(String, i64)]) -> Vec<Change> {
    let mut values: BTreeMap<i64, String> = BTreeMap::new();
    let changes = truth.iter().map(|(op, id)| {
        let value = match op.as_str() {
            "c" => Some("v".to_string()),
            "u" => values.get(id).map(|value| format!("{value}u")),
            _ => None,
        };
        match &value {
            Some(value) => drop(values.insert(*id, value.clone())),
            None => drop(values.remove(id)),
        }
        (*id, Some(op.clone()), value)
    });
    changes.collect()
}

fn files(capture: &Capture) -> Vec<Change> {
    let mut rows = Vec::new();
    for path in found::files(&capture.path("files"), "parquet") {
        for columns in found::parquet(&path) {
            let mut row = (0, None, None);
            for (name, field) in columns {
                match (name.as_str(), field) {
                    ("id", Field::Long(id)) => row.0 = id,
                    ("op", Field::Str(op)) => row.1 = Some(op),
                    ("v", Field::Str(value)) => row.2 = Some(value),
                    _ => {}
                }
            }
            rows.push(row);
        }
    }
    rows
}
