//! Order over a source in memory.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray};

use super::*;
use crate::source::memory::MemorySource;

const WAIT: Duration = Duration::from_millis(20);
/// Records in one piece.
const PIECE: i64 = 16_384;

/// One column `ts`: the payload as ns.
struct Times;

impl Decoder for Times {
    fn schema(&self) -> SchemaRef {
        rows(&[]).schema()
    }

    fn prepare(&mut self, _payloads: &Payloads) -> Result<()> {
        Ok(())
    }

    fn decode(&mut self, payloads: Payloads) -> Result<Decoded> {
        let number = |index| std::str::from_utf8(payloads.payload(index)).unwrap().parse().unwrap();
        let times: Vec<i64> = (0..payloads.len()).map(number).collect();
        Ok(Decoded {
            span: payloads.span,
            rows: rows(&times),
            offsets: Int64Array::from(payloads.offsets),
            dead: vec![],
            tombstones: vec![],
            appended_ms: payloads.appended_ms,
            lost: 0,
        })
    }
}

fn rows(times: &[i64]) -> RecordBatch {
    RecordBatch::try_from_iter([("ts", Arc::new(TimestampNanosecondArray::from(times.to_vec())) as ArrayRef)]).unwrap()
}

/// A topic whose partitions have an event every so many ns, `records` each.
fn topic(steps_ns: &[i64], records: i64) -> MemorySource {
    let source = MemorySource::new("t", steps_ns.len(), usize::MAX);
    for (partition, step) in steps_ns.iter().enumerate() {
        source.push_all(partition, (0..records).map(|n| (n * step).to_string().into_bytes()).collect(), 7);
    }
    source
}

fn order(source: &MemorySource, to: Option<Positions>) -> (Order, Box<dyn Decoder>) {
    let order = Order::new(Arc::new(source.clone()), source.start(Start::Earliest).unwrap(), to);
    let make = order.decoder(Arc::new(|| Ok(Box::new(Times))), Some("ts".into()));
    let decoder = make().unwrap();
    (order, decoder)
}

fn all_at_end(reader: &dyn Reader) -> bool {
    reader.positions().iter().all(|(partition, _)| reader.at_log_end(partition))
}

#[test]
fn the_partition_that_has_come_the_least_far_is_read_next() {
    let steps = [1, 10, 100];
    let source = topic(&steps, 10 * PIECE);
    let (order, mut decoder) = order(&source, None);
    let mut reader = order.reader(&order.start(Start::Earliest).unwrap()).unwrap();
    let mut reached = BTreeMap::from([(0, -1), (1, -1), (2, -1)]);
    while !all_at_end(reader.as_ref()) {
        let mut pieces = Vec::new();
        reader.poll(WAIT, &mut |piece| pieces.push(piece)).unwrap();
        for piece in pieces {
            let partition = piece.span.partition;
            let behind = reached.iter().filter(|(of, _)| !reader.at_log_end(**of) || **of == partition);
            let least = behind.map(|(_, at)| *at).min();
            assert_eq!(Some(reached[&partition]), least, "partition {partition} of {reached:?}");
            reached.insert(partition, (piece.span.to - 1) * steps[partition as usize]);
            decoder.decode(piece).unwrap();
            assert_eq!(order.reached_ns(), reached.values().copied().filter(|at| *at >= 0).min());
        }
    }
    assert_eq!(reader.positions(), source.log_ends().unwrap());
    // At its end it goes on with what comes.
    source.push(1, Some(b"5".to_vec()), 8);
    let mut seen = Vec::new();
    reader.poll(Duration::from_secs(5), &mut |piece| seen.push(piece.span)).unwrap();
    assert_eq!(seen, [crate::position::Span { partition: 1, from: 10 * PIECE, to: 10 * PIECE + 1 }]);
}

#[test]
fn no_partition_is_read_far_ahead_of_what_is_decoded() {
    let source = topic(&[1, 1], 10 * PIECE);
    let (order, mut decoder) = order(&source, None);
    let mut reader = order.reader(&Positions::default()).unwrap();
    let mut pieces = Vec::new();
    (0..20).for_each(|_| reader.poll(WAIT, &mut |piece| pieces.push(piece)).unwrap());
    assert_eq!(pieces.len(), PENDING_MAX, "{:?}", pieces.iter().map(|piece| piece.span).collect::<Vec<_>>());
    decoder.decode(pieces.remove(0)).unwrap();
    reader.poll(WAIT, &mut |piece| pieces.push(piece)).unwrap();
    assert_eq!(pieces.last().unwrap().span.partition, 1, "which has not come as far");
}

#[test]
fn what_lies_at_the_end_or_behind_is_left_and_that_is_the_log_end() {
    let source = topic(&[1, 1, 1], 100);
    let to: Positions = [(0, 40), (1, 0)].into_iter().collect();
    let (order, mut decoder) = order(&source, Some(to));
    let mut reader = order.reader(&Positions::default()).unwrap();
    let mut seen = Positions::default();
    for _ in 0..10 {
        reader
            .poll(WAIT, &mut |piece| {
                assert_eq!(piece.len() as i64, piece.span.to - piece.span.from);
                seen.set(piece.span.partition, piece.span.to);
                decoder.decode(piece).unwrap();
            })
            .unwrap();
    }
    assert_eq!(seen, [(0, 40), (2, 100)].into_iter().collect());
    assert!(all_at_end(reader.as_ref()));
    assert_eq!(order.log_ends().unwrap(), [(0, 40), (1, 0), (2, 100)].into_iter().collect());
    assert_eq!(reader.log_ends(), order.log_ends().unwrap());
}

#[test]
fn without_an_event_time_the_time_of_appending_counts() {
    let source = topic(&[1], 10);
    let order = Order::new(Arc::new(source.clone()), source.start(Start::Earliest).unwrap(), None);
    let mut decoder = order.decoder(Arc::new(|| Ok(Box::new(Times))), None)().unwrap();
    let mut reader = order.reader(&Positions::default()).unwrap();
    reader.poll(WAIT, &mut |piece| drop(decoder.decode(piece).unwrap())).unwrap();
    assert_eq!(order.reached_ns(), Some(7_000_000));
}
