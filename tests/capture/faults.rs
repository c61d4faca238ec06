//! What happens to a slot and a table behind falaj's back is noticed, and told in a sentence.

use std::time::Duration;

use super::Capture;
use crate::support::falaj::{self, Falaj};
use crate::support::kafka;
use crate::support::proxy::Proxy;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (0, 'there before')";
const COLUMNS: &str = "id BIGINT, v VARCHAR";

/// Runs it, which must fail with `code` and these words.
fn fails(capture: &Capture, code: i32, words: &[&str]) {
    let (status, said) = Falaj::start(&mut capture.command(&["--until", "latest"])).end();
    assert_eq!(status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no '{word}' in:\n{said}");
    }
}

#[tokio::test]
async fn a_slot_that_was_dropped_made_again_or_read_by_another_stops_with_what_is_gone() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, "").await else { return };
    capture.run_until_latest();
    capture.run("INSERT INTO t VALUES (1, 'a')").await;
    capture.run_until_latest();
    assert_eq!(capture.found(), [serde_json::json!({"id": 1, "v": "a"})]);

    let slot = &capture.name;
    capture.run("INSERT INTO t VALUES (2, 'b')").await;
    capture.run(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")).await;
    fails(&capture, 1, &["was moved on to", "somebody else reads it"]);

    capture.run(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    fails(&capture, 1, &[&format!("replication slot '{slot}' is gone")]);

    capture.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
    fails(&capture, 1, &["was moved on to", "or it was made again"]);

    capture.run(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    capture.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')")).await;
    fails(&capture, 1, &["is of another plugin or database"]);
    capture.gone().await;
}

#[tokio::test]
async fn what_does_not_fit_the_table_is_refused_before_anything_is_made() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, "").await else { return };
    capture.declare("id BIGINT, vv VARCHAR", "");
    fails(&capture, 78, &["has no column 'vv'; did you mean 'v'?"]);
    capture.declare("id BIGINT, v BIGINT", "");
    fails(&capture, 78, &["column 'v' is text", "does not fit Int64; VARCHAR takes any"]);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
    assert_eq!(capture.client.query_one(slots, &[&capture.name]).await.unwrap().get::<_, i64>(0), 0);
    capture.gone().await;
}

#[tokio::test]
async fn an_added_column_is_null_until_sql_uses_it_and_a_dropped_or_retyped_one_stops_the_lane() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, "").await else { return };
    capture.run_until_latest();
    capture.run("INSERT INTO t VALUES (1, 'a'); ALTER TABLE t ADD COLUMN more int; INSERT INTO t VALUES (2, 'b', 7)").await;
    capture.run_until_latest();
    capture.run("INSERT INTO t VALUES (3, 'c', 8)").await;
    // From here on SQL knows it.
    capture.declare("id BIGINT, v VARCHAR, more BIGINT", "");
    capture.run_until_latest();
    let found: Vec<String> = capture.found().iter().map(ToString::to_string).collect();
    assert_eq!(found, [r#"{"id":1,"v":"a"}"#, r#"{"id":2,"v":"b"}"#, r#"{"id":3,"more":8,"v":"c"}"#]);

    let mut falaj = capture.start();
    capture.is_read().await;
    capture
        .run("INSERT INTO t VALUES (4, 'd', 9); ALTER TABLE t ALTER COLUMN more TYPE text; INSERT INTO t VALUES (5, 'e', 'x')")
        .await;
    falaj.wait_for_line(&["was altered: column 'more' is text now, which does not fit the declared Int64"]);
    assert_eq!(falaj.end().0.code(), Some(78));

    capture.declare("id BIGINT, v VARCHAR, more VARCHAR", "");
    capture.run_until_latest();
    assert_eq!(capture.found().last().unwrap()["more"], "x");
    let mut falaj = capture.start();
    capture.is_read().await;
    capture.run("INSERT INTO t VALUES (6, 'f', 'y'); ALTER TABLE t DROP COLUMN more; INSERT INTO t VALUES (7, 'g')").await;
    falaj.wait_for_line(&["was altered: column 'more' was dropped, but SQL uses it"]);
    assert_eq!(falaj.end().0.code(), Some(78));
    capture.gone().await;
}

#[tokio::test]
async fn values_that_were_not_sent_and_tables_that_were_emptied_are_told() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, v text, n int); ALTER TABLE t ALTER COLUMN v SET STORAGE EXTERNAL";
    let Some(capture) = Capture::new(table, "id BIGINT, n BIGINT, v VARCHAR, _unchanged VARCHAR", ", 'changes' 'all'").await
    else {
        return;
    };
    // The topic's column of that name is an ordinary one.
    capture.run_until_latest();
    capture
        .run("INSERT INTO t VALUES (1, repeat('x', 5000), 1); UPDATE t SET n = 2; ALTER TABLE t REPLICA IDENTITY FULL")
        .await;
    capture.run("UPDATE t SET n = 3; DELETE FROM t; TRUNCATE t").await;
    capture.run_until_latest();
    let shown = |row: &serde_json::Value| {
        let long = row["v"].as_str().map_or(0, str::len);
        (row["op"].as_str().unwrap().to_string(), row["n"].as_i64(), long, row["_unchanged"].as_str().map(str::to_string))
    };
    let found: Vec<_> = capture.found().iter().map(shown).collect();
    let row = |op: &str, n, long, unchanged: Option<&str>| (op.to_string(), n, long, unchanged.map(str::to_string));
    let expected = [
        row("c", Some(1), 5000, None),
        row("u", Some(2), 0, Some("v")),
        row("u", Some(3), 5000, None),
        row("d", Some(3), 5000, None),
        row("t", None, 0, None),
    ];
    assert_eq!(found, expected);
    capture.gone().await;
}

