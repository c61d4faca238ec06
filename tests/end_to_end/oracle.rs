//! What must come of events: recomputed in plain Rust, event by event and window by window, with nothing of the engine.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use falaj::tool::generate::{Contents, Event};

/// An enriched event: the columns of `bigquery.sql` and of `partner.sql`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub(crate) struct Row {
    /// Only of a receiver's rows.
    #[serde(rename = "_id")]
    pub(crate) row_id: Option<String>,
    pub(crate) id: i64,
    pub(crate) content_id: String,
    pub(crate) user_id: String,
    pub(crate) event_type: String,
    /// ms since 1970.
    #[serde(deserialize_with = "super::found::time")]
    pub(crate) event_ts: i64,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) device: String,
    pub(crate) raw_payload: String,
    pub(crate) title: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) length_seconds: Option<i64>,
    pub(crate) engagement_seconds: Option<f64>,
    pub(crate) engagement_pct: Option<f64>,
}

/// What a window says of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) events: i64,
    /// Those with a duration.
    pub(crate) timed: i64,
    pub(crate) duration_ms: i64,
    pub(crate) longest_ms: i64,
}

impl Sums {
    fn add(&mut self, duration_ms: Option<i64>) {
        self.events += 1;
        if let Some(duration_ms) = duration_ms {
            self.timed += 1;
            self.duration_ms += duration_ms;
            self.longest_ms = self.longest_ms.max(duration_ms);
        }
    }
}

/// The groups of each window, by its end in ms.
pub(crate) type Windows<K> = BTreeMap<i64, HashMap<K, Sums>>;

/// All events, each with its partition.
pub(crate) struct Oracle {
    pub(crate) rows: Vec<Row>,
    partitions: Vec<i32>,
}

impl Oracle {
    /// Of these events and contents; an event may have a content that is not there.
    pub(crate) fn new(events: &[(i32, Event)], contents: &Contents) -> Self {
        let contents: HashMap<_, _> = contents.rows.iter().map(|content| (content.id.as_str(), content)).collect();
        let text = |event: &Event, write: fn(&Event, &mut Vec<u8>)| {
            let mut out = Vec::new();
            write(event, &mut out);
            String::from_utf8(out).unwrap()
        };
        let row = |event: &Event| {
            let content_id = text(event, Event::write_content_id);
            let content = contents.get(content_id.as_str());
            let length_seconds = content.and_then(|content| content.length_seconds);
            let engagement_seconds = event.duration_ms.map(|ms| ms as f64 / 1000.0);
            let engagement_pct = match (engagement_seconds, length_seconds) {
                (Some(seconds), Some(length)) if length != 0 => Some((seconds / length as f64 * 100.0).round() / 100.0),
                _ => None,
            };
            Row {
                row_id: None,
                id: event.id as i64,
                user_id: text(event, Event::write_user_id),
                event_type: event.event_type.to_string(),
                event_ts: event.event_ts_ms,
                duration_ms: event.duration_ms,
                device: event.device.to_string(),
                raw_payload: text(event, Event::write_payload),
                title: content.map(|content| content.title.clone()),
                content_type: content.map(|content| content.content_type.to_string()),
                content_id,
                length_seconds,
                engagement_seconds,
                engagement_pct,
            }
        };
        let rows = events.iter().map(|(_, event)| row(event)).collect();
        Self { rows, partitions: events.iter().map(|(partition, _)| *partition).collect() }
    }

    /// The watermark when all is read: the least over the partitions of the greatest event time, less the delay.
    pub(crate) fn watermark_ms(&self, delay_ms: i64) -> i64 {
        let mut greatest: HashMap<i32, i64> = HashMap::new();
        for (row, partition) in self.rows.iter().zip(&self.partitions) {
            let greatest = greatest.entry(*partition).or_insert(row.event_ts);
            *greatest = row.event_ts.max(*greatest);
        }
        greatest.values().min().unwrap() - delay_ms
    }

    /// Every window `[end - size, end)` that ends at a multiple of the slide (which divides the size) and not after the watermark.
    /// Each event is added to each window that holds it.
    pub(crate) fn hop<K: Hash + Eq + Clone>(
        &self,
        slide_ms: i64,
        size_ms: i64,
        watermark_ms: i64,
        key: impl Fn(&Row) -> K,
    ) -> Windows<K> {
        let least = self.rows.iter().map(|row| row.event_ts).min().unwrap();
        let first_end = (least / slide_ms + 1) * slide_ms;
        let windows = ((watermark_ms - first_end) / slide_ms + 1).max(0) as usize;
        let mut groups: HashMap<K, Vec<Sums>> = HashMap::new();
        for row in &self.rows {
            let sums = groups.entry(key(row)).or_insert_with(|| vec![Sums::default(); windows]);
            let from = ((row.event_ts / slide_ms + 1) * slide_ms - first_end) / slide_ms;
            let to = from + size_ms / slide_ms;
            let (from, to) = ((from as usize).min(windows), (to as usize).min(windows));
            sums[from..to].iter_mut().for_each(|sums| sums.add(row.duration_ms));
        }
        let mut result = Windows::new();
        for (key, sums) in groups {
            for (index, sums) in sums.into_iter().enumerate().filter(|(_, sums)| sums.events > 0) {
                result.entry(first_end + index as i64 * slide_ms).or_default().insert(key.clone(), sums);
            }
        }
        result
    }

    /// The contents of the last window as a board: it ends at the first whole second after T, the greatest event time.
    pub(crate) fn board(&self, size_ms: i64) -> HashMap<String, Sums> {
        let greatest = self.rows.iter().map(|row| row.event_ts).max().unwrap();
        let end = (greatest / 1000 + 1) * 1000;
        let mut board: HashMap<String, Sums> = HashMap::new();
        for row in self.rows.iter().filter(|row| row.event_ts >= end - size_ms) {
            board.entry(row.content_id.clone()).or_default().add(row.duration_ms);
        }
        board
    }
}

/// The first `limit`, by score from the greatest, then by member.
pub(crate) fn top(scores: impl Iterator<Item = (String, i64)>, limit: usize) -> Vec<(String, i64)> {
    let mut scores: Vec<_> = scores.collect();
    scores.sort_by(|(left, a), (right, b)| b.cmp(a).then_with(|| left.cmp(right)));
    scores.truncate(limit);
    scores
}
