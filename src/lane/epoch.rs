//! The protocol of an epoch, once for every kind of lane: stage, intent, apply, dead letters, commit.
//!
//! Of a lane that [commits late](Open::commits_late) the commit is in the record of the next intent, or alone when there is nothing
//! more to take: one fsync less for each epoch.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::LaneParts;
use super::guard::while_claimed;
use crate::batch::{DeadLetter, Output, Segment};
use crate::checkpoint::lane_log::LaneLog;
use crate::checkpoint::record::{Entry, Intent};
use crate::dead::DeadLetters;
use crate::error::Result;
use crate::failpoint;
use crate::position::{Positions, Span};
use crate::sink::{Applied, Sink, Staged};
use crate::status::Phase;
use crate::traces::Epoch;

/// What a lane holds while it runs: all of it is dropped and made anew after an error.
pub struct Open {
    /// Its claimed log.
    pub log: LaneLog,
    /// Its sink, opened.
    pub sink: Box<dyn Sink>,
    /// Where its dead letters go; opened when there is a first one.
    pub dead: Option<Box<dyn DeadLetters>>,
    /// The positions after the last epoch.
    pub positions: Positions,
    /// The last epoch.
    pub epoch: u64,
    /// Whether a commit may wait for the next intent. After a crash the epoch is done again, so the sink must tell what it holds.
    pub commits_late: bool,
    /// The last epoch, while its commit waits.
    pub owed: Option<Owed>,
}

/// An epoch that is applied, and whose commit is still to be written.
pub struct Owed {
    epoch: u64,
    staged: Vec<Staged>,
}

/// What an epoch has taken so far.
#[derive(Debug, Default)]
pub struct Taken {
    spans: BTreeMap<i32, Span>,
    /// Dead letters of this lane's own.
    pub letters: Vec<DeadLetter>,
    /// Records in the spans.
    pub records: u64,
    /// Records that another lane writes down as undecodable.
    pub dead: u64,
    /// Records without a payload.
    pub skipped: u64,
    /// Offsets that the source no longer had.
    pub lost: u64,
    /// Rows that came to the sink or into a window.
    pub used: u64,
    /// Rows that the query left out, and those of records that are for another lane only.
    pub filtered: u64,
    /// When its first segment came.
    pub began: Option<Instant>,
    /// When its newest record was appended, ms since 1970.
    pub appended_ms: i64,
    /// The greatest event time among its rows, ns since 1970; of some lanes it is not known.
    pub event_ns: Option<i64>,
}

impl Taken {
    /// Notes that `segment` belongs to the epoch.
    pub fn add(&mut self, segment: &Segment) {
        self.began.get_or_insert_with(Instant::now);
        let span = self.spans.entry(segment.span.partition).or_insert(segment.span);
        span.to = segment.span.to;
        self.records += segment.records();
        self.dead += segment.dead.len() as u64;
        self.skipped += segment.tombstones.len() as u64;
        self.lost += segment.lost;
        self.appended_ms = self.appended_ms.max(segment.appended_ms);
    }

    /// The spans, one for each partition.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.values().copied().collect()
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

impl Open {
    /// Runs an epoch to its end. `intent` has everything but what is staged; `outputs` are what a sink that does not stage is
    /// to show (a sink that stages has been written already).
    pub async fn finish(&mut self, parts: &LaneParts, mut intent: Intent, outputs: Vec<Output>, taken: Taken) -> Result<()> {
        let name = &parts.plan.name;
        if let Some(began) = taken.began {
            parts.status.record_phase(Phase::Plan, began.elapsed());
        }
        intent.letters = taken.letters.len() as u64;
        let claimed = if self.sink.stages() {
            failpoint::hit(name, "seal.before");
            let staging = Instant::now();
            intent.staged = self.sink.seal(intent.epoch).await?;
            parts.status.record_phase(Phase::Stage, staging.elapsed());
            failpoint::hit(name, "intent.before");
            decide(parts, &mut self.log, self.owed.as_ref(), &intent).await?
        } else {
            // What a sink sends ahead nobody sees before `apply`, so it need not wait for the intent.
            failpoint::hit(name, "intent.before");
            let send = send(parts, self.sink.as_mut(), intent.epoch, outputs);
            let (claimed, sent) = tokio::join!(decide(parts, &mut self.log, self.owed.as_ref(), &intent), send);
            sent.and(claimed)?
        };
        failpoint::hit(name, "intent.after");
        if let Some(owed) = self.owed.take() {
            self.settled(parts, owed).await?;
        }
        self.publish(parts, intent, taken, claimed).await
    }

    /// Finishes an epoch that a crash left between intent and commit; `outputs` as for [`Self::finish`].
    pub async fn redo(&mut self, parts: &LaneParts, intent: Intent, outputs: Vec<Output>, taken: Taken) -> Result<()> {
        let began = Instant::now();
        if !self.sink.stages() {
            let send = send(parts, self.sink.as_mut(), intent.epoch, outputs);
            while_claimed(&self.log, began, send).await?;
        }
        self.publish(parts, intent, taken, began).await
    }

