//! The HTTP sink against `falaj receive`, over real sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Schema;
use falaj::batch::{Output, RowIds, Stage};
use falaj::error::{Error, Kind};
use falaj::sink::http::{HttpOptions, HttpSink};
use falaj::sink::{Applied, Sink, Staged, Writer};
use falaj::table::TableDef;
use falaj::tool::receive::{Faults, Receiver};

/// A receiver, and the outbox of a sink that sends to it.
struct Setup {
    receiver: Receiver,
    outbox: tempfile::TempDir,
    options: Vec<(&'static str, &'static str)>,
}

impl Setup {
    async fn new(faults: Faults, options: &[(&'static str, &'static str)]) -> Self {
        let receiver = Receiver::start(([127, 0, 0, 1], 0).into(), faults).await.unwrap();
        Self { receiver, outbox: tempfile::tempdir().unwrap(), options: options.to_vec() }
    }

    async fn sink(&self, incarnation: u64) -> HttpSink {
        let table = TableDef {
            name: "partner".into(),
            stored_as: "HTTP".into(),
            unbounded: false,
            location: format!("http://{}/engagements?token=secret", self.receiver.addr()),
            schema: Arc::new(Schema::empty()),
            partition_by: vec![],
            options: self.options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<BTreeMap<_, _>>(),
            place: "sinks.sql:1:1".into(),
        };
        let mut sink = HttpSink::new(HttpOptions::from_table(&table).unwrap(), self.outbox.path());
        let writer = Writer { lineage: "lineage".into(), lane: "enriched".into(), incarnation };
        assert_eq!(sink.open(&writer).await.unwrap(), None);
        sink
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.outbox.path().join("enriched")).map_or(0, Iterator::count)
    }
}

/// Rows of `count` records of partition 3 from `offset` on.
fn rows(offset: i64, count: usize) -> Output {
    let offsets = Int64Array::from_iter_values(offset..offset + count as i64);
    let column = |name: &str, column: ArrayRef| (name.to_owned(), column, true);
    let text = |index: i64| if index % 20 == 0 { None } else { Some(format!("content \"{}\" é", index % 977)) };
    let batch = RecordBatch::try_from_iter_with_nullable([
        column("id", Arc::new(offsets.clone())),
        column("content_id", Arc::new(StringArray::from_iter(offsets.values().iter().map(|&index| text(index))))),
        column("event_type", Arc::new(StringArray::from_iter_values(offsets.values().iter().map(|_| "play")))),
        column(
            "event_ts",
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                offsets.values().iter().map(|index| 1_700_000_000_000_000 + index * 1_001),
            )),
        ),
        column(
            "engagement_seconds",
            Arc::new(Float64Array::from_iter(
                offsets.values().iter().map(|&index| (index % 7 > 0).then_some(index as f64 / 1000.0)),
            )),
        ),
        column(
            "raw_payload",
            Arc::new(StringArray::from_iter_values(
                offsets.values().iter().map(|index| format!("{{\"app\":\"ios\",\"n\":{index}}}")),
            )),
        ),
    ]);
    Output::Rows { rows: batch.unwrap(), ids: RowIds::Offsets { topic: "events".into(), partition: 3, offsets } }
}

async fn stage(sink: &mut HttpSink, epoch: u64, outputs: Vec<Output>) -> Vec<Staged> {
    for output in outputs {
        sink.write(epoch, output).await.unwrap();
    }
    sink.seal(epoch).await.unwrap()
}

