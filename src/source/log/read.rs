//! The threads of a log: one reads, some decode.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::pressure::Pressure;
use super::state::Tail;
use super::{Backoff, SUBSCRIBE_WAIT, Shared, spawn as spawn_thread};
use crate::batch::{Payloads, Segment};
use crate::decode::Decoder;
use crate::error::{Error, Kind, Result};
use crate::headers::ForLane;
use crate::source::Reader;

/// How long one poll waits. Bounds how late the threads notice that the log was dropped.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// How often a full log looks at its lanes.
const FULL_TICK: Duration = Duration::from_millis(10);

/// Payloads up to this size are decoded by the reader thread itself: waking a worker would take longer.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// Pieces waiting for one worker; their bytes are bounded by the log.
const WORKER_PIECES_MAX: usize = 64;

/// Starts the threads; they end when the log is stopped or has failed.
pub(super) fn spawn(shared: &Arc<Shared>) -> Result<()> {
    let mut workers = Vec::new();
    for _ in 0..shared.limits.threads.max(1) {
        let (send, receive) = sync_channel(WORKER_PIECES_MAX);
        workers.push(send);
        let shared = Arc::clone(shared);
        spawn_thread("log-decode", move || work(&shared, &receive))?;
    }
    let shared = Arc::clone(shared);
    spawn_thread("log-read", move || {
        if let Err(error) = read(&shared, &workers) {
            shared.fail(error);
        }
    })
}

/// Decodes what the reader thread sends, until that ends.
fn work(shared: &Shared, pieces: &Receiver<Payloads>) {
    let mut decoder = None;
    for piece in pieces {
        if shared.stopped() {
            return;
        }
        if let Err(error) = decode_and_append(shared, &mut decoder, piece) {
            return shared.fail(error);
        }
    }
}

