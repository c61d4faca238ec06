//! An outage of an outside system, as it is told: one warning once it has lasted, and one line when it is over, however often the sink that
//! meets it is made anew meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Error;

/// What is over sooner is worth nobody's look.
const TOLD_AFTER: Duration = Duration::from_secs(3);

/// The outage of one system, if there is one. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Outage(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// When that was begun which failed first after the last that did not.
    since: Option<Instant>,
    told: Option<By>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Sink,
    /// The lane tells what its sink gives up.
    Lane,
}

impl Outage {
    /// An attempt at what was begun at `began` failed. `true`, once: the sink is to tell it now.
    pub fn fails(&self, began: Instant) -> bool {
        let mut state = self.0.lock();
        let since = *state.since.get_or_insert(began);
        let is_due = state.told.is_none() && since.elapsed() >= TOLD_AFTER;
        if is_due {
            state.told = Some(By::Sink);
        }
        is_due
    }

    /// The sink gives up with `error`, which says so if the outage has been told.
    pub fn gives_up(&self, error: Error) -> Error {
        let mut state = self.0.lock();
        match (*state.told.get_or_insert(By::Lane), state.since) {
            (By::Sink, Some(since)) => error.told_since(since),
            _ => error,
        }
    }

    /// An attempt did not fail. Gives how long the outage has lasted if the sink is to tell that it is over.
    pub fn ends(&self) -> Option<Duration> {
        let State { since, told } = std::mem::take(&mut *self.0.lock());
        (told == Some(By::Sink)).then(|| since.map_or(Duration::ZERO, |since| since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn error() -> Error {
        Error::new(Kind::Unreachable, "away")
    }

    #[test]
    fn whoever_tells_an_outage_tells_its_end() {
        let outage = Outage::default();
        let (now, long_ago) = (Instant::now(), Instant::now().checked_sub(TOLD_AFTER).unwrap());
        assert_eq!((outage.fails(now), outage.ends()), (false, None), "too short to be told");

        // The sink gives up before it has told anything: it is the lane's.
        outage.fails(now);
        assert_eq!(outage.gives_up(error()).told(), None);
        outage.0.lock().since = Some(long_ago);
        assert!(!outage.fails(now), "the lane has told it");
        assert_eq!((outage.gives_up(error()).told(), outage.ends()), (None, None));

        assert_eq!((outage.fails(long_ago), outage.clone().fails(now)), (true, false), "once, whoever asks");
        assert_eq!((outage.gives_up(error()).told(), outage.gives_up(error()).told()), (Some(long_ago), Some(long_ago)));
        assert!(outage.ends().is_some_and(|lasted| lasted >= TOLD_AFTER) && outage.ends().is_none());
    }
}
