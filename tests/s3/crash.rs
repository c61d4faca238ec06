//! The process dies at each place at which a bucket's work can be cut off.

use super::is_exact;
use crate::crash::Run;
use crate::end_to_end::boards;
use crate::end_to_end::oracle::Oracle;
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
    assert_eq!(server.uploads(), 1, "the one without a part that died before its note");
    boards::are_exact(&run.project, &oracle).await;
    run.project.finish().await;
}
