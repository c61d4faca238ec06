//! The rows that a table has: alone, and once more when somebody asks for them.

use super::Capture;
use super::killed::Writer;
use crate::support::falaj;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";
const COLUMNS: &str = "id BIGINT, v VARCHAR";

async fn count(capture: &Capture, sql: &str) -> i64 {
    capture.client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_table_with_snapshot_only_gives_the_rows_that_it_has_once_and_makes_no_slot() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, ", 'snapshot' 'only'").await else { return };
    capture.run("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 5000) i").await;
    capture.run_until_latest();
    capture.run("INSERT INTO t VALUES (0, 'later')").await;
    capture.run_until_latest();
    let mut ids: Vec<_> = capture.found().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=5000).collect::<Vec<_>>());
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'", capture.name);
    let publications = format!("SELECT count(*) FROM pg_publication WHERE pubname = '{}'", capture.name);
    assert_eq!((count(&capture, &slots).await, count(&capture, &publications).await), (0, 0));

    // Its changes are wanted now: they begin here.
    capture.declare(COLUMNS, ", 'changes' 'all'");
    capture.run_until_latest();
    capture.run("INSERT INTO t VALUES (-1, 'a change')").await;
    capture.run_until_latest();
    let last = capture.found().split_off(5000);
    assert_eq!(last, [serde_json::json!({"id": -1, "v": "a change", "op": "c"})]);
    capture.gone().await;
}

#[tokio::test]
async fn a_tables_rows_come_again_when_they_are_asked_for_though_the_process_is_killed_meanwhile() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, ", 'changes' 'all'").await else { return };
    let mut writer = Writer::new(1);
    let mut falaj = capture.start();
    capture.is_read().await;
    // The writer leaves it alone, so each copy has it.
    capture.run("INSERT INTO t VALUES (0, 'stays')").await;
    for round in 0..4 {
        for _ in 0..5 {
            writer.write(&capture).await;
        }
        let asked = falaj::command(capture.folder.path(), &["capture", "snapshot", "changes", "queries"]).output().unwrap();
        let said = String::from_utf8(asked.stdout).unwrap() + &String::from_utf8(asked.stderr).unwrap();
        assert!(asked.status.success() && said.contains("its rows are asked for"), "{said}");
        writer.write(&capture).await;
        tokio::time::sleep(std::time::Duration::from_millis(150 * round)).await;
        falaj.kill();
        falaj = capture.start();
    }
    writer.write(&capture).await;
    falaj.kill();
    capture.run_until_latest();
    let mut state = std::collections::BTreeMap::new();
    let mut copies = 0;
    for row in capture.found() {
        let (op, id, v) = (row["op"].as_str().unwrap().to_string(), row["id"].as_i64().unwrap(), row["v"].clone());
        match op.as_str() {
            // A read row is what the changes so far, or those between the question and the copy, have made.
            "r" => {
                copies += i32::from(id == 0);
                state.insert(id, v);
            }
            "d" => drop(state.remove(&id)),
            _ => drop(state.insert(id, v)),
        }
    }
    let table: std::collections::BTreeMap<_, _> = capture
        .client
        .query("SELECT id, v FROM t", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get::<_, i64>(0), serde_json::Value::from(row.get::<_, String>(1))))
        .collect();
    assert_eq!(copies, 4, "each time that they were asked for the rows come once");
    assert!(state.iter().all(|(id, v)| table.get(id).is_none_or(|there| there == v)), "a last value differs");
    assert!(table.keys().all(|id| state.contains_key(id)), "a row is missing");
    capture.gone().await;
}

#[tokio::test]
async fn who_asks_for_rows_that_nobody_reads_is_told_so() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, "").await else { return };
    let ask = |table: &str| {
        let done = falaj::command(capture.folder.path(), &["capture", "snapshot", table, "queries"]).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, said) = ask("changed");
    assert!(code == Some(2) && said.contains("no table 'changed' in queries"), "{said}");
    let (code, said) = ask("changes");
    assert!(code == Some(1) && said.contains("start falaj first"), "{said}");
    capture.declare(COLUMNS, ", 'snapshot' 'only'");
    let (code, said) = ask("changes");
    assert!(code == Some(2) && said.contains("copied once"), "{said}");
    capture.gone().await;
}
