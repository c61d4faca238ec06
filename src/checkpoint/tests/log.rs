//! The log of one lane: claims, fences, purges, and what is said about records that are not as they were written.

use std::sync::Arc;

use super::super::CheckpointStore;
use super::super::lane_log::LaneLog;
use super::super::read::{self, record_name};
use super::super::record::Entry;
use super::super::recover::Needs;
use super::{LANE, LINEAGE, Place, changed, claim, epochs, intent, remove, replace, snapshot};
use crate::clock::Clock;
use crate::error::{Error, Kind};

#[tokio::test]
async fn what_was_appended_is_recovered() {
    for place in Place::all() {
        let (mut log, fresh) = claim(&place.open(), Needs::State).await.unwrap();
        assert_eq!((fresh.last(), fresh.committed, log.writer().incarnation), (None, 0, 1));
        epochs(&mut log, 1..=2).await;
        log.append(vec![Entry::Intent(intent(3))]).await.unwrap();
        let (mut log, found) = claim(&place.open(), Needs::State).await.unwrap();
        assert_eq!((found.committed, found.open_intent(), found.intents.len()), (2, Some(&intent(3)), 3));
        log.append(vec![Entry::Commit { epoch: 3 }, Entry::Intent(intent(4))]).await.unwrap();
        let (log, found) = claim(&place.open(), Needs::LastEpoch).await.unwrap();
        assert_eq!((found.committed, found.open_intent(), log.writer().incarnation), (3, Some(&intent(4)), 3));
    }
}

#[tokio::test]
async fn the_lineage_is_made_once() {
    for place in Place::all() {
        let first = LaneLog::lineage(place.open().as_ref()).await.unwrap();
        assert_eq!(LaneLog::lineage(place.open().as_ref()).await.unwrap(), first);
        replace(&place.open(), read::LINEAGE, |_| b"{\"lin".to_vec()).await;
        let error = LaneLog::lineage(place.open().as_ref()).await.unwrap_err();
        assert_eq!(error.to_string(), "the checkpoint's lineage.json is torn; put back a copy of the folder");
    }
}

#[tokio::test]
async fn the_older_of_two_claims_is_fenced_at_once() {
    for place in Place::all() {
        let (mut older, _) = claim(&place.open(), Needs::LastEpoch).await.unwrap();
        epochs(&mut older, 1..=1).await;
        older.check_claim().await.unwrap();
        let (mut newer, _) = claim(&place.open(), Needs::LastEpoch).await.unwrap();
        let error = older.check_claim().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced);
        assert_eq!(error.to_string(), "another process has claimed lane 'board' (record 3 is there already); this one stops");
        assert_eq!(older.append(vec![Entry::Intent(intent(2))]).await.unwrap_err().kind(), Kind::Fenced);
        newer.check_claim().await.unwrap();
        epochs(&mut newer, 2..=2).await;
    }
}

