//! A reader that asks for boards as fast as it can through the whole run, and remembers every one that it sees (I8).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::windows::{Board, hash};

/// When Redis loses its data: how often that has begun, and how often it was over.
#[derive(Debug, Default)]
pub(super) struct Losses {
    begun: AtomicUsize,
    over: AtomicUsize,
}

impl Losses {
    /// Data may be lost while `work` works.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let done = work();
        self.over.fetch_add(1, Ordering::SeqCst);
        done
    }
}

/// What was seen of one board.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) looks: usize,
    /// Every board that is not empty, and how often it was seen.
    pub(super) boards: HashMap<u64, (Board, usize)>,
    /// The boards in the order in which they came, each with the losses that were over before the look, and
    /// that had begun after it.
    pub(super) order: Vec<(u64, usize, usize)>,
    /// Looks at an empty board before the first, or between a loss and the next board.
    pub(super) excused: usize,
    /// Other looks at an empty board.
    pub(super) empty: usize,
    /// Scores that are no whole number.
    pub(super) odd: Vec<String>,
    /// The losses after which a board was seen.
    survived: usize,
}

/// Looks at the boards until `stop`.
pub(super) fn watch(url: &str, keys: &[String], losses: &Losses, stop: &AtomicBool) -> Vec<Seen> {
    // As fast as it can, but not at the cost of what it looks at.
    // SAFETY: it only sets the priority of this thread (0: the calling one).
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    let mut seen: Vec<Seen> = keys.iter().map(|_| Seen::default()).collect();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(redis) = &mut connection else {
            connection = redis::Client::open(url).unwrap().get_connection().ok();
            std::thread::yield_now();
            continue;
        };
        for (key, seen) in keys.iter().zip(&mut seen) {
            let over = losses.over.load(Ordering::SeqCst);
            let looked = redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES").query(redis);
            let Ok(board): Result<Vec<(String, f64)>, _> = looked else {
                // Redis is away, or loads its data.
                connection = None;
                break;
            };
            seen.look(board, over, losses.begun.load(Ordering::SeqCst));
        }
    }
    seen
}

impl Seen {
    /// `over` losses were over before the look, `begun` had begun after it.
    fn look(&mut self, board: Vec<(String, f64)>, over: usize, begun: usize) {
        self.looks += 1;
        if board.is_empty() {
            let is_first = self.boards.is_empty();
            *(if is_first || begun > self.survived { &mut self.excused } else { &mut self.empty }) += 1;
            return;
        }
        self.survived = over;
        if board.iter().any(|(_, score)| score.fract() != 0.0) && self.odd.len() < 5 {
            self.odd.push(format!("{board:?}"));
        }
        let board: Board = board.into_iter().map(|(member, score)| (member, score as i64)).collect();
        let number = hash(&board);
        if self.order.last().is_none_or(|(last, ..)| *last != number) {
            self.order.push((number, over, begun));
        }
        self.boards.entry(number).or_insert((board, 0)).1 += 1;
    }
}
