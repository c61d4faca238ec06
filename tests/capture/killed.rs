//! SIGKILL while changes flow: each is on the topic once, in the order of the commits.

use std::collections::BTreeMap;
use std::time::Duration;
#[cfg(feature = "failpoints")]
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::Capture;
#[cfg(feature = "failpoints")]
use super::WAIT;
#[cfg(feature = "failpoints")]
use crate::support::falaj::Falaj;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";
const COLUMNS: &str = "id BIGINT, v VARCHAR";

/// Transactions of 1 to 10 000 rows: inserts, updates and deletes.
pub(super) struct Writer {
    random: Xoshiro256PlusPlus,
    next: i64,
    rows: i64,
}

impl Writer {
    pub(super) fn new(next: i64) -> Self {
        Self { random: Xoshiro256PlusPlus::seed_from_u64(7), next, rows: 0 }
    }

    pub(super) async fn write(&mut self, capture: &Capture) {
        let count = [1, 1, 1, 10, 100, 1000, 10_000][self.random.random_range(0..7)];
        let (next, first) = (self.next, self.random.random_range(1..=self.next));
        let sql = match self.random.random_range(0..10) {
            0..7 => {
                self.next += count;
                format!("INSERT INTO t SELECT i, 'v' || i FROM generate_series({next}, {}) i", next + count - 1)
            }
            7 | 8 => format!("UPDATE t SET v = v || 'u' WHERE id BETWEEN {first} AND {}", first + count),
            _ => format!("DELETE FROM t WHERE id BETWEEN {first} AND {}", first + count / 3),
        };
        capture.run(&sql).await;
        self.rows += count;
    }
}

#[tokio::test]
async fn each_change_is_on_the_topic_once_and_in_order_though_the_process_is_killed_again_and_again() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, ", 'changes' 'all'").await else { return };
    let mut falaj = capture.start();
    capture.is_read().await;
    capture.watch().await;
    let mut writer = Writer::new(1);
    for _ in 0..8 {
        for _ in 0..6 {
            writer.write(&capture).await;
        }
        tokio::time::sleep(Duration::from_millis(writer.random.random_range(0..600))).await;
        falaj.kill();
        falaj = capture.start();
    }
    falaj.kill();
    capture.run_until_latest();
    let found: Vec<(String, i64)> =
        capture.found().iter().map(|row| (row["op"].as_str().unwrap().to_string(), row["id"].as_i64().unwrap())).collect();
    let truth = capture.truth().await;
    assert!(truth.len() > 10_000, "{} changes", truth.len());
    assert_eq!(found.len(), truth.len());
    assert!(found == truth, "the order differs");
    capture.gone().await;
}

#[tokio::test]
async fn a_snapshot_and_the_changes_after_it_have_no_gap_and_no_double() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, ", 'changes' 'all', 'snapshot' 'initial'").await else { return };
    capture.run("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 60000) i").await;
    let mut writer = Writer::new(60_001);
    for _ in 0..6 {
        let falaj = capture.start();
        for _ in 0..4 {
            writer.write(&capture).await;
        }
        tokio::time::sleep(Duration::from_millis(writer.random.random_range(0..400))).await;
        falaj.kill();
    }
    capture.run_until_latest();
    is_the_table(&capture).await;
    let left = std::fs::read_dir(capture.path("data/run/checkpoint/spool")).unwrap().flatten();
    let left = left.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap().flatten());
    let rows: Vec<_> = left.map(|file| file.file_name()).filter(|name| name.to_string_lossy().ends_with(".rows")).collect();
    assert!(rows.is_empty(), "the spool goes when its rows are committed: {rows:?}");
    capture.gone().await;
}

/// What the topic says, change by change, is what the table holds; and no change is one that cannot be.
async fn is_the_table(capture: &Capture) {
    let mut state: BTreeMap<i64, String> = BTreeMap::new();
    for row in capture.found() {
        let (op, id) = (row["op"].as_str().unwrap(), row["id"].as_i64().unwrap());
        let before = match op {
            "d" => state.remove(&id),
            _ => state.insert(id, row["v"].as_str().unwrap().to_string()),
        };
        assert_eq!(before.is_some(), matches!(op, "u" | "d"), "{row} comes twice, or what came before it is missing");
    }
    let rows = capture.client.query("SELECT id, v FROM t", &[]).await.unwrap();
    let table: BTreeMap<i64, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(state.len(), table.len());
    assert!(state == table, "the last values differ");
}

/// The places of a capture, in the order in which a test dies there.
#[cfg(feature = "failpoints")]
pub(crate) const PLACES: [&str; 5] = ["copy.middle", "copy.done", "mark.kept", "mark.kept*3", "mark.kept*2"];

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_process_that_dies_while_it_copies_or_keeps_its_place_begins_there_again() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, ", 'changes' 'all', 'snapshot' 'initial'").await else { return };
    capture.run("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 20000) i").await;
    let mut writer = Writer::new(20_001);
    for place in PLACES {
        let (place, times) = place.split_once('*').unwrap_or((place, "1"));
        let mut command = capture.command(&[]);
        command.env("FALAJ_FAILPOINT", format!("{}.slot/{place}/{times}", capture.name));
        let (mut falaj, deadline) = (Falaj::start(&mut command), Instant::now() + WAIT);
        while falaj.runs() {
            assert!(Instant::now() < deadline, "it does not come to {place}");
            writer.write(&capture).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    capture.run_until_latest();
    is_the_table(&capture).await;
    capture.gone().await;
}
