//! The contents that events refer to: podcasts, newsletters and videos, the same for the same seed.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

use super::events::below;
use crate::error::Result;

const TOPICS: [&str; 16] = [
    "Deserts",
    "Markets",
    "Coffee",
    "Startups",
    "Poetry",
    "Football",
    "Space",
    "Cities",
    "Cinema",
    "Health",
    "Oceans",
    "Money",
    "History",
    "Algorithms",
    "Travel",
    "Music",
];
const OPENINGS: [&str; 12] = [
    "The Secret Life of",
    "A Short History of",
    "Inside",
    "Why We Need",
    "The Future of",
    "Ten Lessons from",
    "Rethinking",
    "Letters on",
    "An Hour with",
    "The Trouble with",
    "What Nobody Says about",
    "Behind the Scenes of",
];
const ARABIC_OPENINGS: [&str; 6] = ["حكاية", "أسرار", "مستقبل", "تاريخ", "رحلة في عالم", "حديث عن"];
const ARABIC_TOPICS: [&str; 8] = ["القهوة", "الصحراء", "المدن", "الشعر", "الأفلاج", "الفضاء", "الأسواق", "البحار"];
const CONTENT_TYPES: [&str; 3] = ["podcast", "newsletter", "video"];
// 2024-01-01T00:00:00Z and two and a half years: fixed, since the same seed must make the same rows on any day.
const PUBLISH_FROM_S: u64 = 1_704_067_200;
const PUBLISH_SPAN_S: u64 = 913 * 86_400;

/// One row of the table `content`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Such as `c000123`.
    pub id: String,
    /// Unique, lower case, ASCII.
    pub slug: String,
    /// English, and Arabic for one in eight.
    pub title: String,
    /// `podcast`, `newsletter` or `video`.
    pub content_type: &'static str,
    /// 30 to 7200; 3 % have none.
    pub length_seconds: Option<i64>,
    /// When it was published, ms since 1970.
    pub publish_ts_ms: i64,
}

/// All contents; an event's `content` is a place in `rows`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// In the order of their ids.
    pub rows: Vec<Content>,
}

impl Contents {
    /// `count` contents.
    pub fn new(count: usize, seed: u64) -> Self {
        let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x636f_6e74_656e_7473);
        Self { rows: (0..count).map(|index| Content::draw(index, &mut dice)).collect() }
    }

    /// The rows as the lookup table `content` has them: `publish_ts` in nanoseconds, UTC, without a zone.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        let text = |name| Field::new(name, DataType::Utf8View, true);
        let schema = Schema::new(vec![
            text("id"),
            text("slug"),
            text("title"),
            text("content_type"),
            Field::new("length_seconds", DataType::Int64, true),
            Field::new("publish_ts", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        ]);
        let rows = &self.rows;
        let batch = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| &row.id))),
                Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| &row.slug))),
                Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| &row.title))),
                Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.content_type))),
                Arc::new(rows.iter().map(|row| row.length_seconds).collect::<Int64Array>()),
                Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.publish_ts_ms * 1_000_000))),
            ],
        )?;
        Ok(batch)
    }
}

impl Content {
    fn draw(index: usize, dice: &mut Xoshiro256PlusPlus) -> Self {
        let mut pick = |bound: usize| below(dice, bound as u64) as usize;
        let (opening, topic) = (OPENINGS[pick(OPENINGS.len())], TOPICS[pick(TOPICS.len())]);
        let part = pick(40);
        let arabic = (ARABIC_OPENINGS[pick(ARABIC_OPENINGS.len())], ARABIC_TOPICS[pick(ARABIC_TOPICS.len())]);
        let title = match (pick(8) == 0, part) {
            (true, _) => format!("{} {}", arabic.0, arabic.1),
            (false, 0..20) => format!("{opening} {topic}"),
            (false, _) => format!("{opening} {topic}, Part {}", part - 18),
        };
        let slug = format!("{}-{index:06}", format!("{opening} {topic}").to_lowercase().replace(' ', "-"));
        let content_type = CONTENT_TYPES[pick(CONTENT_TYPES.len())];
        let length_seconds = 30 + pick(7_171) as i64;
        let length_seconds = (pick(100) >= 3).then_some(length_seconds);
        let publish_ts_ms = (PUBLISH_FROM_S + pick(PUBLISH_SPAN_S as usize) as u64) as i64 * 1000;
        Self { id: format!("c{index:06}"), slug, title, content_type, length_seconds, publish_ts_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_rows_with_the_documented_shares() {
        let contents = Contents::new(10_000, 42);
        assert_eq!(contents, Contents::new(10_000, 42));
        assert_ne!(contents, Contents::new(10_000, 43));
        assert_eq!(contents.rows[123].id, "c000123");
        let without = contents.rows.iter().filter(|row| row.length_seconds.is_none()).count();
        assert!((240..360).contains(&without), "{without}");
        let in_bounds = |row: &Content| row.length_seconds.is_none_or(|length| (30..=7200).contains(&length));
        assert!(contents.rows.iter().all(in_bounds));
        assert!(contents.rows.iter().any(|row| !row.title.is_ascii()));
    }

    #[test]
    fn a_batch_has_every_row() {
        let batch = Contents::new(100, 1).to_batch().unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (100, 6));
    }
}
