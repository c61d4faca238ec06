//! A checkpoint and files that live in a bucket, over a real server that speaks S3.

#[cfg(feature = "failpoints")]
pub(crate) mod crash;
mod lost;

use std::collections::BTreeMap;

use falaj::tool::generate::Contents;

use crate::end_to_end::oracle::{Oracle, Row};
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, boards, events, found, send};
use crate::support::falaj::Falaj;
use crate::support::project::Project;
use crate::support::proxy::Proxy;
use crate::support::s3::{BUCKET, Server};

/// The leaderboard and the files, both in the bucket's care.
async fn project(server: &Server) -> Project {
    let mut project = Project::new(PARTITIONS).await;
    project.fill_content(CONTENTS, SEED);
    project.remove(&["partner"]);
    project.replace("sinks", "'30s'", "'200ms'");
    server.houses(&mut project);
    project
}

/// Compares the files with what plain Rust makes of the events.
fn is_exact(server: &Server, oracle: &Oracle) {
    let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
    let copy = tempfile::tempdir().unwrap();
    server.copy("bigquery_output/", copy.path());
    found::assert_same("Parquet in S3", &expected, &found::enriched(copy.path()));
    assert_eq!(server.keys("bigquery_output/_staging").len(), 0, "nothing is staged any more");
}

#[tokio::test]
async fn a_new_machine_goes_on_where_the_checkpoint_in_the_bucket_stands() {
    let server = Server::start();
    let project = project(&server).await;
    let (all, contents) = (events(7_000), Contents::new(CONTENTS, SEED));
    let (before, after) = all.split_at(6_000);
    for part in before.chunks(2_000) {
        send(&project, part);
        project.run_until_latest("http://unused");
        assert!(!project.path("data/run/checkpoint").exists(), "nothing of the checkpoint is here");
        // What is on this machine is gone with it.
        let _ = std::fs::remove_dir_all(project.path("data"));
    }
    let oracle = Oracle::new(before, &contents);
    is_exact(&server, &oracle);
    assert_eq!((server.uploads(), server.uploads_with_parts()), (0, 0), "no upload is left");
    boards::are_exact(&project, &oracle).await;

    let said = tool(&project, &["checkpoint", "verify"]);
    assert!(said.contains(&format!("s3://{BUCKET}/checkpoint: fine")), "{said}");
    let said = tool(&project, &["checkpoint", "show"]);
    assert!(said.contains("bigquery") && said.contains(", committed") && said.contains(" ago"), "{said}");
    let said = tool(&project, &["checkpoint", "fork"]);
    let forked = said.split('\'').nth(1).unwrap_or_else(|| panic!("{said}")).to_string();
    project.replace("settings", &format!("'s3://{BUCKET}/checkpoint'"), &format!("'{forked}'"));
    project.replace("sinks", "'roll.interval'", "'on_new_lineage' 'append', 'roll.interval'");
    send(&project, after);
    project.run_until_latest("http://unused");
    is_exact(&server, &Oracle::new(&all, &contents));
    project.finish().await;
}

fn tool(project: &Project, args: &[&str]) -> String {
    let done = project.command(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test]
async fn a_bucket_that_is_away_is_waited_for_and_said_once() {
    let server = Server::start();
    let mut project = project(&server).await;
    let proxy = Proxy::of(&format!("127.0.0.1:{}", server.port));
    project.environment[0].1 = format!("http://{}", proxy.addr());
    proxy.open();
    let all = events(3_000);
    send(&project, &all[..1_000]);
    let (mut falaj, _) = project.run("http://unused", &[]);
    let published = |keys: &BTreeMap<String, u64>| keys.keys().any(|key| key.ends_with(".parquet"));
    server.wait_for("bigquery_output/", published);
    proxy.cut();
    send(&project, &all[1_000..2_000]);
    for lane in ["lane 'bigquery'", "lane 'top_content'"] {
        falaj.wait_for_line(&["WARN", lane]);
    }
    proxy.open();
    falaj.wait_for_line(&["INFO", "after"]);
    send(&project, &all[2_000..]);
    let (status, said) = stopped(falaj);
    assert_eq!(status, Some(0), "{said}");
    for lane in ["lane 'bigquery'", "lane 'top_content'"] {
        let warnings = said.lines().filter(|line| line.contains("WARN") && line.contains(lane)).count();
        assert_eq!(warnings, 1, "{said}");
    }
    project.run_until_latest("http://unused");
    is_exact(&server, &Oracle::new(&all, &Contents::new(CONTENTS, SEED)));
    project.finish().await;
}

fn stopped(falaj: Falaj) -> (Option<i32>, String) {
    falaj.terminate();
    let (status, said) = falaj.end();
    (status.code(), said)
}

#[tokio::test]
async fn files_of_another_lineage_stop_the_lane_before_it_writes_beside_them() {
    let server = Server::start();
    let project = project(&server).await;
    send(&project, &events(500));
    project.run_until_latest("http://unused");
    let before = server.keys("bigquery_output/");
    project.replace("settings", &format!("s3://{BUCKET}/checkpoint"), &format!("s3://{BUCKET}/other"));
    let (status, said) = Falaj::start(&mut project.command(&["run", "queries", "--until", "latest", "--no-web"])).end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("has files of another lineage or lane") && said.contains("another LOCATION"), "{said}");
    assert_eq!(server.keys("bigquery_output/"), before);
    project.finish().await;
}
