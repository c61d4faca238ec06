//! The protocol of an epoch, once for every kind of lane: stage, intent, apply, dead letters, commit.

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
use crate::sink::{Applied, Sink};
use crate::status::Phase;

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
    /// Rows that the query left out.
    pub filtered: u64,
    /// When its first segment came.
    pub began: Option<Instant>,
    /// When its newest record was appended, ms since 1970.
    pub appended_ms: i64,
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
        let staging = Instant::now();
        if self.sink.stages() {
            failpoint::hit(name, "seal.before");
            intent.staged = self.sink.seal(intent.epoch).await?;
            parts.status.record_phase(Phase::Stage, staging.elapsed());
        }
        failpoint::hit(name, "intent.before");
        let deciding = Instant::now();
        self.log.append(vec![Entry::Intent(intent.clone())]).await?;
        parts.status.record_phase(Phase::Intent, deciding.elapsed());
        failpoint::hit(name, "intent.after");
        self.redo(parts, intent, outputs, taken).await
    }

    /// The part of an epoch after its intent: also what finishes one that a crash left between intent and commit.
    pub async fn redo(&mut self, parts: &LaneParts, intent: Intent, outputs: Vec<Output>, taken: Taken) -> Result<()> {
        let applying = Instant::now();
        let stages = self.sink.stages();
        let applied = while_claimed(&self.log, apply(self.sink.as_mut(), &intent, outputs)).await?;
        if stages || applied.rows > 0 {
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
        let committing = Instant::now();
        self.log.append(vec![Entry::Commit { epoch: intent.epoch }]).await?;
        status.record_phase(Phase::Commit, committing.elapsed());
        failpoint::hit(&parts.plan.name, "commit.after");
        self.sink.committed(intent.epoch, &intent.staged).await?;
        self.epoch = intent.epoch;
        self.positions = intent.positions;

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
        status.epoch.store(intent.epoch, Ordering::Relaxed);
        if taken.appended_ms > 0 {
            let latency_ms = parts.clock.now_ms().saturating_sub(taken.appended_ms).max(0);
            status.record_latency(latency_ms as u64 * 1000);
        }
        Ok(())
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

/// Makes an epoch visible: what is staged, or `outputs` for a sink that does not stage.
async fn apply(sink: &mut dyn Sink, intent: &Intent, outputs: Vec<Output>) -> Result<Applied> {
    if sink.stages() {
        return sink.apply(intent.epoch, &intent.staged).await;
    }
    if outputs.is_empty() {
        return Ok(Applied::default());
    }
    for output in outputs {
        sink.write(intent.epoch, output).await?;
    }
    sink.seal(intent.epoch).await?;
    sink.apply(intent.epoch, &[]).await
}
