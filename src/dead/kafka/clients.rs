//! The two connections of a place: their settings, and what librdkafka's errors mean for us.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Producer as _, ProducerContext};

use crate::error::{Error, Kind, Result};

/// Writes letters.
pub(super) type Producer = BaseProducer<Watch>;
/// Reads originals, and the offset that says what is held.
pub(super) type Consumer = BaseConsumer<Watch>;

/// A user may change these with `kafka.<name>`.
const DEFAULTS: [(&str, &str); 4] = [
    ("client.id", "falaj"),
    ("compression.codec", "zstd"),
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.nagle.disable", "true"),
];

/// What exactly-once and our bounds rest on, for the producer.
const PRODUCER: [(&str, &str); 9] = [
    ("enable.idempotence", "true"),
    // A transaction that nobody ends holds readers of committed records back for so long.
    ("transaction.timeout.ms", "30000"),
    // One letter waits for others no longer than this.
    ("linger.ms", "2"),
    // The bounds of what waits to be sent; `send` is tried again when they are reached. The second does not count headers, of
    // which a letter has some 2 KiB.
    ("queue.buffering.max.messages", "20000"),
    ("queue.buffering.max.kbytes", "65536"),
    // Whatever the source took must go back: only the topic's own limit decides, which is why batches stay well below it.
    ("message.max.bytes", "1000000000"),
    ("batch.size", "262144"),
    ("delivery.report.only.error", "true"),
    ("statistics.interval.ms", "0"),
];

/// And for the consumer.
const CONSUMER: [(&str, &str); 11] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("auto.offset.reset", "error"),
    // Also makes the broker say an epoch only when the transaction that wrote it has ended.
    ("isolation.level", "read_committed"),
    ("allow.auto.create.topics", "false"),
    // Read ahead a little: letters are often far apart.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "16384"),
    // A full queue is looked at again after so long; the default of a second starves us.
    ("fetch.queue.backoff.ms", "5"),
    // Reading ahead at the log end must not hold up the next partition.
    ("fetch.wait.max.ms", "10"),
    ("statistics.interval.ms", "0"),
];

/// Listens to a connection: the errors that explain a later time-out.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    /// Why the broker would not let us in.
    denied: Arc<Mutex<Option<Code>>>,
    /// Why the first record that failed was not taken.
    delivery: Arc<Mutex<Option<Code>>>,
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        self.note(&error);
    }
}

impl ConsumerContext for Watch {}

impl ProducerContext<NoCustomPartitioner> for Watch {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((error, _)) = result else { return };
        match error.rdkafka_error_code() {
            // Ours, when a producer is dropped.
            None | Some(Code::PurgeQueue | Code::PurgeInflight) => {}
            Some(code) => {
                self.delivery.lock().get_or_insert(code);
            }
        }
    }
}

impl Watch {
    fn note(&self, error: &KafkaError) {
        if let Some(code) = error.rdkafka_error_code().filter(|&code| is_denied(code)) {
            self.denied.lock().get_or_insert(code);
        }
    }
}

/// The settings that both connections share.
fn config(brokers: &str, properties: &[(String, String)], fixed: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in DEFAULTS {
        config.set(name, value);
    }
    for (name, value) in properties {
        config.set(name, value);
    }
    for &(name, value) in fixed {
        config.set(name, value);
    }
    config.set("bootstrap.servers", brokers);
    config
}

/// The settings of a connection that only asks and administers.
pub(super) fn plain(brokers: &str, properties: &[(String, String)]) -> ClientConfig {
    config(brokers, properties, &[])
}

/// A transactional producer; connects when it is first used.
pub(super) fn producer(brokers: &str, properties: &[(String, String)], id: &str, watch: &Watch) -> Result<Producer> {
    let mut config = config(brokers, properties, &PRODUCER);
    config.set("transactional.id", id);
    config.create_with_context(watch.clone()).map_err(wrong_settings)
}

/// A consumer that is in no group, but can ask for the group's offset; connects at once, in the background.
pub(super) fn consumer(brokers: &str, properties: &[(String, String)], group: &str, watch: &Watch) -> Result<Consumer> {
    let mut config = config(brokers, properties, &CONSUMER);
    config.set("group.id", group);
    config.create_with_context(watch.clone()).map_err(wrong_settings)
}

/// Without the cause: it may repeat a setting's value, and that may be a secret.
fn wrong_settings(error: KafkaError) -> Error {
    let name = match &error {
        KafkaError::ClientConfig(_, _, name, _) => format!(" ('kafka.{name}')"),
        _ => String::new(),
    };
    Error::new(
        Kind::Sql,
        format!("librdkafka refuses the settings for dead letters{name}; check the table's 'kafka.*' options"),
    )
}

/// Turns errors of the two connections into ours.
pub(super) struct Judge<'a> {
    pub(super) topic: &'a str,
    pub(super) brokers: &'a str,
    pub(super) watch: &'a Watch,
    pub(super) consumer: Option<&'a Consumer>,
    pub(super) producer: Option<&'a Producer>,
}

impl Judge<'_> {
    /// What `error` means. The reason behind a time-out or a failed transaction goes before it.
    pub(super) fn error(&self, error: KafkaError) -> Error {
        self.listen();
        let fatal = self.producer.and_then(|producer| producer.client().fatal_error()).map(|(code, _)| code);
        let told = self.watch.denied.lock().or(fatal).or(*self.watch.delivery.lock());
        let own = match &error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        match told.or(own) {
            Some(code) => self.code(code).because(error),
            None => self.code(Code::Fail).because(error),
        }
    }

    /// Takes in what the connections have to say; a few events are enough to have the first of each kind.
    fn listen(&self) {
        for _ in 0..16 {
            if let Some(producer) = self.producer {
                producer.poll(std::time::Duration::ZERO);
            }
            if let Some(Err(error)) = self.consumer.and_then(|consumer| consumer.poll(std::time::Duration::ZERO)) {
                self.watch.note(&error);
            }
        }
    }

    pub(super) fn code(&self, code: Code) -> Error {
        let Self { topic, brokers, .. } = self;
        let (kind, sentence) = match code {
            _ if is_denied(code) => (
                Kind::Denied,
                format!(
                    "{brokers} does not let us write dead letters to '{topic}'; check the credentials and rights ('kafka.sasl.*', ACLs)"
                ),
            ),
            // This alone says nothing of who is newer: the broker answers so when it has ended a transaction by itself, and when a
            // request of a process that is dead by now reached it late. The group's offset and the checkpoint know.
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => (
                Kind::Unreachable,
                format!("the transaction with dead letters for '{topic}' was ended by the broker or another writer"),
            ),
            Code::MessageSizeTooLarge => (
                Kind::Full,
                format!(
                    "a dead letter is larger than '{topic}' takes; raise that topic's max.message.bytes above the source's"
                ),
            ),
            Code::InvalidTimestamp => (
                Kind::Full,
                format!(
                    "'{topic}' does not take a dead letter's time; set its message.timestamp.*.max.ms as the source has it"
                ),
            ),
            Code::InvalidTopic | Code::PolicyViolation | Code::InvalidReplicationFactor | Code::InvalidTransactionTimeout => (
                Kind::Denied,
                format!("{brokers} will not have the dead-letter topic '{topic}' as it is made; create it by hand"),
            ),
            _ => (
                Kind::Unreachable,
                format!("dead letters cannot be written to '{topic}' at {brokers} now; is the broker running?"),
            ),
        };
        Error::new(kind, sentence)
    }
}

fn is_denied(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}
