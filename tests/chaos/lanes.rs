//! The lanes that run: the shipped row lanes and leaderboard, a second receiver, and windows of every kind of emission.

use std::sync::Arc;

use falaj::checkpoint::s3::S3Store;
use falaj::s3::Location;

use super::records::Place;
use crate::support::project::Project;
use crate::support::s3::{BUCKET, Server};

/// The windows of a lane: of every lane that has some.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub(super) lane: &'static str,
    pub(super) slide_ns: i64,
    pub(super) size_ns: i64,
}

const SECOND_NS: i64 = 1_000_000_000;

pub(super) const TOP: Windows = Windows { lane: "top_content", slide_ns: SECOND_NS, size_ns: 60 * SECOND_NS };
pub(super) const TOP_600: Windows = Windows { lane: "top_600", slide_ns: SECOND_NS, size_ns: 600 * SECOND_NS };
pub(super) const BY_CONTENT: Windows = Windows { lane: "by_content", slide_ns: 10 * SECOND_NS, size_ns: 10 * SECOND_NS };
pub(super) const BY_TYPE: Windows = Windows { lane: "by_type", slide_ns: SECOND_NS, size_ns: 60 * SECOND_NS };

/// All that have windows.
pub(super) const WINDOWED: [Windows; 4] = [TOP, TOP_600, BY_CONTENT, BY_TYPE];
/// The lane of undecodable records.
pub(super) const DLQ: &str = "engagement_events.dlq";
/// Those whose rows go through one by one.
pub(super) const ROWS: [&str; 4] = ["bigquery", "partner", "uncertain", "copies"];
/// A board's limit.
pub(super) const LIMIT: usize = 100;

impl Windows {
    fn floor(at_ns: i64, step_ns: i64) -> i64 {
        at_ns - at_ns.rem_euclid(step_ns)
    }

    /// The first and the last end of the windows that hold an event. (The slide divides the size.)
    pub(super) fn ends(self, at_ns: i64) -> (i64, i64) {
        let last_start = Self::floor(at_ns, self.slide_ns);
        (last_start + self.slide_ns, last_start + self.size_ns)
    }

    /// Whether every window that holds an event is final at this watermark.
    pub(super) fn is_late(self, at_ns: i64, watermark_ns: Option<i64>) -> bool {
        watermark_ns.is_some_and(|watermark_ns| self.ends(at_ns).1 <= watermark_ns)
    }

    /// The end of the window that a board shows at T.
    pub(super) fn board_end(self, board_ns: i64) -> i64 {
        Self::floor(board_ns, self.slide_ns) + self.slide_ns
    }
}

const SETTINGS: &str = "SET falaj.listen = '127.0.0.1:0'; SET falaj.snapshot_records = 10000; SET falaj.records_kept = 4000;";

const TABLES: &str = "
CREATE EXTERNAL TABLE top_600 (content_id VARCHAR, engagements BIGINT)
STORED AS REDIS LOCATION '{name}_top_600' OPTIONS (
  'url' '${env:REDIS_URL}', 'type' 'zset', 'member' 'content_id', 'score' 'engagements', 'ttl' '5m');
CREATE EXTERNAL TABLE by_content (slot VARCHAR, content_id VARCHAR, events BIGINT, duration_ms BIGINT)
STORED AS REDIS LOCATION '{name}_by_content' OPTIONS ('url' '${env:REDIS_URL}', 'type' 'hash', 'key' 'slot');
CREATE EXTERNAL TABLE by_type (
  window_end TIMESTAMP, content_type VARCHAR, event_type VARCHAR, events BIGINT, timed BIGINT, duration_ms BIGINT, longest_ms BIGINT
) STORED AS PARQUET LOCATION 'data/by_type/' OPTIONS ('roll.interval' '400ms');";

const TOP_600_SQL: &str = "
INSERT INTO top_600
SELECT content_id, count(*) AS engagements
FROM hop(enriched, event_ts, INTERVAL '1 second', INTERVAL '10 minutes')
GROUP BY window_start, window_end, content_id
ORDER BY engagements DESC, content_id LIMIT 100;";
const BY_CONTENT_SQL: &str = "
INSERT INTO by_content
SELECT concat(content_id, '@', CAST(window_end AS VARCHAR)), content_id, count(*), sum(duration_ms)
FROM tumble(enriched, event_ts, INTERVAL '10 seconds')
GROUP BY window_start, window_end, content_id;";
const BY_TYPE_SQL: &str = "
INSERT INTO by_type
SELECT window_end, content_type, event_type, count(*), count(duration_ms), sum(duration_ms), max(duration_ms)
FROM hop(enriched, event_ts, INTERVAL '1 second', INTERVAL '1 minute')
GROUP BY window_start, window_end, content_type, event_type;";

/// The topic of the Kafka sink.
pub(super) fn copies(project: &Project) -> String {
    format!("{}_copies", project.name)
}

/// Writes the queries of all lanes; `partner` honours keys, `uncertain` does not.
pub(super) fn write(project: &Project, uncertain: &str) {
    project.remove(&["top_content_seconds"]);
    project.replace("sinks", "'30s'", "'400ms'");
    project.replace("top_content", "INTERVAL '10 minutes'", "INTERVAL '1 minute'");
    project.write("settings", SETTINGS);
    project.write("more_tables", &TABLES.replace("{name}", &project.name));
    project.write("top_600", TOP_600_SQL);
    project.write("by_content", BY_CONTENT_SQL);
    project.write("by_type", BY_TYPE_SQL);
    let shipped = |file: &str| std::fs::read_to_string(project.path(&format!("queries/{file}.sql"))).unwrap();
    let sinks = shipped("sinks");
    let partner = &sinks[sinks.find("CREATE EXTERNAL TABLE partner").unwrap()..];
    let table =
        partner.replace("${env:PARTNER_URL:-http://localhost:8090/engagements}", uncertain).replace(" partner ", " uncertain ");
    project.write("uncertain_table", &table.replace("'batch.rows' '500'", "'batch.rows' '100', 'retry.for' '5s'"));
    let table = partner.replace(" partner ", " copies ");
    let table =
        format!("{} STORED AS KAFKA LOCATION '{}' OPTIONS (", &table[..table.find("STORED AS").unwrap()], copies(project));
    project
        .write("copies_table", &format!("{table}'brokers' '${{env:KAFKA_BROKERS}}', 'key' 'content_id', 'partitions' '2');"));
    project.write("copies", &shipped("partner").replace("INTO partner", "INTO copies"));
    project.write("uncertain", &shipped("partner").replace("INTO partner", "INTO uncertain"));
}

/// Moves the checkpoint and all files into the bucket.
pub(super) fn live_in(bucket: &Server, project: &mut Project) {
    bucket.houses(project);
    project.replace("more_tables", "LOCATION 'data/by_type/'", &format!("LOCATION 's3://{BUCKET}/by_type/'"));
}

/// The checkpoint there.
pub(super) fn checkpoint_in(bucket: &Server) -> Place {
    let endpoint = format!("http://127.0.0.1:{}", bucket.port);
    let options = [("endpoint", endpoint.as_str()), ("access_key_id", "any"), ("secret_access_key", "any")];
    let place = Location::parse(&format!("s3://{BUCKET}/checkpoint"), &options).and_then(|place| place.open(None)).unwrap();
    Place::Bucket(Arc::new(S3Store::new(place)))
}
