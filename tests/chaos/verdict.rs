//! A comparison of what should be somewhere with what is there: how much is lost, double, wrong or foreign, with examples.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

const EXAMPLES: usize = 5;

/// What came of comparing one sink.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) sink: String,
    pub(super) expected: usize,
    pub(super) found: usize,
    pub(super) lost: usize,
    pub(super) doubled: usize,
    /// There, but with other values.
    pub(super) wrong: usize,
    /// Not expected at all.
    pub(super) foreign: usize,
    pub(super) examples: Vec<String>,
}

impl Verdict {
    /// Of a sink where each of `expected` should be once with its value. A double is no fault where rows are upserted.
    pub(super) fn of<K: Hash + Eq + Debug, V: PartialEq + Debug>(
        sink: &str,
        expected: &HashMap<K, V>,
        found: impl Iterator<Item = (K, V)>,
        is_upserted: bool,
    ) -> Self {
        Self::with(sink, expected.len(), expected.keys(), found, |key| expected.get(key), is_upserted)
    }

    /// The same with values that are made when they are looked for.
    pub(super) fn with<'a, K: Hash + Eq + Debug + 'a, V: PartialEq + Debug, B: std::borrow::Borrow<V>>(
        sink: &str,
        count: usize,
        keys: impl Iterator<Item = &'a K>,
        found: impl Iterator<Item = (K, V)>,
        expected: impl Fn(&K) -> Option<B>,
        is_upserted: bool,
    ) -> Self {
        let mut verdict = Self { sink: sink.to_string(), expected: count, ..Self::default() };
        let mut seen: HashMap<K, usize> = HashMap::with_capacity(count);
        for (key, value) in found {
            match expected(&key) {
                None => verdict.foreign(format!("nobody expected {key:?}: {value:?}")),
                Some(expected) if *expected.borrow() != value => {
                    verdict.wrong += 1;
                    verdict.example(format!("{key:?} is {value:?}, but should be {:?}", expected.borrow()));
                }
                Some(_) => {}
            }
            let times = seen.entry(key).or_default();
            *times += 1;
            if *times == 1 {
                verdict.found += 1;
            } else if !is_upserted {
                verdict.doubled += 1;
                verdict.example(format!("there {times} times: {value:?}"));
            }
        }
        for key in keys.filter(|key| !seen.contains_key(key)) {
            verdict.lost += 1;
            verdict.example(format!("lost: {key:?}"));
        }
        verdict
    }

    fn foreign(&mut self, example: String) {
        self.foreign += 1;
        self.example(example);
    }

    fn example(&mut self, example: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(example);
        }
    }

    /// Whether everything is as it should be.
    pub(super) fn is_good(&self) -> bool {
        [self.lost, self.doubled, self.wrong, self.foreign] == [0; 4]
    }
}

#[test]
fn what_is_lost_double_wrong_or_foreign_is_counted() {
    let expected = HashMap::from([(1, "a"), (2, "b"), (3, "c")]);
    let count = |found: &[(i32, &'static str)], is_upserted| {
        let verdict = Verdict::of("sink", &expected, found.iter().copied(), is_upserted);
        assert_eq!(verdict.is_good(), verdict.examples.is_empty());
        (verdict.found, [verdict.lost, verdict.doubled, verdict.wrong, verdict.foreign])
    };
    assert_eq!(count(&[(3, "c"), (1, "a"), (2, "b")], false), (3, [0, 0, 0, 0]));
    assert_eq!(count(&[(1, "a"), (1, "a"), (2, "x"), (4, "d")], false), (3, [1, 1, 1, 1]));
    assert_eq!(count(&[(1, "a"), (1, "a"), (2, "b"), (3, "c")], true), (3, [0, 0, 0, 0]));
}