#[tokio::test]
async fn a_value_that_its_column_cannot_hold_is_a_dead_letter_and_its_neighbours_go_on() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz)";
    let Some(capture) = Capture::new(table, "id BIGINT, at TIMESTAMP", "").await else { return };
    capture.run_until_latest();
    capture.run("INSERT INTO t VALUES (1, '2026-01-01'), (2, 'infinity'), (3, '290000-01-01'), (4, '2026-01-02')").await;
    capture.run_until_latest();
    let ids: Vec<_> = capture.found().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [1, 4]);
    let mut letters = String::new();
    let mut folders = vec![capture.path("data/run/dead_letters")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => letters += &std::fs::read_to_string(entry.path()).unwrap(),
            }
        }
    }
    assert_eq!(letters.lines().count(), 2, "{letters}");
    assert!(letters.contains("'infinity'") && letters.contains("\"code\":\"time\""), "{letters}");
    capture.gone().await;
}

#[tokio::test]
async fn a_quiet_table_beside_a_busy_one_does_not_keep_wal() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, "").await else { return };
    let falaj = capture.start();
    capture.is_read().await;
    capture.run("CREATE TABLE busy (id bigint); INSERT INTO busy SELECT generate_series(1, 200000)").await;
    let kept = "SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1";
    let mut least = i64::MAX;
    for _ in 0..400 {
        least = least.min(capture.client.query_one(kept, &[&capture.name]).await.unwrap().get(0));
        if least < 1 << 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(least < 1 << 20, "{least} bytes of WAL are kept");
    falaj.kill();
    capture.gone().await;
}

