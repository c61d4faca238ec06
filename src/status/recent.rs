//! How long things took in the last minute: what was slow an hour ago says nothing about now.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The minute is made of so many parts; the oldest is forgotten whole.
const PARTS: usize = 6;
const PART: Duration = Duration::from_secs(10);
/// An hour, µs: what took longer counts as so much.
const LONGEST_US: u64 = 3_600_000_000;

/// Times of the last minute, in some 80 KiB at two digits.
#[derive(Debug)]
pub(super) struct Recent {
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
    pub(super) fn record(&mut self, took_us: u64, now: Instant) {
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

    pub(super) fn quantiles(&self, now: Instant) -> Quantiles {
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
