//! What falaj writes to files is read by programs that share no code with it: datafusion-cli, duckdb, pyarrow, Python's json. The
//! files come from the shipped queries over real Kafka and Postgres, and each reader's sums are compared with the events.
//!
//! Unlike the other tests these fail where something is missing: `scripts/test` sets it all up.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use chrono::{DateTime, Timelike};
use clap::Parser;
use falaj::tool::generate::{Contents, Events, EventsSpec, GenerateArgs, run_until};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tempfile::TempDir;
use tokio_postgres::NoTls;

/// Each begins a run of events at 1000 a second, ± 2 s: over the ends of hours and of a day.
const FROM: [&str; 4] = ["2026-11-21T22:00:00Z", "2026-11-22T00:00:00Z", "2026-11-22T09:59:58Z", "2026-11-22T13:30:00Z"];
const EVENTS: u64 = 5000;
const SEED: u64 = 42;
const CONTENTS: usize = 10_000;

/// The sums of one partition, in the order in which every reader prints them after `dt` and `hour`.
#[derive(Default)]
struct Sums {
    rows: u64,
    ids: u64,
    durations_ms: i64,
    lengths_seconds: i64,
    title_characters: usize,
    payload_characters: usize,
    last_ms: i64,
}

#[tokio::test]
async fn parquet_is_what_bigquery_loads_and_others_read() {
    let (folder, expected) = written("PARQUET").await;
    let files = folder.path().join("data/bigquery_output/");
    let files = files.to_str().unwrap();

    let table = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET PARTITIONED BY (dt, hour) LOCATION '{files}'");
    let sums = "SELECT dt, hour, count(*), sum(id), sum(duration_ms), CAST(round(sum(engagement_seconds) * 1000) AS BIGINT), \
                sum(length_seconds), sum(char_length(title)), sum(char_length(raw_payload)), \
                CAST(arrow_cast(max(event_ts), 'Timestamp(Millisecond, Some(\"UTC\"))') AS BIGINT) \
                FROM t GROUP BY dt, hour ORDER BY dt, CAST(hour AS BIGINT)";
    let read = output(Command::new(needed("FALAJ_DATAFUSION_CLI")).args(["-q", "--format", "csv", "-c", &table, "-c", sums]));
    let (_header, read) = read.split_once('\n').unwrap();
    assert_eq!(read.replace(',', " "), expected, "datafusion-cli");

    let duckdb = DUCKDB.replace("READ", "read_parquet");
    assert_eq!(python(&duckdb, &format!("{files}**/*.parquet")), expected, "duckdb");
    assert_eq!(python(PYARROW, files), expected, "pyarrow");
    assert_eq!(python(SCHEMAS, files), PARQUET_COLUMNS, "the same columns in every file, in this order");
}

#[tokio::test]
async fn json_lines_are_read_by_others() {
    let (folder, expected) = written("JSON").await;
    let files = folder.path().join("data/bigquery_output/");
    let files = files.to_str().unwrap();
    let duckdb = DUCKDB.replace("READ", "read_json");
    assert_eq!(python(&duckdb, &format!("{files}**/*.json")), expected, "duckdb");
    assert_eq!(python(JSON, files), expected, "Python's json");
}

/// BigQuery's types, all nullable, compressed by ZSTD, and without the keys of the partitions.
const PARQUET_COLUMNS: &str = "\
id INT64 None nullable ZSTD
content_id BYTE_ARRAY String nullable ZSTD
user_id BYTE_ARRAY String nullable ZSTD
event_type BYTE_ARRAY String nullable ZSTD
event_ts INT64 Timestamp microseconds UTC nullable ZSTD
duration_ms INT64 None nullable ZSTD
device BYTE_ARRAY String nullable ZSTD
raw_payload BYTE_ARRAY String nullable ZSTD
title BYTE_ARRAY String nullable ZSTD
content_type BYTE_ARRAY String nullable ZSTD
length_seconds INT64 None nullable ZSTD
engagement_seconds DOUBLE None nullable ZSTD
engagement_pct DOUBLE None nullable ZSTD
";

