//! The Kafka sink on a real broker (`KAFKA_BROKERS`): each test has a topic and a lineage of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray,
    TimestampNanosecondArray,
};
use falaj::batch::{Output, Payloads, RowIds};
use falaj::decode::Decoder;
use falaj::decode::json::JsonDecoder;
use falaj::error::Kind;
use falaj::sink::kafka::{KafkaSink, KafkaSinkOptions};
use falaj::sink::{Applied, Sink, Writer};
use falaj::table::TableDef;

use crate::support::kafka::{self, Record};
use crate::support::project::{Project, wait_until};
use crate::support::proxy::Proxy;

/// A topic that is made by the sink, or was made by the test.
struct Setup {
    brokers: String,
    topic: String,
    lineage: String,
    options: Vec<(&'static str, &'static str)>,
}

impl Setup {
    fn new(options: &[(&'static str, &'static str)]) -> Self {
        let brokers =
            std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS must say where a broker is: see scripts/services env");
        let id = uuid::Uuid::now_v7();
        Self { brokers, topic: format!("falaj-test-sink-{id}"), lineage: id.to_string(), options: options.to_vec() }
    }

    fn sink_at(&self, brokers: &str) -> KafkaSink {
        let mut options: BTreeMap<_, _> =
            self.options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        options.insert("brokers".into(), brokers.into());
        let table = TableDef {
            name: "plays".into(),
            stored_as: "KAFKA".into(),
            unbounded: false,
            location: self.topic.clone(),
            schema: rows(0, 1).schema(),
            partition_by: vec![],
            options,
            place: "sinks.sql:1:1".into(),
        };
        KafkaSink::new(KafkaSinkOptions::from_table(&table).unwrap())
    }

    fn writer(&self, incarnation: u64) -> Writer {
        Writer { lineage: self.lineage.clone(), lane: "plays".into(), incarnation }
    }

    async fn open(&self, incarnation: u64) -> (KafkaSink, Option<u64>) {
        let mut sink = self.sink_at(&self.brokers);
        let held = sink.open(&self.writer(incarnation)).await.unwrap();
        (sink, held)
    }

    fn found(&self) -> Vec<Record> {
        kafka::committed(&self.brokers, &self.topic)
    }

    /// Each of the first `count` rows is there once, and nothing else.
    fn has_each_once(&self, count: usize) {
        let found = self.found();
        let ids: BTreeSet<i64> = found.iter().map(id).collect();
        assert_eq!((found.len(), ids.len()), (count, count));
        assert_eq!(ids.last().copied(), Some(count as i64 - 1));
    }

    async fn finish(self) {
        kafka::remove(&self.brokers, &self.topic).await;
    }
}

fn id(record: &Record) -> i64 {
    let row: serde_json::Value = serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap();
    row["id"].as_i64().unwrap()
}