/// A lane that recovers from an error claims again; it must not take itself back from a process that was started meanwhile.
#[tokio::test]
async fn only_a_start_takes_a_lane_over() {
    for place in Place::all() {
        let again = async |mine| {
            let clock = Clock::held(1_000_000_000);
            LaneLog::claim_again(place.open(), LINEAGE, LANE, &clock, Needs::LastEpoch, 0, mine).await
        };
        let (mut log, _) = again(0).await.unwrap();
        epochs(&mut log, 1..=1).await;
        let (log, found) = again(log.writer().incarnation).await.unwrap();
        assert_eq!((found.committed, log.writer().incarnation), (1, 2));
        let (newer, _) = claim(&place.open(), Needs::LastEpoch).await.unwrap();
        let error = again(log.writer().incarnation).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced);
        newer.check_claim().await.unwrap();
        // A file that the newer one has removed is not what went wrong.
        for (mine, kind) in [(log.writer().incarnation, Kind::Fenced), (newer.writer().incarnation, Kind::Full)] {
            let gone = Error::new(Kind::Full, "a file is not there");
            assert_eq!(LaneLog::why(place.open().as_ref(), LINEAGE, LANE, mine, gone).await.kind(), kind);
        }
        again(newer.writer().incarnation).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_claims_at_once_the_newest_drives_the_lane() {
    for place in Place::all() {
        let claims = (0..8).map(|_| {
            let store = place.open();
            tokio::spawn(async move { claim(&store, Needs::LastEpoch).await.unwrap().0 })
        });
        let mut logs: Vec<LaneLog> = futures::future::join_all(claims).await.into_iter().map(Result::unwrap).collect();
        logs.sort_by_key(|log| log.writer().incarnation);
        let incarnations: Vec<u64> = logs.iter().map(|log| log.writer().incarnation).collect();
        assert_eq!(incarnations, (1..=8).collect::<Vec<_>>());
        let newest = logs.pop().unwrap();
        newest.check_claim().await.unwrap();
        for log in &logs {
            assert_eq!(log.check_claim().await.unwrap_err().kind(), Kind::Fenced);
        }
    }
}

#[tokio::test]
async fn a_purge_keeps_what_recovery_needs_and_every_claim() {
    for place in Place::all() {
        let store = place.open();
        let (mut sleeper, _) = claim(&store, Needs::State).await.unwrap();
        epochs(&mut sleeper, 1..=20).await;
        let (mut log, _) = claim(&store, Needs::State).await.unwrap();
        epochs(&mut log, 21..=100).await;
        snapshot(&mut log, 100).await;
        log.purge();
        log.purged().await;
        assert_eq!(read::numbers(store.as_ref(), LANE).await.unwrap().len() as u64, log.next(), "one snapshot may be torn");
        epochs(&mut log, 101..=200).await;
        snapshot(&mut log, 200).await;
        epochs(&mut log, 201..=205).await;
        log.purge();
        log.purged().await;

        let left = read::numbers(store.as_ref(), LANE).await.unwrap();
        let from = 2 + 2 * 100;
        assert_eq!(left, [&[0, 41][..], &(from..log.next()).collect::<Vec<_>>()].concat());
        assert_eq!(sleeper.append(vec![Entry::Commit { epoch: 20 }]).await.unwrap_err().kind(), Kind::Fenced);
        assert_eq!(sleeper.check_claim().await.unwrap_err().kind(), Kind::Fenced);
        let (_, found) = claim(&store, Needs::State).await.unwrap();
        let snapshots: Vec<u64> = found.snapshots.iter().map(|(_, snapshot)| snapshot.epoch).collect();
        assert_eq!((snapshots, found.committed), (vec![100, 200], 205));
        assert_eq!(found.intents_after(100).unwrap().len(), 105);
        assert_eq!(found.intents_after(200).unwrap().len(), 5);
    }
}

#[tokio::test]
async fn state_files_go_when_no_snapshot_needs_them() {
    for place in Place::all() {
        let store = place.open();
        let (mut log, _) = claim(&store, Needs::State).await.unwrap();
        for round in 1..=4 {
            epochs(&mut log, (round - 1) * 50 + 1..=round * 50).await;
            snapshot(&mut log, round * 50).await;
        }
        log.purge();
        log.purged().await;
        let names = store.list(LANE).await.unwrap();
        let files: Vec<&String> = names.iter().filter(|name| name.starts_with("state-")).collect();
        assert_eq!(files, ["state-00000000000000000150-1-panes.arrow", "state-00000000000000000200-1-panes.arrow"]);
    }
}

/// A lane without state, purged to its last epoch, and one with two snapshots.
async fn written(place: &Place, needs: Needs) -> (Arc<dyn CheckpointStore>, u64) {
    let store = place.open();
    let (mut log, _) = claim(&store, needs).await.unwrap();
    epochs(&mut log, 1..=4).await;
    if needs == Needs::State {
        snapshot(&mut log, 4).await;
        epochs(&mut log, 5..=6).await;
        snapshot(&mut log, 6).await;
        epochs(&mut log, 7..=8).await;
    }
    (store, log.next() - 1)
}

#[tokio::test]
async fn a_record_that_is_not_as_it_was_written_is_named() {
    let advice = "; put back a copy of the folder, or move it away to begin a new lineage";
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let changes: [(Change, &str); 7] = [
        (|bytes| bytes[..bytes.len() / 2].to_vec(), "is torn"),
        (|_| Vec::new(), "is torn"),
        (
            |bytes| String::from_utf8(bytes).unwrap().replacen("epoch", "epocj", 1).into_bytes(),
            "was changed: its checksum does not fit",
        ),
        (
            |bytes| changed(&bytes, |record| record.lineage = "other".into()),
            "is foreign: it belongs to another lineage, lane or number",
        ),
        (
            |bytes| changed(&bytes, |record| record.lane = "other".into()),
            "is foreign: it belongs to another lineage, lane or number",
        ),
        (|bytes| changed(&bytes, |record| record.number += 1), "is foreign: it belongs to another lineage, lane or number"),
        (|bytes| changed(&bytes, |record| record.version = 9), "is of version 9, this build reads 2"),
    ];
    for place in Place::all() {
        let (store, last) = written(&place, Needs::State).await;
        for (change, says) in changes {
            let name = record_name(LANE, last - 1);
            let good = store.read(&name).await.unwrap().unwrap();
            replace(&store, &name, change).await;
            for needs in [Needs::State, Needs::LastEpoch] {
                let error = claim(&store, needs).await.err().unwrap();
                assert_eq!(error.to_string(), format!("the checkpoint record {name} {says}{advice}"));
                assert_eq!(error.kind(), Kind::Corrupt);
            }
            replace(&store, &name, |_| good).await;
        }
        assert_eq!(read::numbers(store.as_ref(), LANE).await.unwrap().len() as u64, last + 1, "and nothing was claimed");
        claim(&store, Needs::State).await.unwrap();
    }
}

#[tokio::test]
async fn a_torn_or_missing_record_behind_what_is_needed_does_no_harm() {
    // Hundreds of reads, and S3 would make no difference but in time.
    for place in [Place::of("local"), Place::of("memory")] {
        let (store, _) = written(&place, Needs::LastEpoch).await;
        replace(&store, &record_name(LANE, 3), |_| b"{".to_vec()).await;
        let (_, found) = claim(&store, Needs::LastEpoch).await.unwrap();
        assert_eq!((found.committed, found.last()), (4, Some(&intent(4))));
        assert_eq!(claim(&store, Needs::State).await.err().unwrap().kind(), Kind::Corrupt, "with state it is needed");
    }
    // Records: 0 claim, 1–8 epochs 1–4, 9 snapshot, 10–13 epochs 5 and 6, 14 snapshot, 15–18 epochs 7 and 8.
    for (broken, snapshots) in [(5, vec![4, 6]), (9, vec![6]), (12, vec![6]), (14, vec![])] {
        for missing in [false, true] {
            for place in Place::all() {
                let (store, _) = written(&place, Needs::State).await;
                if missing {
                    remove(&store, [broken]).await;
                } else {
                    replace(&store, &record_name(LANE, broken), |_| b"{".to_vec()).await;
                }
                let found = claim(&store, Needs::State).await;
                if snapshots.is_empty() {
                    let usable = found.and_then(|(_, found)| found.intents_after(0).map(<[_]>::len));
                    assert_eq!(usable.unwrap_err().kind(), Kind::Corrupt, "{broken}");
                    continue;
                }
                let (mut log, found) = found.unwrap();
                let epochs_found: Vec<u64> = found.snapshots.iter().map(|(_, snapshot)| snapshot.epoch).collect();
                assert_eq!(epochs_found, snapshots, "{broken}");
                assert_eq!(found.intents_after(*snapshots.last().unwrap()).unwrap().len(), 2, "{broken}");
                if place.kind == "local" {
                    continue;
                }
                // And later nothing trips over it.
                epochs(&mut log, 9..=60).await;
                snapshot(&mut log, 60).await;
                epochs(&mut log, 61..=100).await;
                snapshot(&mut log, 100).await;
                log.purge();
                log.purged().await;
                let (_, found) = claim(&store, Needs::State).await.unwrap();
                assert_eq!((found.committed, found.snapshots.len()), (100, 2), "{broken}");
            }
        }
    }
}

#[tokio::test]
async fn a_hole_in_the_intents_is_corrupt() {
    for place in Place::all() {
        let (store, last) = written(&place, Needs::State).await;
        remove(&store, [last - 3]).await;
        let (_, found) = claim(&store, Needs::State).await.unwrap();
        let error = found.intents_after(6).unwrap_err();
        let says = "the checkpoint does not hold the intent of epoch 7; put back a copy of the folder, or move it away to begin \
                    a new lineage";
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Corrupt, says));
        let (store, last) = written(&Place::all()[1], Needs::LastEpoch).await;
        remove(&store, [last - 1]).await;
        let error = claim(&store, Needs::LastEpoch).await.err().unwrap();
        let says = format!("the checkpoint record {} is missing, which had the last intent", record_name(LANE, last - 1));
        assert!(error.kind() == Kind::Corrupt && error.to_string().starts_with(&says), "{error}");
    }
}