const SCHEMAS: &str = r#"
import glob, json, sys
import pyarrow.parquet as parquet
def describe(file):
    text, file = "", parquet.ParquetFile(file)
    for index, column in enumerate(file.schema):
        logical = json.loads(column.logical_type.to_json())
        logical = " ".join([logical["Type"], logical.get("timeUnit", ""), "UTC" if logical.get("isAdjustedToUTC") else ""]).split()
        nullable = "nullable" if (column.max_definition_level, column.max_repetition_level) == (1, 0) else "not plain"
        groups = range(file.metadata.num_row_groups)
        codecs = sorted({file.metadata.row_group(group).column(index).compression for group in groups})
        text += " ".join([column.name, column.physical_type, *logical, nullable, *codecs]) + "\n"
    return text
files = glob.glob(sys.argv[1] + "**/*.parquet", recursive=True)
assert len(files) > 7, "more than one file in some partition is wanted"
print("\n---\n".join(sorted({describe(file) for file in files})), end="")
"#;

const DUCKDB: &str = r#"
import duckdb, sys
sql = """SELECT dt, hour, count(*), sum(id), sum(duration_ms), CAST(round(sum(engagement_seconds) * 1000) AS BIGINT),
    sum(length_seconds), sum(length(title)), sum(length(raw_payload)), epoch_ms(max(event_ts))
    FROM READ(?, hive_partitioning = true) GROUP BY dt, hour ORDER BY dt, hour"""
for row in duckdb.execute(sql, [sys.argv[1]]).fetchall(): print(*row)
"#;

const PYARROW: &str = r#"
import sys
import pyarrow.compute as compute, pyarrow.dataset as dataset
table = dataset.dataset(sys.argv[1], partitioning="hive").to_table()
for column in ["title", "raw_payload"]:
    table = table.append_column(column + "_characters", compute.utf8_length(table[column]))
sums = ["id", "duration_ms", "engagement_seconds", "length_seconds", "title_characters", "raw_payload_characters"]
wanted = [("id", "count"), *((column, "sum") for column in sums), ("event_ts", "max")]
table = table.group_by(["dt", "hour"]).aggregate(wanted).sort_by([("dt", "ascending"), ("hour", "ascending")])
for row in table.to_pylist():
    row["engagement_seconds_sum"] = round(row["engagement_seconds_sum"] * 1000)
    row["event_ts_max"] = round(row["event_ts_max"].timestamp() * 1000)
    print(row["dt"], row["hour"], row["id_count"], *(row[column + "_sum"] for column in sums), row["event_ts_max"])
"#;

const JSON: &str = r#"
import datetime, glob, json, re, sys
partitions = {}
for name in glob.glob(sys.argv[1] + "**/*.json", recursive=True):
    dt, hour = re.search("dt=(.*)/hour=(.*)/", name).groups()
    rows = [json.loads(line) for line in open(name, encoding="utf-8")]
    assert not any("dt" in row or "hour" in row for row in rows)
    partitions.setdefault((dt, int(hour)), []).extend(rows)
for (dt, hour), rows in sorted(partitions.items()):
    total = lambda column, of=lambda value: value: sum(of(row[column]) for row in rows if column in row)
    last = max(datetime.datetime.fromisoformat(row["event_ts"]) for row in rows)
    print(dt, hour, len(rows), total("id"), total("duration_ms"), round(total("engagement_seconds") * 1000),
        total("length_seconds"), total("title", len), total("raw_payload", len), round(last.timestamp() * 1000))
"#;

/// Makes events, runs the shipped `bigquery.sql` over them with files of `format`; the folder it ran in, and what a reader must
/// find there: a line for each partition.
async fn written(format: &str) -> (TempDir, String) {
    let (brokers, url) = (needed("KAFKA_BROKERS"), needed("DATABASE_URL"));
    let name = format!("falaj_test_readers_{}", uuid::Uuid::now_v7().simple());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE SCHEMA {name}")).await.unwrap();
    produce(&name, &brokers, &url).await;

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("queries")).unwrap();
    for (file, replace) in [
        ("sources", ["LOCATION 'engagement_events'", &format!("LOCATION '{name}'")]),
        ("lookups", ["'public.content'", &format!("'{name}.content'")]),
        ("enriched", ["", ""]),
        ("sinks", ["STORED AS PARQUET", &format!("STORED AS {format}")]),
        // With the small epochs below, partitions get several files.
        ("sinks", ["'128MiB'", "'16KiB'"]),
        ("bigquery", ["", ""]),
    ] {
        copy_query(file, replace, folder.path());
    }
    std::fs::write(folder.path().join("queries/settings.sql"), "SET falaj.epoch_bytes_max = 65536;\n").unwrap();
    let falaj = env!("CARGO_BIN_EXE_falaj");
    output(Command::new(falaj).args(["run", "queries", "--until", "latest", "--no-web"]).current_dir(folder.path()));

    client.batch_execute(&format!("DROP SCHEMA {name} CASCADE")).await.unwrap();
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    admin.delete_topics(&[&name], &AdminOptions::new()).await.unwrap();
    (folder, expected())
}

