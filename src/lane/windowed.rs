//! A lane with windows: absorb rows into panes, let time move, emit what that makes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::epoch::{Open, Taken};
use super::pace::Pace;
use super::rows::own_error;
use super::snapshot::{self, Snapshots};
use super::update::Shown;
use super::watermark::EventTime;
use super::{Emit, LaneParts};
use crate::batch::Segment;
use crate::checkpoint::lane_log::StateWriter;
use crate::checkpoint::record::{Intent, Snapshot};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::memory::{Account, Use};
use crate::query::plan::Windows;
use crate::source::log::LogReader;
use crate::window::base::Base;
use crate::window::spec::WindowSpec;
use crate::window::state::WindowState;

// How long an idle lane waits before it looks whether it should stop.
const WAIT: Duration = Duration::from_millis(250);
// In a backlog a board of a million groups is made for one part in four of the time, and an epoch absorbs for so long at most.
const BACKLOG_SHARE: u32 = 3;
const BACKLOG_MAX: Duration = Duration::from_secs(2);

/// The state of a windowed lane between two epochs.
pub struct Windowed {
    /// The panes.
    pub state: WindowState,
    /// Watermark and T.
    pub time: EventTime,
    pub(super) shown: Option<Shown>,
    /// What all of that holds.
    account: Account,
    /// The columns that name a row in its window.
    pub(super) key: Option<Vec<usize>>,
    pub(super) board_is_empty: bool,
    /// Panes whose windows the next output of `emit 'update'` tells of as well.
    untold: BTreeSet<i64>,
    /// How long it took to make the last output.
    emitting: Duration,
    snapshots: Snapshots,
    /// None before the first after a start: a query that was edited shows at once, even if no rows come.
    last_epoch: Option<Instant>,
}

impl Windowed {
    /// Nothing absorbed yet.
    pub fn new(parts: &LaneParts, windows: &Windows) -> Self {
        let shown = match &parts.emit {
            Emit::Update { key } => Some(Shown::new(Arc::clone(&parts.plan.sink.schema), key.clone())),
            _ => None,
        };
        Self {
            state: WindowState::new(windows.cut.clone(), windows.spec),
            time: EventTime::new(parts.watermark),
            shown,
            account: parts.plan.memory.account(Use::State),
            key: windows.key.clone(),
            board_is_empty: true,
            untold: BTreeSet::new(),
            emitting: Duration::ZERO,
            snapshots: Snapshots::new(windows.fingerprint.clone()),
            last_epoch: None,
        }
    }

    /// Says what the state holds now. `Err(Full)`: there is not so much.
    pub(super) fn account(&mut self) -> Result<()> {
        let shown = self.shown.as_ref().map_or(0, Shown::bytes);
        self.account.try_set(self.state.bytes() + shown)
    }

    pub(super) fn spec(&self) -> WindowSpec {
        self.state.spec()
    }