#[tokio::test]
async fn a_folder_that_was_emptied_but_for_claims_is_no_fresh_start() {
    for place in Place::all() {
        let (store, last) = written(&place, Needs::LastEpoch).await;
        let (log, _) = claim(&store, Needs::LastEpoch).await.unwrap();
        remove(&store, 1..=last).await;
        assert_eq!(read::numbers(store.as_ref(), LANE).await.unwrap(), [0, log.next() - 1]);
        assert_eq!(claim(&store, Needs::LastEpoch).await.err().unwrap().kind(), Kind::Corrupt);
    }
    for place in Place::all() {
        let (store, last) = written(&place, Needs::State).await;
        remove(&store, 1..=last).await;
        let error = claim(&store, Needs::State).await.err().unwrap();
        assert!(
            error.to_string().starts_with("the checkpoint of lane 'board' has no intent left, but has had some"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_torn_state_file_is_named() {
    for place in Place::all() {
        let (store, _) = written(&place, Needs::State).await;
        let (log, found) = claim(&store, Needs::State).await.unwrap();
        let file = &found.snapshots[1].1.files[0];
        assert_eq!(log.state_writer().read(file).await.unwrap(), b"state of 6");
        replace(&store, &format!("{LANE}/{}", file.file), |mut bytes| {
            bytes[0] ^= 1;
            bytes
        })
        .await;
        let error = log.state_writer().read(file).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(
            error.to_string().starts_with("the snapshot board/state-00000000000000000006-1-panes.arrow is missing, torn"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn names_that_are_no_records_are_passed_over() {
    for place in Place::all() {
        let (store, last) = written(&place, Needs::LastEpoch).await;
        for name in ["5.json", "+0000000000000000099.json", "notes.txt", "99999999999999999999.json"] {
            assert!(store.create(&format!("{LANE}/{name}"), b"?".to_vec()).await.unwrap());
        }
        assert_eq!(claim(&store, Needs::LastEpoch).await.unwrap().0.next(), last + 2);
        let greatest = format!("{LANE}/{}.json", u64::MAX);
        assert!(store.create(&greatest, b"?".to_vec()).await.unwrap());
        let error = claim(&store, Needs::LastEpoch).await.err().unwrap();
        assert!(error.to_string().contains(&greatest), "{error}");
    }
}