#[tokio::test]
async fn a_sink_that_stalls_for_longer_than_wal_sender_timeout_loses_nothing_and_keeps_its_connection() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, "").await else { return };
    let Capture { url, brokers, name, .. } = &capture;
    // A server that waits a second only for its reader.
    capture.run(&format!("CREATE ROLE {name} SUPERUSER LOGIN; ALTER ROLE {name} SET wal_sender_timeout = '1s'")).await;
    let (_, place) = url.split_once('@').unwrap();
    let proxy = Proxy::of_kafka(brokers);
    proxy.open();
    capture.write(
        "tables",
        &format!(
            "SET falaj.spool_bytes_max = 1000000;
             CREATE UNBOUNDED EXTERNAL TABLE changes ({COLUMNS}) STORED AS POSTGRES LOCATION '{name}.t'
             OPTIONS ('url' 'postgres://{name}@{place}', 'slot' '{name}', 'publication' '{name}');
             CREATE EXTERNAL TABLE topic ({COLUMNS}) STORED AS KAFKA LOCATION '{name}'
             OPTIONS ('brokers' '{}', 'partitions' '1');",
            proxy.addr()
        ),
    );
    let mut falaj = capture.start();
    falaj.wait_for_line(&["was made at"]);
    let reader = "SELECT min(pid), coalesce((pg_current_wal_lsn() - min(sent_lsn))::bigint, 0) FROM pg_stat_replication WHERE usename = $1";
    let deadline = std::time::Instant::now() + super::WAIT;
    let pid = loop {
        assert!(std::time::Instant::now() < deadline, "nobody reads the slot");
        if let Some(pid) = capture.client.query_one(reader, &[name]).await.unwrap().get::<_, Option<i32>>(0) {
            break pid;
        }
    };
    proxy.cut();
    for first in (1..60_000).step_by(1000) {
        let sql = "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series";
        capture.run(&format!("{sql}({first}, {}) i", first + 999)).await;
    }
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let row = capture.client.query_one(reader, &[name]).await.unwrap();
        assert_eq!(row.get::<_, Option<i32>>(0), Some(pid), "the connection was made again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let left: i64 = capture.client.query_one(reader, &[name]).await.unwrap().get(1);
    assert!(left > 10_000_000, "it did not stall: {left} bytes are not sent");
    proxy.open();
    while capture.found().len() < 60_000 {
        assert!(std::time::Instant::now() < deadline, "{} rows came", capture.found().len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let row = capture.client.query_one(reader, &[name]).await.unwrap();
    assert_eq!(row.get::<_, Option<i32>>(0), Some(pid), "the connection was made again");
    falaj.kill();
    capture.run_until_latest();
    let mut ids: Vec<_> = capture.found().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids, (1..=60_000).collect::<Vec<_>>());
    // The role goes when nobody is connected by it any more.
    let role = name.clone();
    let client = &capture.client;
    client.batch_execute(&format!("ALTER ROLE {role} NOLOGIN")).await.unwrap();
    capture.gone().await;
}

#[tokio::test]
async fn a_lane_that_stands_still_does_not_hold_up_another_table_of_its_slot() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, v text); CREATE TABLE other (id bigint PRIMARY KEY, v text)";
    let Some(capture) = Capture::new(table, COLUMNS, "").await else { return };
    let Capture { url, brokers, name, .. } = &capture;
    let proxy = Proxy::of_kafka(brokers);
    proxy.open();
    let other = format!("{name}.other");
    let declared = |table: &str, topic: &str, brokers: &str| {
        format!(
            "CREATE UNBOUNDED EXTERNAL TABLE {table}_changes ({COLUMNS}) STORED AS POSTGRES LOCATION '{name}.{table}'
             OPTIONS ('url' '{url}', 'slot' '{name}', 'publication' '{name}');
             CREATE EXTERNAL TABLE {table}_topic ({COLUMNS}) STORED AS KAFKA LOCATION '{topic}'
             OPTIONS ('brokers' '{brokers}', 'partitions' '1');"
        )
    };
    capture.write("tables", &(declared("t", name, &proxy.addr().to_string()) + &declared("other", &other, brokers)));
    capture.write("capture", "INSERT INTO t_topic SELECT * FROM t_changes;");
    capture.write("more", "INSERT INTO other_topic SELECT * FROM other_changes;");
    let mut falaj = capture.start();
    falaj.wait_for_line(&["was made at"]);
    capture.run("INSERT INTO t VALUES (0, 'both sinks are open'); INSERT INTO other VALUES (0, '')").await;
    let count = |topic: &str| kafka::committed(brokers, topic).len();
    let deadline = std::time::Instant::now() + super::WAIT;
    let reached = async |topic: &str, rows| {
        while count(topic) < rows {
            assert!(std::time::Instant::now() < deadline, "{} of {rows} rows came to {topic}", count(topic));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    reached(name, 1).await;
    reached(&other, 1).await;
    proxy.cut();
    // More than fits into memory.
    capture.run("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 40000) i").await;
    capture.run("INSERT INTO other SELECT i, 'behind it' FROM generate_series(1, 1000) i").await;
    reached(&other, 1001).await;
    assert_eq!(count(name), 1);
    proxy.open();
    reached(name, 40_001).await;
    let ids: Vec<_> = capture.found().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (0..=40_000).collect::<Vec<_>>());
    falaj.kill();
    kafka::remove(brokers, &other).await;
    capture.gone().await;
}

