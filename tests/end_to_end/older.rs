//! A checkpoint that is older than its sinks, one that is forked under a process that runs, and one with torn files of state.

use std::collections::BTreeMap;
use std::path::Path;

use super::oracle::{Oracle, Row};
use super::{PARTITIONS, boards, events, found, produce, send};
use crate::support::falaj::Falaj;
use crate::support::project::{Project, lane, wait_until};
use crate::support::receiver::Receiver;

const THIRD: usize = 5_000;
const LANES: [&str; 3] = ["top_content", "top_content_seconds", "bigquery"];

#[tokio::test]
async fn an_older_checkpoint_is_noticed_and_a_fork_of_it_goes_on() {
    let project = Project::new(PARTITIONS).await;
    let events = events(3 * THIRD);
    let oracle = Oracle::new(&events, &produce(&project, &events[..THIRD]));
    let receiver = Receiver::start(project.path("received"));
    project.run_until_latest(&receiver.url);
    copy(&project.path("data/run/checkpoint"), &project.path("copy"));
    send(&project, &events[THIRD..2 * THIRD]);
    project.run_until_latest(&receiver.url);
    std::fs::remove_dir_all(project.path("data/run/checkpoint")).unwrap();
    copy(&project.path("copy"), &project.path("data/run/checkpoint"));
    send(&project, &events[2 * THIRD..]);

    // HTTP cannot be asked what it holds: its lane would go on. It waits for the fork.
    let partner = std::fs::read_to_string(project.path("queries/partner.sql")).unwrap();
    project.remove(&["partner"]);
    let said = fails(&project, &receiver);
    for lane in LANES {
        let words =
            [format!("lane '{lane}' stopped"), "the checkpoint is older than the sink".into(), "checkpoint fork".into()];
        assert!(said.lines().any(|line| words.iter().all(|word| line.contains(word))), "{lane}:\n{said}");
    }

    assert!(checkpoint(&project, "verify").ends_with("data/run/checkpoint: fine\n"));
    let printed = checkpoint(&project, "fork");
    assert!(printed.contains("  bigquery: after epoch ") && printed.contains("  Redis     the whole board"), "{printed}");
    assert!(checkpoint(&project, "show").contains(", forked from "));
    assert!(checkpoint(&project, "verify").ends_with("data/run/checkpoint: fine\n"));
    project.write("partner", &partner);
    let said = fails(&project, &receiver);
    assert!(said.contains("lane 'bigquery' stopped") && said.contains("on_new_lineage"), "{said}");
    assert!(!said.contains("lane 'top_content' stopped"), "{said}");
    boards::are_exact(&project, &oracle).await;

    project.replace("sinks", "'30s')", "'30s', 'on_new_lineage' 'append')");
    project.run_until_latest(&receiver.url);
    boards::are_exact(&project, &oracle).await;
    let ids = |range: std::ops::Range<usize>| oracle.rows[range].iter().map(|row| row.id);
    let mut expected: BTreeMap<i64, usize> = ids(0..3 * THIRD).map(|id| (id, 1)).collect();
    expected.extend(ids(THIRD..2 * THIRD).map(|id| (id, 2)));
    found::assert_same("Parquet", &expected, &times_in_parquet(&project));
    let counts = receiver.counts().await;
    assert_eq!(
        (counts["effective_rows"].as_u64(), counts["duplicate_ids"].as_u64(), counts["key_conflicts"].as_u64()),
        (Some(3 * THIRD as u64), Some(THIRD as u64), Some(0)),
        "{counts}"
    );
    project.finish().await;
}

#[tokio::test]
async fn a_process_under_which_the_checkpoint_is_forked_ends_and_nothing_is_lost_or_doubled() {
    let project = Project::new(PARTITIONS).await;
    project.remove(&["partner"]);
    project.replace("sinks", "'30s'", "'1s'");
    let events = events(2 * THIRD);
    let oracle = Oracle::new(&events, &produce(&project, &events[..THIRD]));
    let (falaj, page) = project.run("http://127.0.0.1:9", &[]);
    wait_until("all lanes have all", async || {
        let mut all = true;
        for name in LANES {
            all &= lane(&page, name).await["records"].as_u64() == Some(THIRD as u64);
        }
        all
    })
    .await;
    checkpoint(&project, "fork");
    send(&project, &events[THIRD..]);
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(1), "{said}");
    for lane in LANES {
        let stopped = said.lines().find(|line| line.contains(&format!("lane '{lane}' stopped"))).unwrap_or(&said);
        assert!(stopped.contains("was moved away or replaced") || stopped.contains("has claimed lane"), "{stopped}");
    }
    project.replace("sinks", "'1s')", "'1s', 'on_new_lineage' 'append')");
    project.run_until_latest("http://127.0.0.1:9");
    boards::are_exact(&project, &oracle).await;
    let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
    found::assert_same("Parquet", &expected, &found::enriched(&project.path("data/bigquery_output")));
    project.finish().await;
}

#[tokio::test]
async fn a_torn_file_of_state_costs_a_longer_start_and_nothing_else() {
    let project = Project::new(PARTITIONS).await;
    project.remove(&["partner", "bigquery"]);
    let events = events(3 * THIRD);
    let oracle = Oracle::new(&events, &produce(&project, &events[..THIRD]));
    project.run_until_latest("http://127.0.0.1:9");
    // The only snapshot of a lane: everything is read again.
    tear_newest(&project, "top_content_seconds");
    send(&project, &events[THIRD..2 * THIRD]);
    let said = project.run_until_latest("http://127.0.0.1:9");
    assert!(
        said.contains("lane 'top_content_seconds' goes back to epoch 0: the snapshot top_content_seconds/state-"),
        "{said}"
    );
    assert!(!said.contains("lane 'top_content' goes back"), "{said}");
    // One with another before it.
    tear_newest(&project, "top_content");
    send(&project, &events[2 * THIRD..]);
    let said = project.run_until_latest("http://127.0.0.1:9");
    assert!(said.contains("lane 'top_content' goes back to epoch ") && !said.contains("goes back to epoch 0"), "{said}");
    boards::are_exact(&project, &oracle).await;
    project.finish().await;
}

/// Cuts a lane's newest file of state in half.
fn tear_newest(project: &Project, lane: &str) {
    let newest = found::files(&project.path(&format!("data/run/checkpoint/{lane}")), "arrow").pop().unwrap();
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(newest, &bytes[..bytes.len() / 2]).unwrap();
}

/// A run that ends with code 1; what it says.
fn fails(project: &Project, receiver: &Receiver) -> String {
    let mut command = project.command(&["run", "queries", "--until", "latest", "--no-web"]);
    let (status, said) = Falaj::start(command.env("PARTNER_URL", &receiver.url)).end();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

/// What a command on the checkpoint prints.
fn checkpoint(project: &Project, what: &str) -> String {
    let output = project.command(&["checkpoint", what]).output().unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// How often each event is in the Parquet output.
fn times_in_parquet(project: &Project) -> BTreeMap<i64, usize> {
    let mut times = BTreeMap::new();
    for path in found::files(&project.path("data/bigquery_output"), "parquet") {
        for columns in found::parquet(&path) {
            *times.entry(found::long(&columns[0].1).unwrap()).or_insert(0) += 1;
        }
    }
    times
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}
