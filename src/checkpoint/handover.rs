//! A lane's way to the result of a backfill: four records in the lane's own log, each created only if it does not exist, so that the
//! backfill, the process that drives the lane, and whoever gives the backfill up agree on what came first.
//!
//! ```text
//!  lineage A   … intent e · commit e │ stop │ swap │ done ║ claim · intent e' …   lineage B, the backfill's
//!              the lane               the backfill          the lane
//!                                          └ off │ claim · intent e + 1 …         lineage A, as if nothing had been
//! ```
//! * **stop** takes the claim: the lane loses its next record, which is a place between two epochs, and waits. An epoch that had its
//!   intent only is of no matter any more: what the backfill has read reaches over its spans.
//! * **swap** is the intent to exchange the results. It comes when the backfill has read up to the lane's last intent, its last epoch is
//!   committed, and its state lies in the lane's folder. From here on there is only one way.
//! * **done** is the commit, and the first record of the new lineage: it holds what the lane goes on from.
//! * **off**, in the place of *swap*, gives it up.
//!
//! | the newest record | the results | a lane that starts, or has lost its record | `falaj backfill` | `falaj backfill --cancel` |
//! |---|---|---|---|---|
//! | an epoch's, a claim | the old one is shown | drives on | reads, then *stop* | forgets what was read |
//! | *stop* | the old one | waits | reads up to the last intent, then *swap* | *off* |
//! | *swap* | the old one or the new one, as the sink's own mark says | waits | exchanges, unless that was done, then *done* | refused |
//! | *done* | the new one | claims, goes on in lineage B | has nothing to do for this lane | refused |
//! | *off* | the old one | claims, goes on in lineage A | as with an epoch's | |
//!
//! So each of the two processes may die anywhere: one that starts again finds its row of the table. Nobody may claim a lane that stands
//! still ([`LaneLog::claim`] says so), and only the process which drove it before, or one that starts, claims it afterwards. The name of
//! lineage B stands in a file of the lane's folder before the first record of B, so that a foreign record is still told from ours.

use std::sync::Arc;

use super::CheckpointStore;
use super::lane_log::LaneLog;
use super::read::{self, Lineage, lineage_name};
use super::record::{Entry, Handover, Intent, Snapshot, Step};
use super::recover::{Needs, Recovered, recover};
use crate::error::Result;
use crate::position::Positions;

/// Where a lane's log stands, as its newest record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// It is driven, or waits to be.
    Driven,
    /// It stands still for a backfill, at this step.
    Still(Handover),
    /// A handover was its last record, and is over: nobody has claimed it since.
    Over(Handover),
}

/// How `lane` stands, and in which incarnation; its lineage is the third.
pub async fn stands(store: &dyn CheckpointStore, lineage: &str, lane: &str) -> Result<(Stands, u64, String)> {
    let Some(record) = read::newest(store, lineage, lane).await? else {
        return Ok((Stands::Driven, 0, lineage.to_string()));
    };
    let stands = match record.handover().cloned() {
        None => Stands::Driven,
        Some(handover) if handover.is_open() => Stands::Still(handover),
        Some(handover) => Stands::Over(handover),
    };
    Ok((stands, record.incarnation, record.lineage))
}

/// A lane that stands still, as the backfill holds it.
pub struct Stopped {
    log: LaneLog,
    handover: Handover,
    /// The positions of the lane's last intent: the new result must reach so far. Empty when it has none.
    pub positions: Positions,
    /// The epoch of the state that this process has brought into the lane's folder.
    brought: Option<u64>,
}

impl Stopped {
    /// Stops `lane` for the backfill of `to`, as an incarnation above `least`: the backfill's own claims may stand in fences already.
    pub async fn stop(
        store: Arc<dyn CheckpointStore>,
        lineage: &str,
        lane: &str,
        to: &str,
        query: &str,
        least: u64,
    ) -> Result<Self> {
        let handover = |before| Handover { step: Step::Stop, lineage: to.to_string(), before, query: query.to_string() };
        let stop = |before| Entry::Handover(handover(before));
        let (log, recovered) = LaneLog::take(store, lineage, lane, Needs::LastEpoch, u64::MAX, (0, least), stop).await?;
        let positions = last_positions(&recovered);
        // Where the lane was at work its last records were read again, with ours behind them.
        let handover = recovered.handover.unwrap_or_else(|| handover(recovered.incarnation));
        Ok(Self { log, handover, positions, brought: None })
    }

