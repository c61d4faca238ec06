//! The changes of one table between the thread that receives them and its readers: kept until every lane is done with them, the
//! newest in memory, the others in the spool.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::spool::{Spool, Written};
use crate::batch::Payloads;
use crate::error::{Error, Kind, Result};
use crate::memory::Account;
use crate::position::{Positions, Span};

/// What one poll hands over at most.
const POLL_RECORDS: usize = 16_384;
const POLL_BYTES: usize = 4 << 20;
/// So many pieces have that.
const POLL_PIECES: usize = 1024;

/// The only partition of a table.
pub(super) const PARTITION: i32 = 0;

/// What lies in memory of one table; older pieces go to the spool.
const MEMORY_BYTES_MAX: usize = 12 << 20;
/// A lane that has not gone on for so long does not do so soon: it fills a large file, or its sink is away.
const STUCK: Duration = Duration::from_millis(500);
/// So much lies there however short memory is: a piece or two.
const MEMORY_BYTES_LEAST: usize = 2 << 20;

/// The changes `[first, next)` of one table.
pub(super) struct Buffer {
    /// `schema.table`, for messages.
    table: String,
    spool: Spool,
    state: Mutex<State>,
    news: Condvar,
    /// Wakes who waits for room.
    pub(super) room: Arc<Notify>,
}

struct State {
    /// Nothing is known before the capture has begun.
    begun: bool,
    first: i64,
    next: i64,
    pieces: VecDeque<Piece>,
    /// Held in memory.
    bytes: usize,
    account: Account,
    /// Up to where the table's log has read.
    read_to: i64,
    /// When the lanes went on last, all of them.
    went_on: Instant,
    /// Held in the spool, but for what the snapshot put there.
    spilt_bytes: u64,
    /// Whether there was nothing more to receive when it was last looked.
    at_end: bool,
    /// What each lane will not read again; none before it has said so.
    lanes: BTreeMap<String, Option<i64>>,
    /// What the receiving waits for.
    waiting: Option<Error>,
    failed: Option<Error>,
}

/// Some consecutive changes.
#[derive(Clone)]
enum Piece {
    Memory(Arc<Payloads>),
    Spool(Span, Written, u64),
}

impl Piece {
    fn span(&self) -> Span {
        match self {
            Piece::Memory(piece) => piece.span,
            Piece::Spool(span, ..) => *span,
        }
    }
}

impl Buffer {
    /// An empty one, for these lanes.
    pub(super) fn new(table: String, lanes: &[String], spool: Spool, room: Arc<Notify>, account: Account) -> Self {
        let state = State {
            begun: false,
            first: 0,
            next: 0,
            pieces: VecDeque::new(),
            bytes: 0,
            account,
            read_to: i64::MIN,
            went_on: Instant::now(),
            spilt_bytes: 0,
            at_end: false,
            lanes: lanes.iter().map(|lane| (lane.clone(), None)).collect(),
            waiting: None,
            failed: None,
        };
        Self { table, spool, state: Mutex::new(state), news: Condvar::new(), room }
    }

    /// Says where the changes begin that will be pushed, and which of the snapshot lie in the spool before them.
    pub(super) fn begin(&self, at: i64, spooled: Vec<Span>) {
        let mut state = self.state.lock();
        (state.begun, state.next) = (true, at);
        state.first = spooled.first().map_or(at, |span| span.from);
        state.pieces = spooled.into_iter().map(|span| Piece::Spool(span, Written::Durably, 0)).collect();
        self.forget(&mut state);
        drop(state);
        self.news.notify_all();
    }

    /// Adds the rows of a snapshot that was copied again, up to `to`; what is missing before them every lane is done with.
    pub(super) fn extend(&self, spooled: Vec<Span>, to: i64) {
        let mut state = self.state.lock();
        state.next = to;
        state.pieces.extend(spooled.into_iter().map(|span| Piece::Spool(span, Written::Durably, 0)));
        self.forget(&mut state);
        drop(state);
        self.news.notify_all();
    }

