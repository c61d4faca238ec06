//! What is asked beside the reading, so that no question ever delays a record: are there new partitions, is the topic still
//! there, is the broker?

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::native::Consumer;
use super::{ASK_TIMEOUT, KafkaOptions, bounds, failure, no_topic};
use crate::error::{Error, Result};

/// How often the broker is asked at least when it did not answer, or the topic was not there.
const WATCH_TROUBLE: Duration = Duration::from_secs(1);

/// A topic is gone when so many questions in a row say so: a broker that has just started may not know it yet.
const GONE_AFTER: u32 = 5;

/// What the thread beside the reader finds out by asking the broker, so that no question ever delays a record.
#[derive(Default)]
pub(super) struct Watch {
    found: Mutex<Found>,
    wake: Condvar,
}

#[derive(Default)]
struct Found {
    stop: bool,
    look_now: bool,
    new: Vec<(i32, i64)>,
    gone: bool,
    /// Why the last question was not answered.
    trouble: Option<Error>,
}

/// What a reader must take over.
pub(super) struct News {
    /// New partitions, each with its first offset.
    pub(super) new: Vec<(i32, i64)>,
    pub(super) gone: bool,
}

impl Watch {
    /// Whether there is something to take over.
    pub(super) fn news(&self) -> bool {
        let found = self.found.lock();
        found.gone || !found.new.is_empty()
    }

    pub(super) fn take_news(&self) -> News {
        let mut found = self.found.lock();
        News { new: std::mem::take(&mut found.new), gone: found.gone }
    }

    /// Why the last question was not answered.
    pub(super) fn trouble(&self) -> Option<Error> {
        self.found.lock().trouble.clone()
    }

    /// Ends the thread, at once or after the question that it is asking.
    pub(super) fn stop(&self) {
        self.found.lock().stop = true;
        self.wake.notify_all();
    }

    /// Asks now, whatever the interval: the reader has met trouble.
    pub(super) fn look_now(&self) {
        self.found.lock().look_now = true;
        self.wake.notify_all();
    }

    /// Records have come: the broker is there.
    pub(super) fn is_well(&self) {
        self.found.lock().trouble = None;
    }

    /// Asks until it is stopped. The client may end here, so that the reader's thread need not wait for that.
    pub(super) fn run(&self, consumer: Arc<Consumer>, options: &KafkaOptions, mut known: Vec<i32>, find_new: bool) {
        let mut gone = 0;
        let every = options.watch_every();
        let mut pause = every;
        loop {
            {
                let mut found = self.found.lock();
                if !found.look_now && !found.stop {
                    self.wake.wait_for(&mut found, pause);
                }
                if found.stop {
                    return;
                }
                found.look_now = false;
            }
            let asked = self.ask(&consumer, options, &mut known, find_new);
            let mut found = self.found.lock();
            gone = match &asked {
                Err((_, true)) => gone + 1,
                _ => 0,
            };
            found.gone = gone >= GONE_AFTER;
            pause = if asked.is_ok() { every } else { every.min(WATCH_TROUBLE) };
            found.trouble = asked.err().map(|(error, _)| error);
        }
    }

    /// Asks once. The flag of an error says that the broker knows no such topic.
    fn ask(
        &self,
        consumer: &Consumer,
        options: &KafkaOptions,
        known: &mut Vec<i32>,
        find_new: bool,
    ) -> Result<(), (Error, bool)> {
        let exist = consumer.partitions(&options.topic, ASK_TIMEOUT).map_err(|code| {
            let unknown = failure::is_unknown_topic(code);
            let error = if unknown { no_topic(options) } else { failure::of_code(code, &options.topic, &options.brokers) };
            (error, unknown)
        })?;
        let new: Vec<i32> = exist.into_iter().filter(|partition| find_new && !known.contains(partition)).collect();
        let new = bounds(consumer, options, &new).map_err(|error| (error, false))?;
        known.extend(new.iter().map(|(partition, ..)| partition));
        self.found.lock().new.extend(new.into_iter().map(|(partition, low, _)| (partition, low)));
        Ok(())
    }
}
