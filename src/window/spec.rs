//! The arithmetic of windows: half-open, in UTC, aligned to the epoch (1970). All times are ns since 1970.

use crate::error::{Error, Kind, Result};

/// The shape of a window: how long it is and how far the next one starts after it. A tumbling window slides by its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSpec {
    /// How long a window is.
    pub size_ns: i64,
    /// How far apart two windows start.
    pub slide_ns: i64,
}

// Panes of a window that are held and merged; 10 minutes by 1 second are 600, a day by 1 second 86 400.
const PANES_MAX: i64 = 100_000;

impl WindowSpec {
    /// A checked shape; the sentences say which argument is which.
    pub fn new(size_ns: i64, slide_ns: i64) -> Result<Self> {
        let wrong = |text: &str| Err(Error::new(Kind::Sql, text.to_string()));
        if size_ns <= 0 || slide_ns <= 0 {
            return wrong("a window's size and slide must be longer than nothing");
        }
        if slide_ns > size_ns {
            return wrong(
                "the slide is longer than the size, so events would be left out; the slide comes first: \
                 hop(table, time, slide, size), for instance hop(t, ts, INTERVAL '1 second', INTERVAL '10 minutes')",
            );
        }
        let spec = Self { size_ns, slide_ns };
        if size_ns / spec.pane_ns() > PANES_MAX {
            return wrong("the window has more than 100 000 panes; choose a longer slide, or one that divides the size");
        }
        Ok(spec)
    }

    /// The width of a pane: the greatest common divisor of slide and size.
    pub fn pane_ns(&self) -> i64 {
        let (mut a, mut b) = (self.size_ns, self.slide_ns);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    }

    /// The start of the pane that holds `at_ns`.
    pub fn pane_start(&self, at_ns: i64) -> i64 {
        floor(at_ns, self.pane_ns())
    }

    /// The end of the last window that holds `at_ns`.
    pub fn last_end(&self, at_ns: i64) -> i64 {
        floor(at_ns, self.slide_ns) + self.size_ns
    }

    /// The end of the first window that holds `at_ns`.
    pub fn first_end(&self, at_ns: i64) -> i64 {
        // Window ends are the multiples of the slide, plus the size's remainder.
        let phase = self.size_ns.rem_euclid(self.slide_ns);
        floor(at_ns - phase, self.slide_ns) + self.slide_ns + phase
    }

    /// Rows before this time are late once the watermark stands at `watermark_ns`: every window that holds them is final.
    pub fn late_before(&self, watermark_ns: i64) -> i64 {
        if watermark_ns == i64::MIN {
            return i64::MIN;
        }
        floor(watermark_ns.saturating_sub(self.size_ns), self.slide_ns).saturating_add(self.slide_ns)
    }
}

fn floor(at_ns: i64, step_ns: i64) -> i64 {
    at_ns.saturating_sub(at_ns.rem_euclid(step_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_in_exactly_size_over_slide_windows_and_late_when_the_last_one_is_final() {
        for (size, slide) in [(10, 1), (10, 10), (10, 5), (7, 2), (10, 4), (600, 1)] {
            let spec = WindowSpec::new(size, slide).unwrap();
            for at in -25..25 {
                let holding: Vec<i64> = (-2000..2000)
                    .map(|n| n * slide)
                    .filter(|start| *start <= at && at < start + size)
                    .map(|s| s + size)
                    .collect();
                assert_eq!(spec.first_end(at), holding[0], "{size}/{slide} at {at}");
                assert_eq!(spec.last_end(at), *holding.last().unwrap(), "{size}/{slide} at {at}");
                for watermark in [-30, -7, 0, 1, 9, 10, 11, 700] {
                    let late = spec.last_end(at) <= watermark;
                    assert_eq!(at < spec.late_before(watermark), late, "{size}/{slide} at {at}, watermark {watermark}");
                }
            }
        }
    }

    #[test]
    fn a_slide_longer_than_the_size_is_refused_and_says_which_is_which() {
        let error = WindowSpec::new(1, 600).unwrap_err();
        assert!(error.to_string().contains("the slide comes first"), "{error}");
    }
}