async fn refused(setup: &Setup) -> Error {
    let mut sink = setup.sink(1).await;
    let staged = stage(&mut sink, 1, vec![rows(0, 10)]).await;
    sink.apply(1, &staged).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_arrives_once_though_requests_fail_answers_are_lost_and_all_is_slow() {
    let faults = Faults { fail: 20.0, cut: 20.0, slow: Some(Duration::from_millis(2)), seed: 7, ..Faults::default() };
    let setup = Setup::new(faults, &[("batch.rows", "50"), ("concurrency", "4")]).await;
    let mut sink = setup.sink(1).await;
    let mut retries = 0;
    for epoch in 1..=4 {
        let first = epoch as i64 * 2_000;
        let staged = stage(&mut sink, epoch, vec![rows(first, 700), rows(first + 700, 1_300)]).await;
        assert_eq!((staged.len(), staged[0].rows, setup.files()), (1, 2_000, 1));
        let applied = sink.apply(epoch, &staged).await.unwrap();
        assert_eq!((applied.rows, applied.refused.len()), (2_000, 0));
        retries += applied.retries;
        sink.committed(epoch, &staged).await.unwrap();
        assert_eq!(setup.files(), 0);
    }
    let counts = setup.receiver.counts();
    assert_eq!(
        (counts.rows, counts.effective_rows, counts.duplicate_ids, counts.key_conflicts),
        (8_000, 8_000, 0, 0),
        "{counts}"
    );
    assert!(
        counts.failed > 10 && counts.duplicate_keys > 10 && retries >= counts.failed + counts.duplicate_keys,
        "{counts}, {retries}"
    );
    assert!(sink.concurrency() > 1);
}

#[tokio::test]
async fn one_poisonous_row_is_found_and_its_neighbours_arrive() {
    for (format, poison) in [("json", 0), ("json", 137), ("ndjson", 299)] {
        let faults = Faults { refuse: Some(format!("id={poison}").parse().unwrap()), ..Faults::default() };
        let setup = Setup::new(faults, &[("batch.rows", "100"), ("format", format)]).await;
        let mut sink = setup.sink(1).await;
        let staged = stage(&mut sink, 1, vec![rows(0, 300)]).await;
        let Applied { rows, refused, .. } = sink.apply(1, &staged).await.unwrap();
        assert_eq!((rows, refused.len()), (299, 1));
        let letter = &refused[0];
        assert_eq!((letter.partition, letter.offset, letter.stage, letter.code), (3, poison, Stage::Sink, "http_400"));
        assert!(letter.message.contains("status 400: row 0 is refused"), "{}", letter.message);
        assert_eq!(setup.receiver.counts().effective_rows, 299);
        // Again after a crash: the same halves under the same keys, and the same letter.
        let again = setup.sink(2).await.apply(1, &staged).await.unwrap();
        assert_eq!((again.rows, again.refused), (299, refused));
        let counts = setup.receiver.counts();
        assert_eq!((counts.rows, counts.duplicate_ids, counts.key_conflicts), (299, 0, 0), "{counts}");
    }
}

#[tokio::test]
async fn retry_after_is_honoured_by_all_requests() {
    let faults = Faults { status: Some(429), times: Some(1), retry_after: Some(1), ..Faults::default() };
    let setup = Setup::new(faults, &[("batch.rows", "10")]).await;
    let mut sink = setup.sink(1).await;
    let staged = stage(&mut sink, 1, vec![rows(0, 100)]).await;
    let began = Instant::now();
    let applied = sink.apply(1, &staged).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((applied.rows, applied.retries, setup.receiver.counts().effective_rows), (100, 1, 100));
}

#[tokio::test]
async fn after_a_crash_the_staged_file_is_sent_again_byte_for_byte() {
    let setup = Setup::new(Faults { cut: 100.0, ..Faults::default() }, &[("batch.rows", "100"), ("retry.for", "1ms")]).await;
    let mut sink = setup.sink(1).await;
    let staged = stage(&mut sink, 1, vec![rows(0, 1_000)]).await;
    let error = sink.apply(1, &staged).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(!error.chain().contains("secret"), "{}", error.chain());
    // The epoch after it was being written when the process died; its file is not in any intent.
    sink.write(2, rows(1_000, 500)).await.unwrap();
    drop(sink);
    setup.receiver.set_faults(Faults::default());
    let mut sink = setup.sink(2).await;
    assert_eq!(setup.files(), 2);
    sink.discard(&staged).await.unwrap();
    assert_eq!(setup.files(), 1);
    assert_eq!(sink.apply(1, &staged).await.unwrap().rows, 1_000);
    assert_eq!(sink.apply(1, &staged).await.unwrap().rows, 1_000);
    sink.committed(1, &staged).await.unwrap();
    sink.committed(1, &staged).await.unwrap();
    let counts = setup.receiver.counts();
    assert_eq!((counts.rows, counts.effective_rows, counts.key_conflicts, setup.files()), (1_000, 1_000, 0, 0), "{counts}");
    assert!(counts.duplicate_keys > 10, "{counts}");
}

#[tokio::test]
async fn what_no_waiting_mends_stops_the_lane_with_advice() {
    for (status, says) in [(401, "header.authorization"), (403, "header.authorization"), (308, "redirects are not followed")] {
        let setup = Setup::new(Faults { status: Some(status), ..Faults::default() }, &[]).await;
        let error = refused(&setup).await;
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.chain().contains(says) && !error.chain().contains("secret"), "{}", error.chain());
        assert_eq!(setup.receiver.counts().requests, 1);
    }
    let setup = Setup::new(Faults { status: Some(500), ..Faults::default() }, &[("retry.for", "50ms")]).await;
    let error = refused(&setup).await;
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.chain().contains("status 500: told to fail"), "{}", error.chain());
}

