//! The process dies at each place at which a bucket's work can be cut off.

use std::collections::BTreeMap;

use super::is_exact;
use crate::crash::Run;
use crate::end_to_end::oracle::{Oracle, Row};
use crate::end_to_end::{boards, found};
use crate::support::s3::Server;

pub(crate) const LANES: [(&str, &[&str]); 2] = [
    (
        "bigquery",
        &[
            "claimed",
            "files.closed",
            "files.begun",
            "files.uploaded",
            "record.written",
            "record.linked",
            "files.renamed",
            "intent.after",
            "apply.after",
            "commit.after",
        ],
    ),
    (
        "top_content",
        &[
            "claimed",
            "record.linked",
            "snapshot.written",
            "snapshot.recorded",
            "purge",
            "intent.after",
            "recovery.absorbed",
            "commit.after",
        ],
    ),
];

#[tokio::test]
async fn a_process_that_dies_with_its_checkpoint_and_its_files_in_a_bucket_loses_and_doubles_nothing() {
    let server = Server::start();
    let mut run = Run::new().await;
    run.project.remove(&["partner", "by_device", "plays", "of_content"]);
    server.houses(&mut run.project);
    for (lane, places) in LANES {
        for place in places {
            run.dies_at(lane, place).await;
        }
    }
    run.produce();
    run.project.run_until_latest(&run.receiver.url);
    let oracle = Oracle::new(&run.events[..run.sent], &run.contents);
    is_exact(&server, &oracle);
    // The one that died before its note; and whatever `bigquery` had begun just so when another lane's turn to die came. None has a part.
    assert!(server.uploads() >= 1 && server.uploads_with_parts() == 0, "{} uploads", server.uploads());
    boards::are_exact(&run.project, &oracle).await;
    run.project.finish().await;
}

#[tokio::test]
async fn what_a_lost_machine_had_promised_to_send_is_sent_by_the_next_one() {
    let server = Server::start();
    let mut run = Run::new().await;
    run.project.remove(&["bigquery", "top_content", "top_content_seconds", "by_device", "plays", "of_content"]);
    server.houses(&mut run.project);
    for place in ["intent.after", "http.sent", "apply.after", "commit.after"] {
        run.dies_at("partner", place).await;
        // Its outbox is gone with it.
        std::fs::remove_dir_all(run.project.path("data")).unwrap();
    }
    run.produce();
    run.project.run_until_latest(&run.receiver.url);
    let oracle = Oracle::new(&run.events[..run.sent], &run.contents);
    let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
    found::assert_same("HTTP", &expected, &found::received(&run.receiver, &run.project.name).await);
    assert_eq!(server.keys("checkpoint/falaj.outbox"), BTreeMap::new(), "no copy is left");
    run.project.finish().await;
}
