//! The Postgres lookup on a real Postgres (`DATABASE_URL`); without it these tests say so and pass. Each has a schema of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use falaj::clock::Clock;
use falaj::error::Kind;
use falaj::lookup::LookupStore;
use falaj::lookup::index::LookupTable;
use falaj::lookup::join::{LookupProvider, use_lookup_joins};
use falaj::lookup::postgres::PostgresLookup;
use falaj::lookup::refresh::keep_fresh;
use falaj::status::LookupStatus;
use falaj::table::TableDef;
use tokio_postgres::{Client, NoTls};

/// A schema that goes when this is dropped with `gone`.
struct Postgres {
    client: Client,
    url: String,
    schema: String,
}

impl Postgres {
    async fn new(tables: &str) -> Option<Self> {
        let Ok(url) = std::env::var("DATABASE_URL") else {
            eprintln!("skipped: DATABASE_URL is not set");
            return None;
        };
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let schema = format!("falaj_test_{}", uuid::Uuid::now_v7().simple());
        client.batch_execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {tables}")).await.unwrap();
        Some(Self { client, url, schema })
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    async fn gone(self) {
        self.run(&format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }

    fn def(&self, table: &str, columns: &[(&str, DataType)], options: &[(&str, &str)]) -> TableDef {
        let fields: Vec<_> = columns.iter().map(|(name, of)| Field::new(*name, of.clone(), true)).collect();
        let options = [("url", self.url.as_str()), ("key", columns[0].0)].into_iter().chain(options.iter().copied());
        TableDef {
            name: "content".into(),
            stored_as: "POSTGRES".into(),
            unbounded: false,
            location: format!("{}.{table}", self.schema),
            schema: Arc::new(Schema::new(fields)),
            partition_by: vec![],
            // The last of a name counts.
            options: options.map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            place: "lookups.sql:1:1".into(),
        }
    }

    fn content(&self, options: &[(&str, &str)]) -> TableDef {
        self.def("content", &[("id", DataType::Utf8View), ("title", DataType::Utf8View)], options)
    }
}

const CONTENT: &str =
    "CREATE TABLE content (id text PRIMARY KEY, title text, more int); INSERT INTO content VALUES ('a', 'A'), ('b', NULL)";

fn cells(rows: &RecordBatch) -> Vec<String> {
    let cell =
        |row, column: &ArrayRef| if column.is_null(row) { "-".into() } else { array_value_to_string(column, row).unwrap() };
    let line = |row| rows.columns().iter().map(|column| cell(row, column)).collect::<Vec<_>>().join("|");
    let mut lines: Vec<String> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

fn texts(keys: &[&str]) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(keys))
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited too long until {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_type_that_fits_arrives_unchanged() {
    let Some(postgres) = Postgres::new(
        "CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE TABLE t (i8 bigint, i4 int, i2 smallint, wide int, t text, v varchar(9), c char(3), u uuid, j json, jb jsonb, m mood,
             f4 real, f8 double precision, n numeric, nf numeric, b boolean, d date, ts timestamp, tz timestamptz, far timestamp);
         INSERT INTO t VALUES (9223372036854775807, -2147483648, -32768, 5, 'ä', 'v', 'c', '00000000-0000-0000-0000-00000000000a',
             '{\"b\" : 1.10}', '{\"b\":1}', 'bad', 1.5, 2.25, -12345678.0125, 0.1, true, '1969-12-31', '2024-02-29 12:00:00.000001',
             '2024-02-29 12:00:00+02', '9999-12-31');
         INSERT INTO t (i8, n, nf, d) VALUES (1, 100000000, 'NaN', '0001-01-01');
         INSERT INTO t (i8, n, nf) VALUES (2, 0.0001, 12345678901234567890);
         INSERT INTO t (i8) VALUES (NULL)",
    )
    .await
    else {
        return;
    };
    let text = DataType::Utf8View;
    let columns = [
        ("i8", DataType::Int64),
        ("i4", DataType::Int32),
        ("i2", DataType::Int16),
        ("wide", DataType::Int64),
        ("t", text.clone()),
        ("v", text.clone()),
        ("c", text.clone()),
        ("u", text.clone()),
        ("j", text.clone()),
        ("jb", text.clone()),
        ("m", text),
        ("f4", DataType::Float64),
        ("f8", DataType::Float64),
        ("n", DataType::Decimal128(20, 4)),
        ("nf", DataType::Float64),
        ("b", DataType::Boolean),
        ("d", DataType::Date32),
        ("ts", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("tz", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("far", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ];
    let store = PostgresLookup::new(&postgres.def("t", &columns, &[])).unwrap();
    let rows = store.load().await.unwrap();
    let nulls = |columns: usize| "|-".repeat(columns);
    assert_eq!(
        cells(&rows),
        [
            format!("-{}", nulls(19)),
            format!("1{}|100000000.0000|NaN|-|0001-01-01{}", nulls(12), nulls(3)),
            format!("2{}|0.0001|1.2345678901234567e19{}", nulls(12), nulls(5)),
            "9223372036854775807|-2147483648|-32768|5|ä|v|c  |00000000-0000-0000-0000-00000000000a|{\"b\" : 1.10}|{\"b\": 1}|bad|1.5|2.25|\
             -12345678.0125|0.1|true|1969-12-31|2024-02-29T12:00:00.000001|2024-02-29T10:00:00|9999-12-31T00:00:00"
                .to_string(),
        ]
    );
    postgres.gone().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_both_types_and_advice() {
    let Some(postgres) = Postgres::new(
        "CREATE TABLE t (id int, long bigint, n numeric, ts timestamp, d date, p point);
         INSERT INTO t VALUES (1, 1, 1.23456, 'infinity', 'infinity'), (2, 2, 1e30, '3000-01-01', NULL)",
    )
    .await
    else {
        return;
    };
    let id = ("id", DataType::Int32);
    for (column, parts) in [
        (("long", DataType::Int32), vec!["column long is int8 in", "declared Int32; declare it BIGINT"]),
        (("long", DataType::Utf8View), vec!["declare it BIGINT"]),
        (("n", DataType::Int64), vec!["declare it DECIMAL(p, s), or DOUBLE"]),
        (("n", DataType::Decimal128(10, 2)), vec!["column n", "DECIMAL(10, 2) cannot hold exactly"]),
        (("ts", DataType::Timestamp(TimeUnit::Nanosecond, None)), vec!["column ts", "infinite time"]),
        (("d", DataType::Date32), vec!["infinite date"]),
        (("p", DataType::Utf8View), vec!["column p is point", "cannot be read"]),
        (("lnog", DataType::Int64), vec!["column \"lnog\" does not exist", "mend the declared columns"]),
    ] {
        let store = PostgresLookup::new(&postgres.def("t", &[id.clone(), column.clone()], &[])).unwrap();
        let error = store.load().await.unwrap_err();
        let text = error.to_string();
        assert!(error.kind() == Kind::Sql && text.starts_with("lookups.sql:1:1: table 'content': "), "{column:?}: {text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{column:?}: {text}");
    }
    postgres.run("DELETE FROM t WHERE id = 1").await;
    let far = ("ts", DataType::Timestamp(TimeUnit::Nanosecond, None));
    let error = PostgresLookup::new(&postgres.def("t", &[id.clone(), far], &[])).unwrap().load().await.unwrap_err();
    assert!(error.to_string().contains("declare it TIMESTAMP(6)"), "{error}");
    let error = PostgresLookup::new(&postgres.def("t", &[id], &[("rows.max", "0")])).unwrap().load().await.unwrap_err();
    assert!(error.kind() == Kind::Full && error.to_string().contains("rows.max"), "{error}");
    postgres.gone().await;
}

#[tokio::test]
async fn keys_are_fetched_whatever_their_type() {
    let Some(postgres) = Postgres::new(
        "CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE TABLE t (i2 smallint, i4 int, i8 bigint, u uuid, c varchar(9), m mood);
         INSERT INTO t VALUES (1, 1, 1, '00000000-0000-0000-0000-00000000000a', 'x', 'good'),
             (2, 2, 2, '00000000-0000-0000-0000-00000000000b', 'it''s', 'bad')",
    )
    .await
    else {
        return;
    };
    let longs = || Arc::new(Int64Array::from(vec![2, 1 << 40, 9])) as ArrayRef;
    for (column, keys, expected) in [
        ("i2", longs(), vec!["2"]),
        ("i4", longs(), vec!["2"]),
        ("i8", longs(), vec!["2"]),
        ("i2", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef, vec!["1", "2"]),
        ("u", texts(&["00000000-0000-0000-0000-00000000000b", "no uuid"]), vec!["00000000-0000-0000-0000-00000000000b"]),
        ("c", texts(&["it's", "\"", "'; DROP TABLE t"]), vec!["it's"]),
        ("m", texts(&["bad", "no mood"]), vec!["bad"]),
        ("c", texts(&[]), vec![]),
    ] {
        let store = PostgresLookup::new(&postgres.def("t", &[(column, keys.data_type().clone())], &[])).unwrap();
        assert_eq!(cells(&store.fetch(keys).await.unwrap()), expected, "{column}");
    }
    postgres.gone().await;
}

fn table(def: &TableDef) -> (Arc<LookupTable>, Arc<LookupStatus>) {
    let status = Arc::new(LookupStatus::default());
    let table = LookupTable::new(def, Clock::system(), Arc::clone(&status)).unwrap();
    let store = Arc::new(PostgresLookup::new(def).unwrap());
    table.set_store(store);
    (table, status)
}

/// The titles of events with these content ids, joined with `table`.
async fn titles(table: &Arc<LookupTable>, ids: &[&str]) -> Vec<String> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let schema = Arc::new(Schema::new(vec![Field::new("content_id", DataType::Utf8View, true)]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![texts(ids)]).unwrap();
    session.register_table("events", Arc::new(MemTable::try_new(schema, vec![vec![rows]]).unwrap())).unwrap();
    session.register_table("content", Arc::new(LookupProvider::new(Arc::clone(table)))).unwrap();
    let sql = "SELECT e.content_id, c.title FROM events e LEFT JOIN content c ON e.content_id = c.id";
    let plan = session.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let rows = collect(use_lookup_joins(plan).unwrap(), session.task_ctx()).await.unwrap();
    cells(&rows[0])
}

#[tokio::test]
async fn a_row_inserted_a_moment_before_its_event_is_fetched_and_a_miss_is_remembered() {
    let Some(postgres) = Postgres::new(CONTENT).await else { return };
    let (table, status) = table(&postgres.content(&[("on_miss", "fetch"), ("miss_ttl", "1h")]));
    let store = PostgresLookup::new(&postgres.content(&[])).unwrap();
    table.replace(store.load().await.unwrap()).unwrap();
    assert_eq!(titles(&table, &["b", "a"]).await, ["a|A", "b|-"]);
    postgres.run("INSERT INTO content VALUES ('new', 'N')").await;
    assert_eq!(titles(&table, &["new", "a", "none", "new"]).await, ["a|A", "new|N", "new|N", "none|-"]);
    assert_eq!(status.misses.load(Ordering::Relaxed), 2);
    postgres.run("INSERT INTO content VALUES ('none', 'too late')").await;
    assert_eq!(titles(&table, &["none"]).await, ["none|-"]);
    assert_eq!(status.misses.load(Ordering::Relaxed), 2);
    postgres.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_follows_postgres_and_an_outage_keeps_the_last_version() {
    let Some(postgres) = Postgres::new("").await else { return };
    let gate = Gate::new(&postgres.url).await;
    let def = postgres.content(&[("refresh", "100ms"), ("url", &gate.url)]);
    let (table, status) = table(&def);
    let store: Arc<dyn LookupStore> = Arc::new(PostgresLookup::new(&def).unwrap());
    let keeping = tokio::spawn(keep_fresh(Arc::clone(&table), store));
    until("it waits for the table", || async { status.trouble().is_some_and(|text| text.contains("does not exist yet")) })
        .await;
    assert!(!table.is_loaded());
    postgres.run(CONTENT).await;
    table.wait_loaded().await;
    assert_eq!(titles(&table, &["a"]).await, ["a|A"]);

    postgres.run("UPDATE content SET title = 'B' WHERE id = 'a'").await;
    until("the change arrives", || async { titles(&table, &["a"]).await == ["a|B"] }).await;

    gate.close();
    until("the outage is seen", || async { status.trouble().is_some() }).await;
    assert_eq!(titles(&table, &["a"]).await, ["a|B"]);
    postgres.run("UPDATE content SET title = 'C' WHERE id = 'a'").await;
    gate.open();
    until("it is over", || async { titles(&table, &["a"]).await == ["a|C"] && status.trouble().is_none() }).await;
    keeping.abort();
    postgres.gone().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_no_message_holds_the_password() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let away = PostgresLookup::new(&nowhere(&format!("postgres://me:secret@127.0.0.1:{port}/falaj"))).unwrap();
    let error = away.load().await.unwrap_err();
    assert!(error.kind() == Kind::Unreachable && error.chain().contains(&format!("127.0.0.1:{port}")), "{}", error.chain());
    assert!(!format!("{error:?}").contains("secret"));
    let tls = PostgresLookup::new(&nowhere("postgres://me:secret@127.0.0.1/falaj?sslmode=require")).unwrap_err();
    assert!(tls.kind() == Kind::Sql && tls.to_string().contains("takes any server for the right one"), "{tls}");
    let wrong = PostgresLookup::new(&nowhere("postgres://me:secret@127.0.0.1:port/falaj")).unwrap_err();
    assert!(wrong.kind() == Kind::Sql && !format!("{wrong:?}").contains("secret"), "{wrong:?}");
}

fn nowhere(url: &str) -> TableDef {
    TableDef {
        name: "content".into(),
        stored_as: "POSTGRES".into(),
        unbounded: false,
        location: "public.content".into(),
        schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
        partition_by: vec![],
        options: [("url", url), ("key", "id")].map(|(k, v)| (k.to_string(), v.to_string())).into(),
        place: "lookups.sql:1:1".into(),
    }
}

/// A way to the server that can be closed: connections through it break, and new ones are dropped at once.
struct Gate {
    url: String,
    open: tokio::sync::watch::Sender<bool>,
}

impl Gate {
    async fn new(url: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else {
            panic!("the tests reach Postgres over TCP")
        };
        let server = (host.clone(), config.get_ports().first().copied().unwrap_or(5432));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = tokio::sync::watch::Sender::new(true);
        let seen = open.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (server, mut seen) = (server.clone(), seen.clone());
                tokio::spawn(async move {
                    if !*seen.borrow() {
                        return;
                    }
                    let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = seen.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        let user = config.get_user().unwrap();
        let password = config.get_password().map(|word| format!(":{}", String::from_utf8_lossy(word))).unwrap_or_default();
        let url = format!("postgres://{user}{password}@127.0.0.1:{port}/{}", config.get_dbname().unwrap());
        Self { url, open }
    }

    fn close(&self) {
        self.open.send_replace(false);
    }

    fn open(&self) {
        self.open.send_replace(true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changes_in_postgres_is_found_at_once_where_changes_are_followed() {
    let Some(postgres) = Postgres::new(CONTENT).await else { return };
    let publication = postgres.schema.clone();
    let def = postgres.content(&[("refresh", "cdc"), ("publication", &publication)]);
    let status = Arc::new(LookupStatus::default());
    let table = LookupTable::new(&def, Clock::system(), Arc::clone(&status)).unwrap();
    let store: Arc<dyn LookupStore> = Arc::new(PostgresLookup::new(&def).unwrap());
    let fresh = tokio::spawn(keep_fresh(Arc::clone(&table), store));
    table.wait_loaded().await;
    let titles = |keys: &[&str]| {
        let (version, keys) = (table.version(), Arc::new(StringViewArray::from_iter_values(keys)) as ArrayRef);
        let found = version.find(&keys).unwrap();
        let titles = version.gather(1, &found).unwrap();
        (0..keys.len())
            .map(|row| (!titles.is_null(row)).then(|| array_value_to_string(&titles, row).unwrap()))
            .collect::<Vec<_>>()
    };
    let some = |title: &str| Some(title.to_string());
    let mut slowest = Duration::ZERO;
    let steps: Vec<(&str, Vec<Option<String>>)> = vec![
        ("UPDATE content SET title = 'A2' WHERE id = 'a'", vec![some("A2"), None, None]),
        ("INSERT INTO content VALUES ('c', 'C')", vec![some("A2"), None, some("C")]),
        (
            "UPDATE content SET id = 'b', title = 'was C' WHERE id = 'c' AND (SELECT count(*) FROM content) > 9",
            vec![some("A2"), None, some("C")],
        ),
        (
            "DELETE FROM content WHERE id = 'b'; UPDATE content SET id = 'b', title = 'was C' WHERE id = 'c'",
            vec![some("A2"), some("was C"), None],
        ),
        (
            "BEGIN; INSERT INTO content SELECT 'n' || i, 'N' FROM generate_series(1, 20000) i; UPDATE content SET title = 'A3' WHERE id = 'a'; COMMIT",
            vec![some("A3"), some("was C"), None],
        ),
        ("DELETE FROM content WHERE id = 'a'", vec![None, some("was C"), None]),
        ("TRUNCATE content", vec![None, None, None]),
        ("INSERT INTO content VALUES ('a', 'again')", vec![some("again"), None, None]),
    ];
    for (sql, expected) in steps {
        postgres.run(sql).await;
        let began = Instant::now();
        while titles(&["a", "b", "c"]) != expected {
            assert!(began.elapsed() < Duration::from_secs(30), "{sql}: {:?} is not {expected:?}", titles(&["a", "b", "c"]));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        slowest = slowest.max(began.elapsed());
    }
    eprintln!("from commit to the lookup: at most {slowest:?}");
    // The connection is cut: it is followed and loaded again.
    let cut = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE starts_with(slot_name, 'falaj_lookup_') AND active";
    postgres.run(cut).await;
    postgres.run("UPDATE content SET title = 'after the cut'").await;
    let began = Instant::now();
    while titles(&["a"]) != [some("after the cut")] {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", titles(&["a"]));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(status.version.load(Ordering::Relaxed) > 8);
    fresh.abort();
    postgres.run(&format!("DROP PUBLICATION {publication}")).await;
    postgres.gone().await;
}
