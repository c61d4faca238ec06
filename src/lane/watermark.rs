//! The time of a lane: its watermark, and T, the time that a `latest` board shows. All times are ns since 1970.

use std::collections::BTreeMap;

use super::WatermarkRules;
use crate::checkpoint::record::Intent;

/// What a lane knows of event time. Only grows. Restored from the last intent.
#[derive(Debug, Clone)]
pub struct EventTime {
    rules: WatermarkRules,
    /// The greatest event time of each partition.
    greatest: BTreeMap<i32, i64>,
    /// Since when each partition is silent, by the clock.
    silent_since: BTreeMap<i32, i64>,
    watermark: Option<i64>,
    board: Option<i64>,
    /// When the log end was reached, and what T was then.
    at_end: Option<(i64, i64)>,
}

impl EventTime {
    /// Nothing seen yet.
    pub fn new(rules: WatermarkRules) -> Self {
        Self { rules, greatest: BTreeMap::new(), silent_since: BTreeMap::new(), watermark: None, board: None, at_end: None }
    }

    /// Stands where `intent` stood.
    pub fn restore(&mut self, intent: &Intent) {
        self.greatest = intent.event_times_ns.clone();
        self.watermark = intent.watermark_ns;
        self.board = intent.board_ns;
    }

    /// The watermark, by which rows are judged.
    pub fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// T.
    pub fn board(&self) -> Option<i64> {
        self.board
    }

    /// The greatest event time of each partition.
    pub fn greatest(&self) -> &BTreeMap<i32, i64> {
        &self.greatest
    }

    /// The latest event time that an event may have in an epoch at `now_ns`.
    pub fn latest_allowed(&self, now_ns: i64) -> i64 {
        now_ns.saturating_add(self.rules.ahead_ns)
    }

    /// Notes the greatest time of good rows of a partition, at `now_ns`.
    pub fn absorb(&mut self, partition: i32, greatest_ns: i64, now_ns: i64) {
        let greatest = self.greatest.entry(partition).or_insert(greatest_ns);
        *greatest = (*greatest).max(greatest_ns);
        self.silent_since.insert(partition, now_ns);
    }

    /// Moves the watermark over what was absorbed. `partitions` are all of the source, each with whether the lane stands at its
    /// log end. Gives the partitions that did not hold it back.
    pub fn advance_watermark(&mut self, partitions: &[(i32, bool)], now_ns: i64) -> Vec<i32> {
        let mut idle = Vec::new();
        let mut least: Option<i64> = None;
        let mut unknown = false;
        for &(partition, at_end) in partitions {
            let since = *self.silent_since.entry(partition).or_insert(now_ns);
            if at_end && self.rules.idle_ns.is_some_and(|idle_ns| now_ns.saturating_sub(since) >= idle_ns) {
                idle.push(partition);
                continue;
            }
            if !at_end {
                self.silent_since.insert(partition, now_ns);
            }
            match self.greatest.get(&partition) {
                Some(&greatest) => least = Some(least.map_or(greatest, |least: i64| least.min(greatest))),
                None => unknown = true,
            }
        }
        if let (Some(least), false) = (least, unknown) {
            let reached = least.saturating_sub(self.rules.delay_ns);
            self.watermark = Some(self.watermark.map_or(reached, |before| before.max(reached)));
        }
        idle
    }

    /// Moves T: with the events, but never past the clock; with the clock once the log end has lasted longer than a slide.
    pub fn advance_board(&mut self, at_log_end: bool, slide_ns: i64, now_ns: i64) {
        let Some(greatest) = self.greatest.values().copied().max() else { return };
        let reached = greatest.min(now_ns);
        let mut board = self.board.map_or(reached, |before| before.max(reached));
        if at_log_end {
            let (since, then) = *self.at_end.get_or_insert((now_ns, board));
            let passed = now_ns.saturating_sub(since);
            if passed > slide_ns {
                board = board.max(then.saturating_add(passed));
            }
            if reached > then {
                // New events are the better clock.
                self.at_end = Some((now_ns, board));
            }
        } else {
            self.at_end = None;
        }
        self.board = Some(board);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> EventTime {
        EventTime::new(WatermarkRules { delay_ns: 5, idle_ns: Some(60), ahead_ns: 1000 })
    }

    #[test]
    fn the_slowest_partition_holds_the_watermark_until_it_is_idle_at_its_log_end() {
        let mut time = time();
        time.absorb(0, 100, 0);
        assert!(time.advance_watermark(&[(0, true), (1, true)], 0).is_empty());
        assert_eq!(time.watermark(), None, "a partition without events holds it");
        time.absorb(1, 50, 1);
        time.advance_watermark(&[(0, true), (1, true)], 1);
        assert_eq!(time.watermark(), Some(45));
        time.absorb(0, 200, 70);
        assert_eq!(time.advance_watermark(&[(0, true), (1, false)], 70), Vec::<i32>::new(), "not idle while catching up");
        assert_eq!(time.watermark(), Some(45));
        assert_eq!(time.advance_watermark(&[(0, true), (1, true)], 131), vec![0, 1]);
        time.absorb(0, 300, 131);
        assert_eq!(time.advance_watermark(&[(0, true), (1, true)], 132), vec![1]);
        assert_eq!(time.watermark(), Some(295));
    }

    #[test]
    fn the_board_follows_events_but_never_the_future_and_moves_on_with_the_clock_at_the_log_end() {
        let mut time = time();
        time.absorb(0, 500, 1000);
        time.advance_board(true, 10, 1000);
        assert_eq!(time.board(), Some(500), "a board over old events does not blank at once");
        time.advance_board(true, 10, 1005);
        assert_eq!(time.board(), Some(500));
        time.advance_board(true, 10, 1030);
        assert_eq!(time.board(), Some(530), "it empties when events stop");
        time.absorb(0, 9_000, 1031);
        time.advance_board(true, 10, 1031);
        assert_eq!(time.board(), Some(1031), "one clock that runs ahead cannot take it over");
    }
}
