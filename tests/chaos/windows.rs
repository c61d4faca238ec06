//! What must come of windows: recomputed epoch by epoch from the intents, event by event, in plain Rust.

use std::collections::{BTreeMap, HashMap};

use twox_hash::XxHash3_64;

use super::event::{Entry, Good, Log, What};
use super::lanes::{LIMIT, Windows};
use super::records::{Epoch, LaneRecords};

/// `watermark.max_ahead`.
const AHEAD_NS: i64 = 3_600_000_000_000;

/// What a windowed lane makes of a good event in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    Used(i64),
    Dead(&'static str),
}

/// By the times of the intent, never by the clock.
fn judge(windows: Windows, epoch: &Epoch, good: &Good) -> Judged {
    match good.at_ns {
        None => Judged::Dead("no_time"),
        Some(at_ns) if windows.is_late(at_ns, epoch.watermark_before_ns) => Judged::Dead("late"),
        Some(at_ns) if at_ns > epoch.now_ns + AHEAD_NS => Judged::Dead("ahead"),
        Some(at_ns) => Judged::Used(at_ns),
    }
}

/// Walks over the good events of a lane, epoch by epoch; `end` is called after each.
fn walk(
    log: &Log,
    windows: Windows,
    lane: &LaneRecords,
    mut event: impl FnMut(&Epoch, i32, &Entry, &Good, Judged),
    mut end: impl FnMut(&Epoch),
) {
    for epoch in &lane.epochs {
        for span in &epoch.spans {
            for entry in log.span(span.partition, span.from, span.to) {
                if let What::Good(good) = &entry.what {
                    event(epoch, span.partition, entry, good, judge(windows, epoch, good));
                }
            }
        }
        end(epoch);
    }
}

/// The dead letters of a windowed lane: partition, offset and code; and the epochs whose intent counted another number of them.
pub(super) fn letters(log: &Log, windows: Windows, lane: &LaneRecords) -> (Vec<(i32, i64, &'static str)>, Vec<String>) {
    let (mut letters, mut wrong) = (Vec::new(), Vec::new());
    let found = std::cell::Cell::new(0);
    let event = |_: &Epoch, partition, entry: &Entry, _: &Good, judged| {
        if let Judged::Dead(code) = judged {
            found.set(found.get() + 1);
            letters.push((partition, entry.offset, code));
        }
    };
    walk(log, windows, lane, event, |epoch| {
        if found.replace(0) != epoch.letters {
            wrong.push(format!("lane '{}': an intent has {} letters", windows.lane, epoch.letters));
        }
    });
    (letters, wrong)
}

/// A board: members with their scores, by the member.
pub(super) type Board = BTreeMap<String, i64>;

/// A board as a number.
pub(super) fn hash(board: &Board) -> u64 {
    let text: String = board.iter().map(|(member, score)| format!("{member}={score};")).collect();
    XxHash3_64::oneshot(text.as_bytes())
}

/// Every board that a lane may have shown, and the last one.
#[derive(Debug, Default)]
pub(super) struct Boards {
    /// Each with its epochs.
    pub(super) hashes: HashMap<u64, Vec<usize>>,
    pub(super) last: Board,
    /// Whether some epoch's board is empty.
    pub(super) empty: bool,
}

/// Recomputes the board of every epoch.
pub(super) fn boards(log: &Log, windows: Windows, lane: &LaneRecords) -> Boards {
    let state = std::cell::RefCell::new(Sliding::new(windows, log.contents.len()));
    let (mut boards, mut number) = (Boards::default(), 0);
    walk(
        log,
        windows,
        lane,
        |_, _, _, good, judged| {
            if let Judged::Used(at_ns) = judged {
                state.borrow_mut().add(at_ns, good.content);
            }
        },
        |epoch| {
            number += 1;
            let Some(board_ns) = epoch.board_ns else { return };
            let mut state = state.borrow_mut();
            state.slide(windows.board_end(board_ns));
            boards.last = state.board(&log.contents);
            boards.empty |= boards.last.is_empty();
            boards.hashes.entry(hash(&boards.last)).or_default().push(number);
        },
    );
    boards
}

/// The counts of one window that moves on.
struct Sliding {
    windows: Windows,
    panes: BTreeMap<i64, HashMap<usize, i64>>,
    counts: Vec<i64>,
    /// The end of the window.
    end: i64,
}

impl Sliding {
    fn new(windows: Windows, contents: usize) -> Self {
        Self { windows, panes: BTreeMap::new(), counts: vec![0; contents], end: i64::MIN }
    }

    fn add(&mut self, at_ns: i64, content: usize) {
        let pane = at_ns - at_ns.rem_euclid(self.windows.slide_ns);
        *self.panes.entry(pane).or_default().entry(content).or_default() += 1;
        if (self.end.saturating_sub(self.windows.size_ns)..self.end).contains(&at_ns) {
            self.counts[content] += 1;
        }
    }

    /// T never goes back, so neither does the window.
    fn slide(&mut self, end: i64) {
        let (before, start) = (self.end, end - self.windows.size_ns);
        for (_, pane) in self.panes.range(before.max(start)..end) {
            pane.iter().for_each(|(content, count)| self.counts[*content] += count);
        }
        let kept = self.panes.split_off(&start);
        for (pane, gone) in std::mem::replace(&mut self.panes, kept) {
            let was_in = before != i64::MIN && pane >= before - self.windows.size_ns && pane < before;
            gone.iter().filter(|_| was_in).for_each(|(content, count)| self.counts[*content] -= count);
        }
        self.end = end;
    }

    fn board(&self, contents: &[String]) -> Board {
        let mut all: Vec<(i64, &String)> = self
            .counts
            .iter()
            .zip(contents)
            .filter(|(count, _)| **count > 0)
            .map(|(count, content)| (-count, content))
            .collect();
        all.sort();
        all.into_iter().take(LIMIT).map(|(count, content)| (content.clone(), -count)).collect()
    }
}

/// What a window says of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) events: i64,
    pub(super) timed: i64,
    pub(super) duration_ms: i64,
    pub(super) longest_ms: i64,
}