    /// What waits for a lane, in memory and in the spool, but for rows of snapshots.
    pub(super) fn waiting_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.bytes as u64 + state.spilt_bytes
    }

    /// Whether it is known where the changes begin.
    pub(super) fn has_begun(&self) -> bool {
        self.state.lock().begun
    }

    /// Adds what was received, which touches what is there. What no lane needs is not kept. Called by one thread only.
    pub(super) fn push(&self, piece: Payloads) -> Result<()> {
        let mut state = self.state.lock();
        state.next = piece.span.to;
        state.bytes += weight(&piece);
        state.pieces.push_back(Piece::Memory(Arc::new(piece)));
        self.forget(&mut state);
        state.settle();
        let spilt = state.to_spill();
        drop(state);
        self.news.notify_all();
        spilt.into_iter().try_for_each(|piece| self.spill(&piece))
    }

    fn spill(&self, piece: &Arc<Payloads>) -> Result<()> {
        self.spool.write(piece, Written::Loosely)?;
        let mut state = self.state.lock();
        let at = state.pieces.partition_point(|there| there.span().to <= piece.span.from);
        match state.pieces.get_mut(at) {
            Some(there) if there.span() == piece.span => {
                let bytes = piece.bytes.len() as u64;
                *there = Piece::Spool(piece.span, Written::Loosely, bytes);
                state.bytes -= weight(piece);
                state.spilt_bytes += bytes;
                state.settle();
            }
            // Every lane was done with it meanwhile.
            _ => self.spool.remove(piece.span, Written::Loosely),
        }
        Ok(())
    }

    /// Lets go of what every lane is done with.
    fn forget(&self, state: &mut State) {
        let Some(until) = state.acknowledged() else { return };
        while let Some(piece) = state.pieces.front().filter(|piece| piece.span().to <= until).cloned() {
            state.pieces.pop_front();
            state.first = piece.span().to;
            match piece {
                Piece::Memory(piece) => state.bytes -= weight(&piece),
                Piece::Spool(span, how, bytes) => {
                    state.spilt_bytes -= bytes;
                    self.spool.remove(span, how);
                }
            }
        }
    }

    /// The offset after the last change.
    pub(super) fn next(&self) -> i64 {
        self.state.lock().next
    }

    /// Whether no more fits into memory: a piece goes to the disk as soon as there is too much, so a quarter stays free for the next.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state.lock();
        state.bytes >= state.bound() / 4 * 3
    }

    /// Whether its lanes have not gone on for a while: they may wait for more before they do, or for a sink.
    pub(super) fn is_stuck(&self) -> bool {
        self.state.lock().went_on.elapsed() >= STUCK
    }

    /// Whether somebody waits for what comes: all that came is read; or a lane has not begun, since the log's end is asked for first.
    pub(super) fn is_waited_for(&self) -> bool {
        let state = self.state.lock();
        state.read_to >= state.next || state.acknowledged().is_none()
    }

    /// What of the stream is held in the spool.
    pub(super) fn spilt_bytes(&self) -> u64 {
        self.state.lock().spilt_bytes
    }

    pub(super) fn set_at_end(&self, at_end: bool) {
        self.state.lock().at_end = at_end;
        if at_end {
            self.news.notify_all();
        }
    }

    pub(super) fn wait_for(&self, why: Option<Error>) {
        self.state.lock().waiting = why;
        self.news.notify_all();
    }

    pub(super) fn fail(&self, why: Error) {
        self.state.lock().failed.get_or_insert(why);
        self.news.notify_all();
    }

    pub(super) fn acknowledge(&self, lane: &str, at: i64) {
        let mut state = self.state.lock();
        let before = state.acknowledged();
        let said = state.lanes.entry(lane.to_string()).or_default();
        *said = Some(said.unwrap_or(at).max(at));
        if state.acknowledged() > before {
            state.went_on = Instant::now();
        }
        self.forget(&mut state);
        state.settle();
        drop(state);
        self.room.notify_one();
    }

    /// Whether half of what fits into memory is there, and `lane` the one that is furthest behind.
    pub(super) fn waits_for(&self, lane: &str) -> bool {
        let state = self.state.lock();
        let at = state.lanes.get(lane).copied().flatten();
        state.bytes >= state.bound() / 2 && state.lanes.iter().all(|(name, other)| name == lane || *other > at)
    }

    /// Before which no lane will read again; none before all have said so.
    pub(super) fn acknowledged(&self) -> Option<i64> {
        self.state.lock().acknowledged()
    }

    /// Waits until the changes' beginning is known.
    pub(super) fn first(&self, wait: Duration) -> Result<i64> {
        let mut state = self.state.lock();
        if !state.begun && state.failed.is_none() {
            self.news.wait_for(&mut state, wait);
        }
        state.check()?;
        if state.begun { Ok(state.first) } else { Err(self.not_begun()) }
    }

    fn not_begun(&self) -> Error {
        Error::new(Kind::Unreachable, format!("the changes of {} cannot be read yet", self.table))
    }

    /// What there is from `from` on, as one piece; waits for it.
    pub(super) fn read(&self, from: i64, wait: Duration) -> Result<Option<Payloads>> {
        let mut state = self.state.lock();
        state.read_to = state.read_to.max(from);
        if (!state.begun || state.next <= from) && state.failed.is_none() {
            self.news.wait_for(&mut state, wait);
        }
        if state.next <= from || !state.begun {
            state.check()?;
            return Ok(None);
        }
        if from < state.first {
            let gone = Span { partition: PARTITION, from, to: state.first };
            let text =
                format!("the changes of {} are acknowledged up to {}: {gone} cannot be read again", self.table, state.first);
            return Err(Error::new(Kind::Lost, text));
        }
        let mut read = Payloads { span: Span { partition: PARTITION, from, to: from }, ..Payloads::default() };
        let at = state.pieces.partition_point(|piece| piece.span().to <= from);
        // A reader takes a few pieces of some 1 MiB; no more are looked at.
        let pieces: Vec<Piece> = state.pieces.range(at..).take(POLL_PIECES).cloned().collect();
        drop(state);
        for piece in pieces {
            if read.len() >= POLL_RECORDS || read.bytes.len() >= POLL_BYTES {
                break;
            }
            match piece {
                Piece::Memory(piece) => append(&mut read, &piece),
                Piece::Spool(span, how, _) => append(&mut read, &self.spool.read(span, how)?),
            }
        }
        Ok(Some(read))
    }

    /// Whether whoever stands at `at` has read everything, as far as is known; and the offset after the last change.
    pub(super) fn end(&self, at: i64) -> (bool, i64) {
        let state = self.state.lock();
        (state.begun && state.at_end && at >= state.next, state.next)
    }
}

