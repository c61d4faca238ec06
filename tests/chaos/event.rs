//! The events of the topic: made with a seed, read back from the topic, and enriched in plain Rust.

use std::collections::HashMap;

use chrono::DateTime;
use falaj::tool::generate::Contents;
use rdkafka::message::Message;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::support::kafka::Topic;

/// An enriched event: the columns of `bigquery.sql` and of `partner.sql`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Row {
    pub(super) id: Option<i64>,
    pub(super) content_id: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) event_type: Option<String>,
    /// ms since 1970.
    #[serde(deserialize_with = "time")]
    pub(super) event_ts: Option<i64>,
    pub(super) duration_ms: Option<i64>,
    pub(super) device: Option<String>,
    pub(super) raw_payload: Option<String>,
    pub(super) title: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) length_seconds: Option<i64>,
    pub(super) engagement_seconds: Option<f64>,
    pub(super) engagement_pct: Option<f64>,
}

/// A payload that is good.
#[derive(Deserialize)]
struct Payload<'a> {
    id: Option<i64>,
    content_id: Option<String>,
    user_id: Option<String>,
    event_type: Option<String>,
    #[serde(deserialize_with = "time")]
    event_ts: Option<i64>,
    duration_ms: Option<i64>,
    device: Option<String>,
    #[serde(borrow)]
    raw_payload: Option<&'a RawValue>,
}

/// A time in RFC 3339 or null, in ms since 1970.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    let time = text.map(|text| DateTime::parse_from_rfc3339(&text)).transpose().map_err(serde::de::Error::custom)?;
    Ok(time.map(|time| time.timestamp_millis()))
}

/// What a record of the topic is.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Good(Good),
    Poison,
    Tombstone,
}

/// What windows want to know of a good event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Good {
    /// An index into [`Log::contents`].
    pub(super) content: usize,
    /// Of content type and event type: an index into [`Log::types`].
    pub(super) kind: usize,
    pub(super) at_ns: Option<i64>,
    pub(super) duration_ms: Option<i64>,
}

/// A record of the topic.
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) what: What,
    pub(super) payload: Option<Box<[u8]>>,
}

/// The whole topic as a consumer of our own reads it.
pub(super) struct Log {
    /// Of each partition in the order of offsets.
    pub(super) partitions: Vec<Vec<Entry>>,
    pub(super) contents: Vec<String>,
    pub(super) types: Vec<(Option<String>, Option<String>)>,
    /// The places of good events by their id.
    pub(super) by_id: HashMap<i64, (usize, usize)>,
    table: Contents,
    /// The place of a content in the table by its id.
    places: HashMap<String, usize>,
}

impl Log {
    /// Reads it.
    pub(super) fn read(topic: &Topic, partitions: i32, table: Contents) -> Self {
        let mut log = Self {
            partitions: (0..partitions).map(|_| Vec::new()).collect(),
            contents: Vec::new(),
            types: Vec::new(),
            by_id: HashMap::new(),
            places: table.rows.iter().enumerate().map(|(place, content)| (content.id.clone(), place)).collect(),
            table,
        };
        topic.read(&topic.name, |message| {
            let partition = &mut log.partitions[message.partition() as usize];
            let payload = message.payload().map(Box::from);
            partition.push(Entry { offset: message.offset(), what: What::Tombstone, payload });
        });
        let (mut contents, mut types) = (HashMap::new(), HashMap::new());
        for partition in 0..log.partitions.len() {
            for index in 0..log.partitions[partition].len() {
                log.judge(partition, index, &mut contents, &mut types);
            }
        }
        log
    }

    fn judge(
        &mut self,
        partition: usize,
        index: usize,
        contents: &mut HashMap<String, usize>,
        types: &mut HashMap<(Option<String>, Option<String>), usize>,
    ) {
        let Some(payload) = &self.partitions[partition][index].payload else { return };
        let what = match serde_json::from_slice::<Payload<'_>>(payload) {
            Err(_) => What::Poison,
            Ok(payload) => {
                let id = payload.id.expect("a good event has an id");
                let content = payload.content_id.expect("a good event has a content");
                let content_type = self.places.get(&content).map(|place| self.table.rows[*place].content_type.to_string());
                let known = contents.len();
                let content = *contents.entry(content).or_insert_with_key(|content| {
                    self.contents.push(content.clone());
                    known
                });
                let known = types.len();
                let kind = *types.entry((content_type, payload.event_type)).or_insert_with_key(|kind| {
                    self.types.push(kind.clone());
                    known
                });
                assert_eq!(self.by_id.insert(id, (partition, index)), None, "the topic itself has event {id} twice");
                let at_ns = payload.event_ts.map(|ms| ms * 1_000_000);
                What::Good(Good { content, kind, at_ns, duration_ms: payload.duration_ms })
            }
        };
        self.partitions[partition][index].what = what;
    }

    /// The records of a span.
    pub(super) fn span(&self, partition: i32, from: i64, to: i64) -> &[Entry] {
        let entries = &self.partitions[partition as usize];
        let at = |offset| entries.partition_point(|entry| entry.offset < offset);
        &entries[at(from)..at(to)]
    }

    /// The record at a place.
    pub(super) fn at(&self, partition: i32, offset: i64) -> Option<&Entry> {
        self.span(partition, offset, offset + 1).first()
    }

    /// The offset after the last record of each partition.
    pub(super) fn ends(&self) -> Vec<i64> {
        self.partitions.iter().map(|entries| entries.last().map_or(0, |entry| entry.offset + 1)).collect()
    }

    /// How many records are good.
    pub(super) fn good(&self) -> usize {
        self.by_id.len()
    }

    /// The enriched event of a good record.
    pub(super) fn row(&self, entry: &Entry) -> Option<Row> {
        let payload: Payload<'_> = serde_json::from_slice(entry.payload.as_deref()?).ok()?;
        let place = payload.content_id.as_ref().and_then(|content| self.places.get(content));
        let content = place.map(|place| &self.table.rows[*place]);
        let length_seconds = content.and_then(|content| content.length_seconds);
        let engagement_seconds = payload.duration_ms.map(|ms| ms as f64 / 1000.0);
        let engagement_pct = match (engagement_seconds, length_seconds) {
            (Some(seconds), Some(length)) if length != 0 => Some((seconds / length as f64 * 100.0).round() / 100.0),
            _ => None,
        };
        Some(Row {
            id: payload.id,
            content_id: payload.content_id,
            user_id: payload.user_id,
            event_type: payload.event_type,
            event_ts: payload.event_ts,
            duration_ms: payload.duration_ms,
            device: payload.device,
            raw_payload: payload.raw_payload.map(|payload| payload.get().to_string()),
            title: content.map(|content| content.title.clone()),
            content_type: content.map(|content| content.content_type.to_string()),
            length_seconds,
            engagement_seconds,
            engagement_pct,
        })
    }
}