    /// Takes the next segments and runs an epoch to its commit. `false` when there was nothing to do.
    pub async fn epoch(
        &mut self,
        parts: &LaneParts,
        windows: &Windows,
        open: &mut Open,
        reader: &mut LogReader,
        pace: &mut Pace,
    ) -> Result<bool> {
        let slide = Duration::from_nanos(self.spec().slide_ns.unsigned_abs());
        let ticking = parts.emit == Emit::Latest && !self.board_is_empty;
        let rest = self.last_epoch.map(|last| slide.saturating_sub(last.elapsed()));
        let wait = rest.filter(|_| ticking).map_or(WAIT, |rest| rest.min(WAIT));
        let mut segments = pace.take(reader, wait).await?;
        parts.status.set_lags(reader.lags(parts.clock.now_ms()));
        let mut ends = reader.at_log_end();
        let now_ns = parts.clock.now_ns();
        let tick = ticking && all_at_end(&ends) && self.last_epoch.is_none_or(|last| last.elapsed() >= slide);
        if segments.is_empty() && !tick && self.untold.is_empty() && !self.would_wake(&ends, now_ns) {
            return Ok(false);
        }
        let before = self.judged_by(&parts.emit);
        let mut taken = Taken::default();
        let mut touched = std::mem::take(&mut self.untold);
        parts.plan.time.set(now_ns);
        let (began, mut first_ns) = (Instant::now(), None);
        loop {
            for segment in &Segment::merge_small(segments)? {
                self.absorb(parts, windows, segment, before, now_ns, &mut taken, &mut touched).await?;
            }
            let lasts = match parts.bounds.roll {
                // Files are few if an epoch lasts.
                Some((_, roll_interval)) => roll_interval,
                // Of a backlog a board shows only the end: what it costs to make is spread over more rows.
                None if parts.emit == Emit::Latest && pace.left_some() => (self.emitting * BACKLOG_SHARE).min(BACKLOG_MAX),
                None => break,
            };
            // But no epoch may hold the panes of more than one further window.
            let reached_ns = self.time.greatest().values().copied().max();
            let passed_ns = reached_ns.zip(*first_ns.get_or_insert(reached_ns)).map_or(0, |(reached, first)| reached - first);
            let done = *parts.stop.borrow() || parts.reached(reader.positions());
            if done || passed_ns > self.spec().size_ns || began.elapsed() >= lasts {
                break;
            }
            pace.done();
            segments = pace.take(reader, WAIT).await?;
            parts.status.set_lags(reader.lags(parts.clock.now_ms()));
            ends = reader.at_log_end();
        }
        let at_end = all_at_end(&ends);
        let idle = self.time.advance_watermark(&ends, now_ns);
        self.time.advance_board(at_end, self.spec().slide_ns, now_ns);
        let intent = Intent {
            epoch: open.epoch + 1,
            spans: taken.spans(),
            positions: reader.positions().clone(),
            now_ns,
            event_times_ns: self.time.greatest().clone(),
            idle,
            watermark_before_ns: before,
            watermark_ns: self.time.watermark(),
            board_ns: self.time.board(),
            ..Intent::default()
        };
        if parts.emit == Emit::Latest {
            // How much is taken at once does not change what a board costs.
            pace.done();
        }
        let emitting = Instant::now();
        let outputs = self.emit(parts, open, &intent, &touched).await?;
        self.emitting = emitting.elapsed();
        self.snapshots.absorbed(taken.records);
        failpoint::hit(&parts.plan.name, "plan.done");
        open.finish(parts, intent.clone(), outputs, taken).await?;
        if parts.emit != Emit::Latest {
            pace.done();
        }
        self.last_epoch = Some(Instant::now());
        self.forget(&parts.emit);
        self.account()?;
        self.show(parts);
        self.snapshots.advance(parts, &mut open.log, &intent, &mut self.state, !pace.left_some()).await?;
        Ok(true)
    }

    /// The time by which the next rows are late. A `latest` board goes by T, which no event takes past the clock: one that comes
    /// from a clock that runs ahead must not make all others late.
    pub(super) fn judged_by(&self, emit: &Emit) -> Option<i64> {
        match (emit, self.time.board()) {
            (Emit::Latest, Some(board)) => self.time.watermark().map(|watermark| watermark.min(board)),
            _ => self.time.watermark(),
        }
    }

    /// Whether the board is still as it was before the start.
    pub fn owes_a_board(&self, emit: &Emit) -> bool {
        *emit == Emit::Latest && !self.board_is_empty && self.last_epoch.is_none()
    }

    /// Whether a partition has become idle, so that the watermark would move without rows.
    fn would_wake(&mut self, ends: &[(i32, bool)], now_ns: i64) -> bool {
        let mut time = self.time.clone();
        time.advance_watermark(ends, now_ns);
        time.watermark() != self.time.watermark()
    }

    fn forget(&mut self, emit: &Emit) {
        let by_watermark = self.time.watermark();
        let by_board = self.time.board().map(|board| self.spec().first_end(board) - self.spec().slide_ns);
        let until = if *emit == Emit::Latest { by_board } else { by_watermark };
        if let Some(until) = until {
            self.state.forget(until);
        }
    }

