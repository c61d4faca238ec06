//! Stopped by SIGTERM twice, and continued: the end is as if nothing had been.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::oracle::{Oracle, Row};
use super::{PARTITIONS, boards, events, found, produce, windows};
use crate::support::falaj::Falaj;
use crate::support::project::{Project, lane, wait_until};
use crate::support::receiver::Receiver;

const EVENTS: usize = 60_000;
const QUARTER: Option<u64> = Some(EVENTS as u64 / 4);
const HALF_WAY: Range<usize> = 1..EVENTS;

#[tokio::test]
async fn a_run_that_is_stopped_half_way_and_continued_ends_as_one_that_was_not() {
    let project = Project::new(PARTITIONS).await;
    // Small epochs everywhere, so that a stop finds every lane between many.
    project.replace("sinks", "'30s'", "'500ms'");
    project.write("settings", "SET falaj.listen = '127.0.0.1:0'; SET falaj.epoch_bytes_max = 200000;");
    windows::write_queries(&project);
    let events = events(EVENTS);
    let oracle = Oracle::new(&events, &produce(&project, &events));
    let receiver = Receiver::start(project.path("received"));
    let output = project.path("data/bigquery_output");

    // With an end, so that a lane that is ahead waits there: after the log's end T moves on with the clock.
    let until_latest = ["--until", "latest"];
    let (falaj, page) = project.run(&receiver.url, &until_latest);
    wait_until("the board moves", async || lane(&page, "top_content").await["records"].as_u64() > QUARTER).await;
    let said = stop(falaj);
    let (board, windows, files) = (records(&said, "top_content"), records(&said, "of_content"), records(&said, "bigquery"));
    eprintln!("stopped after {board} events on the board, {windows} in windows, {files} in Parquet");
    assert!(HALF_WAY.contains(&board) && HALF_WAY.contains(&files), "not half-way:\n{said}");
    assert_eq!(found::enriched(&output).len(), files, "what is not committed is not to be seen");

    let (falaj, page) = project.run(&receiver.url, &until_latest);
    wait_until("rows are sent", async || lane(&page, "partner").await["records"].as_u64() > QUARTER).await;
    stop(falaj);
    let half = receiver.rows().len();
    eprintln!("stopped after {half} rows were received");
    assert!(HALF_WAY.contains(&half), "not half-way");

    project.run_until_latest(&receiver.url);
    let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
    boards::are_exact(&project, &oracle).await;
    found::assert_same("Parquet", &expected, &found::enriched(&output));
    found::assert_same("HTTP", &expected, &found::received(&receiver, &project.name).await);
    assert!(windows::sixty_panes_are_exact(&project, &oracle) > 90);
    windows::six_hundred_panes_are_exact(&project, &oracle);
    assert_eq!(project.topic.letters(), []);
    project.finish().await;
}

fn stop(falaj: Falaj) -> String {
    let began = Instant::now();
    falaj.terminate();
    let (status, said) = falaj.end();
    let took = began.elapsed();
    eprintln!("SIGTERM: ended in {} ms", took.as_millis());
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(took < Duration::from_secs(5), "{took:?}:\n{said}");
    said
}

/// How many records a lane had handled when it ended, as it says.
fn records(said: &str, lane: &str) -> usize {
    let sentence = format!("lane '{lane}': ");
    let (_, rest) = said.split_once(&sentence).unwrap_or_else(|| panic!("no {sentence} in:\n{said}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}
