//! Makes the topic when it is missing, and deletes its oldest records.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::clients::{self, Consumer};
use super::judge::Judge;
use super::{ASK_TIMEOUT, Place};
use crate::error::Result;

/// How a topic is made. One that is there stays as it is.
#[derive(Debug, Clone)]
pub(crate) struct MadeTopic {
    /// Its partitions; -1: as the broker has it.
    pub(crate) partitions: i32,
    /// Copies of each; -1: as the broker has it.
    pub(crate) replication: i32,
    /// Settings of the topic.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// Its records may be so many bytes larger than those of another topic.
    pub(crate) larger_than: Option<(String, u64)>,
}

/// Returns when the topic is there, with its number of partitions; makes it if need be. Blocks; called on a blocking thread of the
/// runtime.
pub(super) fn ensure(place: &Place, consumer: &Consumer, judge: &Judge<'_>) -> Result<usize> {
    let partitions = || partitions(place, consumer).map_err(|error| judge.error(error));
    if let Some(partitions) = partitions()? {
        return Ok(partitions);
    }
    match tokio::runtime::Handle::current().block_on(create(place)) {
        Ok(Ok(())) => {}
        Ok(Err(code)) => return Err(judge.code(code)),
        Err(error) => return Err(judge.error(error)),
    }
    // Brokers learn of a topic one after the other.
    let began = Instant::now();
    loop {
        if let Some(partitions) = partitions()? {
            return Ok(partitions);
        }
        if began.elapsed() > ASK_TIMEOUT {
            return Err(judge.code(Code::UnknownTopicOrPartition));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many partitions the topic has; `None`: it is not there.
pub(super) fn partitions(place: &Place, consumer: &Consumer) -> KafkaResult<Option<usize>> {
    let metadata = consumer.fetch_metadata(Some(&place.topic), ASK_TIMEOUT)?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == place.topic);
    Ok(topic.map(|topic| topic.partitions().len()).filter(|&count| count > 0))
}

async fn create(place: &Place) -> KafkaResult<Result<(), Code>> {
    let admin: AdminClient<DefaultClientContext> = clients::plain(place).create()?;
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).operation_timeout(Some(ASK_TIMEOUT));
    let MadeTopic { partitions, replication, settings, larger_than } = &place.made;
    let bytes_max = match larger_than {
        Some((other, more)) => largest_record(&admin, &options, other).await.map(|bytes| (bytes + more).to_string()),
        None => None,
    };
    let mut topic = NewTopic::new(&place.topic, *partitions, TopicReplication::Fixed(*replication));
    for (name, value) in settings {
        topic = topic.set(name, value);
    }
    if let Some(bytes_max) = &bytes_max {
        topic = topic.set("max.message.bytes", bytes_max);
    }
    let made = admin.create_topics([&topic], &options).await?;
    Ok(made.into_iter().try_for_each(|made| match made {
        Ok(_) | Err((_, Code::TopicAlreadyExists)) => Ok(()),
        Err((_, code)) => Err(code),
    }))
}

/// Deletes the records of the topic of `place` that lie before these offsets. Blocks; called on a blocking thread of the runtime.
pub(crate) fn delete_before(place: &Place, offsets: &BTreeMap<i32, i64>) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for (&partition, &offset) in offsets {
        list.add_partition_offset(&place.topic, partition, Offset::Offset(offset))?;
    }
    let admin: AdminClient<DefaultClientContext> = clients::plain(place).create()?;
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).operation_timeout(Some(ASK_TIMEOUT));
    let done = tokio::runtime::Handle::current().block_on(admin.delete_records(&list, &options))?;
    done.elements().iter().try_for_each(|element| element.error())
}

/// What a topic takes; `None` if we may not know.
async fn largest_record(admin: &AdminClient<DefaultClientContext>, options: &AdminOptions, topic: &str) -> Option<u64> {
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], options).await.ok()?;
    let topic = described.into_iter().next()?.ok()?;
    topic.get("max.message.bytes")?.value.as_deref()?.parse().ok()
}
