//! A store whose listings lag behind what is there: a lane must not begin at the wrong place because of it.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::super::read::{numbers, record_name};
use super::super::recover::Needs;
use super::super::{CheckpointStore, Stored};
use super::{LANE, Place, claim, epochs};
use crate::error::{Kind, Result};

/// Lists all but these.
struct Lagging {
    store: Arc<dyn CheckpointStore>,
    unseen: Mutex<Vec<String>>,
}

#[async_trait]
impl CheckpointStore for Lagging {
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        self.store.create(name, bytes).await
    }

    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.store.read(name).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let names = self.store.list(folder).await?;
        let unseen = self.unseen.lock();
        Ok(names.into_iter().filter(|name| !unseen.contains(&format!("{folder}/{name}"))).collect())
    }

    async fn look(&self, folder: &str) -> Result<Vec<Stored>> {
        self.store.look(folder).await
    }

    async fn remove(&self, names: Vec<String>) -> Result<()> {
        self.store.remove(names).await
    }
}

#[tokio::test]
async fn a_lane_waits_for_records_that_are_there_and_not_listed() {
    for place in Place::all() {
        for needs in [Needs::LastEpoch, Needs::State] {
            let (mut log, _) = claim(&place.open(), needs).await.unwrap();
            let (first, begun) = (numbers(place.open().as_ref(), LANE).await.unwrap()[0], log.next());
            epochs(&mut log, begun..begun + 10).await;
            let end = log.next();
            for unseen in [first..end, begun + 5..end, end - 1..end, begun + 3..begun + 4, begun + 3..begun + 6] {
                let names = unseen.clone().map(|number| record_name(LANE, number)).collect();
                let lagging = Arc::new(Lagging { store: place.open(), unseen: Mutex::new(names) });
                let store: Arc<dyn CheckpointStore> = Arc::clone(&lagging) as _;
                let error = claim(&store, needs).await.map(drop).unwrap_err();
                assert_eq!(error.kind(), Kind::Unreachable, "{unseen:?} of {first} to {end}: {error}");
                assert!(error.to_string().contains("does not list record"), "{error}");
                lagging.unseen.lock().clear();
                let (_, found) = claim(&store, needs).await.unwrap();
                assert_eq!(found.intents.last().unwrap().epoch, begun + 9, "{unseen:?}");
            }
        }
    }
}
