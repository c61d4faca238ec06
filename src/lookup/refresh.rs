//! What keeps a lookup table fresh: loads at an interval, and questions for missing keys. Both live with a store that is away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{Array, ArrayRef};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};

use super::index::{LookupTable, OnMissError, Refresh};
use super::{Changed, Follower, LookupStore};
use crate::backoff::Backoff;
use crate::error::{Action, Error, Kind, Result};

/// The waits between attempts: an outage shorter than a second is hardly noticed, a long one costs little.
const WAIT_LEAST: Duration = Duration::from_millis(50);
const WAIT_MOST: Duration = Duration::from_secs(2);
/// The most keys in one question.
const KEYS_MAX: usize = 4_096;

/// Loads `table` from `store` now and again each `refresh`, or follows its changes; give it a task of its own, and drop that to end it.
///
/// Until the first load it tries again as long as the store is unreachable, and returns any other error. After it, no error ends
/// it: the last version stays in use, with one warning for each outage and one line when it is over.
pub async fn keep_fresh(table: Arc<LookupTable>, store: Arc<dyn LookupStore>) -> Result<()> {
    let mut outage: Option<Instant> = None;
    let mut backoff = Backoff::new(WAIT_LEAST, WAIT_MOST);
    loop {
        let begun = Instant::now();
        let error = match begin(&table, store.as_ref()).await {
            Ok(follower) => {
                if let Some(since) = outage.take() {
                    tracing::info!(lookup = table.name(), "loaded again, after {:.1} s", since.elapsed().as_secs_f64());
                }
                table.status().set_trouble(None);
                backoff.reset();
                match follower {
                    Some(follower) => follow(&table, store.as_ref(), follower).await,
                    None => {
                        wait(&table, begun).await;
                        continue;
                    }
                }
            }
            Err(error) => error,
        };
        if !table.is_loaded() && error.kind().action() != Action::Retry {
            return Err(error);
        }
        if outage.is_none() {
            outage = Some(begun);
            let kept = if table.is_loaded() { "the last version stays in use" } else { "nothing can be joined before it" };
            tracing::warn!(lookup = table.name(), "cannot be loaded, {kept}: {}", error.chain());
        }
        table.status().set_trouble(Some(error.chain()));
        sleep(backoff.wait()).await;
    }
}

/// Loads the table, after its changes are followed where they are to be.
async fn begin(table: &Arc<LookupTable>, store: &dyn LookupStore) -> Result<Option<Box<dyn Follower>>> {
    let follower = match table.options().refresh {
        Refresh::Changes => Some(store.follow().await?),
        Refresh::Every(_) => None,
    };
    load(table, store).await?;
    Ok(follower)
}

/// Waits for the time of the next load.
async fn wait(table: &LookupTable, begun: Instant) {
    let Refresh::Every(refresh) = table.options().refresh else { return };
    let mut next = interval_at(begun + refresh, refresh);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    next.tick().await;
}

/// Asks for the rows that change, until something fails.
async fn follow(table: &Arc<LookupTable>, store: &dyn LookupStore, mut follower: Box<dyn Follower>) -> Error {
    loop {
        let done = match follower.next().await {
            Ok(Changed::All) => load(table, store).await,
            Ok(Changed::Keys(keys)) => match store.fetch(Arc::clone(&keys)).await {
                Ok(rows) => table.apply(&keys, &rows),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            return error;
        }
    }
}

async fn load(table: &Arc<LookupTable>, store: &dyn LookupStore) -> Result<()> {
    let rows = store.load().await?;
    let table = Arc::clone(table);
    // Building the index of millions of rows takes a second: not on a thread that others wait for.
    let built = tokio::task::spawn_blocking(move || table.replace(rows)).await;
    built.unwrap_or_else(|error| Err(Error::new(Kind::Bug, "a lookup table's index could not be built").because(error)))
}

/// Asks the table's store for `keys` (distinct, not null, of the key column's type) and adds the rows; the keys that it does not
/// have are remembered. While the store is away it tries again, and after `miss_timeout` does what `on_miss_error` says.
/// Returns at once where nothing is to be fetched. Dropping it midway is safe.
pub async fn fetch_missing(table: &LookupTable, keys: &ArrayRef) -> Result<()> {
    let Some(store) = table.miss_store() else { return Ok(()) };
    table.status().misses.fetch_add(keys.len() as u64, Ordering::Relaxed);
    let mut from = 0;
    while from < keys.len() {
        let some = keys.slice(from, KEYS_MAX.min(keys.len() - from));
        if !fetch_some(table, store.as_ref(), &some).await? {
            let unanswered = (keys.len() - from) as u64;
            table.status().unanswered.fetch_add(unanswered, Ordering::Relaxed);
            table.ask_later();
            return Ok(());
        }
        from += some.len();
    }
    Ok(())
}

/// `false`: the store did not answer in time, and the table goes on without.
async fn fetch_some(table: &LookupTable, store: &dyn LookupStore, keys: &ArrayRef) -> Result<bool> {
    let options = table.options();
    let end = Instant::now() + options.miss_timeout;
    let mut backoff = Backoff::new(WAIT_LEAST, WAIT_MOST);
    let mut waited = false;
    loop {
        let gives_up = options.on_miss_error == OnMissError::Null;
        let answer = match gives_up {
            // A store that hangs must not hold the batch longer than it may.
            true => timeout_at(end, store.fetch(Arc::clone(keys))).await.unwrap_or_else(|_| Err(no_answer())),
            false => store.fetch(Arc::clone(keys)).await,
        };
        let error = match answer {
            Ok(rows) => {
                table.merge(&rows)?;
                table.remember_misses(keys)?;
                if waited {
                    tracing::info!(lookup = table.name(), "missing keys are answered again");
                    table.status().set_trouble(None);
                }
                return Ok(true);
            }
            Err(error) if error.kind().action() != Action::Retry => return Err(error),
            Err(error) => error,
        };
        if gives_up && Instant::now() >= end {
            tracing::warn!(
                lookup = table.name(),
                keys = keys.len(),
                "missing keys are taken as without a row: {}",
                error.chain()
            );
            return Ok(false);
        }
        if !waited {
            waited = true;
            tracing::warn!(lookup = table.name(), keys = keys.len(), "waits for missing keys: {}", error.chain());
        }
        table.status().set_trouble(Some(format!("waits for {} missing keys: {}", keys.len(), error.chain())));
        let wait = backoff.wait();
        sleep(if gives_up { wait.min(end - Instant::now()) } else { wait }).await;
    }
}

fn no_answer() -> Error {
    Error::new(Kind::Unreachable, "the store did not answer within 'miss_timeout'")
}
