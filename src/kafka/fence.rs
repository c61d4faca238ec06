//! Who holds a place, and up to which epoch: the metadata of a group offset, which moves with each transaction.

use std::time::Duration;

use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::util::Timeout;

use super::Place;
use super::clients::Consumer;
use crate::error::{Error, Kind, Result};

/// `incarnation/epoch`, without an epoch when none was written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) incarnation: u64,
    pub(super) epoch: Option<u64>,
}

impl Fence {
    fn parse(text: &str) -> Option<Self> {
        let (incarnation, epoch) = text.split_once('/')?;
        let epoch = if epoch.is_empty() { None } else { Some(epoch.parse().ok()?) };
        Some(Self { incarnation: incarnation.parse().ok()?, epoch })
    }

    fn text(&self) -> String {
        let epoch = self.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        format!("{}/{epoch}", self.incarnation)
    }

    /// What the group's offset says; `None` when there is none.
    pub(super) fn read(place: &Place, consumer: &Consumer, wait: Duration) -> KafkaResult<Option<Self>> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&place.topic, 0);
        let answer = consumer.committed_offsets(asked, Timeout::After(wait))?;
        let Some(element) = answer.find_partition(&place.topic, 0) else { return Ok(None) };
        element.error()?;
        Ok(Self::parse(element.metadata()))
    }

    /// The offset to send with a transaction. Its number is for lag tools; the metadata is what is read back.
    pub(super) fn offsets(&self, topic: &str) -> KafkaResult<TopicPartitionList> {
        let mut offsets = TopicPartitionList::new();
        let offset = self.epoch.and_then(|epoch| i64::try_from(epoch).ok()).unwrap_or(0);
        offsets.add_partition_offset(topic, 0, Offset::Offset(offset))?;
        if let Some(mut element) = offsets.find_partition(topic, 0) {
            element.set_metadata(self.text());
        }
        Ok(offsets)
    }

    /// `Err(Fenced)` when it is of a newer claim than that of `place`.
    pub(super) fn lets_in(&self, place: &Place) -> Result<()> {
        if self.incarnation <= place.incarnation {
            return Ok(());
        }
        let Place { lane, incarnation, topic, words, .. } = place;
        let (newer, many) = (self.incarnation, words.many);
        let sentence = format!(
            "a newer start of lane '{lane}' (number {newer}, this is {incarnation}) writes its {many} to '{topic}'; stop one of them"
        );
        Err(Error::new(Kind::Fenced, sentence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_read_back_as_it_was_written() {
        for fence in [Fence { incarnation: 3, epoch: Some(17) }, Fence { incarnation: 1, epoch: None }] {
            assert_eq!(Fence::parse(&fence.text()), Some(fence));
        }
        assert_eq!(Fence { incarnation: 3, epoch: Some(17) }.text(), "3/17");
        for foreign in ["", "3", "x/1", "3/x"] {
            assert_eq!(Fence::parse(foreign), None, "{foreign:?}");
        }
    }
}
