//! Options without a broker; everything else against a real one (`KAFKA_BROKERS`; without it those tests pass over).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Schema};
use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::*;
use crate::table::TableDef;

const WAIT: Duration = Duration::from_secs(60);

fn table(options: &[(&str, &str)]) -> TableDef {
    TableDef {
        name: "events".into(),
        stored_as: "KAFKA".into(),
        unbounded: true,
        location: "events".into(),
        schema: Arc::new(Schema::new(vec![Field::new("ts", DataType::Int64, true)])),
        partition_by: Vec::new(),
        options: options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        place: "sources.sql:1:1".into(),
    }
}

#[test]
fn options_have_defaults_and_take_what_is_given() {
    let options = KafkaOptions::from_table(&table(&[("brokers", "b:1")])).expect("enough");
    assert_eq!((options.start, options.watermark), (Start::Earliest, crate::source::watermark::WatermarkOptions::default()));
    let given = [
        ("brokers", "b:1"),
        ("start", "latest"),
        ("watermark.column", "ts"),
        ("watermark.delay", "1s"),
        ("watermark.idle_timeout", "off"),
        ("watermark.max_ahead", "2h"),
        ("kafka.client.rack", "r1"),
    ];
    let options = KafkaOptions::from_table(&table(&given)).expect("all are right");
    assert_eq!(options.start, Start::Latest);
    assert_eq!(options.watermark.column.as_deref(), Some("ts"));
    assert_eq!((options.watermark.delay, options.watermark.idle_timeout), (Duration::from_secs(1), None));
    assert_eq!(options.kafka, [("client.rack".to_string(), "r1".to_string())]);
}