/// The reader thread: opens the source, then polls it for as long as there is room.
fn read(shared: &Shared, workers: &[SyncSender<Payloads>]) -> Result<()> {
    let Some(mut reader) = open(shared)? else { return Ok(()) };
    let (mut pressure, mut backoff) = (Pressure::default(), Backoff::default());
    let (mut decoder, mut pieces) = (None, Vec::new());
    while wait_for_room(shared, &mut pressure) {
        let polled = reader.poll(POLL_WAIT, &mut |piece| pieces.push(piece));
        let inline = note(shared, reader.as_ref(), &pieces, polled.as_ref().err());
        for piece in pieces.drain(..) {
            if inline {
                decode_and_append(shared, &mut decoder, piece)?;
            } else {
                let worker = piece.span.partition.unsigned_abs() as usize % workers.len();
                // A worker ends before the reader only when it has failed, and has said so.
                if workers[worker].send(piece).is_err() {
                    return Ok(());
                }
            }
        }
        match polled {
            Ok(()) => backoff.reset(),
            Err(error) if error.kind() == Kind::Unreachable => pause(shared, backoff.next()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for the lanes that are to come. `false`: the log ended before.
fn wait_for_lanes(shared: &Shared) -> bool {
    let mut state = shared.state.lock();
    let mut first = None;
    while !shared.stopped() {
        if !state.lanes.is_empty() {
            let since = *first.get_or_insert_with(Instant::now);
            if state.lanes_ever >= shared.limits.lanes as u64 || since.elapsed() >= SUBSCRIBE_WAIT {
                return true;
            }
        }
        shared.room.wait_for(&mut state, POLL_WAIT);
    }
    false
}

/// Opens the source at the least positions of the lanes, trying until it is there. `None`: stopped meanwhile.
fn open(shared: &Shared) -> Result<Option<Box<dyn Reader>>> {
    let mut backoff = Backoff::default();
    loop {
        if !wait_for_lanes(shared) {
            return Ok(None);
        }
        let from = shared.state.lock().least_positions();
        match shared.source.reader(&from) {
            Ok(reader) => {
                let mut state = shared.state.lock();
                for (partition, at) in reader.positions().iter() {
                    let beginning = from.get(partition).is_none().then_some(at);
                    state.tails.insert(partition, Tail::new(at, beginning));
                }
                state.opened = true;
                state.waiting = None;
                // A lane may have come in between, from further back.
                let late: Vec<u64> =
                    state.lanes.iter().filter(|(_, lane)| state.is_behind(&lane.at)).map(|(&key, _)| key).collect();
                for key in late {
                    if let Some(lane) = state.lanes.get_mut(&key) {
                        lane.detached = true;
                    }
                }
                return Ok(Some(reader));
            }
            Err(error) if error.kind() == Kind::Unreachable => {
                shared.state.lock().is_away(&error);
                pause(shared, backoff.next());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Notes what a poll brought. Returns whether the reader thread should decode the pieces itself.
fn note(shared: &Shared, reader: &dyn Reader, pieces: &[Payloads], trouble: Option<&Error>) -> bool {
    let (positions, log_ends) = (reader.positions(), reader.log_ends());
    let mut state = shared.state.lock();
    let state = &mut *state;
    for (partition, at) in positions.iter() {
        let first = pieces.iter().find(|piece| piece.span.partition == partition).map_or(at, |piece| piece.span.from);
        // A partition that was not there when the log was opened is read from its beginning.
        let tail = state.tails.entry(partition).or_insert_with(|| Tail::new(first, Some(first)));
        tail.read_to = at;
        tail.at_log_end = reader.at_log_end(partition);
        tail.log_end = log_ends.get(partition).unwrap_or(at).max(at);
    }
    let mut inline = pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>() <= INLINE_BYTES_MAX;
    for piece in pieces {
        if let Some(tail) = state.tails.get_mut(&piece.span.partition) {
            // Never overtake a piece that a worker still has.
            inline &= tail.pending == 0;
            tail.pending += 1;
        }
        state.in_flight += size(piece);
    }
    state.settle();
    if state.at_log_end() {
        state.last_live = Some(Instant::now());
    }
    match trouble {
        Some(error) => state.is_away(error),
        None => {
            state.waiting = None;
            if !pieces.is_empty() {
                state.is_back(shared.source.topic());
            }
        }
    }
    inline
}

/// What a piece counts for while it is being decoded.
fn size(piece: &Payloads) -> usize {
    piece.bytes.len() + piece.len() * (size_of::<usize>() + size_of::<i64>())
}

fn decode_and_append(shared: &Shared, decoder: &mut Option<Box<dyn Decoder>>, piece: Payloads) -> Result<()> {
    let (partition, size) = (piece.span.partition, size(&piece));
    let mut since: Option<Instant> = None;
    let wait = &mut |error: &Error, time| {
        let why = error.chain();
        if since.is_none() {
            since = Some(Instant::now());
            tracing::warn!("waiting: {why}");
        }
        shared.state.lock().decoding_waits = Some(why);
        pause(shared, time);
        !shared.stopped()
    };
    let Some(segment) = decode(&shared.make_decoder, decoder, piece, wait)? else { return Ok(()) };
    let mut state = shared.state.lock();
    if let Some(since) = since {
        state.decoding_waits = None;
        tracing::info!("topic '{}' is decoded again, after {:.1} s", shared.source.topic(), since.elapsed().as_secs_f64());
    }
    state.in_flight -= size;
    if let Some(tail) = state.tails.get_mut(&partition) {
        tail.pending -= 1;
    }
    state.append(segment);
    state.settle();
    drop(state);
    shared.news.notify_waiters();
    shared.room.notify_all();
    Ok(())
}

/// Decodes a piece; makes the decoder first when there is none. The decoder takes the piece away, so there is no second attempt; but for what
/// it must have before, it is asked again and again, and `wait` between two times. `None`: `wait` said that it was in vain.
pub(super) fn decode(
    make: &super::MakeDecoder,
    decoder: &mut Option<Box<dyn Decoder>>,
    piece: Payloads,
    wait: &mut dyn FnMut(&Error, Duration) -> bool,
) -> Result<Option<Segment>> {
    let decoder = match decoder {
        Some(decoder) => decoder,
        None => decoder.insert(make()?),
    };
    // No format has a say in whom a record is for.
    let for_lanes = piece.for_lanes();
    let mut backoff = Backoff::default();
    while let Err(error) = decoder.prepare(&piece) {
        if error.kind() != Kind::Unreachable {
            return Err(error);
        }
        if !wait(&error, backoff.next()) {
            return Ok(None);
        }
    }
    let mut segment = decoder.decode(piece)?.into_segment();
    segment.bytes += for_lanes.len() * size_of::<ForLane>();
    segment.for_lanes = for_lanes.into();
    Ok(Some(segment))
}

/// Waits until there is room for another piece and a lane to read for. `false`: the log was stopped.
fn wait_for_room(shared: &Shared, pressure: &mut Pressure) -> bool {
    let mut state = shared.state.lock();
    loop {
        let bytes_max = state.bound();
        if shared.stopped() || state.error.is_some() {
            return false;
        }
        if state.held() >= bytes_max {
            // An eighth at a time, so that this is not done for every piece.
            state.evict(bytes_max - bytes_max / 8);
        }
        let decoding = state.in_flight > bytes_max / 4;
        if state.held() < bytes_max && !decoding && state.has_attached_lane() {
            pressure.relieved();
            return true;
        }
        // Slow decoding is nobody's fault: only what lanes have left to take counts.
        let lanes_hold = state.bytes >= bytes_max / 2 && !decoding;
        let starving = lanes_hold && state.lanes.values().any(|lane| lane.starving && !lane.detached);
        let from = Instant::now();
        shared.room.wait_for(&mut state, FULL_TICK);
        if pressure.note(from, Instant::now(), starving, state.last_live)
            && let Some(lane) = state.slowest_lane()
        {
            lane.detached = true;
            tracing::debug!("a lane is far behind the others: it reads by itself until it has caught up");
            state.evict(bytes_max / 2);
        }
    }
}

/// Sleeps, but not past the end of the log.
fn pause(shared: &Shared, time: Duration) {
    let mut state = shared.state.lock();
    let until = Instant::now() + time;
    while !shared.stopped() && !shared.room.wait_until(&mut state, until).timed_out() {}
}
