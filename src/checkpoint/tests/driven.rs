//! A lane that its own process drives, while another one claims it or reads its records.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::super::lane_log::LaneLog;
use super::super::read;
use super::super::record::Entry;
use super::super::recover::{Needs, recover};
use super::super::{CheckpointStore, Stored};
use super::{LANE, LINEAGE, Place, claim, epochs, intent};
use crate::error::{Kind, Result};

const EPOCHS_MAX: u64 = 20_000;

/// A lane that has little to do writes a record every few milliseconds: the claim must come between two.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_wins_against_a_process_that_is_at_work() {
    for place in Place::all() {
        let (mut log, _) = claim(&place.open(), Needs::State).await.unwrap();
        let pause = place.pause();
        let work = tokio::spawn(async move {
            // Not for ever: it would outlive a claim that fails, and fill the memory.
            for epoch in 1..EPOCHS_MAX {
                if let Err(error) = log.append(vec![Entry::Intent(intent(epoch))]).await {
                    return (epoch - 1, error);
                }
                // As a lane does, which applies what it has written: who writes without a pause leaves no room between two records.
                tokio::time::sleep(pause).await;
            }
            panic!("nobody claimed the lane");
        });
        while read::numbers(place.open().as_ref(), LANE).await.unwrap().len() < 50 {
            tokio::task::yield_now().await;
        }
        let (log, found) = claim(&place.open(), Needs::State).await.unwrap();
        let (epoch, error) = work.await.unwrap();
        assert_eq!(error.kind(), Kind::Fenced);
        log.check_claim().await.unwrap();
        assert_eq!(found.intents.last().map_or(0, |intent| intent.epoch), epoch, "nothing came after what was read");
    }
}

/// A store on which the lane's own process writes on and purges whenever somebody else has listed its records.
struct Driven {
    store: Arc<dyn CheckpointStore>,
    log: tokio::sync::Mutex<(LaneLog, u64)>,
    /// How often it does so before it rests.
    times: AtomicUsize,
}

#[async_trait]
impl CheckpointStore for Driven {
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        self.store.create(name, bytes).await
    }

    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.store.read(name).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let names = self.store.list(folder).await?;
        let rests = self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1)).is_err();
        if !rests {
            let (log, epoch) = &mut *self.log.lock().await;
            epochs(log, *epoch + 1..=*epoch + 50).await;
            *epoch += 50;
            log.needs_only_the_last();
            log.purge();
            log.purged().await;
        }
        Ok(names)
    }

    async fn look(&self, folder: &str) -> Result<Vec<Stored>> {
        self.store.look(folder).await
    }

    async fn remove(&self, names: Vec<String>) -> Result<()> {
        self.store.remove(names).await
    }
}

#[tokio::test]
async fn a_lane_that_is_driven_is_read_though_its_records_are_purged_meanwhile() {
    // Thousands of records are written, and S3 would make no difference but in time.
    for place in [Place::of("local"), Place::of("memory")] {
        let store = place.open();
        let (mut log, _) = claim(&store, Needs::LastEpoch).await.unwrap();
        epochs(&mut log, 1..=1).await;
        let driven = Driven { store, log: tokio::sync::Mutex::new((log, 1)), times: AtomicUsize::new(3) };
        let found = recover(&driven, LINEAGE, LANE, Needs::LastEpoch).await.unwrap();
        assert_eq!(found.committed, driven.log.lock().await.1);
        driven.times.store(3, Ordering::Relaxed);
        let newest = read::newest(&driven, LINEAGE, LANE).await.unwrap().unwrap();
        assert_eq!(newest.number + 1, driven.log.lock().await.0.next());
        // Not for ever.
        driven.times.store(usize::MAX, Ordering::Relaxed);
        let error = read::newest(&driven, LINEAGE, LANE).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    }
}