#[test]
fn wrong_options_are_named_all_at_once_and_secrets_are_not() {
    let given = [
        ("format", "xml"),
        ("watermark.dealy", "1s"),
        ("watermark.column", "nope"),
        ("watermark.idle_timeout", "soon"),
        ("kafka.auto.offset.reset", "latest"),
        ("kafka.sasl.pasword", "s3cret-value"),
        ("kafka.session.timeout.ms", "hunter2-value"),
    ];
    let error = KafkaOptions::from_table(&table(&given)).expect_err("wrong").chain();
    for part in [
        "sources.sql:1:1: table 'events'",
        "needs the option 'brokers'",
        "'xml'",
        "did you mean 'watermark.delay'?",
        "'nope', which is not a column",
        "'soon'",
        "'kafka.auto.offset.reset' cannot be set",
        "'kafka.sasl.pasword' is refused",
        "'kafka.session.timeout.ms' is refused",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("s3cret") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_broker_that_is_not_there_is_unreachable() {
    // Port 9 is bound by nobody here, and refuses at once.
    let source = KafkaSource::new(KafkaOptions::new("t", "127.0.0.1:9"));
    let begin = Instant::now();
    let error = source.start(Start::Earliest).expect_err("nobody there");
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.to_string().contains("is the broker running"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

/// A topic of one test's own.
struct Topic {
    brokers: String,
    name: String,
}

impl Topic {
    /// `None` when there is no broker to test with.
    #[allow(clippy::disallowed_methods, reason = "tests reach servers by environment variables")]
    fn named(test: &str) -> Option<Self> {
        let brokers = std::env::var("KAFKA_BROKERS").ok()?;
        Some(Self { brokers, name: format!("falaj-test-{test}-{}", uuid::Uuid::now_v7()) })
    }

    fn with_partitions(test: &str, partitions: i32) -> Option<Self> {
        let topic = Self::named(test)?;
        topic.create(partitions);
        Some(topic)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("client")
    }

    fn create(&self, partitions: i32) {
        let topic = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
        let created = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).expect("asked");
        created.into_iter().for_each(|one| drop(one.expect("created")));
    }

    fn producer(&self, transactional: bool) -> BaseProducer {
        let mut config = self.config();
        config.set("queue.buffering.max.messages", "1000000").set("compression.type", "zstd").set("linger.ms", "5");
        if transactional {
            config.set("transactional.id", &self.name);
        }
        config.create().expect("client")
    }

    /// Sends records `from..to` to each partition; record n holds n.
    fn send(&self, producer: &BaseProducer, partitions: i32, from: i64, to: i64) {
        for n in from..to {
            for partition in 0..partitions {
                let payload = n.to_string();
                let record = BaseRecord::<(), str>::to(&self.name).partition(partition).payload(&payload);
                producer.send(record).map_err(|(why, _)| why).expect("queued");
            }
            producer.poll(Duration::ZERO);
        }
        producer.flush(WAIT).expect("sent");
    }

    fn source(&self) -> KafkaSource {
        let mut options = KafkaOptions::new(&self.name, &self.brokers);
        // So that tests need not wait for what changes.
        options.kafka.push(("topic.metadata.refresh.interval.ms".into(), "200".into()));
        KafkaSource::new(options)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let _ = block_on(self.admin().delete_topics(&[&self.name], &AdminOptions::new()));
    }
}

/// What a reader handed over: the payloads of each partition, and where its spans have come to.
#[derive(Default)]
struct Seen {
    values: BTreeMap<i32, Vec<i64>>,
    at: Positions,
}

impl Seen {
    /// Polls until `enough`, or for [`WAIT`] at most.
    fn poll(&mut self, reader: &mut dyn Reader, mut enough: impl FnMut(&Self, &dyn Reader) -> bool) -> Result<()> {
        let begin = Instant::now();
        while !enough(self, reader) {
            assert!(begin.elapsed() < WAIT, "not enough after {WAIT:?}: {:?}", self.at);
            reader.poll(Duration::from_millis(100), &mut |piece| {
                self.at.advance(piece.span).expect("spans touch");
                assert!(piece.offsets.iter().all(|&offset| offset >= piece.span.from && offset < piece.span.to));
                let values = self.values.entry(piece.span.partition).or_default();
                for index in 0..piece.len() {
                    let text = std::str::from_utf8(piece.payload(index)).expect("text");
                    values.push(text.parse().expect("a number"));
                }
            })?;
        }
        assert_eq!(self.at, self.at.iter().filter_map(|(p, _)| Some((p, reader.positions().get(p)?))).collect());
        Ok(())
    }

    fn count(&self) -> usize {
        self.values.values().map(Vec::len).sum()
    }
}

fn all_at_end(reader: &dyn Reader) -> bool {
    reader.positions().iter().all(|(partition, _)| reader.at_log_end(partition))
}

#[test]
fn a_start_at_a_time_is_the_first_record_that_was_appended_then_or_the_log_end() {
    let Some(topic) = Topic::with_partitions("at-a-time", 3) else { return };
    let producer = topic.producer(false);
    for (partition, times) in [(0, &[1_000, 2_000, 3_000][..]), (1, &[2_500]), (2, &[])] {
        for time_ms in times {
            let record = BaseRecord::<(), str>::to(&topic.name).partition(partition).payload("x").timestamp(*time_ms);
            producer.send(record).map_err(|(why, _)| why).expect("queued");
        }
    }
    producer.flush(WAIT).expect("sent");
    for (time_ms, expected) in [(0, [0, 0, 0]), (1_000, [0, 0, 0]), (1_001, [1, 0, 0]), (2_501, [2, 1, 0]), (9_000, [3, 1, 0])]
    {
        let at = topic.source().start(Start::At(time_ms)).expect("asked");
        assert_eq!(at, (0..).zip(expected).collect(), "at {time_ms}");
    }
}

#[test]
fn a_hundred_thousand_records_of_four_partitions_are_read_in_order() {
    let Some(topic) = Topic::with_partitions("read", 4) else { return };
    topic.send(&topic.producer(false), 4, 0, 25_000);
    let source = topic.source();
    assert_eq!(source.start(Start::Earliest).expect("there"), (0..4).map(|p| (p, 0)).collect());
    assert_eq!(source.start(Start::Latest).expect("there"), (0..4).map(|p| (p, 25_000)).collect());
    let from = [(1, 10_000)].into_iter().collect();
    let mut reader = source.reader(&from).expect("there");
    let mut seen = Seen::default();
    seen.poll(reader.as_mut(), |_, reader| all_at_end(reader)).expect("no error");
    for (partition, values) in &seen.values {
        let first = from.get(*partition).unwrap_or(0);
        assert!(values.iter().copied().eq(first..25_000), "partition {partition}");
    }
    assert_eq!(seen.count(), 90_000);
    assert_eq!(reader.log_ends(), source.log_ends().expect("there"));
    let begin = Instant::now();
    drop(reader);
    eprintln!("dropping the reader took {:?}", begin.elapsed());
    let mut reader = source.reader_of(&[(2, 24_990)].into_iter().collect()).expect("there");
    let mut seen = Seen::default();
    seen.poll(reader.as_mut(), |_, reader| all_at_end(reader)).expect("no error");
    assert_eq!((seen.count(), seen.at.len()), (10, 1));
}

#[test]
fn aborted_records_are_not_shown_and_the_log_end_lies_past_the_markers() {
    let Some(topic) = Topic::with_partitions("transactions", 1) else { return };
    let producer = topic.producer(true);
    producer.init_transactions(WAIT).expect("init");
    for (from, commit) in [(0, true), (100, false), (200, true), (300, false)] {
        producer.begin_transaction().expect("begin");
        topic.send(&producer, 1, from, from + 100);
        let ended = if commit { producer.commit_transaction(WAIT) } else { producer.abort_transaction(WAIT) };
        ended.expect("ended");
    }
    let source = topic.source();
    let mut reader = source.reader(&Positions::default()).expect("there");
    let mut seen = Seen::default();
    seen.poll(reader.as_mut(), |_, reader| all_at_end(reader)).expect("no error");
    assert!(seen.values[&0].iter().copied().eq((0..100).chain(200..300)));
    // 400 records and 4 markers.
    assert_eq!(seen.at.get(0), Some(404));
    assert_eq!(source.log_ends().expect("there").get(0), Some(404));
    // What is not committed is not there yet, and does not keep the log end from being reached.
    producer.begin_transaction().expect("begin");
    topic.send(&producer, 1, 400, 410);
    assert_eq!(source.log_ends().expect("there").get(0), Some(404));
    assert!(reader.at_log_end(0));
    producer.commit_transaction(WAIT).expect("ended");
    seen.poll(reader.as_mut(), |seen, reader| seen.count() == 210 && all_at_end(reader)).expect("no error");
    assert_eq!(seen.at.get(0), Some(415));
}

#[test]
fn offsets_that_are_gone_are_lost_with_their_spans() {
    let Some(topic) = Topic::with_partitions("lost", 2) else { return };
    topic.send(&topic.producer(false), 2, 0, 100);
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(&topic.name, 1, Offset::Offset(40)).expect("added");
    block_on(topic.admin().delete_records(&until, &AdminOptions::new())).expect("deleted");
    let source = topic.source();
    assert_eq!(source.start(Start::Earliest).expect("there").get(1), Some(40));
    // (positions, in the sentence)
    for (from, part) in
        [([(0, 0), (1, 7)], "partition 1 [7, 40)"), ([(0, 101), (1, 40)], "partition 0 from 101 (the log ends at 100)")]
    {
        let mut reader = source.reader(&from.into_iter().collect()).expect("there");
        for _ in 0..2 {
            let error = Seen::default().poll(reader.as_mut(), |_, _| false).expect_err("gone");
            assert_eq!(error.kind(), Kind::Lost);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

#[test]
fn a_topic_is_waited_for_and_grows_and_goes_away() {
    let Some(topic) = Topic::named("life") else { return };
    let source = topic.source();
    let missing = format!("topic '{}' does not exist at {}; create it, or start the producer", topic.name, topic.brokers);
    let asked: [&dyn Fn() -> Result<()>; 4] = [
        &|| source.start(Start::Earliest).map(drop),
        &|| source.log_ends().map(drop),
        &|| source.reader(&Positions::default()).map(drop),
        // Asking must not have created it.
        &|| source.start(Start::Latest).map(drop),
    ];
    for ask in asked {
        let error = ask().expect_err("not there");
        assert_eq!((error.kind(), error.to_string()), (Kind::Unreachable, missing.clone()));
    }
    topic.create(1);
    let producer = topic.producer(false);
    topic.send(&producer, 1, 0, 10);
    let mut reader = source.reader(&Positions::default()).expect("there now");
    let mut seen = Seen::default();
    seen.poll(reader.as_mut(), |seen, _| seen.count() == 10).expect("no error");
    let two = NewPartitions::new(&topic.name, 2);
    block_on(topic.admin().create_partitions([&two], &AdminOptions::new())).expect("grown");
    topic.send(&topic.producer(false), 2, 10, 20);
    seen.poll(reader.as_mut(), |seen, reader| seen.count() == 30 && all_at_end(reader)).expect("no error");
    assert!(seen.values[&1].iter().copied().eq(10..20));
    block_on(topic.admin().delete_topics(&[&topic.name], &AdminOptions::new())).expect("deleted");
    let begin = Instant::now();
    let error = loop {
        match reader.poll(Duration::from_millis(100), &mut |_| {}) {
            Err(error) if error.kind() != Kind::Unreachable => break error,
            _ => assert!(begin.elapsed() < Duration::from_secs(40), "never noticed"),
        }
    };
    assert!(error.kind() == Kind::Lost && error.to_string().contains("was deleted"), "{error}");
}