#[tokio::test]
async fn an_outbox_that_was_touched_is_not_sent() {
    let setup = Setup::new(Faults::default(), &[]).await;
    let staged = stage(&mut setup.sink(1).await, 1, vec![rows(0, 10)]).await;
    let path = setup.outbox.path().join(Path::new(&staged[0].staged));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 5;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(setup.sink(2).await.apply(1, &staged).await.unwrap_err().kind(), Kind::Corrupt);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(setup.sink(2).await.apply(1, &staged).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(setup.receiver.counts().requests, 0);
}

#[tokio::test]
async fn an_epoch_without_rows_leaves_no_file() {
    let setup = Setup::new(Faults::default(), &[]).await;
    let mut sink = setup.sink(1).await;
    assert_eq!(sink.seal(1).await.unwrap(), []);
    assert_eq!(stage(&mut sink, 2, vec![rows(0, 0)]).await, []);
    assert_eq!(sink.apply(2, &[]).await.unwrap().rows, 0);
    assert_eq!(setup.files(), 0);
}

#[tokio::test]
async fn the_front_page_shows_counts_and_rows() {
    let setup = Setup::new(Faults::default(), &[]).await;
    let mut sink = setup.sink(1).await;
    let staged = stage(&mut sink, 1, vec![rows(0, 30)]).await;
    sink.apply(1, &staged).await.unwrap();
    let get =
        async |path: &str| reqwest::get(format!("http://{}{path}", setup.receiver.addr())).await.unwrap().text().await.unwrap();
    let page = get("/").await;
    assert!(page.starts_with("30 rows by _id") && page.lines().count() == 23, "{page}");
    let rows = get("/rows?limit=2").await;
    assert!(rows.starts_with(r#"{"_id":"events/3/29","id":29,"content_id":"content \"29\" é","event_type":"play","event_ts":"2023-11-14T22:13:20.029029Z""#), "{rows}");
    assert_eq!(rows.lines().count(), 2);
    assert!(get("/stats").await.contains(r#""effective_rows":30"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; run with --release --ignored --nocapture"]
async fn how_fast_rows_are_sent() {
    let setup = Setup::new(Faults::default(), &[]).await;
    let mut sink = setup.sink(1).await;
    let outputs: Vec<Output> = (0..50).map(|part| rows(part * 8_192, 8_192)).collect();
    for epoch in 1..=4u64 {
        let began = Instant::now();
        let staged = stage(&mut sink, epoch, outputs.clone()).await;
        let (staging, rows) = (began.elapsed(), staged[0].rows as f64);
        let began = Instant::now();
        sink.apply(epoch, &staged).await.unwrap();
        println!(
            "{} bytes a row; staged {:.0} rows/s (fsync included), sent and taken {:.0} rows/s, {} at once",
            staged[0].size_bytes / staged[0].rows,
            rows / staging.as_secs_f64(),
            rows / began.elapsed().as_secs_f64(),
            sink.concurrency()
        );
        sink.committed(epoch, &staged).await.unwrap();
    }
}
