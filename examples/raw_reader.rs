//! Reads a topic to its end by librdkafka alone and decodes nothing: what falaj's speed is compared with.
//! `cargo run --release --example raw_reader TOPIC`, with the brokers in `KAFKA_BROKERS`; prints how many records and bytes there were.
//!
//! As fast as librdkafka goes: arrays of messages, large fetches and queues, no checksums.

use std::env;
use std::error::Error;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::bindings as c;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const WAIT_MS: i32 = 1000;
const BATCH: usize = 10_000;
const SETTINGS: [(&str, &str); 8] = [
    ("group.id", "raw_reader"),
    ("enable.auto.commit", "false"),
    ("check.crcs", "false"),
    ("queued.min.messages", "1000000"),
    ("queued.max.messages.kbytes", "262144"),
    ("fetch.message.max.bytes", "8388608"),
    ("fetch.max.bytes", "67108864"),
    ("fetch.queue.backoff.ms", "5"),
];

#[allow(clippy::disallowed_methods, reason = "a tool of the bench, not part of falaj")]
fn main() -> Result<(), Box<dyn Error>> {
    let topic = env::args().nth(1).ok_or("say which topic")?;
    let brokers = env::var("KAFKA_BROKERS").unwrap_or_else(|_| "localhost:9092".to_string());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    for (name, value) in SETTINGS {
        config.set(name, value);
    }
    let consumer = BaseConsumer::from_config(&config)?;
    let total = assign(&consumer, &topic)?;
    let (records, bytes) = read(&consumer, total)?;
    println!("{records} records {bytes} bytes");
    Ok(())
}

/// Assigns every partition from its first record; how many records there are.
fn assign(consumer: &BaseConsumer, topic: &str) -> Result<u64, Box<dyn Error>> {
    let metadata = consumer.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    let mut total = 0;
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        let (low, high) = bounds(consumer, topic, partition.id())?;
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        total += u64::try_from(high - low)?;
    }
    consumer.assign(&list)?;
    Ok(total)
}

/// The first offset and the log end. A broker that has just started needs a moment until it leads its partitions again.
fn bounds(consumer: &BaseConsumer, topic: &str, partition: i32) -> KafkaResult<(i64, i64)> {
    let until = Instant::now() + ASK_TIMEOUT;
    loop {
        match consumer.fetch_watermarks(topic, partition, ASK_TIMEOUT) {
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(100)),
            answer => return answer,
        }
    }
}

/// Takes messages until there were `total`; records and bytes.
fn read(consumer: &BaseConsumer, total: u64) -> Result<(u64, u64), Box<dyn Error>> {
    let (mut records, mut bytes) = (0, 0);
    let mut batch = vec![ptr::null_mut(); BATCH];
    // SAFETY: the consumer outlives this function; the reference to the queue is ours and is given back below.
    let queue = unsafe { c::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    let mut failed = None;
    while records < total && failed.is_none() {
        // SAFETY: the queue is alive and the array has the length that is given.
        let count = unsafe { c::rd_kafka_consume_batch_queue(queue, WAIT_MS, batch.as_mut_ptr(), batch.len()) };
        for &message in &batch[..usize::try_from(count)?] {
            // SAFETY: librdkafka filled the first `count` places with live messages; each is seen, then destroyed, once.
            unsafe {
                match (*message).err {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                        records += 1;
                        bytes += (*message).len as u64;
                    }
                    code => failed = Some(code),
                }
                c::rd_kafka_message_destroy(message);
            }
        }
    }
    // SAFETY: not used from here on.
    unsafe { c::rd_kafka_queue_destroy(queue) };
    failed.map_or(Ok((records, bytes)), |code| Err(format!("librdkafka says {code:?}").into()))
}
