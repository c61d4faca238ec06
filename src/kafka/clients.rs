//! The two connections of a place: their settings, and what they say beside their answers.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, ProducerContext};

use super::Place;
use super::judge::{distrusted, is_denied};
use crate::error::{Error, Kind, Result};

/// Writes.
pub(super) type Producer = BaseProducer<Watch>;
/// Reads the offset that says what is held, and the originals of dead letters.
pub(crate) type Consumer = BaseConsumer<Watch>;

/// A user may change these with `kafka.<name>`.
const DEFAULTS: [(&str, &str); 5] = [
    ("client.id", "falaj"),
    // A key goes to the partition to which Java's producers would send it.
    ("partitioner", "murmur2_random"),
    ("compression.codec", "zstd"),
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.nagle.disable", "true"),
];

/// How large a batch becomes: `batch.size`.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// What waits to be sent: `queue.buffering.max.kbytes`. A larger record would wait for room for ever. No broker of ordinary settings takes one,
/// but packed, if it unpacks so well.
pub(crate) const QUEUE_BYTES: usize = 65_536 << 10;

/// What exactly-once and our bounds rest on, for the producer.
pub(super) const PRODUCER: [(&str, &str); 10] = [
    ("enable.idempotence", "true"),
    // A transaction that nobody ends holds readers of committed records back for so long.
    ("transaction.timeout.ms", "30000"),
    // A batch goes when it is full, or when the epoch is flushed. A record that has waited for longer makes the client spin as long as
    // another batch is on its way.
    ("linger.ms", "1000"),
    // The bounds of what waits to be sent, however large the epoch; `send` is tried again when they are reached. The second does
    // not count headers, of which a dead letter has some 2 KiB and a row 100 bytes.
    ("queue.buffering.max.messages", "20000"),
    ("queue.buffering.max.kbytes", "65536"),
    // Only the topic's own limit decides (whatever a source took must go to its dead letters), so batches stay well below it.
    ("message.max.bytes", "1000000000"),
    ("batch.size", "262144"),
    // At first; it doubles up to a second. The broker needs some milliseconds to end the transaction before.
    ("retry.backoff.ms", "2"),
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
pub(crate) struct Watch {
    /// Why the broker would not let us in.
    pub(super) denied: Arc<Mutex<Option<Code>>>,
    /// Why one side does not trust the other.
    pub(super) distrusted: Arc<Mutex<Option<String>>>,
    /// Why the first record that failed was not taken.
    pub(super) delivery: Arc<Mutex<Option<Code>>>,
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        if let Some(why) = error.rdkafka_error_code().and_then(|code| distrusted(code, reason)) {
            self.distrusted.lock().get_or_insert(why);
        }
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
    pub(super) fn note(&self, error: &KafkaError) {
        if let Some(code) = error.rdkafka_error_code().filter(|&code| is_denied(code)) {
            self.denied.lock().get_or_insert(code);
        }
    }
}

/// The settings that all connections share, with `fixed` over those of the user.
fn config(place: &Place, fixed: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in DEFAULTS {
        config.set(name, value);
    }
    for (name, value) in &place.properties {
        config.set(name, value);
    }
    for &(name, value) in fixed {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &place.brokers);
    config
}

/// The settings of a connection that only asks and administers.
pub(super) fn plain(place: &Place) -> ClientConfig {
    config(place, &[])
}

/// A transactional producer; connects when it is first used.
pub(super) fn producer(place: &Place, watch: &Watch) -> Result<Producer> {
    let mut config = config(place, &PRODUCER);
    config.set("transactional.id", &place.id);
    config.create_with_context(watch.clone()).map_err(|error| wrong_settings(place, error))
}

/// A consumer that is in no group, but can ask for the group's offset; connects at once, in the background.
pub(super) fn consumer(place: &Place, watch: &Watch) -> Result<Consumer> {
    let mut config = config(place, &CONSUMER);
    config.set("group.id", &place.id);
    config.create_with_context(watch.clone()).map_err(|error| wrong_settings(place, error))
}

/// The same that also sees what is not committed, or never will be: only to ask for log ends.
pub(super) fn uncommitted(place: &Place, watch: &Watch) -> Result<Consumer> {
    let mut config = config(place, &CONSUMER);
    config.set("group.id", &place.id).set("isolation.level", "read_uncommitted");
    config.create_with_context(watch.clone()).map_err(|error| wrong_settings(place, error))
}

/// Without the cause: it may repeat a setting's value, and that may be a secret.
fn wrong_settings(place: &Place, error: KafkaError) -> Error {
    let name = match &error {
        KafkaError::ClientConfig(_, _, name, _) => format!(" ('kafka.{name}')"),
        _ => String::new(),
    };
    let many = place.words.many;
    Error::new(Kind::Sql, format!("librdkafka refuses the settings for {many}{name}; check the table's 'kafka.*' options"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_the_size_by_which_it_is_judged_when_few_are_left() {
        let size = PRODUCER.iter().find(|(name, _)| *name == "batch.size").map(|(_, value)| value.parse());
        assert_eq!(size, Some(Ok(BATCH_BYTES)));
    }
}