impl State {
    fn check(&self) -> Result<()> {
        let trouble = self.failed.as_ref().or(self.waiting.as_ref());
        trouble.map_or(Ok(()), |why| Err(why.clone()))
    }

    fn settle(&mut self) {
        self.account.set(self.bytes);
    }

    fn acknowledged(&self) -> Option<i64> {
        self.lanes.values().copied().reduce(|least, at| Some(least?.min(at?)))?
    }

    fn bound(&self) -> usize {
        MEMORY_BYTES_MAX.min(self.account.fair().max(MEMORY_BYTES_LEAST))
    }

    /// The oldest pieces in memory, as many as there are too many.
    fn to_spill(&self) -> Vec<Arc<Payloads>> {
        let mut over = self.bytes.saturating_sub(self.bound());
        let mut spilt = Vec::new();
        for piece in &self.pieces {
            if over == 0 {
                break;
            }
            if let Piece::Memory(piece) = piece {
                over = over.saturating_sub(weight(piece));
                spilt.push(Arc::clone(piece));
            }
        }
        spilt
    }
}

/// Appends the part of `piece` after what `read` has.
fn append(read: &mut Payloads, piece: &Payloads) {
    let skipped = piece.offsets.partition_point(|&offset| offset < read.span.to);
    let from = skipped.checked_sub(1).map_or(0, |last| piece.ends[last]);
    let moved = read.bytes.len();
    read.bytes.extend_from_slice(&piece.bytes[from..]);
    read.ends.extend(piece.ends[skipped..].iter().map(|end| end - from + moved));
    read.offsets.extend_from_slice(&piece.offsets[skipped..]);
    read.span.to = piece.span.to;
    read.appended_ms = piece.appended_ms;
}

fn weight(piece: &Payloads) -> usize {
    piece.bytes.len() + piece.len() * (size_of::<usize>() + size_of::<i64>()) + size_of::<Payloads>()
}

/// A walk over the changes of one table.
pub(super) struct BufferReader {
    pub(super) buffer: Arc<Buffer>,
    pub(super) at: i64,
}

impl crate::source::Reader for BufferReader {
    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(Payloads)) -> Result<()> {
        if let Some(piece) = self.buffer.read(self.at, wait)? {
            self.at = piece.span.to;
            take(piece);
        }
        Ok(())
    }

    fn positions(&self) -> Positions {
        [(PARTITION, self.at)].into_iter().collect()
    }

    fn at_log_end(&self, _partition: i32) -> bool {
        self.buffer.end(self.at).0
    }

    fn log_ends(&self) -> Positions {
        [(PARTITION, self.buffer.end(self.at).1.max(self.at))].into_iter().collect()
    }
}
