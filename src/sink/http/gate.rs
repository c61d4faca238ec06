//! How many requests may be under way: more while all is well, fewer when the other side asks for it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Lets attempts through. The limit begins with 1, grows by 1 for each round of successes in which it was reached, and shrinks
/// to 0.9 of itself on back-pressure.
#[derive(Debug)]
pub(super) struct Gate {
    most: f64,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    limit: f64,
    active: usize,
    /// Whether the limit was reached since it grew.
    reached: bool,
    /// Nothing goes before this: the other side named a time.
    not_before: Instant,
}

/// How an attempt went, for the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It was answered.
    Well,
    /// 429, 503 or no answer in time; and how long to leave the other side alone, if it said so.
    Pressed(Option<Duration>),
    /// Neither: a cut connection, a fault of its own.
    Badly,
}

impl Gate {
    pub(super) fn new(most: usize) -> Self {
        let state = State { limit: 1.0, active: 0, reached: false, not_before: Instant::now() };
        Self { most: most as f64, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Waits for a place. Dropping the pass gives the place back.
    pub(super) async fn enter(&self) -> Pass<'_> {
        loop {
            let changed = self.changed.notified();
            let not_before = {
                let mut state = self.state.lock();
                if state.not_before <= Instant::now() && state.active < state.limit as usize {
                    state.active += 1;
                    state.reached |= state.active >= state.limit as usize;
                    return Pass { gate: self, went: Went::Badly };
                }
                state.not_before
            };
            if not_before > Instant::now() {
                tokio::time::sleep_until(not_before).await;
            } else {
                changed.await;
            }
        }
    }

    /// How many requests may be under way now.
    pub(super) fn limit(&self) -> usize {
        self.state.lock().limit as usize
    }

    fn leave(&self, went: Went) {
        let mut state = self.state.lock();
        state.active -= 1;
        match went {
            Went::Well if state.reached && state.limit < self.most => {
                let before = state.limit as usize;
                state.limit = (state.limit + 1.0 / state.limit).min(self.most);
                state.reached = state.limit as usize == before;
            }
            Went::Pressed(wait) => {
                state.limit = (state.limit * 0.9).max(1.0);
                if let Some(wait) = wait {
                    state.not_before = state.not_before.max(Instant::now() + wait);
                }
            }
            Went::Well | Went::Badly => {}
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

/// A place in the gate, for one attempt.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    /// How the attempt went; `Badly` unless it is said.
    pub(super) went: Went,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.went);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_grows_when_it_is_reached_and_shrinks_under_pressure() {
        let gate = Gate::new(4);
        for _ in 0..50 {
            let mut passes = Vec::new();
            for _ in 0..gate.limit() {
                passes.push(gate.enter().await);
            }
            passes.iter_mut().for_each(|pass| pass.went = Went::Well);
        }
        assert_eq!(gate.limit(), 4);
        gate.enter().await.went = Went::Pressed(Some(Duration::from_millis(30)));
        assert_eq!(gate.limit(), 3);
        let began = Instant::now();
        drop(gate.enter().await);
        assert!(began.elapsed() >= Duration::from_millis(20), "nothing goes before the time that was named");
        for _ in 0..100 {
            gate.enter().await.went = Went::Pressed(None);
        }
        assert_eq!(gate.limit(), 1);
        for _ in 0..100 {
            gate.enter().await.went = Went::Badly;
        }
        assert_eq!(gate.limit(), 1);
    }

    #[tokio::test]
    async fn a_pass_that_is_dropped_lets_the_next_one_in() {
        let gate = Gate::new(1);
        let first = gate.enter().await;
        let (_, second) = tokio::join!(async { drop(first) }, gate.enter());
        drop(second);
    }
}