    /// The lane of a handover that was begun before, by this process or by another one; `None` when it does not stand still.
    pub async fn found(store: Arc<dyn CheckpointStore>, lineage: &str, lane: &str) -> Result<Option<Self>> {
        let recovered = recover(store.as_ref(), lineage, lane, Needs::LastEpoch).await?;
        let Some(handover) = recovered.handover.clone() else { return Ok(None) };
        let positions = last_positions(&recovered);
        Ok(Some(Self { log: LaneLog::at(store, &recovered, lane, u64::MAX), handover, positions, brought: None }))
    }

    /// The step that it is at.
    pub fn handover(&self) -> &Handover {
        &self.handover
    }

    /// Brings what the backfill's lane ended with into the lane's folder, and records that the results are to be exchanged.
    /// `Err(Fenced)`: it was given up meanwhile.
    pub async fn swap(&mut self, store: &dyn CheckpointStore, made: &Recovered, from: &dyn CheckpointStore) -> Result<()> {
        self.bring(store, made, from).await?;
        let (lane, lineage) = (&self.log.writer().lane, &self.handover.lineage);
        let name = Lineage { lineage: lineage.clone(), forked_from: Some(self.log.writer().lineage.clone()) };
        store.create(&lineage_name(lane, lineage), name.encode()?).await?;
        self.step(Step::Swap, Vec::new()).await
    }

    /// Records that the results are exchanged, and what the lane goes on from: the lane's own process does so from here on.
    pub async fn done(mut self, store: &dyn CheckpointStore, made: &Recovered, from: &dyn CheckpointStore) -> Result<()> {
        // After a crash in between the lane may have ended a little later.
        self.bring(store, made, from).await?;
        let mut entries = Vec::new();
        let mut from = 0;
        if let Some((_, snapshot)) = made.snapshots.last() {
            from = snapshot.epoch;
            entries.push(Entry::Snapshot(self.renamed(snapshot)));
        }
        // Of a lane without state the last one is enough, and what it staged is published.
        let intents = if made.has_state() { made.intents_after(from)? } else { made.intents.as_slice() };
        let bare = |intent: &Intent| Entry::Intent(Intent { staged: Vec::new(), ..intent.clone() });
        entries.extend(intents.iter().map(bare));
        entries.push(Entry::Commit { epoch: made.committed });
        let lineage = self.handover.lineage.clone();
        self.log.go_over_to(lineage);
        self.step(Step::Done, entries).await
    }

    /// Gives the handover up: the lane goes on as it was. `Err(Fenced)`: the exchange was begun meanwhile.
    pub async fn off(mut self) -> Result<()> {
        self.step(Step::Off, Vec::new()).await
    }

    /// Copies the state that was `made` into the lane's folder.
    async fn bring(&mut self, store: &dyn CheckpointStore, made: &Recovered, from: &dyn CheckpointStore) -> Result<()> {
        let lane = &self.log.writer().lane;
        let Some((_, snapshot)) = made.snapshots.last().filter(|(_, snapshot)| self.brought != Some(snapshot.epoch)) else {
            return Ok(());
        };
        let renamed = self.renamed(snapshot);
        for (there, here) in snapshot.all_files().zip(renamed.all_files()) {
            let bytes = read::state_file(from, lane, there).await?;
            // What is there already was left by an attempt before this one: whoever loads it looks at its hash.
            store.create(&format!("{lane}/{}", here.file), bytes).await?;
        }
        self.brought = Some(snapshot.epoch);
        Ok(())
    }

    async fn step(&mut self, step: Step, more: Vec<Entry>) -> Result<()> {
        let handover = Handover { step, ..self.handover.clone() };
        let first = Entry::Handover(handover.clone());
        self.log.append(std::iter::once(first).chain(more).collect()).await?;
        self.handover = handover;
        Ok(())
    }

    /// The same under names that no file of the lane's has: they carry the claim.
    fn renamed(&self, snapshot: &Snapshot) -> Snapshot {
        let mut snapshot = snapshot.clone();
        let incarnation = self.log.writer().incarnation;
        for (number, file) in snapshot.files.iter_mut().chain(&mut snapshot.merged).enumerate() {
            file.file = format!("state-{:020}-{incarnation}-backfilled-{number}.arrow", snapshot.epoch);
        }
        snapshot
    }
}

/// What the lane of a backfill ended with, in its own checkpoint: everything committed. `None`: it has read nothing, or has not ended.
pub async fn made(store: &dyn CheckpointStore, lineage: &str, lane: &str) -> Result<Option<Recovered>> {
    let last = recover(store, lineage, lane, Needs::LastEpoch).await?;
    let made = if last.has_state() { recover(store, lineage, lane, Needs::State).await? } else { last };
    Ok(Some(made).filter(|made| made.open_intent().is_none() && made.last().is_some()))
}

fn last_positions(recovered: &Recovered) -> Positions {
    recovered.last().map(|intent| intent.positions.clone()).unwrap_or_default()
}
