//! A lane that is handed over to a backfill's result, over every store.

use std::sync::Arc;

use super::super::CheckpointStore;
use super::super::fork;
use super::super::handover::{Stands, Stopped, made, stands};
use super::super::lane_log::LaneLog;
use super::super::read::record_name;
use super::super::record::{Entry, Step};
use super::super::recover::{Needs, Recovered};
use super::super::verify;
use super::{LANE, LINEAGE, Place, changed, claim, epochs, intent, replace, snapshot};
use crate::clock::Clock;
use crate::error::{Kind, Result};

const NEW: &str = "0199f000-0000-7000-8000-000000000000";
const FORKED: &str = "019af000-0000-7000-8000-000000000000";
/// Claims of the backfill: it was killed a few times.
const OWN_CLAIMS: u64 = 5;

/// A lane at epoch 4, which its process drives; and a backfill of it that has come to epoch 2.
async fn driven(place: &Place, other: &Place) -> (Arc<dyn CheckpointStore>, LaneLog, Arc<dyn CheckpointStore>) {
    let (live, own) = (place.open(), other.open());
    let (mut log, _) = claim(&live, Needs::State).await.unwrap();
    epochs(&mut log, 1..=4).await;
    for _ in 1..OWN_CLAIMS {
        claim_of(NEW, &own).await.unwrap();
    }
    let (mut backfill, _) = claim_of(NEW, &own).await.unwrap();
    epochs(&mut backfill, 1..=1).await;
    snapshot(&mut backfill, 1).await;
    epochs(&mut backfill, 2..=2).await;
    (live, log, own)
}

async fn claim_of(lineage: &str, store: &Arc<dyn CheckpointStore>) -> Result<(LaneLog, Recovered)> {
    LaneLog::claim(Arc::clone(store), lineage, LANE, &Clock::held(0), Needs::State, 0).await
}

async fn stop(live: &Arc<dyn CheckpointStore>) -> Result<Stopped> {
    Stopped::stop(Arc::clone(live), LINEAGE, LANE, NEW, "query", OWN_CLAIMS).await
}

async fn found(live: &Arc<dyn CheckpointStore>) -> Option<Stopped> {
    Stopped::found(Arc::clone(live), LINEAGE, LANE).await.unwrap()
}

async fn stand(live: &Arc<dyn CheckpointStore>) -> Option<Step> {
    match stands(live.as_ref(), LINEAGE, LANE).await.unwrap().0 {
        Stands::Driven => None,
        Stands::Still(handover) | Stands::Over(handover) => Some(handover.step),
    }
}

/// Goes through all of it, each step by another process.
async fn hand_over(live: &Arc<dyn CheckpointStore>, own: &Arc<dyn CheckpointStore>) {
    stop(live).await.unwrap();
    let made = made(own.as_ref(), NEW, LANE).await.unwrap().unwrap();
    found(live).await.unwrap().swap(live.as_ref(), &made, own.as_ref()).await.unwrap();
    found(live).await.unwrap().done(live.as_ref(), &made, own.as_ref()).await.unwrap();
}

#[tokio::test]
async fn a_lane_goes_on_from_what_the_backfill_ended_with_under_its_lineage() {
    for (place, other) in Place::all().iter().zip(&Place::all()) {
        let (live, mut log, own) = driven(place, other).await;
        let stopped = stop(&live).await.unwrap();
        assert_eq!((stopped.positions.clone(), stopped.handover().before), (intent(4).positions, 1));
        assert_eq!(stand(&live).await, Some(Step::Stop));
        // The lane loses its next record, and nobody may claim it meanwhile.
        assert_eq!(log.append(vec![Entry::Intent(intent(5))]).await.unwrap_err().kind(), Kind::Fenced);
        let error = claim(&live, Needs::State).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.to_string().contains("'falaj backfill --cancel' gives it up"), "{error}");

        let made = made(own.as_ref(), NEW, LANE).await.unwrap().unwrap();
        let mut stopped = found(&live).await.unwrap();
        stopped.swap(live.as_ref(), &made, own.as_ref()).await.unwrap();
        assert_eq!(stand(&live).await, Some(Step::Swap));
        let error = claim(&live, Needs::State).await.map(drop).unwrap_err();
        assert!(!error.to_string().contains("--cancel"), "{error}");
        stopped.done(live.as_ref(), &made, own.as_ref()).await.unwrap();
        assert_eq!((stand(&live).await, found(&live).await.is_none()), (Some(Step::Done), true));

        let (mut log, recovered) = claim(&live, Needs::State).await.unwrap();
        assert_eq!((log.writer().lineage.as_str(), recovered.committed, recovered.is_handed_over), (NEW, 2, true));
        assert!(log.writer().incarnation > OWN_CLAIMS + 1, "above the backfill's own claims, which fences know");
        assert_eq!((recovered.intents_after(1).unwrap(), recovered.open_intent()), (&[intent(2)][..], None));
        let state = log.state_writer().read(&recovered.snapshots[0].1.files[0]).await.unwrap();
        assert_eq!(state, b"state of 1");
        epochs(&mut log, 3..=3).await;
        snapshot(&mut log, 3).await;
        epochs(&mut log, 4..=4).await;
        let (log, recovered) = claim(&live, Needs::State).await.unwrap();
        assert_eq!((log.writer().lineage.as_str(), recovered.committed, recovered.last()), (NEW, 4, Some(&intent(4))));
        assert_eq!(recovered.snapshots.len(), 2);
        assert_eq!(verify::lane(live.as_ref(), LINEAGE, LANE).await.unwrap().problems, [""; 0]);
    }
}