    fn show(&self, parts: &LaneParts) {
        let status = &parts.status;
        status.watermark_ns.store(self.time.watermark().unwrap_or(i64::MIN), Ordering::Relaxed);
        let shows = self.time.board().filter(|_| parts.emit == Emit::Latest && !self.board_is_empty);
        status.board_ns.store(shows.unwrap_or(i64::MIN), Ordering::Relaxed);
        status.panes.store(self.state.panes().len() as u64, Ordering::Relaxed);
        status.state_bytes.store(self.account.bytes() as u64, Ordering::Relaxed);
    }

    /// Before a clean stop after `intent`: what was absorbed is in a snapshot, so that the next start reads nothing again.
    pub async fn last_snapshot(&mut self, parts: &LaneParts, open: &mut Open, intent: &Intent) -> Result<()> {
        self.snapshots.finish(parts, &mut open.log, intent, &mut self.state).await
    }

    /// Puts a snapshot's panes in place. `Err(Corrupt)`: one of its files is not whole; what is loaded by then is of no use.
    pub async fn load(&mut self, reader: &StateWriter, snapshot: &Snapshot) -> Result<()> {
        for file in &snapshot.files {
            let bytes = reader.read(file).await?;
            for (pane, states) in snapshot::decode(&bytes, &file.panes)? {
                let restored = self.state.restore(pane, states).await;
                let unfit = |cause| Error::new(Kind::Bug, "a snapshot does not fit the query").because(cause);
                restored.map_err(|cause| own_error(&cause).unwrap_or_else(|| unfit(cause)))?;
            }
            self.account()?;
        }
        if let Some(file) = &snapshot.merged {
            let bytes = reader.read(file).await?;
            let states = snapshot::decode(&bytes, &file.panes)?.into_iter().map(|(_, states)| states).collect();
            if let [(from, to)] = file.panes[..] {
                self.state.restore_base(Base { from, to, states });
            }
        }
        self.state.panes_mut().set_unchanged();
        self.state.set_complete_from(snapshot.from_pane);
        self.snapshots.stand_at(snapshot.files.clone());
        Ok(())
    }

    /// The query was edited: what the sink shows is another query's, so the next output of `emit 'update'` tells everything.
    pub(super) fn tell_all(&mut self) {
        if let Some(shown) = &mut self.shown {
            shown.clear();
            self.untold = self.open_panes();
        }
    }

    /// Absorbs the spans of an intent again, by the times that it holds. Gives the panes that it touched.
    pub async fn absorb_again(
        &mut self,
        parts: &LaneParts,
        windows: &Windows,
        intent: &Intent,
        segments: &[Arc<Segment>],
        taken: &mut Taken,
        touched: &mut BTreeSet<i64>,
    ) -> Result<()> {
        parts.plan.time.set(intent.now_ns);
        for segment in segments {
            self.absorb(parts, windows, segment, intent.watermark_before_ns, intent.now_ns, taken, touched).await?;
        }
        Ok(())
    }

    /// After the spans of `intent` were absorbed again: stands where it stood.
    pub fn stand_at(&mut self, intent: &Intent, records: u64, emit: &Emit) {
        self.time.restore(intent);
        self.board_is_empty = intent.board_ns.is_none();
        self.snapshots.absorbed(records);
        self.forget(emit);
    }

    /// Finishes the epoch that was left open; its spans have been absorbed already.
    pub async fn redo(
        &mut self,
        parts: &LaneParts,
        open: &mut Open,
        intent: Intent,
        taken: Taken,
        touched: &BTreeSet<i64>,
    ) -> Result<()> {
        self.time.restore(&intent);
        let outputs = if open.sink.stages() { Vec::new() } else { self.emit(parts, open, &intent, touched).await? };
        open.redo(parts, intent, outputs, taken).await
    }
}

fn all_at_end(ends: &[(i32, bool)]) -> bool {
    ends.iter().all(|(_, at_end)| *at_end)
}
