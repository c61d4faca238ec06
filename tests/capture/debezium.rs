//! A topic of the format `debezium-json` beside what Debezium's own connector wrote of the same changes: `debezium/tables.sql` and
//! `debezium/changes.sql` (each paragraph one transaction) gave `debezium/envelopes.jsonl`, without what differs from run to run.
//! Recorded with Debezium 3.3.1.Final on Kafka Connect 4.1.2 and PostgreSQL 15.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Capture;
use crate::support::kafka;

const TABLES: [&str; 6] = ["engagement_demo", "full_demo", "nopk_demo", "toast_demo", "toast_full", "types_demo"];

/// Of `source`, what another run, server or slot has otherwise; each must be there.
const OF_THE_RUN: [&str; 11] =
    ["version", "name", "ts_ms", "snapshot", "db", "sequence", "ts_us", "ts_ns", "schema", "txId", "lsn"];

/// Where we differ, with the reason.
fn as_ours(table: &str, mut record: Value) -> Value {
    if table == "types_demo" && record["key"]["id"] == 3 {
        // 'infinity' as a DATE: Debezium's number of days overflows.
        record["value"]["after"]["dt"] = json!(i32::MAX);
    }
    if table == "types_demo" && record["key"]["id"] == 2 {
        // Connect's converter puts a column's default in the place of a NULL (`replace.null.with.default`).
        record["value"]["after"]["df"] = Value::Null;
    }
    record
}

fn files() -> (String, String, String) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/capture/debezium");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    (read("tables.sql"), read("changes.sql"), read("envelopes.jsonl"))
}

#[tokio::test]
async fn changes_stand_on_the_topic_as_debezium_writes_them() {
    let (tables, changes, envelopes) = files();
    let Some(capture) = Capture::new(&tables, "id BIGINT", "").await else { return };
    let Capture { url, brokers, name, .. } = &capture;
    let declared = |table: &&str| {
        format!(
            "CREATE UNBOUNDED EXTERNAL TABLE {table} (_debezium VARCHAR) STORED AS POSTGRES LOCATION '{name}.{table}'
             OPTIONS ('url' '{url}', 'slot' '{name}', 'publication' '{name}', 'snapshot' 'initial', 'changes' 'all');
             CREATE EXTERNAL TABLE {table}_topic (_debezium VARCHAR) STORED AS KAFKA LOCATION '{name}.{table}'
             OPTIONS ('brokers' '{brokers}', 'partitions' '1', 'format' 'debezium-json');"
        )
    };
    capture.write("tables", &TABLES.iter().map(declared).collect::<String>());
    std::fs::remove_file(capture.path("queries/capture.sql")).unwrap();
    for table in TABLES {
        capture.write(&format!("copy_{table}"), &format!("INSERT INTO {table}_topic SELECT * FROM {table};"));
    }
    capture.run_until_latest();
    for transaction in changes.split("\n\n") {
        capture.run(&format!("BEGIN; {transaction}; COMMIT")).await;
    }
    capture.run_until_latest();

    let mut expected: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in envelopes.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let table = record["table"].as_str().unwrap().to_string();
        let record = as_ours(&table, record);
        expected.entry(table).or_default().push(record);
    }
    for table in TABLES {
        let found = kafka::committed(brokers, &format!("{name}.{table}"));
        let found: Vec<Value> = found.iter().map(|record| shown(table, record, name)).collect();
        for (found, expected) in found.iter().zip(&expected[table]) {
            assert_eq!(found, expected, "{found}\nis not\n{expected}");
        }
        assert_eq!(found.len(), expected[table].len(), "{table}");
        kafka::remove(brokers, &format!("{name}.{table}")).await;
    }
    capture.gone().await;
}

