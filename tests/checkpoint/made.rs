//! A checkpoint with three lanes: a board with snapshots, rows with an epoch that is open, and one that has only begun.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use falaj::checkpoint::CheckpointStore;
use falaj::checkpoint::lane_log::LaneLog;
use falaj::checkpoint::local::LocalStore;
use falaj::checkpoint::record::{Entry, Intent, Record, Snapshot};
use falaj::checkpoint::recover::Needs;
use falaj::clock::Clock;
use falaj::position::{Positions, Span};
use falaj::sink::Staged;
use serde_json::Value;

pub(super) const LINEAGE: &str = "0198f000-0000-7000-8000-000000000000";
/// 2026-01-01T00:00:00Z.
const NOW_NS: i64 = 1_767_225_600_000_000_000;

pub(super) async fn made() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn CheckpointStore> = Arc::new(LocalStore::new(folder.path().join("checkpoint")));
    let lineage = format!("{{\"lineage\":\"{LINEAGE}\"}}\n").into_bytes();
    assert!(store.create("lineage.json", lineage).await.unwrap());
    let clock = Clock::held(NOW_NS);

    let mut board = claim(&store, "board", Needs::State, &clock).await;
    for epoch in 1..=6 {
        board.append(vec![Entry::Intent(windowed(epoch))]).await.unwrap();
        board.append(vec![Entry::Commit { epoch }]).await.unwrap();
        if epoch == 3 || epoch == 5 {
            let from = board.next();
            let file = board.state_writer().write(epoch, "panes", vec![b'x'; 1500], vec![(0, 1)]).await.unwrap();
            board
                .snapshot(
                    Snapshot {
                        epoch,
                        intent: windowed(epoch),
                        fingerprint: String::new(),
                        from_pane: 0,
                        files: vec![file],
                        merged: None,
                    },
                    from,
                )
                .await
                .unwrap();
        }
    }
    clock.set(NOW_NS + 90_000_000_000);
    claim(&store, "board", Needs::State, &clock).await;

    let mut rows = claim(&store, "rows", Needs::LastEpoch, &clock).await;
    rows.append(vec![Entry::Intent(intent(1))]).await.unwrap();
    rows.append(vec![Entry::Commit { epoch: 1 }]).await.unwrap();
    let staged = |part| Staged {
        staged: format!("_staging/{part}"),
        published: format!("{part}"),
        size_bytes: 2_000_000,
        hash: "0".into(),
        rows: 500,
        upload: None,
    };
    let open = Intent { staged: vec![staged(0), staged(1)], letters: 2, ..intent(2) };
    rows.append(vec![Entry::Intent(open)]).await.unwrap();

    claim(&store, "fresh", Needs::LastEpoch, &clock).await;
    let at = UNIX_EPOCH + Duration::from_nanos(NOW_NS as u64);
    let record = folder.path().join("checkpoint/board/00000000000000000012.json");
    std::fs::File::options().write(true).open(record).unwrap().set_modified(at).unwrap();
    folder
}

/// Epoch after epoch of two partitions.
fn intent(epoch: u64) -> Intent {
    let (first, second) = (epoch as i64 * 100, 7);
    let mut spans = vec![Span { partition: 0, from: first - 100, to: first }];
    if epoch == 1 {
        spans.push(Span { partition: 1, from: 0, to: second });
    }
    let positions = Positions::from_iter([(0, first), (1, second)]);
    Intent { epoch, spans, positions, now_ns: NOW_NS, ..Intent::default() }
}

fn windowed(epoch: u64) -> Intent {
    let at = NOW_NS + epoch as i64 * 1_000_000_000;
    Intent {
        event_times_ns: BTreeMap::from([(0, at), (1, NOW_NS)]),
        watermark_ns: Some(at - 5_000_000_000),
        board_ns: Some(at),
        ..intent(epoch)
    }
}

async fn claim(store: &Arc<dyn CheckpointStore>, lane: &str, needs: Needs, clock: &Clock) -> LaneLog {
    LaneLog::claim(Arc::clone(store), LINEAGE, lane, clock, needs, 16).await.unwrap().0
}

/// One of each: torn, changed, foreign, missing, not following the one before, and a state file that is not whole.
pub(super) async fn break_everything(checkpoint: &Path) {
    let record = |lane: &str, number: u64| checkpoint.join(lane).join(format!("{number:020}.json"));
    let text = std::fs::read_to_string(record("board", 5)).unwrap();
    std::fs::write(record("board", 5), text.replacen("now_ns", "now_nz", 1)).unwrap();
    std::fs::write(checkpoint.join("board/state-00000000000000000005-1-panes.arrow"), "torn").unwrap();
    change(&record("board", 10), |record| {
        let Entry::Intent(intent) = &mut record.entries[0] else { panic!("{record:?}") };
        intent.spans[0].from += 1;
        intent.watermark_ns = Some(0);
    });
    change(&record("board", 14), |record| record.entries = vec![Entry::Commit { epoch: 8 }]);
    change(&record("fresh", 0), |record| record.lineage = "other".into());
    std::fs::remove_file(record("rows", 2)).unwrap();
}

fn change(path: &Path, change: impl FnOnce(&mut Record)) {
    let outer: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut record: Record = serde_json::from_str(&outer["record"].to_string()).unwrap();
    change(&mut record);
    std::fs::write(path, record.encode().unwrap()).unwrap();
}

/// Every file below a folder, by its path.
pub(super) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inside, bytes)| (format!("{name}/{inside}"), bytes)));
        } else {
            found.insert(name, std::fs::read(path).unwrap());
        }
    }
    found
}
