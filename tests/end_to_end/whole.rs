//! 200 000 events, read to the log's end by all shipped lanes and two that write final windows: every row is compared.

use std::collections::BTreeMap;
use std::time::Instant;

use super::found::{self, assert_same};
use super::oracle::{Oracle, Row};
use super::{PARTITIONS, boards, events, produce, windows};
use crate::support::project::Project;
use crate::support::receiver::Receiver;

const EVENTS: usize = 200_000;
#[tokio::test]
async fn two_hundred_thousand_events_become_exactly_what_plain_rust_makes_of_them() {
    let project = Project::new(PARTITIONS).await;
    windows::write_queries(&project);
    let mut began = Instant::now();
    let mut took = |what: &str| {
        eprintln!("{what}: {:.1} s", began.elapsed().as_secs_f64());
        began = Instant::now();
    };
    let events = events(EVENTS);
    let oracle = Oracle::new(&events, &produce(&project, &events));
    took("produced");
    let receiver = Receiver::start(project.path("received"));
    let said = project.run_until_latest(&receiver.url);
    took("run");

    boards::are_exact(&project, &oracle).await;
    for lane in ["bigquery", "partner", "top_content", "top_content_seconds", "of_content", "of_type"] {
        let sentence = format!("lane '{lane}': {EVENTS} records,");
        let line = said.lines().find(|line| line.contains(&sentence)).unwrap_or_else(|| panic!("no {sentence}:\n{said}"));
        assert!(line.contains(" 0 dead letters"), "{line}");
    }
    assert_eq!(project.topic.letters(), [], "nothing is late, and nothing else is wrong");
    took("boards and letters");

    let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
    assert_same("Parquet", &expected, &found::enriched(&project.path("data/bigquery_output")));
    took("Parquet");
    assert_same("HTTP", &expected, &found::received(&receiver, &project.name).await);
    took("HTTP");

    assert!(windows::sixty_panes_are_exact(&project, &oracle) > 90);
    took("60 panes");
    windows::six_hundred_panes_are_exact(&project, &oracle);
    took("600 panes");
    project.finish().await;
}
