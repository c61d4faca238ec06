//! The threads of a log: one reads, some decode.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{SUBSCRIBE_WAIT, Shared};
use crate::batch::Payloads;
use crate::error::{Action, Error, Kind, Result};
use crate::source::Reader;

// A reader waits so long for a first record before it looks whether it should stop.
const POLL_WAIT: Duration = Duration::from_millis(100);
// Pieces under way to one decode thread; each is bounded by the reader.
const PIECES_MAX: usize = 4;
// Starving for so much of so long detaches the slowest lane; at the log end it is quicker.
const STARVED_SHARE: f64 = 0.7;
const STARVED_WINDOW: Duration = Duration::from_secs(4);
const STARVED_LIVE: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

enum Piece {
    Payloads(Payloads),
    /// Everything of this partition has been handed over.
    LogEnd(i32),
}

/// Starts the reading thread, which starts the others.
pub(super) fn start(shared: Arc<Shared>) {
    thread::spawn(move || {
        if !wait_for_lanes(&shared) {
            return;
        }
        if let Err(error) = read(&shared) {
            shared.state.lock().error = Some(error);
            shared.news.notify_waiters();
        }
    });
}

/// `false` when the log ends before anybody subscribed.
fn wait_for_lanes(shared: &Shared) -> bool {
    let mut state = shared.state.lock();
    let mut first = None;
    loop {
        if shared.stop.load(Ordering::Acquire) {
            return false;
        }
        if !state.lanes.is_empty() {
            let since = *first.get_or_insert_with(Instant::now);
            if state.lanes_ever >= shared.limits.lanes as u64 || since.elapsed() > SUBSCRIBE_WAIT {
                return true;
            }
        }
        shared.space.wait_for(&mut state, Duration::from_millis(50));
    }
}

fn read(shared: &Arc<Shared>) -> Result<()> {
    let mut workers = Vec::new();
    for _ in 0..shared.limits.threads.max(1) {
        let (sender, receiver) = sync_channel(PIECES_MAX);
        let shared = Arc::clone(shared);
        thread::spawn(move || decode(&shared, &receiver));
        workers.push(sender);
    }
    let mut positions = shared.state.lock().begin();
    let mut failures = 0_u32;
    while !shared.stop.load(Ordering::Acquire) {
        let reader = shared.source.reader(&positions);
        let ended = reader.and_then(|mut reader| {
            waits_for(shared, None);
            failures = 0;
            let ended = read_on(shared, reader.as_mut(), &workers);
            positions = reader.positions();
            ended
        });
        match ended {
            Ok(()) => return Ok(()),
            Err(error) if error.kind().action() == Action::Retry => {
                waits_for(shared, Some(error.chain()));
                failures += 1;
                let pause = Duration::from_millis(100 << failures.min(6)).min(BACKOFF_MAX);
                let until = Instant::now() + pause;
                while Instant::now() < until && !shared.stop.load(Ordering::Acquire) {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn waits_for(shared: &Shared, what: Option<String>) {
    let mut state = shared.state.lock();
    match (&state.waits_for, &what) {
        (None, Some(text)) => tracing::warn!("waiting: {text}"),
        (Some(_), None) => tracing::info!("topic '{}' is read again", shared.source.topic()),
        _ => {}
    }
    state.waits_for = what;
}

fn read_on(shared: &Shared, reader: &mut dyn Reader, workers: &[SyncSender<Piece>]) -> Result<()> {
    let mut gone = false;
    let mut at_end = std::collections::BTreeMap::new();
    while !shared.stop.load(Ordering::Acquire) && !gone {
        wait_for_space(shared);
        let mut send = |partition: i32, piece| {
            let worker = &workers[partition.unsigned_abs() as usize % workers.len()];
            gone |= worker.send(piece).is_err();
        };
        reader.poll(POLL_WAIT, &mut |payloads: Payloads| {
            at_end.insert(payloads.span.partition, false);
            send(payloads.span.partition, Piece::Payloads(payloads));
        })?;
        for (partition, _) in reader.positions().iter() {
            let was = at_end.entry(partition).or_insert(false);
            if !*was && reader.at_log_end(partition) {
                *was = true;
                send(partition, Piece::LogEnd(partition));
            }
        }
    }
    Ok(())
}

/// Waits while the log is full; detaches the slowest lane if others starve because of it.
fn wait_for_space(shared: &Shared) {
    const STEP: Duration = Duration::from_millis(20);
    let mut state = shared.state.lock();
    let began = Instant::now();
    let mut starved = Duration::ZERO;
    while state.bytes >= shared.limits.bytes_max && !shared.stop.load(Ordering::Acquire) {
        let before = Instant::now();
        shared.space.wait_for(&mut state, STEP);
        if state.starved() {
            starved += before.elapsed();
        }
        let enough = if state.live() { STARVED_LIVE } else { STARVED_WINDOW.mul_f64(STARVED_SHARE) };
        if starved >= enough && began.elapsed() >= enough {
            state.detach_slowest();
            return;
        }
    }
}

fn decode(shared: &Shared, pieces: &Receiver<Piece>) {
    let decoder = (shared.make_decoder)();
    let ended = decoder.and_then(|mut decoder| {
        while let Ok(piece) = pieces.recv() {
            if shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            match piece {
                Piece::Payloads(payloads) => {
                    let segment = decoder.decode(payloads)?.into_segment();
                    shared.state.lock().append(segment);
                }
                Piece::LogEnd(partition) => {
                    if let Some(part) = shared.state.lock().partitions.get_mut(&partition) {
                        part.at_log_end = true;
                    }
                }
            }
            shared.news.notify_waiters();
        }
        Ok(())
    });
    if let Err(error) = ended {
        let error = if error.kind() == Kind::Unreachable { Error::new(Kind::Bug, error.chain()) } else { error };
        shared.state.lock().error = Some(error);
        shared.news.notify_waiters();
    }
}