#[tokio::test]
async fn whoever_comes_first_decides_whether_a_handover_is_given_up() {
    for (place, other) in Place::all().iter().zip(&Place::all()) {
        let (live, _, own) = driven(place, other).await;
        let made = made(own.as_ref(), NEW, LANE).await.unwrap().unwrap();
        let mut late = stop(&live).await.unwrap();
        found(&live).await.unwrap().off().await.unwrap();
        assert_eq!(late.swap(live.as_ref(), &made, own.as_ref()).await.unwrap_err().kind(), Kind::Fenced);
        let (mut log, recovered) = claim(&live, Needs::State).await.unwrap();
        assert_eq!((log.writer().lineage.as_str(), recovered.last()), (LINEAGE, Some(&intent(4))));
        epochs(&mut log, 5..=6).await;

        let late = stop(&live).await.unwrap();
        assert_eq!(late.positions, intent(6).positions);
        found(&live).await.unwrap().swap(live.as_ref(), &made, own.as_ref()).await.unwrap();
        assert_eq!(late.off().await.unwrap_err().kind(), Kind::Fenced);
        assert_eq!(verify::lane(live.as_ref(), LINEAGE, LANE).await.unwrap().problems, [""; 0]);
    }
}

#[tokio::test]
async fn a_process_that_slept_through_a_handover_is_refused_and_a_foreign_record_still_told() {
    for (place, other) in Place::all().iter().zip(&Place::all()) {
        let (live, mut sleeper, own) = driven(place, other).await;
        hand_over(&live, &own).await;
        let (mut log, _) = claim(&live, Needs::State).await.unwrap();
        for epoch in 3..=200 {
            epochs(&mut log, [epoch]).await;
            if epoch % 50 == 0 {
                snapshot(&mut log, epoch).await;
            }
        }
        log.purge();
        log.purged().await;
        assert_eq!(sleeper.append(vec![Entry::Intent(intent(5))]).await.unwrap_err().kind(), Kind::Fenced);
        let (log, recovered) = claim(&live, Needs::State).await.unwrap();
        assert_eq!((log.writer().lineage.as_str(), recovered.last()), (NEW, Some(&intent(200))));
        assert_eq!(verify::lane(live.as_ref(), LINEAGE, LANE).await.unwrap().problems, [""; 0]);
        let last = record_name(LANE, recovered.next);
        replace(&live, &last, |bytes| changed(&bytes, |record| record.lineage = FORKED.into())).await;
        let error = claim(&live, Needs::State).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("is foreign"), "{error}");
    }
}

#[tokio::test]
async fn a_lane_that_was_handed_over_can_be_forked_and_one_that_stands_still_cannot() {
    for (place, other) in Place::all().iter().zip(&Place::all()) {
        let (live, _, own) = driven(place, other).await;
        let to = Place::all().into_iter().next().unwrap();
        let clock = Clock::held(0);
        stop(&live).await.unwrap();
        let error = fork::lane(&live, LINEAGE, to.open().as_ref(), FORKED, LANE, &clock).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        found(&live).await.unwrap().off().await.unwrap();
        hand_over(&live, &own).await;
        let earlier = fork::lane(&live, LINEAGE, to.open().as_ref(), LINEAGE, LANE, &clock).await.unwrap_err();
        assert_eq!(earlier.kind(), Kind::Denied, "{earlier}");
        let to = to.open();
        let forked = fork::lane(&live, LINEAGE, to.as_ref(), FORKED, LANE, &clock).await.unwrap().unwrap();
        assert_eq!((forked.epoch, forked.positions), (2, intent(2).positions));
        let (log, recovered) = claim_of(FORKED, &to).await.unwrap();
        assert_eq!((log.writer().lineage.as_str(), recovered.last()), (FORKED, Some(&intent(2))));
        assert_eq!(verify::lane(to.as_ref(), FORKED, LANE).await.unwrap().problems, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_drove_a_lane_is_known_even_when_it_was_at_work() {
    for (place, other) in Place::all().iter().zip(&Place::all()) {
        let (live, mut log, _own) = driven(place, other).await;
        let before = log.writer().incarnation;
        let pause = place.pause();
        let work = tokio::spawn(async move {
            // Not for ever, and not faster than a lane: see the claims against a process at work.
            for epoch in 5..20_000 {
                if log.append(vec![Entry::Intent(intent(epoch)), Entry::Commit { epoch }]).await.is_err() {
                    return epoch - 1;
                }
                tokio::time::sleep(pause).await;
            }
            panic!("nobody stopped the lane");
        });
        let stopped = stop(&live).await.unwrap();
        let last = work.await.unwrap();
        assert_eq!((stopped.handover().before, &stopped.positions), (before, &intent(last).positions));
        assert_eq!(found(&live).await.unwrap().handover(), stopped.handover());
    }
}
