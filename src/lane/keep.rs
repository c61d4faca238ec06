//! Keeps the marks of a source that forgets what is acknowledged: each is a record of a checkpoint log of its own, durable before
//! the source hears of it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::checkpoint::CheckpointStore;
use crate::checkpoint::lane_log::LaneLog;
use crate::checkpoint::record::{Entry, Intent};
use crate::checkpoint::recover::Needs;
use crate::clock::Clock;
use crate::error::Result;
use crate::failpoint;
use crate::source::{Keeper, Mark};

/// What keeping is made of.
pub struct KeepParts {
    /// The keeper.
    pub keeper: Arc<dyn Keeper>,
    /// Where the records are.
    pub store: Arc<dyn CheckpointStore>,
    /// The checkpoint's lineage.
    pub lineage: String,
    /// The time.
    pub clock: Clock,
    /// Old checkpoint records that stay.
    pub records_kept: u64,
    /// Becomes true when every lane has ended.
    pub over: watch::Receiver<bool>,
}

/// Runs until the lanes are over, or the source or the checkpoint fails. What the lanes acknowledged last is kept, too.
pub async fn run(parts: KeepParts) -> Result<()> {
    let name = parts.keeper.name();
    let store = Arc::clone(&parts.store);
    let (mut log, recovered) =
        LaneLog::claim(store, &parts.lineage, &name, &parts.clock, Needs::LastEpoch, parts.records_kept).await?;
    let mut epoch = recovered.last().map_or(0, |intent| intent.epoch);
    parts.keeper.begin(recovered.last().and_then(|intent| intent.mark.clone())).await?;
    let mut over = parts.over.clone();
    while !*over.borrow() {
        let next = tokio::select! {
            next = parts.keeper.next(false) => next?,
            _ = over.wait_for(|over| *over) => break,
        };
        if let Some(mark) = next {
            epoch += 1;
            keep(&parts, &mut log, epoch, mark).await?;
        }
        log.purge();
        let _ = tokio::time::timeout(parts.keeper.interval(), over.wait_for(|over| *over)).await;
    }
    if let Some(mark) = parts.keeper.next(true).await? {
        keep(&parts, &mut log, epoch + 1, mark).await?;
    }
    parts.keeper.end().await;
    Ok(())
}

async fn keep(parts: &KeepParts, log: &mut LaneLog, epoch: u64, mark: Mark) -> Result<()> {
    let intent = Intent { epoch, now_ns: parts.clock.now_ns(), mark: Some(mark.clone()), ..Intent::default() };
    log.append(vec![Entry::Intent(intent), Entry::Commit { epoch }]).await?;
    log.needs_only_the_last();
    failpoint::hit(&log.writer().lane, "mark.kept");
    parts.keeper.kept(&mark);
    Ok(())
}
