//! One lane of a backfill: reads, and hands its result over to the lane that is driven by another process, or by none.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::plan::{PlannedLane, Stores};
use crate::checkpoint::handover::{Stands, Stopped, made, stands};
use crate::checkpoint::lane_log::LaneLog;
use crate::checkpoint::record::Step;
use crate::checkpoint::recover::{Needs, Recovered};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::lane::{LaneParts, driver};
use crate::position::Positions;
use crate::sink::files::{FilesOptions, FilesSink};
use crate::sink::{Sink, Writer};
use crate::source::Start;
use crate::status::{BackfillStatus, BackfillStep};

/// How long the lane may stand still while the backfill reads the last records and writes its state down. When a service is away it
/// would be longer, and then the lane goes on as it was.
const STILL_MAX: Duration = Duration::from_secs(30);

/// How long the old result stays after the exchange. A reader that is listing it would miss what is deleted meanwhile and take the rest for
/// all; as it is, the names that it has listed are not there, which it notices.
const READERS_MAX: Duration = Duration::from_secs(2);

/// What a lane of a backfill is made of.
pub(super) struct BackfillLane {
    pub(super) name: String,
    pub(super) planned: PlannedLane,
    pub(super) parts: LaneParts,
    /// Tells the lane where to stop.
    pub(super) until: watch::Sender<Option<Positions>>,
    pub(super) caught_up: watch::Receiver<bool>,
    pub(super) stop: watch::Receiver<bool>,
    /// Where it writes files.
    pub(super) files: Option<FilesOptions>,
    pub(super) stores: Stores,
    /// The backfill's.
    pub(super) lineage: String,
    pub(super) hands_over: bool,
    pub(super) status: Arc<BackfillStatus>,
    /// Since when the lane stands still for this process.
    pub(super) still_since: OnceLock<Instant>,
}

/// What reading to the end came to.
enum Read {
    Made(Box<Recovered>),
    /// There was no record, or the result is to stay where it is.
    Nothing,
    /// The process was asked to stop.
    Stopped,
}

impl BackfillLane {
    /// Runs to the end of the lane's part. `false`: the process was asked to stop before.
    pub(super) async fn run(self) -> Result<bool> {
        let status = Arc::clone(&self.status);
        let done = self.run_all().await?;
        status.set_step(if done { BackfillStep::Done } else { BackfillStep::Stopped });
        Ok(done)
    }

    async fn run_all(self) -> Result<bool> {
        let (live, name) = (&self.stores.live, &self.name);
        let (stands, _, lineage) = stands(live.as_ref(), &self.stores.lineage, name).await?;
        if lineage == self.lineage {
            tracing::info!("lane '{name}' has been handed over already");
            self.clear_away().await?;
            return Ok(true);
        }
        let mut stopped = match stands {
            Stands::Still(other) if other.lineage != self.lineage => return Err(another(name, &other.lineage)),
            Stands::Still(_) => Stopped::found(Arc::clone(live), &self.stores.lineage, name).await?,
            _ => None,
        };
        let at_swap = stopped.as_ref().is_some_and(|stopped| stopped.handover().step == Step::Swap);
        let found = if at_swap { self.made_before().await? } else { None };
        let made = match found {
            Some(made) => made,
            None => match self.read(&mut stopped).await {
                Ok(Read::Made(made)) => *made,
                ended => {
                    give_back(name, stopped).await;
                    return ended.map(|ended| matches!(ended, Read::Nothing));
                }
            },
        };
        if let Some(stopped) = stopped {
            self.hand_over(stopped, &made).await?;
            tokio::time::sleep(READERS_MAX).await;
            self.clear_away().await?;
        }
        Ok(true)
    }

    /// What a process before this one has made. It is claimed: that process may only sleep.
    async fn made_before(&self) -> Result<Option<Recovered>> {
        let (own, clock) = (Arc::clone(&self.stores.own), &self.parts.clock);
        LaneLog::claim(own, &self.lineage, &self.name, clock, Needs::LastEpoch, u64::MAX).await?;
        made(self.stores.own.as_ref(), &self.lineage, &self.name).await
    }

    /// Reads to the end: of the plan, or to the positions of the lane, which stands still from then on.
    async fn read(&self, stopped: &mut Option<Stopped>) -> Result<Read> {
        self.status.set_step(BackfillStep::Reading);
        if let Some(stopped) = stopped {
            self.until.send_replace(Some(self.known(&stopped.positions)));
        }
        let mut lane = Driven(tokio::spawn(driver::run(self.parts.clone())));
        if self.hands_over && stopped.is_none() {
            let mut caught_up = self.caught_up.clone();
            tokio::select! {
                ended = &mut lane.0 => return self.ended(ended).await,
                // The guard must not live on.
                _ = async { caught_up.wait_for(|caught_up| *caught_up).await.is_ok() } => {}
            }
            self.status.set_step(BackfillStep::HandingOver);
            let own = self.incarnation().await?;
            let (live, lineage) = (Arc::clone(&self.stores.live), &self.stores.lineage);
            let stop = Stopped::stop(live, lineage, &self.name, &self.lineage, &self.planned.query, own).await?;
            let _ = self.still_since.set(Instant::now());
            failpoint::hit(&self.name, "handover.stop");
            self.until.send_replace(Some(self.known(&stop.positions)));
            *stopped = Some(stop);
        }
        let still_max = if stopped.is_some() { STILL_MAX } else { Duration::MAX };
        match tokio::time::timeout(still_max, &mut lane.0).await {
            Ok(ended) => self.ended(ended).await,
            Err(_) => {
                let text = format!(
                    "the last records of lane '{}' were not read within {} s: {}",
                    self.name,
                    STILL_MAX.as_secs(),
                    "the lane goes on as it was; look what 'falaj backfill' waits for, and start it again"
                );
                Err(Error::new(Kind::Unreachable, text))
            }
        }
    }

