//! A log over a source in memory: whatever the lanes do, each gets every record once and in order.

use std::str;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::*;
use crate::batch::{DeadLetter, Payloads, Segment, Stage};
use crate::decode::Decoded;
use crate::memory::{Memory, Use};
use crate::position::Span;
use crate::source::Start;
use crate::source::memory::MemorySource;
use crate::status::PartitionLag;

const WAIT: Duration = Duration::from_secs(10);

/// One column: the payload as a number. What is no number is a dead letter.
struct Numbers(SchemaRef);

fn numbers() -> Result<Box<dyn Decoder>> {
    Ok(Box::new(Numbers(Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)])))))
}

impl Decoder for Numbers {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn prepare(&mut self, _: &Payloads) -> Result<()> {
        Ok(())
    }

    fn decode(&mut self, payloads: Payloads) -> Result<Decoded> {
        let (mut values, mut offsets, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for index in (0..payloads.len()).filter(|index| !payloads.tombstones.contains(index)) {
            let text = str::from_utf8(payloads.payload(index)).unwrap_or_default();
            match text.trim().parse::<i64>() {
                Ok(value) => {
                    values.push(value);
                    offsets.push(payloads.offsets[index]);
                }
                Err(why) => dead.push(DeadLetter {
                    partition: payloads.span.partition,
                    offset: payloads.offsets[index],
                    stage: Stage::Decode,
                    code: "type_mismatch",
                    message: why.to_string(),
                    schema_id: None,
                }),
            }
        }
        let rows = RecordBatch::try_new(self.schema(), vec![Arc::new(Int64Array::from(values))])?;
        Ok(Decoded {
            span: payloads.span,
            rows,
            offsets: offsets.into(),
            dead,
            tombstones: payloads.tombstones.iter().map(|&index| payloads.offsets[index]).collect(),
            appended_ms: payloads.appended_ms,
            lost: payloads.lost,
        })
    }
}

/// Record n of a partition holds n, in a payload of a hundred bytes.
fn fill(source: &MemorySource, partition: usize, records: i64) {
    for n in 0..records {
        source.push(partition, Some(format!("{n:<100}").into_bytes()), n);
    }
}

fn open(source: &MemorySource, lanes: usize, bytes_max: usize) -> Arc<Log> {
    Log::open(Arc::new(source.clone()), Arc::new(numbers), limits(lanes, bytes_max, &Share::unlimited()))
}

fn limits(lanes: usize, bytes_max: usize, memory: &Share) -> LogLimits {
    LogLimits { bytes_max, lanes, threads: 2, memory: memory.clone(), reader_bytes: 1 << 20 }
}

/// What a lane has got of each partition: spans must touch, and rows must be what was written at their offset.
#[derive(Default)]
struct Seen {
    at: Positions,
    rows: i64,
    dead: i64,
}

impl Seen {
    fn add(&mut self, segments: &[Arc<Segment>]) {
        for segment in segments {
            self.at.advance(segment.span).expect("segments touch");
            let values = segment.rows.column(0).as_any().downcast_ref::<Int64Array>().expect("one column");
            assert_eq!(values, &segment.offsets, "record n holds n");
            self.rows += segment.rows.num_rows() as i64;
            self.dead += segment.dead.len() as i64;
        }
    }

