//! How long to wait before trying again: twice as long each time, up to a bound, never all at the same moment.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The waits between attempts. They double from `least` to `most`, each cut by up to a half at random.
#[derive(Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    /// Waits from `least` up to `most`.
    pub fn new(least: Duration, most: Duration) -> Self {
        // The standard library seeds each of these differently; nothing here needs more than that.
        let random = RandomState::new().build_hasher().finish() | 1;
        Self { least, most, next: least, random }
    }

    /// How long to wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.most);
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let part = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        whole.mul_f64(0.5 + part / 2.0)
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(40));
        for whole in [10, 20, 40, 40] {
            let wait = backoff.wait();
            assert!(wait >= Duration::from_millis(whole) / 2 && wait <= Duration::from_millis(whole), "{wait:?} of {whole}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(10));
    }
}