    async fn ended(&self, ended: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<Read> {
        ended.unwrap_or_else(|cause| Err(Error::new(Kind::Bug, "a lane was broken off").because(cause)))?;
        if *self.stop.borrow() {
            return Ok(Read::Stopped);
        }
        if !self.hands_over {
            return Ok(Read::Nothing);
        }
        match made(self.stores.own.as_ref(), &self.lineage, &self.name).await? {
            None if self.parts.status.epoch.load(Ordering::Relaxed) > 0 => {
                Err(Error::new(Kind::Bug, format!("the backfill of lane '{}' has ended in the middle of an epoch", self.name)))
            }
            None => {
                tracing::warn!("lane '{}' has nothing to read, and goes on as it was", self.name);
                Ok(Read::Nothing)
            }
            Some(made) => Ok(Read::Made(Box::new(made))),
        }
    }

    /// The result is whole and the lane stands still.
    async fn hand_over(&self, mut stopped: Stopped, made: &Recovered) -> Result<()> {
        let (live, own, name) = (self.stores.live.as_ref(), self.stores.own.as_ref(), &self.name);
        self.status.set_step(BackfillStep::HandingOver);
        let reached = made.last().is_some_and(|last| last.positions.reached(&self.known(&stopped.positions)));
        if !reached {
            return Err(Error::new(Kind::Bug, format!("the backfill of lane '{name}' has not reached the lane's positions")));
        }
        failpoint::hit(name, "handover.read");
        if stopped.handover().step == Step::Stop {
            stopped.swap(live, made, own).await?;
        }
        failpoint::hit(name, "handover.swap");
        if self.incarnation().await? != made.incarnation {
            let text = format!("another process goes on with the backfill of lane '{name}'; this one stops");
            return Err(Error::new(Kind::Fenced, text));
        }
        if let Some(options) = &self.files {
            let mut sink = FilesSink::new(options.clone()).of_backfill();
            sink.goes_on();
            sink.open(&self.writer(made.incarnation)).await?;
            sink.take_place().await?;
        }
        failpoint::hit(name, "handover.exchanged");
        stopped.done(live, made, own).await?;
        failpoint::hit(name, "handover.done");
        let still = self.still_since.get().map_or(String::new(), |since| format!(", after {} ms", since.elapsed().as_millis()));
        tracing::info!("lane '{name}' goes on from the new result{still}");
        Ok(())
    }

    /// Deletes the old result. The lane does not stand still for that.
    async fn clear_away(&self) -> Result<()> {
        match &self.files {
            Some(options) => FilesSink::clear_away(options.clone(), self.writer(0)).await,
            None => Ok(()),
        }
    }

    /// Of the lane's positions, those in partitions that the backfill reads: a newer partition is read from its beginning by the lane.
    fn known(&self, positions: &Positions) -> Positions {
        let starts = self.parts.source.start(Start::Earliest).unwrap_or_default();
        positions.iter().filter(|(partition, _)| starts.get(*partition).is_some()).collect()
    }

    /// The backfill's own newest claim, which may stand in fences.
    async fn incarnation(&self) -> Result<u64> {
        Ok(stands(self.stores.own.as_ref(), &self.lineage, &self.name).await?.1)
    }

    fn writer(&self, incarnation: u64) -> Writer {
        Writer { lineage: self.lineage.clone(), lane: self.name.clone(), incarnation }
    }
}

/// The lane's task, which ends with whoever waits for it.
struct Driven(JoinHandle<Result<()>>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The lane goes on as it was, unless the exchange was begun.
async fn give_back(name: &str, stopped: Option<Stopped>) {
    let Some(stopped) = stopped.filter(|stopped| stopped.handover().step == Step::Stop) else { return };
    if let Err(error) = stopped.off().await {
        tracing::warn!("lane '{name}' could not be given back: {}", error.chain());
    }
}

fn another(name: &str, lineage: &str) -> Error {
    let text = format!(
        "lane '{name}' stands still for another backfill ({lineage}); 'falaj backfill --cancel' gives that up, if its exchange was not begun"
    );
    Error::new(Kind::Fenced, text)
}