    /// Takes until so many rows are there.
    async fn until(&mut self, lane: &mut LogReader, rows: i64) {
        while self.rows < rows {
            let taken = lane.take(64 << 10, WAIT).await.expect("no error");
            assert!(!taken.is_empty(), "{} of {rows} rows after {WAIT:?}", self.rows);
            self.add(&taken);
        }
        assert_eq!(self.rows, rows);
    }
}

/// Waits for a state.
async fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + WAIT;
    while !reached() {
        assert!(std::time::Instant::now() < deadline, "never came: {what}");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn behind(lane: &LogReader) -> i64 {
    lane.behind().values().sum()
}

#[tokio::test]
async fn two_lanes_get_every_record_in_order_within_the_bound() {
    let source = MemorySource::new("t", 3, usize::MAX);
    (0..3).for_each(|partition| fill(&source, partition, 50_000));
    let bytes_max = 2 << 20;
    let log = open(&source, 2, bytes_max);
    let (mut fast, mut slow) = (log.subscribe(Positions::default()), log.subscribe(Positions::default()));
    let (mut seen_fast, mut seen_slow) = (Seen::default(), Seen::default());
    for step in 1..=15 {
        seen_fast.until_at_least(&mut fast, step * 10_000).await;
        seen_slow.until_at_least(&mut slow, step * 10_000 - 8_000).await;
        assert!(log.bytes() < bytes_max + (5 << 20), "{} bytes", log.bytes());
    }
    seen_fast.until(&mut fast, 150_000).await;
    seen_slow.until(&mut slow, 150_000).await;
    wait_for("the log end", || fast.all_at_log_end() && slow.all_at_log_end()).await;
    assert_eq!((behind(&fast), behind(&slow)), (0, 0));
    assert_eq!(fast.positions(), &seen_slow.at);
}

impl Seen {
    async fn until_at_least(&mut self, lane: &mut LogReader, rows: i64) {
        while self.rows < rows {
            let taken = lane.take(64 << 10, WAIT).await.expect("no error");
            assert!(!taken.is_empty(), "{} of {rows} rows after {WAIT:?}", self.rows);
            self.add(&taken);
        }
    }
}

#[tokio::test]
async fn a_lag_is_as_old_as_what_was_taken_last_or_as_the_last_time_at_the_log_end() {
    let source = MemorySource::new("t", 1, usize::MAX);
    fill(&source, 0, 5_000);
    let log = open(&source, 1, 16 << 20);
    let mut lane = log.subscribe(Positions::default());
    wait_for("all is read", || behind(&lane) == 5_000).await;
    let lag = |records, taken_to_ms| vec![PartitionLag { partition: 0, records, taken_to_ms }];
    assert_eq!(lane.lags(9_000), lag(5_000, None), "nothing is known of what was never looked at");
    let mut seen = Seen::default();
    seen.add(&lane.take(1_000, WAIT).await.expect("no error"));
    let left = 5_000 - seen.rows.unsigned_abs();
    let waits = lane.lags(9_000);
    assert_eq!(waits[0].records, left);
    assert!(left > 0 && waits[0].taken_to_ms.is_some_and(|ms| ms < 5_000), "record n was appended at n: {waits:?}");
    seen.until(&mut lane, 5_000).await;
    assert_eq!(lane.lags(9_000), lag(0, Some(9_000)));
    source.push(0, Some(b"5000".to_vec()), 5_000);
    wait_for("one more is read", || behind(&lane) == 1).await;
    let waits = lane.lags(9_400);
    assert_eq!(waits, lag(1, Some(9_000)), "an old record that comes late is no older than the last look");
    assert_eq!(waits[0].seconds(9_400), Some(0.4));
}

#[tokio::test]
async fn a_lane_that_took_a_part_of_a_segment_knows_that_there_is_more() {
    let source = MemorySource::new("t", 1, usize::MAX);
    fill(&source, 0, 5_000);
    let log = open(&source, 1, 16 << 20);
    let mut lane = log.subscribe(Positions::default());
    wait_for("all is decoded", || log.bytes() >= 5_000 * 16 && behind(&lane) == 5_000).await;
    let (mut seen, mut parts) = (Seen::default(), 0);
    while seen.rows < 5_000 {
        assert!(parts == 0 || lane.has_more(), "{} rows are left", 5_000 - seen.rows);
        seen.add(&lane.take(4 << 10, WAIT).await.expect("no error"));
        parts += 1;
    }
    assert!(parts > 5 && !lane.has_more(), "{parts} parts");
}

#[tokio::test]
async fn a_lane_that_stands_still_does_not_hold_up_the_others_and_misses_nothing() {
    let source = MemorySource::new("t", 2, usize::MAX);
    let log = open(&source, 2, 1 << 20);
    let (mut fast, mut slow) = (log.subscribe(Positions::default()), log.subscribe(Positions::default()));
    wait_for("the log to be live", || log.at_log_end()).await;
    (0..2).for_each(|partition| fill(&source, partition, 100_000));
    let mut seen_fast = Seen::default();
    seen_fast.until(&mut fast, 200_000).await;
    assert!(slow.is_detached());
    let mut seen_slow = Seen::default();
    seen_slow.until(&mut slow, 200_000).await;
    wait_for("the lane to be back", || {
        let _ = futures::FutureExt::now_or_never(slow.take(1, Duration::ZERO));
        !slow.is_detached()
    })
    .await;
    source.push(0, Some(b"100000".to_vec()), 0);
    seen_slow.until(&mut slow, 200_001).await;
    seen_fast.until(&mut fast, 200_001).await;
}

#[tokio::test]
async fn a_lane_that_falls_behind_again_while_it_takes_the_rest_of_its_own_reading_misses_nothing() {
    let memory = Memory::unlimited();
    let source = MemorySource::new("t", 1, usize::MAX);
    fill(&source, 0, 150_000);
    let log = Log::open(Arc::new(source.clone()), Arc::new(numbers), limits(2, 32 << 20, &memory.share("log of", "t")));
    let (mut fast, mut slow) = (log.subscribe(Positions::default()), log.subscribe(Positions::default()));
    let fall_behind = || {
        let mut state = log.shared.state.lock();
        state.lanes.values_mut().max_by_key(|lane| lane.at.iter().map(|(_, at)| -at).sum::<i64>()).expect("two").detached =
            true;
        state.evict(0);
    };
    let (mut seen_fast, mut seen_slow) = (Seen::default(), Seen::default());
    seen_fast.until(&mut fast, 150_000).await;
    fall_behind();
    assert!(slow.is_detached());
    seen_slow.until_at_least(&mut slow, 1).await;
    let read_ahead = || memory.snapshot().holders[0].of.get("reading again").copied().unwrap_or(0);
    // Two numbers of 8 bytes for each row, and the reader.
    let all = (150_000 - seen_slow.rows) as u64 * 16 + (1 << 20);
    wait_for("the lane's own reading to be ahead", || read_ahead() > all).await;
    while slow.is_detached() {
        seen_slow.add(&slow.take(1, WAIT).await.expect("no error"));
    }
    assert!(read_ahead() > 1 << 20, "the rest is still there: {}", read_ahead());
    for n in 150_000..155_000 {
        source.push(0, Some(n.to_string().into_bytes()), n);
    }
    seen_fast.until(&mut fast, 155_000).await;
    fall_behind();
    assert!(slow.is_detached());
    seen_slow.until(&mut slow, 155_000).await;
}

#[tokio::test]
async fn when_memory_is_short_the_log_holds_a_piece_and_misses_nothing() {
    let memory = Memory::new(Some(64 << 20));
    let mut others = memory.share("lookup", "large").account(Use::Rows);
    others.set(64 << 20);
    let source = MemorySource::new("t", 2, usize::MAX);
    (0..2).for_each(|partition| fill(&source, partition, 100_000));
    let log = Log::open(Arc::new(source.clone()), Arc::new(numbers), limits(1, 32 << 20, &memory.share("log of", "t")));
    let mut lane = log.subscribe(Positions::default()).accounted(memory.lane("a").account(Use::Epoch));
    let mut seen = Seen::default();
    for step in 1..=20 {
        seen.until_at_least(&mut lane, step * 10_000).await;
        assert!(log.bytes() < 8 << 20, "{} bytes", log.bytes());
    }
    seen.until(&mut lane, 200_000).await;
    let of = |name: &str| memory.snapshot().holders.into_iter().find(|holder| holder.name == name).map(|holder| holder.bytes);
    // What the lane was handed last counts for it; the log's share is what it says, and its reader.
    assert!(of("lane 'a'") > Some(0));
    assert_eq!(of("log of 't'"), Some(log.bytes() as u64 + (1 << 20)));
    drop((lane, log));
    wait_for("the log to be gone", || memory.snapshot().used_bytes == 64 << 20).await;
}

#[tokio::test]
async fn before_anybody_is_refused_the_log_gives_up_what_can_be_read_again() {
    let memory = Memory::new(Some(64 << 20));
    let source = MemorySource::new("t", 1, usize::MAX);
    fill(&source, 0, 400_000);
    let log = Log::open(Arc::new(source.clone()), Arc::new(numbers), limits(2, 32 << 20, &memory.share("log of", "t")));
    let (mut fast, mut slow) = (log.subscribe(Positions::default()), log.subscribe(Positions::default()));
    let mut seen = Seen::default();
    seen.until_at_least(&mut fast, 1).await;
    wait_for("the log to hold what nobody has taken", || log.at_log_end() && log.shared.state.lock().in_flight == 0).await;
    assert!(log.bytes() > 5 << 20, "{} bytes", log.bytes());
    let mut state = memory.lane("a").account(Use::State);
    state.try_set(62 << 20).expect("the log gives it up");
    assert_eq!(log.bytes(), 0);
    assert_eq!(log.detached(), 2);
    // Both read by themselves then, as little ahead as memory allows, and miss nothing.
    let mut seen_slow = Seen::default();
    seen_slow.until(&mut slow, 400_000).await;
    seen.until(&mut fast, 400_000).await;
    drop(state);
}

#[tokio::test]
async fn a_late_lane_reads_from_the_beginning_and_then_with_the_others() {
    let source = MemorySource::new("t", 3, usize::MAX);
    fill(&source, 0, 60_000);
    fill(&source, 1, 10);
    let log = open(&source, 1, 1 << 20);
    let mut first = log.subscribe(source.start(Start::Earliest).expect("memory"));
    Seen::default().until(&mut first, 60_010).await;
    for from in [Positions::default(), source.start(Start::Earliest).expect("memory")] {
        let mut late = log.subscribe(from);
        assert!(late.is_detached());
        let mut seen = Seen::default();
        seen.until(&mut late, 60_010).await;
        wait_for("the lane to be back", || {
            let _ = futures::FutureExt::now_or_never(late.take(1, Duration::ZERO));
            !late.is_detached() && late.all_at_log_end()
        })
        .await;
    }
    assert_eq!(log.detached(), 0);
}

#[tokio::test]
async fn gaps_tombstones_bad_records_and_new_partitions() {
    let source = MemorySource::new("t", 1, usize::MAX);
    source.push(0, Some(b"0".to_vec()), 0);
    source.push_gap(0);
    source.push(0, None, 0);
    source.push(0, Some(b"x".to_vec()), 0);
    source.push_gap(0);
    let log = open(&source, 1, 1 << 20);
    let mut lane = log.subscribe(Positions::default());
    let mut seen = Seen::default();
    wait_for("the log end", || {
        if let Some(Ok(taken)) = futures::FutureExt::now_or_never(lane.take(1, Duration::ZERO)) {
            seen.add(&taken);
        }
        lane.all_at_log_end()
    })
    .await;
    assert_eq!((seen.rows, seen.dead, lane.positions().get(0)), (1, 1, Some(5)), "the position lies past the last gap");
    source.add_partition();
    source.add_partition();
    fill(&source, 2, 7);
    seen.until(&mut lane, 8).await;
    wait_for("the log end", || lane.all_at_log_end()).await;
    assert_eq!(lane.at_log_end(), [(0, true), (1, true), (2, true)]);
}

#[tokio::test]
async fn spans_are_read_again_exactly() {
    let source = MemorySource::new("t", 3, usize::MAX);
    (0..3).for_each(|partition| fill(&source, partition, 40_000));
    let log = open(&source, 1, 1 << 20);
    let span = |partition, from, to| Span { partition, from, to };
    let epochs = [
        vec![span(0, 5, 20_001), span(0, 20_001, 20_001), span(1, 0, 1)],
        vec![span(1, 1, 40_000), span(0, 20_001, 20_003), span(0, 20_003, 30_000)],
    ];
    let mut replay = log.replay(&[(0, 5), (1, 0)].into_iter().collect()).expect("threads");
    let mut seen = Seen::default();
    for epoch in epochs {
        let rows: i64 = epoch.iter().map(|span| span.to - span.from).sum();
        let (mut left, before) = (epoch.clone(), seen.rows);
        while !left.is_empty() {
            let taken = tokio::time::timeout(WAIT, replay.next(&mut left)).await.expect("in time").expect("no error");
            seen.add(&taken);
        }
        assert_eq!(seen.rows - before, rows);
        for span in epoch {
            assert!(seen.at.get(span.partition) >= Some(span.to));
        }
    }
    let spans = [span(2, 17, 12_345), span(0, 3, 3), span(1, 3, 4), span(2, 12_345, 12_346)];
    let (mut reader, mut seen) = (log.spans(&spans), Seen::default());
    while let Some(taken) = tokio::time::timeout(WAIT, reader.next()).await.expect("in time").expect("no error") {
        seen.add(&taken);
    }
    assert_eq!((seen.rows, seen.at.get(2), seen.at.len()), (12_346 - 17 + 1, Some(12_346), 2));
    let error = replay.next(&mut vec![span(0, 7, 8)]).await.expect_err("it stands elsewhere");
    assert_eq!(error.kind(), Kind::Bug);
}

#[tokio::test]
async fn records_that_are_gone_end_every_lane_with_the_spans() {
    let source = MemorySource::new("t", 1, 10);
    fill(&source, 0, 100);
    let log = open(&source, 1, 1 << 20);
    let mut lane = log.subscribe([(0, 5)].into_iter().collect());
    let error = lane.take(1, WAIT).await.expect_err("gone");
    assert_eq!((error.kind(), error.to_string().contains("partition 0 [5, 90)")), (Kind::Lost, true), "{error}");
}

#[tokio::test]
async fn a_record_reaches_a_waiting_lane_at_once_and_dropping_the_log_ends_its_threads() {
    let source = MemorySource::new("t", 1, usize::MAX);
    let log = open(&source, 1, 1 << 20);
    let mut lane = log.subscribe(Positions::default());
    let mut times = Vec::new();
    for n in 0..200 {
        let (pusher, payload, shared) = (source.clone(), n.to_string(), Arc::clone(&log.shared));
        let push = thread::spawn(move || {
            while !shared.state.lock().lanes.values().all(|lane| lane.starving) {
                thread::yield_now();
            }
            let at = std::time::Instant::now();
            pusher.push(0, Some(payload.into_bytes()), 0);
            at
        });
        let taken = lane.take(1, WAIT).await.expect("no error");
        let now = std::time::Instant::now();
        assert_eq!(taken.len(), 1);
        times.push(now.duration_since(push.join().expect("pushed")));
    }
    times.sort();
    eprintln!("from push to take: p50 {:?}, p99 {:?}", times[100], times[198]);
    assert!(times[100] < Duration::from_millis(20), "{:?}", times[100]);
    let shared = Arc::downgrade(&log.shared);
    drop(log);
    assert!(lane.take(1, WAIT).await.is_err());
    drop(lane);
    wait_for("the threads to end", || shared.strong_count() == 0).await;
}
