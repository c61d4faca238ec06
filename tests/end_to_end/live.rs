//! How old the board is while events go on, on a fixed schedule, whatever becomes of those before: 2 000 a second, or what
//! `FALAJ_LIVE_RATE` says; by the build of these tests, or the binary that `FALAJ_LIVE_BINARY` names (`scripts/latency` sets both).
//!
//! The k-th event of a content is on the board when the content's count is k or more. So each event of the contents that lead is
//! a probe of its own, and its latency is the time from its place in the schedule to the end of the first look that shows it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use falaj::tool::generate::{Events, EventsSpec};

use super::visitors::Who;
use super::{CONTENTS, PARTITIONS, SEED};
use crate::support::kafka::{Record, Topic};
use crate::support::project::{Project, lane, wait_until};
use crate::support::receiver::Receiver;

// The broker has just been started, and its JVM compiles what it runs.
const WARM_UP_SECONDS: usize = 12;
const SECONDS: usize = WARM_UP_SECONDS + 15;
/// Contents that are watched; they are among the first hundred from the warm-up on.
const LEADERS: usize = 20;
/// A look takes so many places of the board; the watched contents are always among them.
const LOOK_AT: isize = 50;
/// Between two looks at the board: the looker must not take the processor from what it looks at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// When each event is due, after the first.
#[derive(Clone, Copy)]
struct Rate {
    per_second: usize,
}

impl Rate {
    fn due(self, index: usize) -> Duration {
        Duration::from_nanos(index as u64 * 1_000_000_000 / self.per_second as u64)
    }

    fn warm_up(self) -> usize {
        WARM_UP_SECONDS * self.per_second
    }

    fn events(self) -> usize {
        SECONDS * self.per_second
    }
}

/// The events, the first of which happens at `start_ms`, each with its content, partition and record.
fn schedule(rate: Rate, start_ms: i64) -> Vec<(usize, i32, Record)> {
    let spec = EventsSpec { seed: SEED, contents: CONTENTS, from_time_ns: 0, rate_per_second: 1.0, jitter_ms: 0 };
    let mut events = Events::new(spec).unwrap();
    let event = |index| {
        let event = events.next_at(start_ms + rate.due(index).as_millis() as i64);
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        event.write_content_id(&mut key);
        event.write_json(&mut payload);
        (event.content, (event.content % PARTITIONS as usize) as i32, Record { key: Some(key), ..Record::of(payload) })
    };
    (0..rate.events()).map(event).collect()
}

/// Sends each record when it is due.
fn produce(rate: Rate, topic: &Topic, start: Instant, schedule: &[(usize, i32, Record)]) {
    for (index, (_, partition, record)) in schedule.iter().enumerate() {
        let wait = (start + rate.due(index)).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        topic.send(*partition, record);
    }
    topic.flush();
}

/// Looks at the board until it shows every event of the leaders; gives the latency of each event after the warm-up.
fn watch(rate: Rate, redis_url: &str, key: &str, start: Instant, schedule: &[(usize, i32, Record)]) -> Vec<Duration> {
    let mut waiting: HashMap<String, VecDeque<usize>> = HashMap::new();
    for (index, (content, ..)) in schedule.iter().enumerate().filter(|(_, (content, ..))| *content < LEADERS) {
        waiting.entry(format!("c{content:06}")).or_default().push_back(index);
    }
    let all: HashMap<String, usize> = waiting.iter().map(|(content, events)| (content.clone(), events.len())).collect();
    let mut redis = redis::Client::open(redis_url).unwrap().get_connection().unwrap();
    let mut latencies = Vec::new();
    while !waiting.is_empty() {
        let board: Vec<(String, f64)> =
            redis::cmd("ZRANGE").arg(key).arg(0).arg(LOOK_AT - 1).arg("REV").arg("WITHSCORES").query(&mut redis).unwrap();
        let now = start.elapsed();
        for (content, score) in board {
            let Some(events) = waiting.get_mut(&content) else { continue };
            let shown = all[&content] - events.len();
            assert!(score as usize >= shown, "{content} went back from {shown} to {score}");
            for index in events.drain(..score as usize - shown) {
                if index >= rate.warm_up() {
                    latencies.push(now.saturating_sub(rate.due(index)));
                }
            }
            if events.is_empty() {
                waiting.remove(&content);
            }
        }
        assert!(now < rate.due(rate.events()) + Duration::from_secs(30), "not all events came to the board: {waiting:?}");
        thread::sleep(LOOK_EVERY);
    }
    latencies.sort();
    latencies
}

#[tokio::test]
#[ignore = "measures time, so it wants the machine to itself: scripts/test runs it before the others"]
async fn the_board_is_a_hundred_milliseconds_old_while_events_go_on() {
    let project = Project::new(PARTITIONS).await;
    project.fill_content(CONTENTS, SEED);
    let receiver = Receiver::start(project.path("received"));
    let number = |text: String| text.parse().expect("FALAJ_LIVE_RATE is events a second");
    let rate = Rate { per_second: std::env::var("FALAJ_LIVE_RATE").map_or(2_000, number) };
    let (falaj, page) = match std::env::var("FALAJ_LIVE_BINARY") {
        Ok(binary) => project.run_by(Path::new(&binary), &receiver.url),
        Err(_) => project.run(&receiver.url, &[]),
    };
    wait_until("the lanes run", async || lane(&page, "top_content").await["state"] == "running").await;

    // Some time to make the events, before the first of them is due.
    let lead = Duration::from_secs(3);
    let start = Instant::now() + lead;
    let schedule = schedule(rate, falaj::clock::Clock::system().now_ms() + lead.as_millis() as i64);
    let key = project.board_key("top_content");
    let visitors = Who::asked().come(&page);
    let latencies = thread::scope(|scope| {
        scope.spawn(|| produce(rate, &project.topic, start, &schedule));
        scope.spawn(|| watch(rate, &project.redis_url, &key, start, &schedule)).join().unwrap()
    });
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let (median, p99, most) = (at(0.5), at(0.99), at(1.0));
    drop(visitors);
    let (who, of) = (Who::asked(), latencies.len());
    eprintln!(
        "from an event to its count on the board: median {median:?}, p99 {p99:?}, most {most:?}, of {of}; visitors: {who:?}"
    );

    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(median < Duration::from_millis(100), "{median:?}");
    assert!(p99 < Duration::from_millis(500), "{p99:?}");
    project.finish().await;
}
