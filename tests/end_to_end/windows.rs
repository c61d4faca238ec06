//! Two lanes that write every final window of ten minutes, by 60 panes and by 600, against the oracle.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::found::{self, assert_close, assert_same};
use super::oracle::{Oracle, Row, Sums, Windows};
use crate::support::project::Project;

const WATERMARK_DELAY_MS: i64 = 5_000;
const TEN_MINUTES_MS: i64 = 600_000;

const TABLES: &str = "
CREATE EXTERNAL TABLE of_content (
  window_start TIMESTAMP, window_end TIMESTAMP, content_id VARCHAR, events BIGINT, timed BIGINT, duration_ms BIGINT, longest_ms BIGINT
) STORED AS JSON LOCATION 'data/of_content/' OPTIONS ('emit' 'final');
CREATE EXTERNAL TABLE of_type (
  window_start TIMESTAMP, window_end TIMESTAMP, content_type VARCHAR, event_type VARCHAR,
  events BIGINT, timed BIGINT, engaged_seconds DOUBLE, longest_ms BIGINT
) STORED AS PARQUET LOCATION 'data/of_type/' OPTIONS ('emit' 'final');";

const OF_CONTENT: &str = "
INSERT INTO of_content
SELECT window_start, window_end, content_id, count(*), count(duration_ms), sum(duration_ms), max(duration_ms)
FROM hop(enriched, event_ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
GROUP BY window_start, window_end, content_id;";

const OF_TYPE: &str = "
INSERT INTO of_type
SELECT window_start, window_end, content_type, event_type, count(*), count(duration_ms), sum(engagement_seconds), max(duration_ms)
FROM hop(enriched, event_ts, INTERVAL '1 second', INTERVAL '10 minutes')
GROUP BY window_start, window_end, content_type, event_type;";

/// Adds the lanes to a project.
pub(crate) fn write_queries(project: &Project) {
    project.write("window_tables", TABLES);
    project.write("of_content", OF_CONTENT);
    project.write("of_type", OF_TYPE);
}

type Found<K, V> = BTreeMap<(i64, K), V>;

/// Each final window of `of_content` is there once, with every row, and no other. Gives how many there are.
pub(crate) fn sixty_panes_are_exact(project: &Project, oracle: &Oracle) -> usize {
    let watermark_ms = oracle.watermark_ms(WATERMARK_DELAY_MS);
    let expected = oracle.hop(10_000, TEN_MINUTES_MS, watermark_ms, |row| row.content_id.clone());
    #[derive(Deserialize)]
    struct Window {
        #[serde(deserialize_with = "found::time")]
        window_start: i64,
        #[serde(deserialize_with = "found::time")]
        window_end: i64,
        content_id: String,
        events: i64,
        timed: i64,
        duration_ms: Option<i64>,
        longest_ms: Option<i64>,
    }
    let mut found: Found<String, Sums> = BTreeMap::new();
    for window in found::files(&project.path("data/of_content"), "json").iter().flat_map(|path| found::json::<Window>(path)) {
        assert_eq!(window.window_start, window.window_end - TEN_MINUTES_MS);
        let (events, timed) = (window.events, window.timed);
        assert_eq!((window.duration_ms.is_some(), window.longest_ms.is_some()), (timed > 0, timed > 0));
        let (duration_ms, longest_ms) = (window.duration_ms.unwrap_or(0), window.longest_ms.unwrap_or(0));
        let before = found.insert((window.window_end, window.content_id), Sums { events, timed, duration_ms, longest_ms });
        assert_eq!(before, None, "a window is final once");
    }
    assert_same("60 panes", &flat(&expected, |sums| *sums), &found);
    expected.len()
}

/// The same of `of_type`.
pub(crate) fn six_hundred_panes_are_exact(project: &Project, oracle: &Oracle) {
    let key = |row: &Row| (row.content_type.clone(), row.event_type.clone());
    let expected = oracle.hop(1_000, TEN_MINUTES_MS, oracle.watermark_ms(WATERMARK_DELAY_MS), key);
    let (mut found, mut seconds) = (Found::new(), Found::new());
    for columns in found::files(&project.path("data/of_type"), "parquet").iter().flat_map(|path| found::parquet(path)) {
        let [start, end, content_type, event_type, events, timed, engaged, longest] =
            <[_; 8]>::try_from(columns).unwrap().map(|(_, field)| field);
        let end = found::long(&end).unwrap();
        assert_eq!(found::long(&start), Some(end - TEN_MINUTES_MS));
        let key = (end, (found::text(content_type), found::text(event_type).unwrap()));
        let window = (found::long(&events).unwrap(), found::long(&timed).unwrap(), found::long(&longest));
        assert_eq!(found.insert(key.clone(), window), None, "a window is final once");
        seconds.insert(key, found::double(&engaged));
    }
    assert!(expected.len() > 900, "{} windows", expected.len());
    let longest = |sums: &Sums| (sums.timed > 0).then_some(sums.longest_ms);
    assert_same("600 panes", &flat(&expected, |sums| (sums.events, sums.timed, longest(sums))), &found);
    for (key, sums) in flat(&expected, |sums| *sums) {
        match seconds[&key] {
            Some(found) => assert_close(sums.duration_ms as f64 / 1000.0, found, key),
            None => assert_eq!(sums.timed, 0, "{key:?}"),
        }
    }
}

fn flat<K: Ord + Clone, V>(windows: &Windows<K>, value: impl Fn(&Sums) -> V) -> Found<K, V> {
    windows.iter().flat_map(|(end, groups)| groups.iter().map(|(key, sums)| ((*end, key.clone()), value(sums)))).collect()
}
