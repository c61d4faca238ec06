//! Events on the topic at a steady rate, whatever else happens: most are a little out of order, some come far too late, some from a
//! clock that runs ahead, some have NULLs, some cannot be decoded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use falaj::clock::Clock;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::CONTENTS;
use crate::support::kafka::{Record, Topic};

/// Contents of events; a few are in no table.
const CONTENTS_OF_EVENTS: f64 = 150.0;
/// Further behind than these, an event is late for windows of a minute, or for windows of ten.
const LATE_MS: [i64; 2] = [100_000, 800_000];

/// How many records were sent, by what they are.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Sent {
    pub(super) good: usize,
    pub(super) poison: usize,
    pub(super) tombstones: usize,
}

/// Sends until `stop`; what it has sent is on the topic then.
pub(super) fn run(topic: &Topic, seed: u64, rate_per_second: u64, partitions: i32, stop: &AtomicBool) -> Sent {
    let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed);
    let clock = Clock::system();
    let (start, mut sent, mut count) = (Instant::now(), Sent::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = start + Duration::from_nanos(count * 1_000_000_000 / rate_per_second);
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        count += 1;
        let partition = dice.random_range(0..partitions);
        let record = match dice.random_range(0..10_000) {
            0..20 => {
                sent.poison += 1;
                Record::of(poison(&mut dice, count))
            }
            20..24 => {
                sent.tombstones += 1;
                Record { key: Some(b"gone".to_vec()), ..Record::default() }
            }
            _ => {
                sent.good += 1;
                Record::of(event(&mut dice, count, clock.now_ms()))
            }
        };
        topic.send(partition, &record);
    }
    topic.flush();
    sent
}

/// A good event with this id.
fn event(dice: &mut Xoshiro256PlusPlus, id: u64, now_ms: i64) -> String {
    let off_ms = match dice.random_range(0..10_000) {
        0..40 => -dice.random_range(LATE_MS[0]..LATE_MS[1]),
        40..50 => -dice.random_range(LATE_MS[1]..2 * LATE_MS[1]),
        // Within the last windows, and late only for some of them.
        50..150 => -dice.random_range(5_000..70_000),
        // More than 'watermark.max_ahead'.
        150..155 => 7_200_000,
        _ => -dice.random_range(0..3_000),
    };
    let event_ts = match dice.random_range(0..2_000) {
        0 => "null".to_string(),
        _ => {
            let time = chrono::DateTime::from_timestamp_millis(now_ms + off_ms).unwrap();
            format!("\"{}\"", time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        }
    };
    // The first contents lead; ids from CONTENTS on are in no table.
    let share: f64 = dice.random();
    let content = match dice.random_range(0..500) {
        0 => CONTENTS + dice.random_range(0..5),
        _ => (share * share * CONTENTS_OF_EVENTS) as usize,
    };
    let or_null = |dice: &mut Xoshiro256PlusPlus, text: String| if dice.random_bool(0.05) { "null".to_string() } else { text };
    let user = dice.random_range(0..10_000_000);
    let user_id = or_null(dice, format!("\"u{user:07}\""));
    let duration = dice.random_range(1..2_000_000);
    let duration_ms = or_null(dice, duration.to_string());
    let device = ["\"ios\"", "\"android\"", "\"web\"", "\"t\\u00fcv \\\"1\\\"\""][dice.random_range(0..4)];
    let device = or_null(dice, device.to_string());
    let event_type = ["play", "pause", "finish", "click"][dice.random_range(0..4)];
    format!(
        r#"{{"id":{id},"content_id":"c{content:06}","user_id":{user_id},"event_type":"{event_type}","event_ts":{event_ts},"duration_ms":{duration_ms},"device":{device},"raw_payload":{{"session":{user},"network":"wifi"}}}}"#
    )
}

/// What no decoder can take.
fn poison(dice: &mut Xoshiro256PlusPlus, id: u64) -> Vec<u8> {
    let text = match dice.random_range(0..6) {
        0 => format!(r#"{{"id":{id},"content_id":"c0"#),
        1 => String::new(),
        2 => format!(r#"[{{"id":{id}}}"#),
        3 => format!(r#"{{"id":{id}}}{{"id":{id}}}"#),
        4 => r#"{"id":"seven","content_id":"c000001"}"#.to_string(),
        _ => format!(r#"{{"id":{id},"event_ts":"yesterday"}}"#),
    };
    text.into_bytes()
}
