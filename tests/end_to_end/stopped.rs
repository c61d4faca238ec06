//! Stopped half-way by SIGTERM, and continued: the end is as if nothing had been.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::oracle::{Oracle, Row};
use super::{PARTITIONS, boards, events, found, produce};
use crate::support::project::{Project, figure};
use crate::support::receiver::Receiver;

const EVENTS: usize = 60_000;

#[tokio::test]
async fn a_run_that_is_stopped_half_way_and_continued_ends_as_one_that_was_not() {
    let project = Project::new(PARTITIONS).await;
    // Small epochs everywhere, so that the stop finds every lane between many.
    project.replace("sinks", "'30s'", "'500ms'");
    project.write("settings", "SET falaj.listen = '127.0.0.1:0'; SET falaj.epoch_bytes_max = 500000;");
    let events = events(EVENTS);
    let oracle = Oracle::new(&events, &produce(&project, &events));
    let receiver = Receiver::start(project.path("received"));

    let output = project.path("data/bigquery_output");
    let (falaj, page) = project.run(&receiver.url);
    // Every lane has written something.
    while found::files(&output, "parquet").is_empty() || figure(&page, "partner", "emitted").await == 0 {}
    while figure(&page, "top_content", "epoch").await == 0 || figure(&page, "top_content_seconds", "epoch").await == 0 {}
    let began = Instant::now();
    falaj.terminate();
    let (status, said) = falaj.end();
    let took = began.elapsed();
    eprintln!("SIGTERM: ended in {} ms", took.as_millis());
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(took < Duration::from_secs(5), "{took:?}:\n{said}");
    let half = (found::enriched(&output).len(), receiver.rows().len());
    eprintln!("half-way: {} rows in Parquet, {} received", half.0, half.1);
    assert!((1..EVENTS).contains(&half.0) && (1..EVENTS).contains(&half.1), "not half-way: {half:?}");

    project.run_until_latest(&receiver.url);
    let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
    boards::are_exact(&project, &oracle).await;
    found::assert_same("Parquet", &expected, &found::enriched(&output));
    found::assert_same("HTTP", &expected, &found::received(&receiver, &project.name).await);
    assert_eq!(project.topic.letters(), []);
    project.finish().await;
}
