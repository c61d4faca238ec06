//! Who holds up whom: decides when a slow lane must read by itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that is looked back on, and how much of it a lane may hold up the others while there is a backlog.
const WINDOW: Duration = Duration::from_secs(4);
const HELD_UP_MAX: Duration = Duration::from_millis(2800);

/// How long a lane may hold up the others when the log had reached its end before: there every moment is latency.
const HELD_UP_LIVE_MAX: Duration = Duration::from_millis(250);

/// The times in which the log was full while some lane had nothing to read.
#[derive(Default)]
pub(super) struct Pressure {
    held_up: VecDeque<(Instant, Duration)>,
    full_since: Option<Instant>,
}

impl Pressure {
    /// The log is not full (any more).
    pub(super) fn relieved(&mut self) {
        self.full_since = None;
    }

    /// The log has been full from `from` to `to`, and a lane was starving meanwhile (or none was). `last_live` is when it was
    /// last at its end. Returns whether the slowest lane must go.
    pub(super) fn note(&mut self, from: Instant, to: Instant, starving: bool, last_live: Option<Instant>) -> bool {
        while self.held_up.front().is_some_and(|(at, _)| to.duration_since(*at) > WINDOW) {
            self.held_up.pop_front();
        }
        if !starving {
            self.full_since = None;
            return false;
        }
        let since = *self.full_since.get_or_insert(from);
        self.held_up.push_back((to, to.duration_since(from)));
        let live = last_live.is_some_and(|live| since.saturating_duration_since(live) < WINDOW);
        let held_up: Duration = self.held_up.iter().map(|(_, time)| *time).sum();
        let must_go = held_up > HELD_UP_MAX || (live && to.duration_since(since) > HELD_UP_LIVE_MAX);
        if must_go {
            *self = Self::default();
        }
        must_go
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays steps of 10 ms; `starving(step)` says whether a lane starves in it. Returns when the slowest had to go.
    fn play(live: bool, starving: impl Fn(u64) -> bool) -> Option<u64> {
        let start = Instant::now();
        let at = |step: u64| start + Duration::from_millis(step * 10);
        let mut pressure = Pressure::default();
        (0..2000).find(|&step| pressure.note(at(step), at(step + 1), starving(step), live.then_some(start)))
    }

    #[test]
    fn a_lane_must_go_when_it_holds_up_others_for_most_of_four_seconds() {
        assert_eq!(play(false, |_| true), Some(280));
        assert!(play(false, |step| step % 10 < 9).is_some());
        assert_eq!(play(false, |step| step % 2 == 0), None);
        assert_eq!(play(false, |_| false), None);
    }

    #[test]
    fn in_live_operation_a_quarter_of_a_second_is_enough() {
        assert_eq!(play(true, |_| true), Some(25));
    }
}
