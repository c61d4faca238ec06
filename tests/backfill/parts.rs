//! What a backfill says, refuses, and reads when it is not to read everything.

use std::process::Output;

use super::{backfill, edit, new_rows, project, rows};
use crate::end_to_end::{events, found, send};
use crate::support::falaj::Falaj;
use crate::support::project::Project;

const EVENTS: usize = 4_000;

fn run(project: &Project, args: &[&str]) -> Output {
    project.command(&["backfill", "queries", "--no-web"]).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The folder that a line names after `words`.
fn folder_after(said: &str, words: &str) -> String {
    let line = said.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("no {words} in:\n{said}"));
    line[line.find(words).unwrap() + words.len()..].split([',', '\n']).next().unwrap().trim().to_string()
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_read_and_written_and_touches_nothing() {
    let project = project().await;
    send(&project, &events(EVENTS));
    let output = run(&project, &["--dry-run"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for words in [
        "engagement_events: 4000 records at most",
        "  partition 0: [0, ",
        "bigquery: from engagement_events into data/.bigquery_output.backfill/bigquery-",
        ", which takes the table's place",
        "top_content: from engagement_events in memory; the whole result takes the old one's place",
    ] {
        assert!(said.contains(words), "no {words} in:\n{said}");
    }
    assert!(!project.path("data").exists(), "it has written something");
    project.finish().await;
}

#[tokio::test]
async fn a_part_of_history_stays_in_its_own_folder_and_the_lane_goes_on_as_it_was() {
    let project = project().await;
    let all = events(2 * EVENTS);
    send(&project, &all[..EVENTS]);
    project.run_until_latest("http://unused");
    let (shown, middle) = (rows(&all[..EVENTS]), (all[EVENTS / 4].1.id as i64, all[EVENTS / 2].1.id as i64));
    edit(&project);
    // Offsets of the four partitions that lie between two events.
    let offsets = |index: usize| {
        let of = |partition| all[..index].iter().filter(|(of, _)| *of == partition).count();
        (0..4).map(|partition| format!("{partition}:{}", of(partition))).collect::<Vec<_>>().join(",")
    };
    let args = ["--lane", "bigquery", "--from", &offsets(EVENTS / 4), "--to", &offsets(EVENTS / 2)];
    let output = run(&project, &args);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let folder = folder_after(&said(&output), "bigquery: the result is in ");
    let mut expected = new_rows(&all[..EVENTS]);
    expected.retain(|id, _| (middle.0..middle.1).contains(id));
    found::assert_same("the part", &expected, &found::enriched(folder.as_ref()));
    found::assert_same("the table", &shown, &found::enriched(&project.path("data/bigquery_output")));

    // Nor does a time later than everything read anything; and the board is no matter for a part.
    let output = run(&project, &["--lane", "bigquery", "--from", "2100-01-01"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let folder = folder_after(&said(&output), "bigquery: the result is in ");
    assert_eq!(found::enriched(folder.as_ref()).len(), 0);
    let output = run(&project, &["--lane", "top_content", "--from", "2100-01-01"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("lane 'top_content' has a board, which is about the newest records"), "{}", said(&output));

    project.replace("enriched", "'new ' || c.title AS title,", "c.title,");
    send(&project, &all[EVENTS..]);
    project.run_until_latest("http://unused");
    found::assert_same("later", &rows(&all), &found::enriched(&project.path("data/bigquery_output")));
    project.finish().await;
}

#[tokio::test]
async fn what_cannot_be_read_again_or_was_begun_otherwise_is_refused_in_one_sentence() {
    let project = project().await;
    project.write("kept", "INSERT INTO kept SELECT device, id FROM engagement_events;");
    let table = "CREATE EXTERNAL TABLE kept (device VARCHAR, id BIGINT) STORED AS REDIS LOCATION '{key}'
      OPTIONS ('url' '${env:REDIS_URL}', 'type' 'hash', 'key' 'device');";
    project.write("kept_table", &table.replace("{key}", &project.board_key("kept")));
    send(&project, &events(EVENTS));
    let refuses = |args: &[&str], words: &str| {
        let output = run(&project, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
        let last = said(&output).lines().last().unwrap_or_default().to_string();
        assert!(last.contains(words), "{args:?}: no {words} in: {last}");
    };
    refuses(&["--lane", "bigqery"], "there is no lane 'bigqery'; there are bigquery, kept, top_content");
    refuses(&["--lane", "kept"], "lane 'kept' writes rows to Redis that stay, and has no second place for them");
    refuses(&["--from", "yesterday"], "--from 'yesterday': write 'earliest', a time such as");
    refuses(&["--to", "0:1,9:2"], "has no partition 9");

    // Killed half-way, and then something else is asked for, or the SQL is edited.
    let mut command = project.command(&["backfill", "queries", "--no-web"]);
    let (_, begun) = Falaj::start(command.env("FALAJ_FAILPOINT", "bigquery/intent.after/1")).end();
    refuses(
        &["--lane", "bigquery"],
        "a backfill is under way with other arguments: go on with it as it was begun, or give it up",
    );
    edit(&project);
    refuses(&[], "a backfill is under way with other SQL");
    let output = run(&project, &["--cancel"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{begun}", said(&output));
    assert!(!project.path("data/.bigquery_output.backfill").exists());
    backfill(&project, &[]);
    project.finish().await;
}
