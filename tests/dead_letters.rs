//! Dead letters on a real broker (`KAFKA_BROKERS`): each test has a topic and a lineage of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use falaj::batch::{DeadLetter, Stage};
use falaj::dead::DeadLetters;
use falaj::dead::kafka::KafkaDeadLetters;
use falaj::error::Kind;
use falaj::sink::Writer;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

type Pairs = Vec<(String, Option<Vec<u8>>)>;

/// A record as it stands on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Pairs,
    timestamp_ms: Option<i64>,
}

impl Record {
    fn new(payload: &[u8]) -> Self {
        Self { key: None, payload: Some(payload.into()), headers: vec![], timestamp_ms: Some(1_700_000_000_123) }
    }

    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name).unwrap_or_else(|| panic!("no header {name}: {self:?}"));
        std::str::from_utf8(found.1.as_deref().unwrap()).unwrap()
    }

    fn offset(&self) -> i64 {
        self.header("__connect.errors.offset").parse().unwrap()
    }
}

/// One source topic and its dead letters.
struct Kafka {
    brokers: String,
    topic: String,
    lineage: String,
}

impl Kafka {
    async fn new(name: &str, partitions: i32) -> Self {
        let brokers =
            std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS must say where a broker is: see scripts/services env");
        let id = uuid::Uuid::now_v7();
        let kafka = Self { brokers, topic: format!("falaj-test-{name}-{id}"), lineage: id.to_string() };
        let admin: AdminClient<DefaultClientContext> = kafka.config().create().unwrap();
        let topic = NewTopic::new(&kafka.topic, partitions, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
        admin.create_topics([&topic], &options).await.unwrap()[0].as_ref().unwrap();
        kafka
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// Appends `records` to `partition` of the source.
    fn produce(&self, partition: i32, records: &[Record]) {
        let producer: BaseProducer = self.config().set("linger.ms", "5").create().unwrap();
        for record in records {
            let headers = record
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
            let mut base: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic).partition(partition).headers(headers);
            base.key = record.key.as_deref();
            base.payload = record.payload.as_deref();
            base.timestamp = record.timestamp_ms;
            while let Err((error, back)) = producer.send(base) {
                assert!(error.to_string().contains("Queue full"), "{error}");
                producer.poll(Duration::from_millis(10));
                base = back;
            }
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    }

    fn place(&self) -> KafkaDeadLetters {
        KafkaDeadLetters::new(&self.brokers, vec![], &self.topic)
    }

    fn writer(&self, incarnation: u64) -> Writer {
        Writer { lineage: self.lineage.clone(), lane: "top".into(), incarnation }
    }

    async fn open(&self, incarnation: u64) -> KafkaDeadLetters {
        let mut place = self.place();
        place.open(&self.writer(incarnation)).await.unwrap();
        place
    }

    /// All letters that a reader of committed records sees.
    fn letters(&self) -> Vec<Record> {
        let dlq = KafkaDeadLetters::topic_for(&self.topic);
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", "falaj-test")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&dlq, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let (began, mut records) = (Instant::now(), vec![]);
        while began.elapsed() < Duration::from_secs(60) {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => records.push(record(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => return records,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
        panic!("the end of {dlq} was not reached");
    }
}

fn record(message: &impl Message) -> Record {
    let headers = message.headers().map_or(vec![], |headers| {
        headers.iter().map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp_ms: message.timestamp().to_millis(),
    }
}

fn letter(partition: i32, offset: i64) -> DeadLetter {
    DeadLetter {
        partition,
        offset,
        stage: Stage::Decode,
        code: "truncated",
        message: format!("cut off at {offset}"),
        schema_id: None,
    }
}

#[tokio::test]
async fn letters_are_byte_identical() {
    let kafka = Kafka::new("identical", 2).await;
    let garbage: Vec<u8> = (0..=255).rev().collect();
    let own = vec![
        ("b".to_string(), Some(b"1".to_vec())),
        ("a".to_string(), Some(garbage.clone())),
        ("b".to_string(), None),
        ("empty".to_string(), Some(vec![])),
    ];
    let originals = [
        Record { key: Some(b"k".to_vec()), headers: own, ..Record::new(b"{\"id\":") },
        Record { key: Some(garbage.clone()), ..Record::new(&garbage) },
        Record { key: Some(vec![]), payload: None, ..Record::new(b"") },
        Record::new(b""),
        Record::new(&vec![b'x'; 900_000]),
    ];
    kafka.produce(1, &originals);
    let mut place = kafka.open(1).await;
    // In no order, as sinks refuse rows.
    let letters: Vec<_> = [4, 0, 3, 1, 2].map(|offset| letter(1, offset)).into();
    place.write(1, &letters).await.unwrap();

    let written = kafka.letters();
    assert_eq!(written.len(), originals.len());
    for (original, written) in originals.iter().zip(&written) {
        assert_eq!((&original.key, &original.payload), (&written.key, &written.payload));
        assert_eq!(original.timestamp_ms, written.timestamp_ms);
        assert_eq!(original.headers, written.headers[..original.headers.len()]);
    }
}

#[tokio::test]
async fn headers_say_what_connect_says_and_more() {
    let kafka = Kafka::new("headers", 1).await;
    kafka.produce(0, &[Record::new(b"x")]);
    let mut place = kafka.open(1).await;
    let stages = [Stage::Decode, Stage::Schema, Stage::Sql, Stage::Late, Stage::Sink];
    let letters: Vec<_> = stages.map(|stage| DeadLetter { stage, message: "é".repeat(6000), ..letter(0, 0) }).into();
    place.write(1, &letters).await.unwrap();

    let written = kafka.letters();
    let words = [
        ("decode", "VALUE_CONVERTER"),
        ("schema", "VALUE_CONVERTER"),
        ("sql", "TRANSFORMATION"),
        ("late", "TRANSFORMATION"),
        ("sink", "TASK_PUT"),
    ];
    assert_eq!(written.len(), words.len());
    for (record, (ours, connect)) in written.iter().zip(words) {
        let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "__connect.errors.topic",
                "__connect.errors.partition",
                "__connect.errors.offset",
                "__connect.errors.connector.name",
                "__connect.errors.task.id",
                "__connect.errors.stage",
                "__connect.errors.class.name",
                "__connect.errors.exception.class.name",
                "__connect.errors.exception.message",
                "__connect.errors.exception.stacktrace",
                "falaj.dlq.lane",
                "falaj.dlq.stage",
                "falaj.dlq.code",
                "falaj.dlq.attempts",
                "falaj.dlq.timestamp_ms",
            ]
        );
        let expected = [
            ("__connect.errors.topic", kafka.topic.as_str()),
            ("__connect.errors.partition", "0"),
            ("__connect.errors.offset", "0"),
            ("__connect.errors.connector.name", "top"),
            ("__connect.errors.task.id", "0"),
            ("__connect.errors.stage", connect),
            ("falaj.dlq.lane", "top"),
            ("falaj.dlq.stage", ours),
            ("falaj.dlq.code", "truncated"),
            ("falaj.dlq.attempts", "1"),
        ];
        for (name, value) in expected {
            assert_eq!(record.header(name), value, "{name}");
        }
        assert_eq!(record.header("__connect.errors.exception.message"), "é".repeat(4096));
        assert!(record.header("falaj.dlq.timestamp_ms").parse::<i64>().unwrap() > 1_700_000_000_123);
    }
}

#[tokio::test]
async fn an_epoch_is_written_once_also_by_the_next_incarnation() {
    let kafka = Kafka::new("once", 1).await;
    kafka.produce(0, &[Record::new(b"a"), Record::new(b"b"), Record::new(b"c")]);
    let mut first = kafka.place();
    assert_eq!(first.open(&kafka.writer(1)).await.unwrap(), None);
    first.write(4, &[letter(0, 0)]).await.unwrap();
    first.write(4, &[letter(0, 0)]).await.unwrap();
    drop(first);

    let mut second = kafka.place();
    assert_eq!(second.open(&kafka.writer(2)).await.unwrap(), Some(4));
    second.write(4, &[letter(0, 0)]).await.unwrap();
    second.write(6, &[letter(0, 1)]).await.unwrap();
    assert_eq!(second.open(&kafka.writer(3)).await.unwrap(), Some(6));
    second.write(6, &[letter(0, 1)]).await.unwrap();
    second.write(7, &[letter(0, 2)]).await.unwrap();

    assert_eq!(kafka.letters().iter().map(Record::offset).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn an_older_incarnation_is_fenced_and_does_not_disturb_the_newer() {
    let kafka = Kafka::new("fenced", 1).await;
    kafka.produce(0, &[Record::new(b"a"), Record::new(b"b")]);
    let mut older = kafka.open(1).await;
    older.write(1, &[letter(0, 0)]).await.unwrap();
    let mut newer = kafka.open(2).await;
    for _ in 0..2 {
        let error = older.write(2, &[letter(0, 1)]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced, "{}", error.chain());
    }
    let error = kafka.place().open(&kafka.writer(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced, "{}", error.chain());
    newer.write(2, &[letter(0, 1)]).await.unwrap();
    assert_eq!(kafka.letters().iter().map(Record::offset).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn a_transaction_given_up_half_way_leaves_nothing() {
    let kafka = Kafka::new("given-up", 1).await;
    kafka.produce(0, &vec![Record::new(b"a"); 20_000]);
    let mut place = kafka.open(1).await;
    let letters: Vec<_> = (0..20_000).map(|offset| letter(0, offset)).collect();
    // Long enough to have begun, and never long enough to end.
    assert!(tokio::time::timeout(Duration::from_millis(5), place.write(1, &letters)).await.is_err());
    place.write(1, &letters[..10]).await.unwrap();
    assert_eq!(kafka.letters().len(), 10);
}

#[tokio::test]
async fn an_original_that_is_gone_still_makes_a_letter() {
    let kafka = Kafka::new("gone", 1).await;
    kafka.produce(0, &vec![Record::new(b"a"); 10]);
    let admin: AdminClient<DefaultClientContext> = kafka.config().create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&kafka.topic, 0, Offset::Offset(5)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
    let mut place = kafka.open(1).await;
    // Deleted, there, past the end, no such partition, from no record.
    place.write(1, &[letter(0, 4), letter(0, 5), letter(0, 99), letter(7, 0), letter(-1, -1)]).await.unwrap();

    let written = kafka.letters();
    let said: Vec<_> = written
        .iter()
        .map(|record| {
            let original = record.headers.iter().any(|(name, _)| name == "falaj.dlq.original");
            let original = if original { record.header("falaj.dlq.original") } else { "there" };
            (record.offset(), record.payload.as_deref().unwrap(), original)
        })
        .collect();
    let expected: [(i64, &[u8], &str); 5] =
        [(-1, b"", "none"), (4, b"", "gone"), (5, b"a", "there"), (99, b"", "gone"), (0, b"", "gone")];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn many_letters_dense_and_sparse() {
    let kafka = Kafka::new("many", 2).await;
    let payload = |partition, offset| format!("{partition}/{offset}/{}", "x".repeat(240)).into_bytes();
    const RECORDS: i64 = 60_000;
    for partition in 0..2 {
        let records: Vec<_> = (0..RECORDS).map(|offset| Record::new(&payload(partition, offset))).collect();
        kafka.produce(partition, &records);
    }
    let mut place = kafka.open(1).await;
    let dense: Vec<_> = (0..10_000).map(|offset| letter(0, offset)).collect();
    let sparse: Vec<_> = (0..2).flat_map(|partition| (0..20).map(move |n| letter(partition, 10_000 + n * 2_500))).collect();
    for (epoch, letters, name) in
        [(1, &dense[..1], "1"), (2, &dense[1..2], "1"), (3, &dense[2..], "9 998"), (4, &sparse, "40 far apart")]
    {
        let began = Instant::now();
        place.write(epoch, letters).await.unwrap();
        eprintln!("{name}: {:?}", began.elapsed());
    }

    let written = kafka.letters();
    assert_eq!(written.len(), dense.len() + sparse.len());
    let mut seen = BTreeSet::new();
    for record in &written {
        let partition: i32 = record.header("__connect.errors.partition").parse().unwrap();
        assert_eq!(record.payload.as_deref(), Some(&payload(partition, record.offset())[..]));
        seen.insert((partition, record.offset()));
    }
    assert_eq!(seen.len(), written.len(), "each once");
}

#[tokio::test]
async fn a_broker_that_is_away_is_unreachable_and_may_be_asked_again() {
    let mut place = KafkaDeadLetters::new("127.0.0.1:1", vec![], "events");
    let writer = Writer { lineage: "1".into(), lane: "top".into(), incarnation: 1 };
    let error = place.open(&writer).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{}", error.chain());
    assert!(error.to_string().starts_with("dead letters cannot be written to 'events.dlq'"), "{error}");
    assert_eq!(place.write(1, &[letter(0, 0)]).await.unwrap_err().kind(), Kind::Unreachable);
}

#[tokio::test]
async fn credentials_that_are_refused_are_denied() {
    let kafka = Kafka::new("denied", 1).await;
    // A broker without SASL refuses whoever begins with it.
    let properties = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "a"),
        ("sasl.password", "open-sesame"),
    ];
    let properties = properties.map(|(name, value)| (name.to_string(), value.to_string())).into();
    let mut place = KafkaDeadLetters::new(&kafka.brokers, properties, &kafka.topic);
    let error = place.open(&kafka.writer(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{}", error.chain());
    assert!(!error.chain().contains("open-sesame"));
}
