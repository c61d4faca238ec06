//! Makes the dead-letter topic when it is missing.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};

use super::clients::{self, Consumer, Judge};
use super::session::{ASK_TIMEOUT, Place};
use crate::error::Result;

/// A letter is its original and headers of ours: twice the message (8 KiB each), and room for names.
const HEADERS_BYTES: u64 = 32 * 1024;

/// Returns when the topic is there, and makes it if need be. Blocks; called on a blocking thread of the runtime.
pub(super) fn ensure(place: &Place, consumer: &Consumer, judge: &Judge<'_>) -> Result<()> {
    if exists(place, consumer).map_err(|error| judge.error(error))? {
        return Ok(());
    }
    match tokio::runtime::Handle::current().block_on(create(place)) {
        Ok(Ok(())) => {}
        Ok(Err(code)) => return Err(judge.code(code)),
        Err(error) => return Err(judge.error(error)),
    }
    // Brokers learn of a topic one after the other.
    let began = Instant::now();
    while !exists(place, consumer).map_err(|error| judge.error(error))? {
        if began.elapsed() > ASK_TIMEOUT {
            return Err(judge.code(Code::UnknownTopicOrPartition));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn exists(place: &Place, consumer: &Consumer) -> KafkaResult<bool> {
    let metadata = consumer.fetch_metadata(Some(&place.dlq), ASK_TIMEOUT)?;
    Ok(metadata.topics().iter().any(|topic| topic.name() == place.dlq && !topic.partitions().is_empty()))
}

/// One partition, so that letters are read in the order in which they were written.
async fn create(place: &Place) -> KafkaResult<Result<(), Code>> {
    let admin: AdminClient<DefaultClientContext> = clients::plain(&place.brokers, &place.properties).create()?;
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).operation_timeout(Some(ASK_TIMEOUT));
    let bytes_max = largest_record(&admin, &options, &place.topic).await.map(|bytes| (bytes + HEADERS_BYTES).to_string());
    // Letters carry their originals' times, by which a broker would drop those of old events at once: kept until purged.
    let mut topic = NewTopic::new(&place.dlq, 1, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
    if let Some(bytes_max) = &bytes_max {
        topic = topic.set("max.message.bytes", bytes_max);
    }
    let made = admin.create_topics([&topic], &options).await?;
    Ok(made.into_iter().try_for_each(|made| match made {
        Ok(_) | Err((_, Code::TopicAlreadyExists)) => Ok(()),
        Err((_, code)) => Err(code),
    }))
}

/// What the source topic takes; `None` if we may not know.
async fn largest_record(admin: &AdminClient<DefaultClientContext>, options: &AdminOptions, topic: &str) -> Option<u64> {
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], options).await.ok()?;
    let topic = described.into_iter().next()?.ok()?;
    topic.get("max.message.bytes")?.value.as_deref()?.parse().ok()
}
