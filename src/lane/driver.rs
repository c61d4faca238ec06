//! The loop of a lane, and its one recovery path: after a start, a crash or any error, claim, restore, finish what was open, go on.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::LaneParts;
use super::epoch::Open;
use super::handover;
use super::pace::Pace;
use super::restore::restore;
use super::rows;
use crate::checkpoint::lane_log::LaneLog;
use crate::checkpoint::record::Intent;
use crate::checkpoint::recover::{Needs, Recovered};
use crate::error::{Action, Error, Kind, Result};
use crate::failpoint;
use crate::memory::Use;
use crate::position::Positions;
use crate::query::plan::{LanePlan, Work};
use crate::source::log::LogReader;
use crate::source::{Source, Start};
use crate::status::{LaneState, LaneStatus, Wiring};
use crate::traces;

const ROLL_LINGER: Duration = Duration::from_millis(100);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a lane must run for an outage to be over, and how often that is looked at.
const RUNS_ON: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a lane may go on after it was asked to stop. Whoever stops it waits five seconds, and a sink that is away may not answer
/// for minutes; what is left open is as after a crash.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Runs a lane until it is stopped, has reached `until`, or fails for good.
pub async fn run(parts: LaneParts) -> Result<()> {
    let stop = parts.stop.clone();
    let status = Arc::clone(&parts.status);
    let name = parts.plan.name.clone();
    status.set_wiring(wiring(&parts));
    let claimed = AtomicU64::new(0);
    again(&name, &status, stop, || async {
        loop {
            let Err(error) = drive(&parts, &claimed).await else { return Ok(()) };
            let mine = claimed.load(Ordering::Relaxed);
            if handover::was_stopped(&parts, mine).await {
                tracing::info!("lane '{name}' stands still: a backfill takes it over");
                continue;
            }
            return match error.kind() {
                Kind::Fenced => Err(error),
                _ => Err(LaneLog::why(parts.store.as_ref(), &parts.lineage, &name, mine, error).await),
            };
        }
    })
    .await
}

fn wiring(parts: &LaneParts) -> Wiring {
    let LanePlan { source, sink, lookups, .. } = &parts.plan;
    Wiring {
        source: parts.source.topic().to_string(),
        source_kind: source.stored_as.clone(),
        lookups: lookups.iter().cloned().collect(),
        sink: sink.name.clone(),
        sink_kind: sink.stored_as.clone(),
        topic: (sink.stored_as == "KAFKA").then(|| sink.location.clone()),
    }
}

/// Drives something again and again, with back-off, as long as its errors are worth another try. An outage is one warning, and one line when
/// it is over.
pub async fn again<F, Fut>(name: &str, status: &LaneStatus, mut stop: watch::Receiver<bool>, drive: F) -> Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let (mut pause, mut outage) = (BACKOFF_FIRST, None);
    loop {
        status.set_state(LaneState::Starting);
        let error = match attempt(name, status, &stop, Box::pin(drive()), &mut outage).await {
            Ok(()) => {
                status.set_state(LaneState::Done);
                return Ok(());
            }
            Err(error) => error,
        };
        if error.kind().action() != Action::Retry {
            status.set_trouble(Some(error.chain()), None);
            status.set_state(LaneState::Stopped);
            return Err(Error::new(error.kind(), format!("lane '{name}' stopped")).because(error));
        }
        if *stop.borrow() {
            // Asked to stop while it waited: nothing is lost, the next start finishes what is open.
            tracing::warn!("lane '{name}' stops while it waits: {}", error.chain());
            status.set_state(LaneState::Done);
            return Ok(());
        }
        if outage.is_none() {
            if error.told().is_none() {
                tracing::warn!("lane '{name}' waits: {}", error.chain());
            }
            (pause, outage) = (BACKOFF_FIRST, Some((Instant::now(), error.clone())));
        }
        status.set_trouble(None, Some(error.chain()));
        let stopped = async { stop.wait_for(|stop| *stop).await.is_ok() };
        let _ = tokio::time::timeout(pause, stopped).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

/// Drives it once. A lane that runs on is over its `outage`.
async fn attempt(
    name: &str,
    status: &LaneStatus,
    stop: &watch::Receiver<bool>,
    drive: impl Future<Output = Result<()>>,
    outage: &mut Option<(Instant, Error)>,
) -> Result<()> {
    let (mut drive, mut overdue) = (pin!(drive), pin!(overdue(stop.clone())));
    loop {
        tokio::select! {
            done = &mut drive => return done,
            () = &mut overdue => {
                let text = "it was asked to stop and waits for something still; the next start finishes what is open";
                return Err(Error::new(Kind::Unreachable, text));
            }
            () = runs_on(status), if outage.is_some() => {
                if let Some((noticed, why)) = outage.take() {
                    // Who has told the outage tells that it is over.
                    if why.told().is_none() {
                        tracing::info!("lane '{name}' runs again after {:.1} s", noticed.elapsed().as_secs_f64());
                    }
                    traces::outage(name, &why.chain(), why.told().unwrap_or(noticed).elapsed());
                }
            }
        }
    }
}

/// Is ready when the lane has run for some time: one that only begins to may meet the same trouble at once.
async fn runs_on(status: &LaneStatus) {
    let mut since = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        match (status.is_running(), since) {
            (true, None) => since = Some(Instant::now()),
            (true, Some(began)) if Instant::elapsed(&began) >= RUNS_ON => return,
            (true, Some(_)) => {}
            (false, _) => since = None,
        }
    }
}

