//! Any sequence of what a lane does recovers what a plain model says.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::CheckpointStore;
use super::super::lane_log::LaneLog;
use super::super::record::{Entry, Snapshot};
use super::super::recover::Needs;
use super::super::verify;
use super::{LANE, LINEAGE, Place, claim, epochs, intent};
use crate::error::Kind;

/// What a lane does.
#[derive(Debug, Clone)]
enum Step {
    /// So many epochs, each with its commit.
    Epochs(u64),
    /// An intent without its commit, and a crash.
    OpenEpoch,
    /// A snapshot begins: its file is written.
    Begin,
    /// Its record is written.
    Record,
    Purge,
    /// A crash, and the next claim.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..60_u64).prop_map(Step::Epochs),
        1 => Just(Step::OpenEpoch),
        2 => Just(Step::Begin),
        3 => Just(Step::Record),
        3 => Just(Step::Purge),
        2 => Just(Step::Crash),
    ]
}

/// The lane, and what must be found of it.
struct Lane {
    store: Arc<dyn CheckpointStore>,
    log: LaneLog,
    /// Processes before this one, asleep.
    sleepers: Vec<LaneLog>,
    begun: Option<(Snapshot, u64)>,
    committed: u64,
    is_open: bool,
    snapshots: Vec<u64>,
    records: u64,
}

impl Lane {
    async fn new(store: Arc<dyn CheckpointStore>) -> Self {
        let (log, _) = claim(&store, Needs::State).await.unwrap();
        let snapshots = Vec::new();
        Self { store, log, sleepers: Vec::new(), begun: None, committed: 0, is_open: false, snapshots, records: 1 }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Epochs(count) => {
                self.finish_open().await;
                epochs(&mut self.log, self.committed + 1..=self.committed + count).await;
                self.committed += count;
                self.records += 2 * count;
            }
            Step::OpenEpoch => {
                self.finish_open().await;
                self.log.append(vec![Entry::Intent(intent(self.committed + 1))]).await.unwrap();
                (self.is_open, self.records) = (true, self.records + 1);
                self.crash().await;
            }
            Step::Begin if !self.is_open && self.committed > self.snapshots.last().copied().unwrap_or(0) => {
                let of = intent(self.committed);
                let file = self.log.state_writer().write(of.epoch, "panes", of.epoch.to_string().into_bytes(), vec![]).await;
                // A second file of one epoch and claim is refused, as one of another process would be.
                if let Ok(file) = file {
                    self.begun = Some((
                        Snapshot {
                            epoch: of.epoch,
                            intent: of,
                            fingerprint: String::new(),
                            from_pane: 0,
                            files: vec![file],
                            merged: None,
                        },
                        self.log.next(),
                    ));
                }
            }
            Step::Record => {
                if let Some((snapshot, from)) = self.begun.take() {
                    self.snapshots.push(snapshot.epoch);
                    self.log.snapshot(snapshot, from).await.unwrap();
                    self.records += 1;
                }
            }
            Step::Purge => {
                self.log.purge();
                self.log.purged().await;
            }
            Step::Crash => self.crash().await,
            Step::Begin => {}
        }
    }

    /// As recovery does it: the open epoch is finished before anything else.
    async fn finish_open(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.committed += 1;
            self.log.append(vec![Entry::Commit { epoch: self.committed }]).await.unwrap();
            self.records += 1;
        }
    }

    async fn crash(&mut self) {
        let (log, found) = claim(&self.store, Needs::State).await.unwrap();
        self.sleepers.push(std::mem::replace(&mut self.log, log));
        self.begun = None;
        let last = self.committed + u64::from(self.is_open);
        assert_eq!(found.committed, self.committed);
        assert_eq!(found.open_intent().map(|intent| intent.epoch), self.is_open.then_some(last));
        assert_eq!(found.last().map_or(0, |intent| intent.epoch), last);
        let newest = &self.snapshots[self.snapshots.len().saturating_sub(2)..];
        assert_eq!(found.snapshots.iter().map(|(_, snapshot)| snapshot.epoch).collect::<Vec<_>>(), newest);
        // After the newest, after the one before, and where that is all, from the beginning.
        let from_the_first = (newest.len() < 2).then_some(0);
        for after in newest.iter().copied().chain(from_the_first) {
            let expected: Vec<_> = (after + 1..=last).map(intent).collect();
            assert_eq!(found.intents_after(after).unwrap(), expected, "after {after}");
        }
        for (_, snapshot) in &found.snapshots {
            let bytes = self.log.state_writer().read(&snapshot.files[0]).await.unwrap();
            assert_eq!(bytes, snapshot.epoch.to_string().into_bytes());
        }
        self.records += 1;
        assert_eq!(self.log.next(), self.records);
        assert_eq!(self.log.writer().incarnation as usize, self.sleepers.len() + 1);
    }

    async fn end(&mut self) {
        self.crash().await;
        for sleeper in &mut self.sleepers {
            assert_eq!(sleeper.check_claim().await.unwrap_err().kind(), Kind::Fenced);
            let woken = sleeper.append(vec![Entry::Commit { epoch: 1 }]).await;
            assert_eq!(woken.unwrap_err().kind(), Kind::Fenced);
        }
        let verified = verify::lane(self.store.as_ref(), LINEAGE, LANE).await.unwrap();
        assert_eq!(verified.problems, [""; 0]);
    }
}

fn play(place: &Place, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut lane = Lane::new(place.open()).await;
        for step in steps {
            lane.run(step).await;
        }
        lane.end().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_recovers_what_the_model_says(steps in proptest::collection::vec(step(), 0..30)) {
        play(&Place::of("memory"), steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_on_the_disk_recovers_what_the_model_says(steps in proptest::collection::vec(step(), 0..12)) {
        play(&Place::of("local"), steps);
    }
}
