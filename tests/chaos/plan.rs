//! What is broken, and when: dealt from a seed, so that the same seed breaks the same.

use std::fmt;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// All rounds: each is one start of falaj.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) rounds: Vec<Round>,
}

/// From a start of falaj to its end.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) end: End,
    pub(super) at: Moment,
    /// What is broken beside falaj, so long after its start; it may last longer than the round.
    pub(super) side: Option<(Duration, Side)>,
}

/// When a round ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// So long after the start: often while it recovers.
    Start(Duration),
    /// So long after the first commit since the start.
    Commit(Duration),
}

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Kill,
    /// SIGSTOP; a second process is started, and so long after its first commit the first one is woken; then the second is killed.
    Pause(Duration),
    Terminate,
}

/// What is broken beside falaj.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    /// Killed, away for so long, and started again.
    Redis(Duration),
    Kafka(Duration),
    Postgres(Duration),
    Flush,
    /// The second receiver is worse than usual for so long.
    Receiver(Trouble, Duration),
}

/// How a receiver is worse than usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// 429, 500 or 503 to all.
    Fails,
    /// Every answer takes long.
    Slow,
    /// Everything is applied, nothing is answered.
    Cuts,
}

impl fmt::Display for Side {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Side::Redis(_) => "Redis killed and restarted",
            Side::Kafka(_) => "Kafka killed and restarted",
            Side::Postgres(_) => "Postgres killed and restarted",
            Side::Flush => "FLUSHALL",
            Side::Receiver(Trouble::Fails, _) => "receiver fails",
            Side::Receiver(Trouble::Slow, _) => "receiver slow",
            Side::Receiver(Trouble::Cuts, _) => "receiver cuts",
        })
    }
}

/// One for each so many kills, and one at least.
const KILLS_PER_PAUSE: usize = 10;
/// The first of them: Kafka gives up a transaction that is open for 30 s.
const LONG_PAUSE: Duration = Duration::from_secs(60);
const KILLS_PER_TERMINATE: usize = 10;
const KILLS_PER_SIDE: [usize; 7] = [10, 50, 40, 10, 20, 20, 20];

impl Plan {
    /// `kills` times SIGKILL, and the rest in proportion.
    pub(super) fn deal(seed: u64, kills: usize) -> Self {
        let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut ends = vec![End::Kill; kills];
        let pauses = kills.div_ceil(KILLS_PER_PAUSE);
        // The second process of a pause is killed, too.
        ends.truncate(kills.saturating_sub(pauses));
        ends.extend((0..pauses).map(|n| End::Pause(if n == 0 { LONG_PAUSE } else { ms(&mut dice, 100..2_500) })));
        ends.extend(vec![End::Terminate; kills.div_ceil(KILLS_PER_TERMINATE)]);
        ends.shuffle(&mut dice);
        let mut rounds: Vec<Round> = Vec::new();
        for end in ends {
            let again = rounds.last().is_some_and(|last| last.end == End::Kill) && dice.random_bool(0.15);
            let at = match end {
                // Twice in a row.
                End::Kill if again => Moment::Start(ms(&mut dice, 50..700)),
                End::Kill if dice.random_bool(0.4) => Moment::Start(ms(&mut dice, 50..3_000)),
                End::Terminate if dice.random_bool(0.3) => Moment::Start(ms(&mut dice, 50..1_500)),
                _ => Moment::Commit(ms(&mut dice, 0..1_500)),
            };
            rounds.push(Round { end, at, side: None });
        }
        for (kind, kills_per) in KILLS_PER_SIDE.into_iter().enumerate() {
            for _ in 0..kills.div_ceil(kills_per) {
                let side = match kind {
                    0 => Side::Redis(ms(&mut dice, 0..1_500)),
                    1 => Side::Kafka(ms(&mut dice, 0..2_000)),
                    2 => Side::Postgres(ms(&mut dice, 0..2_000)),
                    3 => Side::Flush,
                    4 => Side::Receiver(Trouble::Fails, ms(&mut dice, 500..6_000)),
                    5 => Side::Receiver(Trouble::Slow, ms(&mut dice, 500..6_000)),
                    _ => Side::Receiver(Trouble::Cuts, ms(&mut dice, 500..4_000)),
                };
                let at = (ms(&mut dice, 0..1_500), side);
                // What a flush takes from the hash is not compared, so that comes early.
                let until = if kind == 3 { rounds.len().div_ceil(2) } else { rounds.len() };
                let free: Vec<usize> = (0..until).filter(|round| rounds[*round].side.is_none()).collect();
                if let Some(round) = free.get(dice.random_range(0..free.len().max(1))) {
                    rounds[*round].side = Some(at);
                }
            }
        }
        Self { rounds }
    }
}

fn ms(dice: &mut Xoshiro256PlusPlus, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(dice.random_range(range))
}

#[test]
fn the_same_seed_deals_the_same_and_every_fault_comes() {
    let plan = Plan::deal(7, 20);
    assert_eq!(format!("{plan:?}"), format!("{:?}", Plan::deal(7, 20)));
    assert_ne!(format!("{plan:?}"), format!("{:?}", Plan::deal(8, 20)));
    let kills = plan.rounds.iter().filter(|round| round.end != End::Terminate).count();
    assert_eq!((kills, plan.rounds.len()), (20, 22));
    let mut sides: Vec<String> = plan.rounds.iter().filter_map(|round| Some(round.side?.1.to_string())).collect();
    sides.sort();
    sides.dedup();
    assert_eq!(sides.len(), KILLS_PER_SIDE.len(), "{sides:?}");
}