/// Is ready some time after the process was asked to stop.
async fn overdue(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        return std::future::pending().await;
    }
    tokio::time::sleep(STOP_MAX).await;
}

/// The source's start, asked on a thread that may block.
pub async fn blocking_start(source: &Arc<dyn Source>, start: Start) -> Result<Positions> {
    let source = Arc::clone(source);
    let asked = tokio::task::spawn_blocking(move || source.start(start)).await;
    asked.unwrap_or_else(|cause| Err(Error::new(Kind::Bug, "asking the source was broken off").because(cause)))
}

/// `claimed` is the incarnation of the last claim.
async fn drive(parts: &LaneParts, claimed: &AtomicU64) -> Result<()> {
    if !handover::wait(parts, claimed).await? {
        return Ok(());
    }
    let recovering = Instant::now();
    parts.status.traced.forget();
    let store = Arc::clone(&parts.store);
    let name = &parts.plan.name;
    let needs = if matches!(parts.plan.work, Work::Rows(_)) { Needs::LastEpoch } else { Needs::State };
    let (kept, mine) = (parts.bounds.records_kept, claimed.load(Ordering::Relaxed));
    let (log, recovered) = LaneLog::claim_again(store, &parts.lineage, name, &parts.clock, needs, kept, mine).await?;
    claimed.store(log.writer().incarnation, Ordering::Relaxed);
    failpoint::hit(name, "claimed");
    let mut sink = (parts.make_sink)()?;
    if recovered.last().is_some() {
        sink.goes_on();
    }
    let visible = sink.open(log.writer()).await?;
    check_age(parts, &recovered, visible)?;
    let keep = recovered.open_intent().map(|intent| intent.staged.clone()).unwrap_or_default();
    sink.discard(&keep).await?;
    let positions = match recovered.last() {
        Some(intent) => intent.positions.clone(),
        None => blocking_start(&parts.source, parts.start).await?,
    };
    // A lane with state acknowledges by its snapshots, and a sink that stages would show the same bytes again.
    let commits_late = matches!(parts.plan.work, Work::Rows(_)) && !sink.stages();
    let mut open = Open { log, sink, dead: None, positions, epoch: recovered.committed, commits_late, owed: None };
    // Nobody sees a file before it rolls, so its lane leaves the processor to those that are waited for.
    let linger = if parts.bounds.roll.is_some() { ROLL_LINGER } else { parts.bounds.linger };
    let mut pace = Pace::new(parts.bounds.take_bytes_max, linger);
    let ends = ends_to_reach(parts).await;
    match &parts.plan.work {
        Work::Rows(leaf) => {
            if let Some(intent) = recovered.open_intent() {
                rows::redo(parts, leaf, &mut open, intent.clone()).await?;
            }
            parts.source.acknowledge(&parts.plan.name, &open.positions);
            let mut reader = begin(parts, &open, recovering);
            while !over(parts, &reader, false) {
                let worked = rows::epoch(parts, leaf, &mut open, &mut reader, &mut pace).await?;
                tell(parts, &mut open, &reader, ends.as_ref()).await?;
                open.log.purge();
                if !worked {
                    open.log.check_claim_when_idle().await?;
                    if over(parts, &reader, true) {
                        break;
                    }
                }
            }
            rows::settle(parts, &mut open).await?;
            tell(parts, &mut open, &reader, ends.as_ref()).await
        }
        Work::Windows(windows) => {
            let mut windowed = restore(parts, windows, &mut open, &recovered).await?;
            let mut reader = begin(parts, &open, recovering);
            loop {
                let worked = windowed.epoch(parts, windows, &mut open, &mut reader, &mut pace).await?;
                tell(parts, &mut open, &reader, ends.as_ref()).await?;
                open.log.purge();
                if !worked {
                    open.log.check_claim_when_idle().await?;
                }
                if *parts.stop.borrow() || (over(parts, &reader, !worked) && !windowed.owes_a_board(&parts.emit)) {
                    break;
                }
            }
            tell(parts, &mut open, &reader, ends.as_ref()).await?;
            let intent = Intent {
                epoch: open.epoch,
                positions: open.positions.clone(),
                event_times_ns: windowed.time.greatest().clone(),
                watermark_ns: windowed.time.watermark(),
                board_ns: windowed.time.board(),
                ..Intent::default()
            };
            windowed.last_snapshot(parts, &mut open, &intent).await
        }
    }
}