#[tokio::test]
async fn a_topic_of_envelopes_is_read_back_as_the_rows_that_were_changed() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, at timestamp, tz timestamptz, day date, more jsonb)";
    let Some(capture) = Capture::new(table, "id BIGINT", "").await else { return };
    let Capture { url, brokers, name, .. } = &capture;
    let columns = "id BIGINT, at TIMESTAMP, tz TIMESTAMP, day DATE, more VARCHAR";
    let back = format!("{name}.back");
    capture.write(
        "tables",
        &format!(
            "CREATE UNBOUNDED EXTERNAL TABLE changes (_debezium VARCHAR) STORED AS POSTGRES LOCATION '{name}.t'
             OPTIONS ('url' '{url}', 'slot' '{name}', 'publication' '{name}', 'changes' 'all');
             CREATE EXTERNAL TABLE topic (_debezium VARCHAR) STORED AS KAFKA LOCATION '{name}'
             OPTIONS ('brokers' '{brokers}', 'partitions' '1', 'format' 'debezium-json');
             CREATE UNBOUNDED EXTERNAL TABLE envelopes ({columns}, _op VARCHAR, _lsn BIGINT, _commit_ts TIMESTAMP) STORED AS KAFKA
             LOCATION '{name}' OPTIONS ('brokers' '{brokers}', 'format' 'debezium-json', 'changes' 'all');
             CREATE EXTERNAL TABLE back ({columns}, op VARCHAR, has_place BOOLEAN) STORED AS KAFKA LOCATION '{back}'
             OPTIONS ('brokers' '{brokers}', 'partitions' '1');"
        ),
    );
    capture.write(
        "back",
        "INSERT INTO back SELECT id, at, tz, day, more, _op, _lsn > 0 AND _commit_ts > TIMESTAMP '2026-01-01' FROM envelopes;",
    );
    capture.run_until_latest();
    capture
        .run(
            "INSERT INTO t VALUES (1, '2026-01-02 03:04:05.678901', '2026-01-02 03:04:05+02', '2026-01-02', '[1]');
             UPDATE t SET more = NULL; UPDATE t SET id = 2; DELETE FROM t",
        )
        .await;
    capture.run_until_latest();
    let found = kafka::committed(brokers, &back);
    let found: Vec<Value> =
        found.iter().map(|record| serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap()).collect();
    let row = |id: i64, op: &str, more: Value| {
        json!({"id": id, "at": "2026-01-02T03:04:05.678901Z", "tz": "2026-01-02T01:04:05Z", "day": "2026-01-02", "more": more,
               "op": op, "has_place": true})
    };
    let gone = |id: i64| json!({"id": id, "at": null, "tz": null, "day": null, "more": null, "op": "d", "has_place": true});
    // The change of the key is a delete and a new row.
    assert_eq!(found, [row(1, "c", json!("[1]")), row(1, "u", Value::Null), gone(1), row(2, "c", Value::Null), gone(2)]);
    kafka::remove(brokers, &back).await;
    capture.gone().await;
}

/// A record as the file has it, after a look at what is left out there.
fn shown(table: &str, record: &kafka::Record, schema: &str) -> Value {
    let json = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(Value::Null, |bytes| serde_json::from_slice(bytes).unwrap());
    let mut value = json(&record.payload);
    if let Some(fields) = value.as_object_mut() {
        let times = ["ts_ms", "ts_us", "ts_ns"].map(|name| fields.remove(name).unwrap().as_i64().unwrap());
        assert!(times[0] == times[1] / 1000 && times[1] == times[2] / 1000, "{times:?}");
        let source = fields["source"].as_object_mut().unwrap();
        let taken: BTreeMap<&str, Value> = OF_THE_RUN.iter().map(|name| (*name, source.remove(*name).unwrap())).collect();
        assert_eq!((&taken["name"], &taken["schema"]), (&json!(schema), &json!(schema)));
        let lsn = taken["lsn"].as_u64().unwrap();
        let sequence: Vec<Option<String>> = serde_json::from_str(taken["sequence"].as_str().unwrap()).unwrap();
        assert_eq!(sequence[1].as_deref(), Some(lsn.to_string().as_str()));
        let before = sequence[0].as_deref().map_or(0, |before| before.parse().unwrap());
        assert!(before <= lsn, "{sequence:?}");
        let is_read = fields["op"] == "r";
        assert_eq!((taken["snapshot"] == "true", taken["txId"].is_null()), (is_read, is_read));
    }
    let text =
        |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap()).unwrap().replace(&"x".repeat(9000), "<9000 x>");
    let headers: Vec<(&str, String)> = record
        .headers
        .iter()
        .filter(|(name, _)| name != "falaj.id")
        .map(|(name, value)| (name.as_str(), text(value)))
        .collect();
    let value: Value = serde_json::from_str(&value.to_string().replace(&"x".repeat(9000), "<9000 x>")).unwrap();
    json!({ "table": table, "key": json(&record.key), "headers": headers, "value": value })
}