#[tokio::test]
async fn a_lane_that_fills_a_large_file_gets_more_than_what_fits_into_memory() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, "").await else { return };
    let Capture { url, name, .. } = &capture;
    capture.write(
        "tables",
        &format!(
            "CREATE UNBOUNDED EXTERNAL TABLE changes ({COLUMNS}) STORED AS POSTGRES LOCATION '{name}.t'
             OPTIONS ('url' '{url}', 'slot' '{name}', 'publication' '{name}');
             CREATE EXTERNAL TABLE topic ({COLUMNS}) STORED AS JSON LOCATION 'files/' OPTIONS ('roll.interval' '8s');"
        ),
    );
    let mut falaj = capture.start();
    falaj.wait_for_line(&["was made at"]);
    capture.run("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 60000) i").await;
    let files = || -> Vec<usize> {
        let entries = std::fs::read_dir(capture.path("files")).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| path.is_file());
        files.map(|path| std::fs::read_to_string(path).unwrap().lines().count()).collect()
    };
    let deadline = std::time::Instant::now() + super::WAIT;
    while files().iter().sum::<usize>() < 60_000 {
        assert!(std::time::Instant::now() < deadline, "{:?} rows", files());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // What fits into memory alone would make five.
    assert!(files().len() <= 3, "{:?} rows", files());
    falaj.kill();
    capture.gone().await;
}

#[tokio::test]
async fn capture_show_says_what_is_kept_and_drop_removes_it_once_nobody_reads_it() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, "").await else { return };
    let run = |what: &str| {
        let done = falaj::command(capture.folder.path(), &["capture", what, "queries"]).output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap())
    };
    let name = &capture.name;
    assert!(run("show").1.contains(&format!("{name}: there is no such slot")), "{}", run("show").1);
    let mut running = capture.start();
    running.wait_for_line(&["was made at"]);
    let deadline = std::time::Instant::now() + super::WAIT;
    while !run("show").1.contains("read by process") {
        assert!(std::time::Instant::now() < deadline, "{}", run("show").1);
    }
    let (code, said) = run("drop");
    assert!(code == Some(1) && said.contains("stop falaj first"), "{said}");
    running.terminate();
    assert!(running.end().0.success());
    let (code, said) = run("drop");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("the slot is dropped") && said.contains("the publication is dropped"), "{said}");
    capture.gone().await;
}

#[tokio::test]
async fn until_latest_goes_through_all_lanes_of_a_chain() {
    let Some(capture) = Capture::new(TABLE, COLUMNS, ", 'snapshot' 'initial'").await else { return };
    let Capture { name, brokers, .. } = &capture;
    let topic = |name: &str| {
        format!(
            "CREATE UNBOUNDED EXTERNAL TABLE {name} (id BIGINT, v VARCHAR) STORED AS KAFKA LOCATION '{name}'
             OPTIONS ('brokers' '{brokers}', 'partitions' '1');"
        )
    };
    // By their names the lanes would begin with the last.
    let (first, second) = (format!("{name}_b"), format!("{name}_a"));
    capture.write("first_table", &topic(&first));
    capture.write("second_table", &topic(&second));
    capture.write("files_table", "CREATE EXTERNAL TABLE files (id BIGINT, v VARCHAR) STORED AS JSON LOCATION 'found/';");
    capture.write("capture", &format!("INSERT INTO {first} SELECT * FROM changes;"));
    capture.write("on", &format!("INSERT INTO {second} SELECT * FROM {first};"));
    capture.write("a_last", &format!("INSERT INTO files SELECT * FROM {second};"));
    capture.run("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 999) i").await;
    capture.run_until_latest();
    let folder = std::fs::read_dir(capture.path("found")).unwrap().flatten();
    let texts = folder.filter(|entry| entry.path().is_file()).map(|entry| std::fs::read_to_string(entry.path()).unwrap());
    assert_eq!(texts.map(|text| text.lines().count()).sum::<usize>(), 1000);
    for topic in [&first, &second] {
        kafka::remove(brokers, topic).await;
    }
    capture.gone().await;
}
