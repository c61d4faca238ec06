//! A table is replaced (`'on_new_lineage' 'replace'`), and the process dies at each step of that.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use crate::end_to_end::oracle::{Oracle, Row};
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, events, found, send};
use crate::support::falaj::Falaj;
use crate::support::project::Project;

use falaj::tool::generate::Contents;

/// The steps, each with whether readers of the table find the new result then.
pub(super) const STEPS: &[(&str, bool)] =
    &[("replace.begun", false), ("replace.before", false), ("replace.exchanged", true), ("replace.renamed", true)];
const PART: usize = 3_000;

#[tokio::test]
async fn a_process_that_dies_while_it_replaces_a_table_leaves_the_old_result_or_the_new_one_and_ends_with_the_new() {
    let project = Project::new(PARTITIONS).await;
    project.remove(&["partner", "top_content", "top_content_seconds"]);
    project.replace("sinks", "'30s'", "'100ms', 'on_new_lineage' 'replace'");
    project.fill_content(CONTENTS, SEED);
    let (contents, events) = (Contents::new(CONTENTS, SEED), events(PART * (STEPS.len() + 1)));
    let rows = |to: usize| -> BTreeMap<i64, Row> {
        Oracle::new(&events[..to], &contents).rows.into_iter().map(|row| (row.id, row)).collect()
    };
    let there = || found::enriched(&project.path("data/bigquery_output"));
    send(&project, &events[..PART]);
    project.run_until_latest("http://unused");
    for (index, (step, is_new)) in STEPS.iter().enumerate() {
        let (before, after) = (PART * (index + 1), PART * (index + 2));
        send(&project, &events[before..after]);
        std::fs::remove_dir_all(project.path("data/run")).unwrap();
        let mut command = project.command(&["run", "queries", "--until", "latest", "--no-web"]);
        let (status, said) = Falaj::start(command.env("FALAJ_FAILPOINT", format!("bigquery/{step}/1"))).end();
        assert_eq!(status.signal(), Some(9), "it did not come to {step}, or ended before:\n{said}");
        found::assert_same(step, &rows(if *is_new { after } else { before }), &there());
        project.run_until_latest("http://unused");
        found::assert_same(step, &rows(after), &there());
        let beside = project.path("data/.bigquery_output.replace");
        assert!(!beside.exists(), "{step}: what was replaced is gone");
    }
    project.finish().await;
}