fn begin(parts: &LaneParts, open: &Open, recovering: Instant) -> LogReader {
    traces::recovery(&parts.plan.name, open.log.writer().incarnation, recovering.elapsed());
    parts.status.set_state(LaneState::Running);
    parts.log.subscribe(open.positions.clone()).accounted(parts.plan.memory.account(Use::Epoch))
}

/// Where a lane that rolls files has caught up, even if the log never stands still: what there was when it began. None when the
/// broker is away; then the log end itself must be met.
async fn ends_to_reach(parts: &LaneParts) -> Option<Positions> {
    let until = parts.until.borrow().clone();
    if until.is_some() || (parts.bounds.roll.is_none() && parts.caught_up.is_none()) {
        return until;
    }
    let source = Arc::clone(&parts.source);
    tokio::task::spawn_blocking(move || source.log_ends()).await.ok()?.ok()
}

/// Between two epochs: tells the sink, and whoever waits for it, when the lane has caught up.
async fn tell(parts: &LaneParts, open: &mut Open, reader: &LogReader, ends: Option<&Positions>) -> Result<()> {
    if reader.all_at_log_end() || ends.is_some_and(|ends| reader.positions().reached(ends)) {
        open.sink.caught_up().await?;
        if let Some(caught_up) = &parts.caught_up {
            caught_up.send_replace(true);
        }
    }
    Ok(())
}

/// Whether the lane is to stop: asked to, or everything up to `until` is read. After an epoch without work the log end counts
/// too: what lies behind the last record of a partition (control records) is never read.
fn over(parts: &LaneParts, reader: &LogReader, idle: bool) -> bool {
    let is_there = || parts.until.borrow().is_some() && reader.all_at_log_end();
    *parts.stop.borrow() || parts.reached(reader.positions()) || (idle && is_there())
}

/// A checkpoint that is older than its sink would write again what is there.
fn check_age(parts: &LaneParts, recovered: &Recovered, visible: Option<u64>) -> Result<()> {
    let known = recovered.intents.last().map_or(recovered.committed, |intent| intent.epoch.max(recovered.committed));
    match visible {
        Some(epoch) if epoch > known => Err(Error::new(
            Kind::Corrupt,
            format!(
                "the checkpoint of lane '{}' ends at epoch {known}, but its sink holds epoch {epoch}: the checkpoint is older \
                 than the sink; put the newer folder back, or begin a new lineage from this one by 'falaj checkpoint fork'",
                parts.plan.name
            ),
        )),
        _ => Ok(()),
    }
}
