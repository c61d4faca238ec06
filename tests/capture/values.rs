//! Values of every ordinary type, as they come out of the WAL and out of a snapshot, against an ordinary query.

use super::Capture;

const TYPES: &[(&str, &str, &[&str])] = &[
    ("small smallint", "BIGINT", &["-32768", "32767", "0"]),
    ("whole integer", "BIGINT", &["-2147483648", "7", "2147483647"]),
    ("long bigint", "BIGINT", &["-9223372036854775808", "0", "9223372036854775807"]),
    ("single real", "DOUBLE", &["1.5", "-0.25", "1e10"]),
    ("wide double precision", "DOUBLE", &["0.1", "-1e300", "4.9e-324"]),
    ("money_ numeric(12,3)", "DECIMAL(12,3)", &["123456789.123", "-0.001", "0"]),
    ("number numeric", "VARCHAR", &["NaN", "-12345678901234567890.123456789", "0.000"]),
    ("flag boolean", "BOOLEAN", &["true", "false", "true"]),
    ("words text", "VARCHAR", &["", "a 'quoted' \\ text", "سلام 🌊"]),
    ("padded char(5)", "VARCHAR", &["ab", "abcde", ""]),
    ("short varchar(9)", "VARCHAR", &["x", "y\nz", "\t"]),
    ("day date", "DATE", &["2026-11-23", "1970-01-01", "2400-02-29"]),
    (
        "at timestamptz",
        "TIMESTAMP",
        &["2026-11-23 10:00:00.123456+02", "1970-01-01 00:00:00Z", "1999-12-31 23:59:59.999999-08"],
    ),
    ("wall timestamp", "TIMESTAMP", &["2026-11-23 10:00:00.5", "1969-12-31 23:59:59", "2000-01-01 00:00:00"]),
    ("hour time", "VARCHAR", &["10:00:00", "23:59:59.999999", "00:00:00"]),
    ("span interval", "VARCHAR", &["1 year 2 mons 3 days 04:05:06.7", "-1 day", "0"]),
    (
        "ids uuid",
        "VARCHAR",
        &[
            "00000000-0000-0000-0000-000000000000",
            "123e4567-e89b-12d3-a456-426614174000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ],
    ),
    ("raw bytea", "VARCHAR", &["\\x", "\\xdeadbeef", "\\x00ff"]),
    ("doc jsonb", "VARCHAR", &["{}", "{\"a\": [1, null, \"x\"]}", "null"]),
    ("verbatim json", "VARCHAR", &["{ \"a\" : 1 }", "[]", "\"text\""]),
    ("list integer[]", "VARCHAR", &["{}", "{1,NULL,3}", "{{1,2},{3,4}}"]),
    ("texts text[]", "VARCHAR", &["{a,\"b c\",\"d\\\"e\"}", "{NULL}", "{\"\"}"]),
    ("mood mood", "VARCHAR", &["sad", "happy", "sad"]),
    ("positive positive", "BIGINT", &["1", "2", "3"]),
    ("range int4range", "VARCHAR", &["[1,10)", "empty", "(,5)"]),
    ("address inet", "VARCHAR", &["10.0.0.1", "::1", "192.168.0.0/24"]),
    ("point_ point", "VARCHAR", &["(1,2)", "(0,0)", "(-1.5,2.5)"]),
];

#[tokio::test]
async fn every_ordinary_type_has_the_same_value_from_the_wal_and_from_the_snapshot_as_from_a_query() {
    let columns: Vec<&str> = TYPES.iter().map(|(column, ..)| *column).collect();
    let names: Vec<&str> = columns.iter().map(|column| column.split(' ').next().unwrap()).collect();
    let table = format!(
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN positive AS integer CHECK (value > 0);
         CREATE TABLE t (id bigint PRIMARY KEY, {})",
        columns.join(", ")
    );
    let declared: Vec<String> = names.iter().zip(TYPES).map(|(name, (_, declared, _))| format!("{name} {declared}")).collect();
    let declared = format!("id BIGINT, {}", declared.join(", "));
    let Some(capture) = Capture::new(&table, &declared, ", 'snapshot' 'initial'").await else { return };
    let insert = |base: usize| {
        let row = |number: usize| {
            let value = |(_, _, values): &(&str, &str, &[&str])| {
                format!("E'{}'", values[number].replace('\\', "\\\\").replace('\'', "\\'"))
            };
            format!("({}, {})", base + number, TYPES.iter().map(value).collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<String> = (0..3).map(row).collect();
        format!("INSERT INTO t VALUES {}; INSERT INTO t (id) VALUES ({})", rows.join(", "), base + 3)
    };
    capture.run(&insert(0)).await;
    capture.run_until_latest();
    capture.run(&insert(4)).await;
    capture.run_until_latest();
    let found = capture.found();
    assert_eq!(found.len(), 8);
    for (snapshot, stream) in found[..4].iter().zip(&found[4..]) {
        for name in &names {
            assert_eq!(snapshot[name], stream[name], "{name} from the snapshot and from the WAL");
        }
    }
    // What a query gives, as JSON by Postgres' own words where the declared type is VARCHAR, and as numbers where it is one.
    for (name, (_, declared, _)) in names.iter().zip(TYPES) {
        let shown = match *declared {
            "VARCHAR" => format!("to_json(CASE WHEN {name} IS NOT NULL THEN concat({name}) END)"),
            "TIMESTAMP" => format!("to_json(to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'))"),
            _ => format!("to_json({name})"),
        };
        let shown = if *name == "wall" { shown.replace(" AT TIME ZONE 'UTC'", "") } else { shown };
        let sql = format!(
            "SET timezone = 'UTC'; SET bytea_output = 'hex'; SELECT id, coalesce({shown}::text, 'null') FROM t ORDER BY id"
        );
        let rows = capture.client.simple_query(&sql).await.unwrap();
        let rows = rows.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(1).unwrap().to_string()),
            _ => None,
        });
        for (row, expected) in found.iter().zip(rows) {
            let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
            let same = match *declared {
                "TIMESTAMP" => time(&row[name]) == time(&expected),
                "BIGINT" => row[name] == expected,
                "DOUBLE" | "DECIMAL(12,3)" => number(&row[name]) == number(&expected),
                _ => row[name] == expected,
            };
            assert!(same, "{name}: {} is not {expected}", row[name]);
        }
    }
    capture.gone().await;
}

fn number(value: &serde_json::Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// Microseconds since 1970 of either way to write a time.
fn time(value: &serde_json::Value) -> Option<i64> {
    let text = value.as_str()?.replace('T', " ").replace('Z', "");
    let text = if text.contains('.') { text } else { format!("{text}.0") };
    Some(chrono::NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f").unwrap().and_utc().timestamp_micros())
}
