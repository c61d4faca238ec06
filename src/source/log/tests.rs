use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::*;
use crate::batch::Payloads;
use crate::decode::Decoded;
use crate::source::Start;
use crate::source::memory::MemorySource;

struct Numbers(SchemaRef);

impl Decoder for Numbers {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn decode(&mut self, payloads: Payloads) -> Result<Decoded> {
        let numbers: Int64Array = (0..payloads.len())
            .map(|index| std::str::from_utf8(payloads.payload(index)).ok().and_then(|text| text.parse::<i64>().ok()))
            .collect();
        Ok(Decoded {
            span: payloads.span,
            rows: RecordBatch::try_new(Arc::clone(&self.0), vec![Arc::new(numbers)])?,
            offsets: payloads.offsets.clone().into(),
            dead: Vec::new(),
            tombstones: 0,
            appended_ms: payloads.appended_ms,
        })
    }
}

fn log(source: &MemorySource, lanes: usize, bytes_max: usize) -> Arc<Log> {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let make: MakeDecoder = Arc::new(move || Ok(Box::new(Numbers(Arc::clone(&schema)))));
    Log::open(Arc::new(source.clone()), make, LogLimits { bytes_max, lanes, threads: 2 })
}

async fn read(reader: &mut LogReader, records: i64) -> Vec<i64> {
    let mut offsets = Vec::new();
    while (offsets.len() as i64) < records {
        for segment in reader.take(1 << 16, Duration::from_secs(10)).await.unwrap() {
            offsets.extend(segment.offsets.values().iter().map(|at| at * 10 + i64::from(segment.span.partition)));
        }
    }
    offsets
}

fn fill(source: &MemorySource, from: i64, to: i64) {
    for n in from..to {
        source.push((n % 2) as usize, Some(n.to_string().into_bytes()), n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lane_gets_every_record_once_and_in_order_whatever_the_others_do() {
    let source = MemorySource::new("t", 2, usize::MAX);
    fill(&source, 0, 100_000);
    let log = log(&source, 2, 64 << 10);
    let start = source.start(Start::Earliest).unwrap();
    let (mut quick, mut slow) = (log.subscribe(start.clone()), log.subscribe(start));
    // The slow one reads nothing until the quick one is done: it must be detached, and lose nothing.
    let first = read(&mut quick, 100_000).await;
    let second = read(&mut slow, 100_000).await;
    for offsets in [first, second] {
        for partition in 0..2 {
            let seen: Vec<i64> = offsets.iter().filter(|at| *at % 10 == partition).map(|at| at / 10).collect();
            assert_eq!(seen, (0..50_000).collect::<Vec<_>>());
        }
    }
    fill(&source, 100_000, 100_010);
    assert_eq!(read(&mut slow, 10).await.len(), 10);
    while slow.at_log_end() != vec![(0, true), (1, true)] {
        slow.take(1 << 16, Duration::from_millis(10)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_read_again_exactly() {
    let source = MemorySource::new("t", 2, usize::MAX);
    fill(&source, 0, 40_000);
    let log = log(&source, 1, 1 << 20);
    let spans = [Span { partition: 0, from: 17, to: 12_345 }, Span { partition: 1, from: 3, to: 3 }];
    let mut reader = log.spans(&spans);
    let mut offsets = Vec::new();
    while let Some(segments) = reader.next().await.unwrap() {
        offsets.extend(segments.iter().flat_map(|segment| segment.offsets.values().to_vec()));
    }
    assert_eq!(offsets, (17..12_345).collect::<Vec<_>>());
}
