//! The built-in lane of a source: writes its undecodable records down, once, whatever the number of lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Make;
use crate::batch::DeadLetter;
use crate::checkpoint::CheckpointStore;
use crate::checkpoint::lane_log::LaneLog;
use crate::checkpoint::record::{Entry, Intent};
use crate::checkpoint::recover::Needs;
use crate::clock::Clock;
use crate::dead::DeadLetters;
use crate::error::Result;
use crate::failpoint;
use crate::memory::{Share, Use};
use crate::position::{Positions, Span};
use crate::sink::Writer;
use crate::source::log::Log;
use crate::source::{Source, Start};
use crate::status::{LaneState, LaneStatus, Wiring};

/// Without dead letters its positions are only worth a record now and then: what lies behind them is looked at again.
pub const COMMIT_INTERVAL: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_millis(250);
const TAKE_BYTES_MAX: usize = 32 << 20;

/// What the lane is made of.
pub struct LettersParts {
    /// Its name.
    pub name: String,
    /// The source.
    pub source: Arc<dyn Source>,
    /// What the source is stored as.
    pub source_kind: String,
    /// Its log.
    pub log: Arc<Log>,
    /// How often its positions are worth a record though there was no dead letter.
    pub commit_interval: Duration,
    /// Old checkpoint records that stay.
    pub records_kept: u64,
    /// Where it begins without a checkpoint.
    pub start: Start,
    /// Where the letters go.
    pub make_dead: Make<Box<dyn DeadLetters>>,
    /// Where its records are.
    pub store: Arc<dyn CheckpointStore>,
    /// The checkpoint's lineage.
    pub lineage: String,
    /// The time.
    pub clock: Clock,
    /// The memory of its source.
    pub memory: Share,
    /// Its figures.
    pub status: Arc<LaneStatus>,
    /// Where to stop; none: never.
    pub until: Option<Positions>,
    /// Becomes true when the process wants to stop.
    pub stop: watch::Receiver<bool>,
}

/// Runs until it is stopped, has reached `until`, or fails for good.
pub async fn run(parts: LettersParts) -> Result<()> {
    let claimed = AtomicU64::new(0);
    parts.status.set_wiring(Wiring {
        source: parts.source.topic().to_string(),
        source_kind: parts.source_kind.clone(),
        sink: parts.name.clone(),
        sink_kind: "DEAD LETTERS".to_string(),
        ..Wiring::default()
    });
    super::driver::again(&parts.name, &parts.status, parts.stop.clone(), || drive(&parts, &claimed)).await
}

async fn drive(parts: &LettersParts, claimed: &AtomicU64) -> Result<()> {
    let (store, kept, mine) = (Arc::clone(&parts.store), parts.records_kept, claimed.load(Ordering::Relaxed));
    let (mut log, recovered) =
        LaneLog::claim_again(store, &parts.lineage, &parts.name, &parts.clock, Needs::LastEpoch, kept, mine).await?;
    claimed.store(log.writer().incarnation, Ordering::Relaxed);
    failpoint::hit(&parts.name, "claimed");
    let mut dead: Option<Box<dyn DeadLetters>> = None;
    let last = recovered.intents.last().cloned();
    let mut epoch = recovered.committed;
    let mut positions = match (&last, recovered.open_intent()) {
        // An open epoch is read again from its first span on: the letters' place knows whether it has them.
        (Some(intent), Some(_)) => intent.positions_before(),
        (Some(intent), None) => intent.positions.clone(),
        (None, _) => super::driver::blocking_start(&parts.source, parts.start).await?,
    };
    if let Some(intent) = recovered.open_intent() {
        let mut letters = Vec::new();
        let mut spans = parts.log.spans(&intent.spans);
        while let Some(segments) = spans.next().await? {
            letters.extend(segments.iter().flat_map(|segment| segment.dead.to_vec()));
        }
        write(parts, &mut dead, log.writer(), intent.epoch, &letters).await?;
        log.append(vec![Entry::Commit { epoch: intent.epoch }]).await?;
        epoch = intent.epoch;
        positions = intent.positions.clone();
    }
    parts.source.acknowledge(&parts.name, &positions);
    let mut reader = parts.log.subscribe(positions.clone()).accounted(parts.memory.account(Use::Epoch));
    parts.status.set_state(LaneState::Running);
    let mut committed = Instant::now();
    let mut from = positions;
    loop {
        let segments = reader.take(TAKE_BYTES_MAX, WAIT).await?;
        parts.status.set_lags(reader.lags(parts.clock.now_ms()));
        let letters: Vec<DeadLetter> = segments.iter().flat_map(|segment| segment.dead.to_vec()).collect();
        let records: u64 = segments.iter().map(|segment| segment.records()).sum();
        parts.status.records.fetch_add(records, Ordering::Relaxed);
        parts.status.dead.fetch_add(letters.len() as u64, Ordering::Relaxed);
        let skipped: u64 = segments.iter().map(|segment| segment.tombstones.len() as u64).sum();
        parts.status.skipped.fetch_add(skipped, Ordering::Relaxed);
        // The good ones are nothing to it.
        parts.status.filtered.fetch_add(records - skipped - letters.len() as u64, Ordering::Relaxed);
        let stopping = *parts.stop.borrow();
        // What lies behind the last record of a partition (control records) is never read.
        let at_end = segments.is_empty() && reader.all_at_log_end();
        let done = stopping || parts.until.as_ref().is_some_and(|ends| at_end || reader.positions().reached(ends));
        let moved = from != *reader.positions();
        let is_due = || committed.elapsed() >= parts.commit_interval || parts.source.waits_for(&parts.name);
        if !letters.is_empty() || (moved && (done || is_due())) {
            epoch += 1;
            let intent = Intent {
                epoch,
                spans: spans_between(&from, reader.positions()),
                positions: reader.positions().clone(),
                now_ns: parts.clock.now_ns(),
                letters: letters.len() as u64,
                ..Intent::default()
            };
            log.append(vec![Entry::Intent(intent)]).await?;
            failpoint::hit(&parts.name, "intent.after");
            write(parts, &mut dead, log.writer(), epoch, &letters).await?;
            failpoint::hit(&parts.name, "letters.after");
            log.append(vec![Entry::Commit { epoch }]).await?;
            log.needs_only_the_last();
            log.purge();
            parts.status.epoch.store(epoch, Ordering::Relaxed);
            parts.status.committed_ms.store(parts.clock.now_ms(), Ordering::Relaxed);
            parts.status.emitted.fetch_add(letters.len() as u64, Ordering::Relaxed);
            committed = Instant::now();
            from = reader.positions().clone();
            parts.source.acknowledge(&parts.name, &from);
        } else {
            log.check_claim_when_idle().await?;
        }
        if done {
            return Ok(());
        }
    }
}

async fn write(
    parts: &LettersParts,
    dead: &mut Option<Box<dyn DeadLetters>>,
    writer: &Writer,
    epoch: u64,
    letters: &[DeadLetter],
) -> Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    let mut open = match dead.take() {
        Some(open) => open,
        None => {
            let mut open = (parts.make_dead)()?;
            open.open(writer).await?;
            open
        }
    };
    open.write(epoch, letters).await?;
    *dead = Some(open);
    Ok(())
}

fn spans_between(from: &Positions, to: &Positions) -> Vec<Span> {
    let span = |(partition, end)| Span { partition, from: from.get(partition).unwrap_or(end), to: end };
    to.iter().map(span).filter(|span| span.from < span.to).collect()
}
