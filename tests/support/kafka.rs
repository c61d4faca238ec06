//! A topic of a test's own on the real broker, with its dead letters; and what stands on any topic.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// A record as it stands on a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// A record without a key and without headers.
    pub(crate) fn of(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }

    /// The text of a header that must be there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        let (_, value) = found.unwrap_or_else(|| panic!("no header {name}: {self:?}"));
        std::str::from_utf8(value.as_deref().unwrap()).unwrap()
    }

    /// As it was read.
    pub(crate) fn read(message: &impl Message) -> Self {
        let headers = message.headers().map_or(vec![], |headers| {
            headers.iter().map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self { key: message.key().map(<[u8]>::to_vec), payload: message.payload().map(<[u8]>::to_vec), headers }
    }
}

/// A topic.
pub(crate) struct Topic {
    brokers: String,
    pub(crate) name: String,
    producer: BaseProducer,
}

impl Topic {
    /// Makes it.
    pub(crate) async fn create(brokers: &str, name: &str, partitions: i32) -> Self {
        make(brokers, name, partitions, &[]).await;
        let producer = config(brokers)
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", "100000")
            .set("enable.idempotence", "true")
            // The broker is to be the one that says how large a record may be.
            .set("message.max.bytes", "2000000")
            .create()
            .unwrap();
        Self { brokers: brokers.to_string(), name: name.to_string(), producer }
    }

    /// Puts a record on its way; [`Self::flush`] waits until all are there.
    pub(crate) fn send(&self, partition: i32, record: &Record) {
        let mut base: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.name).partition(partition);
        base.key = record.key.as_deref();
        base.payload = record.payload.as_deref();
        if !record.headers.is_empty() {
            base.headers =
                Some(record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header { key, value: value.as_deref() })
                }));
        }
        while let Err((error, back)) = self.producer.send(base) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            self.producer.poll(Duration::from_millis(5));
            base = back;
        }
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until everything that was sent is there.
    pub(crate) fn flush(&self) {
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// Sends records to one partition, and waits until they are there.
    pub(crate) fn produce(&self, partition: i32, records: &[Record]) {
        records.iter().for_each(|record| self.send(partition, record));
        self.flush();
    }

    /// What a reader of committed records finds in the topic's dead letters; nothing when there is no such topic.
    pub(crate) fn letters(&self) -> Vec<Record> {
        let mut records = Vec::new();
        self.read(&self.dlq(), |message| records.push(Record::read(message)));
        records
    }

    /// Hands over what a reader of committed records finds in a topic, each partition in its order.
    pub(crate) fn read(&self, name: &str, take: impl FnMut(&BorrowedMessage<'_>)) {
        read(&self.brokers, name, take);
    }

    fn dlq(&self) -> String {
        format!("{}.dlq", self.name)
    }

    /// Removes it and its dead letters.
    pub(crate) async fn delete(&self) {
        let options = AdminOptions::new();
        let _ = admin(&self.brokers).delete_topics(&[&self.name, &self.dlq()], &options).await;
    }
}

/// Hands over what a reader of committed records finds in a topic, each partition in its order.
fn read(brokers: &str, name: &str, mut take: impl FnMut(&BorrowedMessage<'_>)) {
    let consumer: BaseConsumer = config(brokers)
        .set("group.id", "falaj-test")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    // Asked for by name, a topic might be made.
    let all = consumer.fetch_metadata(None, Duration::from_secs(30)).unwrap();
    let Some(topic) = all.topics().iter().find(|topic| topic.name() == name) else { return };
    let mut left = topic.partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in topic.partitions() {
        list.add_partition_offset(name, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut heard = Instant::now();
    while left > 0 {
        assert!(heard.elapsed() < Duration::from_secs(60), "the end of {name} was not reached");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                take(&message);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

/// What a reader of committed records finds on a topic; nothing when there is no such topic.
pub(crate) fn committed(brokers: &str, name: &str) -> Vec<Record> {
    let mut records = Vec::new();
    read(brokers, name, |message| records.push(Record::read(message)));
    records
}

/// Makes a topic with settings of its own.
pub(crate) async fn make(brokers: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    admin(brokers).create_topics([&topic], &options).await.unwrap()[0].as_ref().unwrap();
}

/// The partitions of a topic, and one of its settings.
pub(crate) async fn made(brokers: &str, name: &str, setting: &str) -> (usize, String) {
    let admin = admin(brokers);
    let described = admin.describe_configs([&ResourceSpecifier::Topic(name)], &AdminOptions::new()).await.unwrap();
    let value = described[0].as_ref().unwrap().get(setting).unwrap().value.clone().unwrap();
    let metadata = admin.inner().fetch_metadata(Some(name), Duration::from_secs(30)).unwrap();
    (metadata.topics()[0].partitions().len(), value)
}

/// Removes a topic.
pub(crate) async fn remove(brokers: &str, name: &str) {
    let _ = admin(brokers).delete_topics(&[name], &AdminOptions::new()).await;
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    config(brokers).create().unwrap()
}
