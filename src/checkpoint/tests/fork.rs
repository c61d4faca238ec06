//! A fork of a lane, over every store.

use std::path::Path;
use std::sync::Arc;

use super::super::CheckpointStore;
use super::super::fork::{self, Forked, Names};
use super::super::lane_log::LaneLog;
use super::super::read::record_name;
use super::super::record::Entry;
use super::super::recover::{Needs, Recovered};
use super::super::verify;
use super::{LANE, LINEAGE, Place, claim, epochs, intent, replace, snapshot};
use crate::clock::Clock;
use crate::error::{Kind, Result};

const NEW: &str = "0199f000-0000-7000-8000-000000000000";

async fn forked(from: &Arc<dyn CheckpointStore>, to: &Arc<dyn CheckpointStore>) -> Result<Option<Forked>> {
    fork::lane(from, LINEAGE, to.as_ref(), NEW, LANE, &Clock::held(0)).await
}

async fn claim_new(store: &Arc<dyn CheckpointStore>, needs: Needs) -> (LaneLog, Recovered) {
    LaneLog::claim(Arc::clone(store), NEW, LANE, &Clock::held(0), needs, 0).await.unwrap()
}

/// Two snapshots, purged records, an epoch that is open, and a process that sleeps since the first claim.
async fn driven(place: &Place) -> (Arc<dyn CheckpointStore>, LaneLog, LaneLog) {
    let store = place.open();
    let (mut sleeper, _) = claim(&store, Needs::State).await.unwrap();
    epochs(&mut sleeper, 1..=3).await;
    let (mut log, _) = claim(&store, Needs::State).await.unwrap();
    epochs(&mut log, 4..=100).await;
    snapshot(&mut log, 100).await;
    epochs(&mut log, 101..=150).await;
    snapshot(&mut log, 150).await;
    epochs(&mut log, 151..=152).await;
    log.purge();
    log.purged().await;
    log.append(vec![Entry::Intent(intent(153))]).await.unwrap();
    (store, sleeper, log)
}

#[tokio::test]
async fn a_forked_lane_goes_on_from_its_last_commit() {
    for (place, other) in Place::all().iter().zip(&Place::all()) {
        let (store, _, _) = driven(place).await;
        let to = other.open();
        let expected = Forked { epoch: 152, positions: intent(152).positions, dropped: Some(153) };
        assert_eq!(forked(&store, &to).await.unwrap(), Some(expected));
        assert_eq!(verify::lane(to.as_ref(), NEW, LANE).await.unwrap().problems, [""; 0]);
        let (mut log, found) = claim_new(&to, Needs::State).await;
        assert_eq!((found.committed, found.open_intent(), found.last()), (152, None, Some(&intent(152))));
        assert_eq!(found.intents_after(150).unwrap(), [intent(151), intent(152)]);
        assert_eq!(found.intents_after(100).unwrap().len(), 52);
        for (_, snapshot) in &found.snapshots {
            let state = format!("state of {}", snapshot.epoch).into_bytes();
            assert_eq!(log.state_writer().read(&snapshot.files[0]).await.unwrap(), state);
        }
        epochs(&mut log, 153..=300).await;
        snapshot(&mut log, 300).await;
        log.purge();
        log.purged().await;
        let (_, found) = claim_new(&to, Needs::State).await;
        assert_eq!((found.committed, found.snapshots.len()), (300, 2));
    }
}

#[tokio::test]
async fn whoever_drove_the_old_lineage_is_fenced_in_both() {
    for (place, other) in Place::all().iter().zip(&Place::all()) {
        let (store, mut sleeper, mut log) = driven(place).await;
        let to = other.open();
        forked(&store, &to).await.unwrap();
        for log in [&mut sleeper, &mut log] {
            assert_eq!(log.append(vec![Entry::Commit { epoch: 153 }]).await.unwrap_err().kind(), Kind::Fenced);
            // By its next number, the new folder being where the old one was.
            let taken = to.read(&record_name(LANE, log.next())).await.unwrap();
            assert!(taken.is_some(), "{} is free in the fork", log.next());
        }
    }
}

#[tokio::test]
async fn a_fork_does_without_a_torn_snapshot_and_refuses_what_cannot_go_on() {
    for (place, other) in Place::all().iter().zip(&Place::all()) {
        let (store, _, _) = driven(place).await;
        let newest = format!("{LANE}/state-00000000000000000150-2-panes.arrow");
        replace(&store, &newest, |_| b"torn".to_vec()).await;
        forked(&store, &other.open()).await.unwrap();
        let (_, found) = claim_new(&other.open(), Needs::State).await;
        assert_eq!((found.snapshots.len(), found.intents_after(100).unwrap().len()), (1, 52));

        replace(&store, &format!("{LANE}/state-00000000000000000100-2-panes.arrow"), |_| b"torn".to_vec()).await;
        let third = Place::of(place.kind);
        let error = forked(&store, &third.open()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("does not hold the intent of epoch 1"), "{error}");
    }
}

#[tokio::test]
async fn a_lane_that_has_only_begun_begins_again() {
    for (place, other) in Place::all().iter().zip(&Place::all()) {
        assert_eq!(forked(&place.open(), &other.open()).await.unwrap(), None);
        let (mut log, _) = claim(&place.open(), Needs::LastEpoch).await.unwrap();
        log.append(vec![Entry::Intent(intent(1))]).await.unwrap();
        let done = forked(&place.open(), &other.open()).await.unwrap().unwrap();
        assert_eq!((done.epoch, done.positions.len(), done.dropped), (0, 0, Some(1)));
        let (_, found) = claim_new(&other.open(), Needs::LastEpoch).await;
        assert_eq!((found.last(), found.committed), (None, 0));
    }
}

#[test]
fn a_lineage_comes_after_the_one_before() {
    assert!(fork::lineage_after(LINEAGE).unwrap().as_str() > LINEAGE);
    let error = fork::lineage_after("ffff0000-0000-7000-8000-000000000000").unwrap_err();
    assert!(error.to_string().contains("clock is behind"), "{error}");
}

#[test]
fn a_fork_between_its_renames_is_known_by_the_names() {
    let checkpoint = Path::new("data/run/checkpoint");
    let names = Names::of(checkpoint, "7");
    let [made, kept] = [&names.made, &names.kept].map(|path| path.file_name().unwrap().to_str().unwrap().to_string());
    assert_eq!((made.as_str(), kept.as_str()), ("checkpoint.unfinished-fork-7", "checkpoint.before-fork-7"));
    assert_eq!(Names::between_renames(checkpoint, &[made.clone(), "checkpoint.before-fork-6".into()]), None);
    assert_eq!(Names::between_renames(checkpoint, std::slice::from_ref(&kept)), None);
    assert_eq!(Names::between_renames(checkpoint, &[kept, made.clone()]), Some(names.clone()));
    assert_eq!(Names::unfinished(checkpoint, &[made, "other".into()]), [("7".to_string(), names)]);
}