/// Copies a shipped file with a text in it replaced; the second time, over the copy.
fn copy_query(file: &str, [text, by]: [&str; 2], folder: &Path) {
    let copy = folder.join(format!("queries/{file}.sql"));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("queries/{file}.sql"));
    let sql = std::fs::read_to_string(if copy.exists() { &copy } else { &shipped }).unwrap();
    assert!(sql.contains(text), "{file}.sql has no {text}");
    std::fs::write(copy, if text.is_empty() { sql } else { sql.replace(text, by) }).unwrap();
}

async fn produce(name: &str, brokers: &str, url: &str) {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: GenerateArgs,
    }
    let mark = if url.contains('?') { '&' } else { '?' };
    let own = format!("{url}{mark}options=-csearch_path%3D{name}");
    for (run, from) in FROM.iter().enumerate() {
        let first_id = (run as u64 * EVENTS + 1).to_string();
        let (events, seed) = (EVENTS.to_string(), (SEED + run as u64).to_string());
        let mut line = vec![
            "generate",
            "--to",
            "kafka",
            "--events",
            &events,
            "--seed",
            &seed,
            "--first-id",
            &first_id,
            "--from-time",
            from,
        ];
        line.extend(["--topic", name, "--brokers", brokers, "--database-url", &own]);
        if run > 0 {
            line.push("--no-content");
        }
        run_until(Line::try_parse_from(line).unwrap().args, std::future::pending()).await.unwrap();
    }
}

fn expected() -> String {
    let contents = Contents::new(CONTENTS, SEED);
    let mut partitions = BTreeMap::<_, Sums>::new();
    for (run, from) in FROM.iter().enumerate() {
        let from_time_ns = DateTime::parse_from_rfc3339(from).unwrap().timestamp_nanos_opt().unwrap();
        let seed = SEED + run as u64;
        let spec = EventsSpec { seed, contents: CONTENTS, from_time_ns, rate_per_second: 1000.0, jitter_ms: 2000 };
        let mut events = Events::new(spec).unwrap();
        for _ in 0..EVENTS {
            let event = events.next();
            let content = &contents.rows[event.content];
            let mut payload = Vec::new();
            event.write_payload(&mut payload);
            let time = DateTime::from_timestamp_millis(event.event_ts_ms).unwrap();
            let sums = partitions.entry((time.date_naive(), time.hour())).or_default();
            sums.rows += 1;
            sums.ids += event.id + run as u64 * EVENTS;
            sums.durations_ms += event.duration_ms.unwrap_or(0);
            sums.lengths_seconds += content.length_seconds.unwrap_or(0);
            sums.title_characters += content.title.chars().count();
            sums.payload_characters += payload.len();
            sums.last_ms = sums.last_ms.max(event.event_ts_ms);
        }
    }
    assert_eq!(partitions.len(), 7);
    let mut lines = String::new();
    for ((date, hour), sums) in partitions {
        let Sums { rows, ids, durations_ms, lengths_seconds, title_characters, payload_characters, last_ms } = sums;
        // Engaged milliseconds are the durations.
        let _ = write!(lines, "{date} {hour} {rows} {ids} {durations_ms} {durations_ms} {lengths_seconds} ");
        let _ = writeln!(lines, "{title_characters} {payload_characters} {last_ms}");
    }
    lines
}

fn needed(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; scripts/test sets it: scripts/test parquet_readers"))
}

fn python(script: &str, argument: &str) -> String {
    output(Command::new(needed("FALAJ_PYTHON")).args(["-c", script, argument]))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|cause| panic!("{command:?}: {cause}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
