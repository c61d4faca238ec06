//! Queries that are edited over a checkpoint: the state is made anew where it would be another, and only there.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::oracle::Oracle;
use super::{PARTITIONS, boards, events, found, produce, send};
use crate::support::project::Project;

const HALF: usize = 6_000;
const ANEW: &str = "its state is made anew";
const SHIPPED: &str = "FROM hop(enriched, event_ts, INTERVAL '1 second', INTERVAL '10 minutes')";
const OTHER: &str = "FROM hop(enriched, event_ts, INTERVAL '1 second', INTERVAL '5 minutes') WHERE event_type = 'play'";
const SMALLER: &str = "FROM hop(enriched, event_ts, INTERVAL '1 second', INTERVAL '5 minutes')";

const BY_CONTENT_TABLE: &str = "CREATE EXTERNAL TABLE by_content (window_end TIMESTAMP, content_id VARCHAR, events BIGINT)
  STORED AS JSON LOCATION 'data/by_content/' OPTIONS ('emit' 'final');";
const BY_CONTENT: &str = "INSERT INTO by_content SELECT window_end, content_id, count(*)
  FROM hop(enriched, event_ts, INTERVAL '10 seconds', INTERVAL '1 minute') WHERE event_type = 'play'
  GROUP BY window_start, window_end, content_id;";

#[tokio::test]
async fn a_board_whose_query_was_edited_is_as_if_it_had_always_been_so_even_when_no_rows_come() {
    let project = Project::new(PARTITIONS).await;
    project.remove(&["partner", "bigquery"]);
    let events = events(2 * HALF);
    project.replace("top_content", SHIPPED, OTHER);
    let contents = produce(&project, &events[..HALF]);
    run(&project);
    let plays = project.board("top_content").await;

    project.replace("top_content", OTHER, SHIPPED);
    assert_eq!(run(&project), ["top_content"]);
    boards::are_exact(&project, &Oracle::new(&events[..HALF], &contents)).await;
    assert_ne!(project.board("top_content").await, plays);

    // Nothing is made anew again, and what stands above the aggregate is no part of the state.
    let all = project.board("top_content").await;
    project.replace("top_content", "LIMIT 100", "LIMIT 7");
    assert!(run(&project).is_empty());
    assert_eq!(project.board("top_content").await, all[..7]);
    project.replace("top_content", "LIMIT 7", "LIMIT 100");

    // A smaller window needs nothing that is not there.
    project.replace("top_content", SHIPPED, SMALLER);
    assert!(run(&project).is_empty());
    assert_ne!(project.board("top_content").await, all);
    // When it has forgotten what only the larger one needs, that one is made anew.
    for rows in events[HALF..].chunks(HALF / 2) {
        send(&project, rows);
        assert!(run(&project).is_empty());
    }
    project.replace("top_content", SMALLER, SHIPPED);
    assert_eq!(run(&project), ["top_content"]);
    boards::are_exact(&project, &Oracle::new(&events, &contents)).await;
    project.finish().await;
}

#[tokio::test]
async fn windows_that_were_final_before_an_edit_stay_and_the_others_are_the_new_querys() {
    let project = Project::new(PARTITIONS).await;
    project.remove(&["partner", "bigquery", "top_content", "top_content_seconds"]);
    project.write("by_content_table", BY_CONTENT_TABLE);
    project.write("by_content", BY_CONTENT);
    let events = events(2 * HALF);
    let contents = produce(&project, &events[..HALF]);
    run(&project);
    // There and back without a row between: the state of each is still there, and is not taken for the other's.
    let (plays, all) = ("WHERE event_type = 'play'", "WHERE event_type IS NOT NULL");
    project.replace("by_content", plays, all);
    assert_eq!(run(&project), ["by_content"]);
    project.replace("by_content", all, plays);
    assert!(run(&project).is_empty());
    project.replace("by_content", plays, all);
    send(&project, &events[HALF..]);
    assert!(run(&project).is_empty());

    let before = Oracle::new(&events[..HALF], &contents).watermark_ms(5_000);
    let oracle = Oracle::new(&events, &contents);
    let mut expected = BTreeMap::new();
    for (end, groups) in
        oracle.hop(10_000, 60_000, oracle.watermark_ms(5_000), |row| (row.content_id.clone(), row.event_type == "play"))
    {
        for ((content, _), sums) in groups.into_iter().filter(|((_, is_play), _)| end > before || *is_play) {
            *expected.entry((end, content)).or_insert(0) += sums.events;
        }
    }
    #[derive(Deserialize)]
    struct Window {
        #[serde(deserialize_with = "found::time")]
        window_end: i64,
        content_id: String,
        events: i64,
    }
    let mut windows = BTreeMap::new();
    for window in found::files(&project.path("data/by_content"), "json").iter().flat_map(|path| found::json::<Window>(path)) {
        assert_eq!(windows.insert((window.window_end, window.content_id), window.events), None, "a window is final once");
    }
    assert!(expected.keys().any(|(end, _)| *end <= before) && expected.keys().any(|(end, _)| *end > before));
    found::assert_same("windows", &expected, &windows);
    project.finish().await;
}

/// Runs to the log end; gives the lanes whose state was made anew.
fn run(project: &Project) -> Vec<String> {
    let said = project.run_until_latest("http://127.0.0.1:1");
    let lanes = said.lines().filter(|line| line.contains(ANEW));
    lanes.map(|line| line.split('\'').nth(1).unwrap().to_string()).collect()
}
