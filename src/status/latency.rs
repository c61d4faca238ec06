//! How long things took: since the start, for those who watch from outside, and in the last minute, since what was slow an hour ago says
//! nothing about now.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::times::Distribution;

/// The minute is made of so many parts; the oldest is forgotten whole.
const PARTS: usize = 6;
const PART: Duration = Duration::from_secs(10);
/// An hour, µs: what took longer counts as so much.
const LONGEST_US: u64 = 3_600_000_000;

/// The latencies of one lane.
#[derive(Debug, Default)]
pub(super) struct Latency(Mutex<Both>);

#[derive(Debug)]
struct Both {
    // Up to an hour at two digits: p99 is right to 1 %, in some 30 KiB. `None` only if the library refuses its own settings.
    all: Option<Histogram<u64>>,
    recent: Recent,
}

impl Default for Both {
    fn default() -> Self {
        Self { all: Histogram::new_with_max(LONGEST_US, 2).ok(), recent: Recent::default() }
    }
}

impl Latency {
    pub(super) fn record(&self, took_us: u64) {
        let mut both = self.0.lock();
        both.recent.record(took_us, Instant::now());
        both.all.iter_mut().for_each(|all| all.saturating_record(took_us.max(1)));
    }

    /// Since the start, counted up to each of `bounds_us`.
    pub(super) fn distribution(&self, bounds_us: &[u64]) -> Distribution {
        self.0.lock().all.as_ref().map(|all| Distribution::of(all, bounds_us)).unwrap_or_default()
    }

    /// Of the last minute.
    pub(super) fn quantiles(&self) -> Quantiles {
        self.0.lock().recent.quantiles(Instant::now())
    }
}

/// Times of the last minute, in some 80 KiB at two digits.
#[derive(Debug)]
struct Recent {
    began: Instant,
    parts: [Part; PARTS],
}

#[derive(Debug, Default)]
struct Part {
    /// Which ten seconds these are, counted from the beginning.
    number: u64,
    // `None` before the first, and if the library refuses its own settings.
    times: Option<Histogram<u32>>,
}

/// Quantiles of the last minute, µs; 0 when there was nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quantiles {
    pub(super) p50_us: u64,
    pub(super) p95_us: u64,
    pub(super) p99_us: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self { began: Instant::now(), parts: Default::default() }
    }
}

impl Recent {
    fn record(&mut self, took_us: u64, now: Instant) {
        let number = self.number(now);
        let part = &mut self.parts[number as usize % PARTS];
        if part.number != number {
            part.number = number;
            part.times.iter_mut().for_each(Histogram::reset);
        }
        if part.times.is_none() {
            part.times = Histogram::new_with_max(LONGEST_US, 2).ok();
        }
        part.times.iter_mut().for_each(|times| times.saturating_record(took_us.max(1)));
    }

    fn quantiles(&self, now: Instant) -> Quantiles {
        let number = self.number(now);
        let is_recent = |part: &&Part| part.number + (PARTS as u64) > number;
        let mut recent = self.parts.iter().filter(is_recent).filter_map(|part| part.times.as_ref());
        let Some(mut all) = recent.next().cloned() else { return Quantiles::default() };
        for times in recent {
            // They have the same settings, so there is room for each of the other's times.
            let _ = all.add(times);
        }
        if all.is_empty() {
            return Quantiles::default();
        }
        let of = |quantile| all.value_at_quantile(quantile);
        Quantiles { p50_us: of(0.5), p95_us: of(0.95), p99_us: of(0.99) }
    }

    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / PART.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_minute_counts_no_more() {
        let mut recent = Recent::default();
        let (began, at) = (recent.began, Duration::from_secs);
        assert_eq!(recent.quantiles(began), Quantiles::default());
        recent.record(5_000_000, began + at(1));
        for second in 20..40 {
            recent.record(1_000, began + at(second));
        }
        let all = recent.quantiles(began + at(40));
        assert!(all.p50_us.abs_diff(1_000) < 20 && all.p99_us.abs_diff(5_000_000) < 50_000, "{all:?}");
        let later = recent.quantiles(began + at(61));
        assert!(later.p99_us.abs_diff(1_000) < 20, "{later:?}");
        assert_eq!(recent.quantiles(began + at(200)), Quantiles::default());
        // The part that is used again has forgotten what it held.
        recent.record(7_000, began + at(201));
        assert!(recent.quantiles(began + at(202)).p50_us.abs_diff(7_000) < 100);
    }
}