impl Sums {
    fn add(&mut self, good: &Good) {
        self.events += 1;
        if let Some(duration_ms) = good.duration_ms {
            self.timed += 1;
            self.duration_ms += duration_ms;
            self.longest_ms = self.longest_ms.max(duration_ms);
        }
    }

    fn merge(&mut self, other: &Sums) {
        self.events += other.events;
        self.timed += other.timed;
        self.duration_ms += other.duration_ms;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}

/// The final windows of a lane, by their end and their group.
pub(super) fn finals(log: &Log, windows: Windows, lane: &LaneRecords) -> HashMap<(i64, usize), Sums> {
    // Events all of whose windows were open are added to their pane; others to each window that was still open.
    let mut panes: BTreeMap<i64, HashMap<usize, Sums>> = BTreeMap::new();
    let mut ends: HashMap<(i64, usize), Sums> = HashMap::new();
    let event = |epoch: &Epoch, _, _: &Entry, good: &Good, judged| {
        let Judged::Used(at_ns) = judged else { return };
        let ((first, last), by) = (windows.ends(at_ns), windows.slide_ns);
        let watermark_ns = epoch.watermark_before_ns.unwrap_or(i64::MIN);
        if first > watermark_ns {
            panes.entry(first).or_default().entry(good.kind).or_default().add(good);
        } else {
            (0..).map(|n| first + n * by).take_while(|end| *end <= last).filter(|end| *end > watermark_ns).for_each(|end| {
                ends.entry((end, good.kind)).or_default().add(good);
            });
        }
    };
    walk(log, windows, lane, event, |_| {});
    for (first, groups) in &panes {
        for end in (0..windows.size_ns / windows.slide_ns).map(|n| first + n * windows.slide_ns) {
            groups.iter().for_each(|(kind, sums)| ends.entry((end, *kind)).or_default().merge(sums));
        }
    }
    let reached = lane.epochs.last().and_then(|epoch| epoch.watermark_ns).unwrap_or(i64::MIN);
    ends.retain(|(end, _), _| *end <= reached);
    ends
}

/// What `emit 'update'` leaves: of each window and content its sums, and when they last changed (ns since 1970).
pub(super) fn updates(log: &Log, windows: Windows, lane: &LaneRecords) -> BTreeMap<(i64, usize), (Sums, i64)> {
    let mut slots: BTreeMap<(i64, usize), (Sums, i64)> = BTreeMap::new();
    let event = |epoch: &Epoch, _, _: &Entry, good: &Good, judged| {
        let Judged::Used(at_ns) = judged else { return };
        let (sums, changed_ns) = slots.entry((windows.ends(at_ns).1, good.content)).or_default();
        sums.add(good);
        *changed_ns = epoch.now_ns;
    };
    walk(log, windows, lane, event, |_| {});
    slots
}
