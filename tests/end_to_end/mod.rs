//! The whole way: the real binary on real Kafka, Postgres, Redis and HTTP, against an oracle that shares no code with the engine.

mod bad_records;
pub(crate) mod boards;
mod contents;
mod corpus;
mod edited;
mod fenced;
pub(crate) mod found;
mod live;
mod memory;
mod older;
pub(crate) mod oracle;
mod poisoned;
pub(crate) mod replay;
mod stopped;
mod visitors;
mod whole;
pub(crate) mod windows;

use falaj::tool::generate::{Contents, Event, Events, EventsSpec};

use crate::support::kafka::Record;
use crate::support::project::Project;

pub(crate) const SEED: u64 = 20_260_101;
/// Rows in the table `content`; events refer to some that are not there.
pub(crate) const CONTENTS: usize = 300;
const CONTENTS_OF_EVENTS: usize = 320;
pub(crate) const PARTITIONS: i32 = 4;
/// 2025-12-31T23:51:40Z: what follows within 1000 seconds lies in two days.
const FROM_TIME_NS: i64 = 1_767_225_100_000_000_000;

/// `count` events over 1000 seconds of event time, each with its partition. In a partition none is more than 4 seconds older than
/// one before it, so none is late: `watermark.delay` is 5.
pub(crate) fn events(count: usize) -> Vec<(i32, Event)> {
    let spec = EventsSpec {
        seed: SEED,
        contents: CONTENTS_OF_EVENTS,
        from_time_ns: FROM_TIME_NS,
        rate_per_second: count as f64 / 1000.0,
        jitter_ms: 2000,
    };
    let mut events = Events::new(spec).unwrap();
    let next = |_| {
        let event = events.next();
        ((event.content % PARTITIONS as usize) as i32, event)
    };
    (0..count).map(next).collect()
}

/// Puts `events` on the project's topic, and the contents into its table.
fn produce(project: &Project, events: &[(i32, Event)]) -> Contents {
    project.fill_content(CONTENTS, SEED);
    send(project, events);
    Contents::new(CONTENTS, SEED)
}

/// Puts `events` on the project's topic.
pub(crate) fn send(project: &Project, events: &[(i32, Event)]) {
    for (partition, event) in events {
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        event.write_content_id(&mut key);
        event.write_json(&mut payload);
        project.topic.send(*partition, &Record { key: Some(key), ..Record::of(payload) });
    }
    project.topic.flush();
}
