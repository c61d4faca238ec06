//! Keys that the store was asked for and did not have: remembered for a while, so that it is not asked for each event.

use std::collections::{HashSet, VecDeque};

use datafusion::common::ScalarValue;

/// The most keys that are remembered: some 10 MB. Beyond it the oldest go, which costs one question more.
const KEYS_MAX: usize = 100_000;

/// Remembered misses. All live equally long, so that the oldest is always in front.
#[derive(Debug, Default)]
pub(super) struct Misses {
    keys: HashSet<ScalarValue>,
    ends_ns: VecDeque<(i64, ScalarValue)>,
}

impl Misses {
    pub(super) fn holds(&mut self, key: &ScalarValue, now_ns: i64) -> bool {
        while self.ends_ns.front().is_some_and(|(end_ns, _)| *end_ns <= now_ns) {
            self.forget_oldest();
        }
        self.keys.contains(key)
    }

    pub(super) fn remember(&mut self, key: ScalarValue, end_ns: i64) {
        if self.keys.insert(key.clone()) {
            self.ends_ns.push_back((end_ns, key));
        }
        if self.keys.len() > KEYS_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.ends_ns.pop_front() {
            self.keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_remembered_until_its_end_and_never_more_than_the_bound() {
        let mut misses = Misses::default();
        misses.remember(ScalarValue::from("a"), 10);
        assert!(misses.holds(&ScalarValue::from("a"), 9));
        assert!(!misses.holds(&ScalarValue::from("b"), 9));
        assert!(!misses.holds(&ScalarValue::from("a"), 10));
        for key in 0..KEYS_MAX as i64 + 5 {
            misses.remember(ScalarValue::from(key), 20);
        }
        assert_eq!(misses.keys.len(), KEYS_MAX);
        assert!(!misses.holds(&ScalarValue::from(4i64), 11) && misses.holds(&ScalarValue::from(5i64), 11));
    }
}
