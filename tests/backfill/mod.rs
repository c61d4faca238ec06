//! `falaj backfill`: history read again with other SQL, with no lanes at work and beside them, and handed over.

mod live;
mod parts;
mod sinks;

use std::collections::BTreeMap;

use crate::end_to_end::oracle::{Oracle, Row};
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, boards, events, found, send};
use crate::support::falaj::Falaj;
use crate::support::project::Project;

use falaj::tool::generate::{Contents, Event};

const EVENTS: usize = 20_000;

/// What `edit` makes of a row.
pub(super) fn edited(row: &Row) -> Row {
    Row { title: row.title.as_ref().map(|title| format!("new {title}")), ..row.clone() }
}

/// Each title gets a word in front.
pub(super) fn edit(project: &Project) {
    project.replace("enriched", "c.title,", "'new ' || c.title AS title,");
}

/// The rows of these events by id, as the shipped query has them.
pub(super) fn rows(events: &[(i32, Event)]) -> BTreeMap<i64, Row> {
    Oracle::new(events, &Contents::new(CONTENTS, SEED)).rows.into_iter().map(|row| (row.id, row)).collect()
}

/// The same as the edited one has them.
pub(super) fn new_rows(events: &[(i32, Event)]) -> BTreeMap<i64, Row> {
    rows(events).iter().map(|(id, row)| (*id, edited(row))).collect()
}

/// Runs `falaj backfill` to its end; gives what was said.
pub(super) fn backfill(project: &Project, more: &[&str]) -> String {
    let (status, said) = Falaj::start(project.command(&["backfill", "queries", "--no-web"]).args(more)).end();
    assert_eq!(status.code(), Some(0), "{said}");
    said
}

/// The lanes into Parquet and onto boards, with many small epochs.
pub(super) async fn project() -> Project {
    let project = Project::new(PARTITIONS).await;
    project.remove(&["partner"]);
    project.replace("sinks", "'30s'", "'200ms'");
    project.write("settings", "SET falaj.listen = '127.0.0.1:0'; SET falaj.epoch_bytes_max = 200000;");
    project.fill_content(CONTENTS, SEED);
    project
}

#[tokio::test]
async fn an_edited_query_is_read_again_from_the_beginning_and_its_result_takes_the_place_of_the_old_one() {
    let project = project().await;
    let events = events(2 * EVENTS);
    let output = project.path("data/bigquery_output");
    send(&project, &events[..EVENTS]);
    project.run_until_latest("http://unused");
    found::assert_same("before", &rows(&events[..EVENTS]), &found::enriched(&output));

    edit(&project);
    backfill(&project, &[]);
    found::assert_same("after", &new_rows(&events[..EVENTS]), &found::enriched(&output));
    assert!(!project.path("data/.bigquery_output.backfill").exists());
    assert!(!project.path("data/run/checkpoint/falaj.backfill").exists());

    // The lanes go on from there, and a second time.
    for half in events[EVENTS..].chunks(EVENTS / 2) {
        send(&project, half);
        project.run_until_latest("http://unused");
    }
    found::assert_same("later", &new_rows(&events), &found::enriched(&output));
    boards::are_exact(&project, &Oracle::new(&events, &Contents::new(CONTENTS, SEED))).await;
    let (status, said) = Falaj::start(&mut project.command(&["checkpoint", "verify"])).end();
    assert!(status.success(), "{said}");
    project.finish().await;
}