    /// The part of an epoch after its intent. The claim was seen to be ours at `claimed`.
    async fn publish(&mut self, parts: &LaneParts, intent: Intent, taken: Taken, claimed: Instant) -> Result<()> {
        let applying = Instant::now();
        let applied = while_claimed(&self.log, claimed, self.sink.apply(intent.epoch, &intent.staged)).await?;
        if self.sink.stages() || applied.rows > 0 {
            parts.status.record_phase(Phase::Apply, applying.elapsed());
        }
        failpoint::hit(&parts.plan.name, "apply.after");
        self.conclude(parts, intent, applied, taken).await
    }

    async fn conclude(&mut self, parts: &LaneParts, intent: Intent, applied: Applied, taken: Taken) -> Result<()> {
        let status = &parts.status;
        let late = taken.letters.len() as u64;
        let refused = applied.refused.len() as u64;
        let mut letters = taken.letters;
        letters.extend(applied.refused);
        if !letters.is_empty() {
            self.bury(parts, intent.epoch, &letters).await?;
            failpoint::hit(&parts.plan.name, "letters.after");
        }
        self.epoch = intent.epoch;
        self.positions = intent.positions;
        self.owed = Some(Owed { epoch: intent.epoch, staged: intent.staged });
        if !self.commits_late {
            self.settle(parts).await?;
        }

        let add = |counter: &std::sync::atomic::AtomicU64, amount| counter.fetch_add(amount, Ordering::Relaxed);
        add(&status.records, taken.records);
        add(&status.used, taken.used);
        add(&status.filtered, taken.filtered);
        add(&status.late, late);
        add(&status.dead, taken.dead);
        add(&status.skipped, taken.skipped);
        add(&status.lost, taken.lost);
        add(&status.emitted, applied.rows);
        add(&status.refused, refused);
        add(&status.retries, applied.retries);
        if applied.left_out > 0 && add(&status.left_out, applied.left_out) == 0 {
            let (name, table) = (&parts.plan.name, &parts.plan.sink.name);
            tracing::warn!(
                "lane '{name}': rows of windows without a key or a score have no place in '{table}' and are left out; a WHERE or HAVING says so"
            );
        }
        status.epoch.store(intent.epoch, Ordering::Relaxed);
        let (lane, epoch) = (parts.plan.name.as_str(), intent.epoch);
        status.traced.send(Epoch { lane, epoch, records: taken.records, rows: applied.rows, letters: late + refused });
        if taken.appended_ms > 0 {
            let latency_ms = parts.clock.now_ms().saturating_sub(taken.appended_ms).max(0);
            status.record_latency(latency_ms as u64 * 1000);
        }
        if let Some(event_ns) = taken.event_ns {
            let latency_ns = parts.clock.now_ns().saturating_sub(event_ns).max(0);
            status.record_event_latency(latency_ns as u64 / 1000);
        }
        Ok(())
    }

    /// Writes the commit of the last epoch, if it waits.
    pub async fn settle(&mut self, parts: &LaneParts) -> Result<()> {
        let Some(owed) = self.owed.take() else { return Ok(()) };
        let committing = Instant::now();
        self.log.append(vec![Entry::Commit { epoch: owed.epoch }]).await?;
        parts.status.record_phase(Phase::Commit, committing.elapsed());
        self.settled(parts, owed).await
    }

    async fn settled(&mut self, parts: &LaneParts, owed: Owed) -> Result<()> {
        parts.status.committed_ms.store(parts.clock.now_ms(), Ordering::Relaxed);
        failpoint::hit(&parts.plan.name, "commit.after");
        self.sink.committed(owed.epoch, &owed.staged).await
    }

    async fn bury(&mut self, parts: &LaneParts, epoch: u64, letters: &[DeadLetter]) -> Result<()> {
        let mut dead = match self.dead.take() {
            Some(dead) => dead,
            None => {
                let mut dead = (parts.make_dead)()?;
                dead.open(self.log.writer()).await?;
                dead
            }
        };
        dead.write(epoch, letters).await?;
        self.dead = Some(dead);
        Ok(())
    }
}

/// Writes the intent, and with it the commit that waits for it. Gives a time at which the claim was ours.
async fn decide(parts: &LaneParts, log: &mut LaneLog, owed: Option<&Owed>, intent: &Intent) -> Result<Instant> {
    let deciding = Instant::now();
    let commit = owed.map(|owed| Entry::Commit { epoch: owed.epoch });
    log.append(commit.into_iter().chain([Entry::Intent(intent.clone())]).collect()).await?;
    parts.status.record_phase(Phase::Intent, deciding.elapsed());
    Ok(deciding)
}

/// Hands `outputs` to a sink that does not stage, up to where `apply` makes them visible.
async fn send(parts: &LaneParts, sink: &mut dyn Sink, epoch: u64, outputs: Vec<Output>) -> Result<()> {
    if outputs.is_empty() {
        return Ok(());
    }
    let sending = Instant::now();
    for output in outputs {
        sink.write(epoch, output).await?;
    }
    sink.seal(epoch).await?;
    parts.status.record_phase(Phase::Stage, sending.elapsed());
    Ok(())
}