/// A row of each type that both the sink writes and the source reads; each third has no `content_id`.
fn rows(from: i64, count: usize) -> RecordBatch {
    let ids = from..from + count as i64;
    let text = |index: i64| (index % 3 > 0).then(|| format!("content \"{}\" é", index % 977));
    let decimals = Decimal128Array::from_iter_values(ids.clone().map(i128::from)).with_precision_and_scale(10, 2).unwrap();
    let time = |index: i64| 1_700_000_000_000_000_000 + index * 1_001_000;
    let columns: [(&str, ArrayRef); 7] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        ("content_id", Arc::new(StringViewArray::from_iter(ids.clone().map(text)))),
        ("event_ts", Arc::new(TimestampNanosecondArray::from_iter_values(ids.clone().map(time)))),
        ("pct", Arc::new(Float64Array::from_iter(ids.clone().map(|index| (index % 2 > 0).then_some(index as f64 / 8.0))))),
        ("live", Arc::new(BooleanArray::from_iter(ids.clone().map(|index| Some(index % 2 == 0))))),
        ("day", Arc::new(Date32Array::from_iter_values(ids.clone().map(|index| 19_000 + index as i32 % 900)))),
        ("price", Arc::new(decimals)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// The rows of `count` records of partition 3 from offset `from` on.
fn output(from: i64, count: usize) -> Output {
    let offsets = Int64Array::from_iter_values(from..from + count as i64);
    Output::Rows { rows: rows(from, count), ids: RowIds::Offsets { topic: "events".into(), partition: 3, offsets } }
}

async fn apply(sink: &mut KafkaSink, epoch: u64, output: Output) -> Applied {
    sink.write(epoch, output).await.unwrap();
    assert_eq!(sink.seal(epoch).await.unwrap(), []);
    sink.apply(epoch, &[]).await.unwrap()
}

#[tokio::test]
async fn rows_are_json_with_their_key_and_id_and_our_own_source_reads_them() {
    let setup = Setup::new(&[("key", "content_id"), ("partitions", "1")]);
    let (mut sink, held) = setup.open(1).await;
    assert_eq!((held, sink.stages()), (None, false));
    assert_eq!(apply(&mut sink, 1, output(0, 300)).await.rows, 300);
    let found = setup.found();
    let (first, second) = (&found[0], &found[1]);
    assert_eq!((first.key.as_deref(), first.header("falaj.id")), (None, "events/3/0"));
    assert_eq!(second.key.as_deref(), Some("content \"1\" é".as_bytes()));
    assert_eq!(
        String::from_utf8_lossy(second.payload.as_deref().unwrap()),
        r#"{"id":1,"content_id":"content \"1\" é","event_ts":"2023-11-14T22:13:20.001001Z","pct":0.125,"live":false,"day":"2022-01-09","price":0.01}"#
    );
    let mut payloads = Payloads::default();
    found.iter().zip(0..).for_each(|(record, offset)| payloads.push(offset, record.payload.as_deref()));
    payloads.span.to = 300;
    let read = JsonDecoder::new(rows(0, 1).schema()).unwrap().decode(payloads).unwrap().into_segment();
    assert_eq!((read.dead.len(), &read.rows), (0, &rows(0, 300)));
    setup.finish().await;
}

#[tokio::test]
async fn updates_are_upserts_by_key_and_tombstones_for_what_left() {
    let setup = Setup::new(&[("key", "content_id"), ("emit", "update"), ("partitions", "3"), ("replication", "1")]);
    let (mut sink, _) = setup.open(1).await;
    assert_eq!(kafka::made(&setup.brokers, &setup.topic, "cleanup.policy").await, (3, "compact".into()));
    let changes = |upserts, deletes| Output::Changes { upserts, deletes };
    assert_eq!(apply(&mut sink, 1, changes(rows(1, 2), rows(0, 0))).await.rows, 2);
    // What left one window and is in another stays.
    assert_eq!(apply(&mut sink, 2, changes(rows(2, 1), rows(1, 2))).await.rows, 3);
    let mut last: BTreeMap<Vec<u8>, Option<i64>> = BTreeMap::new();
    for record in setup.found() {
        let row = record.payload.is_some().then(|| id(&record));
        last.insert(record.key.unwrap(), row);
    }
    let key = |index: i64| format!("content \"{index}\" é").into_bytes();
    assert_eq!(last, BTreeMap::from([(key(1), None), (key(2), Some(2))]));

    // A row without a key could never be replaced: a dead letter if it comes from a record, also when the epoch is held already.
    for incarnation in [1, 2] {
        let (mut sink, held) = setup.open(incarnation).await;
        assert_eq!(held, Some(incarnation + 1));
        let applied = apply(&mut sink, 3, output(0, 6)).await;
        let letters: Vec<_> = applied.refused.iter().map(|letter| (letter.partition, letter.offset, letter.code)).collect();
        assert_eq!(letters, [(3, 0, "null_key"), (3, 3, "null_key")]);
        assert_eq!(applied.rows, if incarnation == 1 { 4 } else { 0 });
    }
    assert_eq!(setup.found().len(), 9);
    setup.finish().await;
}

#[tokio::test]
async fn an_epoch_is_there_once_whoever_applies_it_again() {
    let setup = Setup::new(&[]);
    let (mut sink, _) = setup.open(1).await;
    assert_eq!(apply(&mut sink, 4, output(0, 100)).await.rows, 100);
    assert_eq!(sink.apply(4, &[]).await.unwrap().rows, 0);
    sink.committed(4, &[]).await.unwrap();
    assert_eq!(apply(&mut sink, 6, output(100, 100)).await.rows, 100);
    // It dies here: after the transaction's commit, before the lane's.
    drop(sink);
    let (mut sink, held) = setup.open(2).await;
    assert_eq!(held, Some(6));
    assert_eq!(apply(&mut sink, 6, output(100, 100)).await.rows, 0);
    assert_eq!(apply(&mut sink, 7, output(200, 100)).await.rows, 100);
    setup.has_each_once(300);
    // Another lineage knows nothing of it, and appends.
    let other = Writer { lineage: uuid::Uuid::now_v7().to_string(), ..setup.writer(1) };
    let mut sink = setup.sink_at(&setup.brokers);
    assert_eq!(sink.open(&other).await.unwrap(), None);
    assert_eq!(apply(&mut sink, 4, output(0, 100)).await.rows, 100);
    assert_eq!(setup.found().len(), 400);
    setup.finish().await;
}

#[tokio::test]
async fn an_older_incarnation_that_wakes_writes_nothing_more() {
    let setup = Setup::new(&[]);
    let (mut older, _) = setup.open(1).await;
    apply(&mut older, 1, output(0, 10)).await;
    let (mut newer, held) = setup.open(2).await;
    assert_eq!(held, Some(1));
    for _ in 0..2 {
        older.write(2, output(10, 10)).await.unwrap();
        let error = older.apply(2, &[]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced, "{}", error.chain());
    }
    let error = setup.sink_at(&setup.brokers).open(&setup.writer(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced, "{}", error.chain());
    assert_eq!(apply(&mut newer, 2, output(10, 10)).await.rows, 10);
    setup.has_each_once(20);
    setup.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_epoch_given_up_half_way_leaves_nothing_or_all() {
    const ROWS: usize = 200_000;
    let setup = Setup::new(&[("partitions", "2")]);
    let (mut sink, _) = setup.open(1).await;
    sink.write(1, output(0, ROWS)).await.unwrap();
    assert!(sink.written_bytes() > 1 << 20);
    // Long enough to have begun, and never long enough to end.
    assert!(tokio::time::timeout(Duration::from_millis(20), sink.apply(1, &[])).await.is_err());
    let (mut sink, _) = setup.open(2).await;
    apply(&mut sink, 1, output(0, ROWS)).await;
    setup.has_each_once(ROWS);
    setup.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_cut_in_the_middle_of_an_epoch_costs_and_doubles_no_row() {
    const ROWS: usize = 50_000;
    let setup = Setup::new(&[("kafka.compression.codec", "none"), ("kafka.reconnect.backoff.max.ms", "100")]);
    let proxy = Proxy::of_kafka(&setup.brokers);
    proxy.open();
    let mut sink = setup.sink_at(&proxy.addr().to_string());
    sink.open(&setup.writer(1)).await.unwrap();
    apply(&mut sink, 1, output(0, 10)).await;
    let before = proxy.taken();
    sink.write(2, output(10, ROWS)).await.unwrap();
    let cut = async {
        wait_until("some of the rows are under way", async || proxy.taken() > before + (1 << 20)).await;
        proxy.cut();
        proxy.open();
    };
    let (applied, ()) = tokio::join!(sink.apply(2, &[]), cut);
    if let Err(error) = applied {
        // What the lane does then.
        assert_eq!(error.kind(), Kind::Unreachable, "{}", error.chain());
        sink = setup.sink_at(&proxy.addr().to_string());
        sink.open(&setup.writer(2)).await.unwrap();
        apply(&mut sink, 2, output(10, ROWS)).await;
    }
    apply(&mut sink, 3, output(10 + ROWS as i64, 10)).await;
    setup.has_each_once(ROWS + 20);
    setup.finish().await;
}

#[tokio::test]
async fn a_row_that_is_too_large_stops_the_lane_with_the_topic_and_the_setting() {
    let setup = Setup::new(&[]);
    kafka::make(&setup.brokers, &setup.topic, 1, &[("max.message.bytes", "200")]).await;
    let (mut sink, _) = setup.open(1).await;
    sink.write(1, output(0, 1000)).await.unwrap();
    let error = sink.apply(1, &[]).await.unwrap_err();
    let said = error.chain();
    assert_eq!(error.kind(), Kind::Full, "{said}");
    assert!(said.contains(&setup.topic) && said.contains("max.message.bytes"), "{said}");
    assert_eq!(setup.found(), []);
    setup.finish().await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_unreachable_and_a_record_without_a_key_is_not_for_a_compacted_topic() {
    let setup = Setup::new(&[]);
    let error = setup.sink_at("127.0.0.1:1").open(&setup.writer(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{}", error.chain());
    assert!(error.chain().starts_with("table 'plays': rows cannot be written to"), "{}", error.chain());

    kafka::make(&setup.brokers, &setup.topic, 1, &[("cleanup.policy", "compact")]).await;
    let (mut sink, _) = setup.open(1).await;
    sink.write(1, output(0, 1)).await.unwrap();
    let error = sink.apply(1, &[]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Sql, "{}", error.chain());
    assert!(error.chain().contains("option 'key'"), "{}", error.chain());
    setup.finish().await;
}

const TABLE: &str = "CREATE {unbounded} EXTERNAL TABLE plays (
  id BIGINT, content_id VARCHAR, event_ts TIMESTAMP, engagement_seconds DOUBLE
) STORED AS KAFKA LOCATION '{topic}' OPTIONS ('brokers' '${env:KAFKA_BROKERS}', 'key' 'content_id', 'partitions' '2', 'start' 'earliest');";

#[tokio::test]
async fn a_lane_writes_a_topic_and_a_lane_of_another_project_reads_it() {
    let (first, second) = (Project::new(2).await, Project::new(1).await);
    let topic = format!("{}_plays", first.name);
    let lanes = ["bigquery", "partner", "top_content", "top_content_seconds"];
    first.remove(&lanes);
    second.remove(&[&lanes[..], &["enriched", "sinks", "sources", "lookups"]].concat());
    // The first declares it as one that could be read, too.
    let table = TABLE.replace("{unbounded}", "UNBOUNDED").replace("{topic}", &topic);
    first.write("plays_table", &table);
    first.write("plays", "INSERT INTO plays SELECT id, content_id, event_ts, engagement_seconds FROM enriched;");
    second.write("plays_table", &table);
    second.write(
        "copy_table",
        "CREATE EXTERNAL TABLE copy (id BIGINT, content_id VARCHAR, event_ts TIMESTAMP, engagement_seconds DOUBLE)
      STORED AS JSON LOCATION 'data/copy/' OPTIONS ('roll.interval' '100ms');",
    );
    second.write("copy", "INSERT INTO copy SELECT * FROM plays;");
    first.fill_content(crate::end_to_end::CONTENTS, crate::end_to_end::SEED);
    for part in crate::end_to_end::events(4_000).chunks(2_000) {
        let part: Vec<_> = part.iter().map(|(partition, event)| (partition % 2, *event)).collect();
        crate::end_to_end::send(&first, &part);
        first.run_until_latest("http://127.0.0.1:1");
        second.run_until_latest("http://127.0.0.1:1");
    }
    // With nothing new but the end of a transaction behind the last record, a run ends as well.
    second.run_until_latest("http://127.0.0.1:1");
    let written: BTreeMap<i64, serde_json::Value> = kafka::committed(&first.brokers, &topic)
        .iter()
        .map(|record| (id(record), serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap()))
        .collect();
    let copied: Vec<serde_json::Value> = crate::end_to_end::found::files(&second.path("data/copy"), "json")
        .iter()
        .flat_map(|path| crate::end_to_end::found::json(path))
        .collect();
    assert_eq!((written.len(), copied.len()), (4_000, 4_000));
    for mut row in copied {
        // Files leave out what is NULL.
        row.as_object_mut().unwrap().entry("engagement_seconds").or_insert(serde_json::Value::Null);
        assert_eq!(written[&row["id"].as_i64().unwrap()], row);
    }
    kafka::remove(&first.brokers, &topic).await;
    first.finish().await;
    second.finish().await;
}
