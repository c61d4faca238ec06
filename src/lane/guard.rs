//! A process that was stopped and wakes in the middle of an apply must not go on where somebody else drives the lane by now.

use std::pin::pin;
use std::time::{Duration, Instant};

use crate::checkpoint::lane_log::LaneLog;
use crate::error::Result;

/// How often the claim is looked at while something is applied. Nothing is sent after a longer pause before it was looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Runs `work` for as long as the claim of `log` is the newest, which it was at `looked`; `Err(Fenced)` when it is not any more, and
/// `work` is dropped.
pub(super) async fn while_claimed<T>(log: &LaneLog, mut looked: Instant, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    loop {
        let mut timer = pin!(tokio::time::sleep(LOOK_INTERVAL));
        let worked = std::future::poll_fn(|cx| {
            // The clock is asked first: after a pause what has arrived meanwhile must wait until the claim was looked at.
            if looked.elapsed() >= LOOK_INTERVAL || timer.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        });
        match worked.await {
            Some(done) => return done,
            None => {
                let now = Instant::now();
                log.check_claim().await?;
                looked = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::checkpoint::memory::MemoryStore;
    use crate::checkpoint::recover::Needs;
    use crate::clock::Clock;
    use crate::error::Kind;

    #[tokio::test]
    async fn work_ends_when_another_process_claims_the_lane() {
        let store = Arc::new(MemoryStore::default());
        let clock = Clock::system();
        let claim = || LaneLog::claim(store.clone(), "lineage", "lane", &clock, Needs::LastEpoch, 16);
        let (log, _) = claim().await.unwrap();
        assert_eq!(while_claimed(&log, Instant::now(), async { Ok(5) }).await.unwrap(), 5);
        let (_newer, _) = claim().await.unwrap();
        let error = while_claimed(&log, Instant::now(), std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced);
        assert!(error.to_string().contains("another process has claimed lane 'lane'"), "{error}");
    }
}
