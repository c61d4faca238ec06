//! The events that `falaj generate` makes: a pure walk from a seed, so that a test can make the same events again and know
//! what must come of them. No clock, no network, no allocation per event.

use chrono::{DateTime, Datelike, Timelike};
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

use crate::error::{Error, Kind, Result};

/// The most contents that one run draws from; the table of the law takes 12 bytes for each.
pub const CONTENTS_MAX: usize = 10_000_000;

const EVENT_TYPES: [&str; 8] = ["play", "play", "play", "pause", "pause", "finish", "click", "click"];
const DEVICES: [&str; 8] = ["ios", "ios", "android", "android", "android", "web", "web", "tv"];
const APP_VERSIONS: [&str; 4] = ["5.3.1", "5.3.0", "5.2.7", "4.9.12"];
const NETWORKS: [&str; 4] = ["wifi", "wifi", "cellular", "ethernet"];
const USERS: u64 = 10_000_000;

/// What decides the events. Equal specs make equal events.
#[derive(Debug, Clone, PartialEq)]
pub struct EventsSpec {
    /// Where the dice begin.
    pub seed: u64,
    /// How many contents there are; an event's content is below it, content k (from 1) with a weight of 1/k.
    pub contents: usize,
    /// The event time of the first event, before jitter, ns since 1970.
    pub from_time_ns: i64,
    /// How many events fall into one second of event time. Above 0.
    pub rate_per_second: f64,
    /// How far an event time lies off, to both sides, in milliseconds; in [`Events::next_at`] only to the past.
    pub jitter_ms: i64,
}

/// One engagement. `app_version`, `network` and `session` are the parts of `raw_payload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// 1, 2, 3 …
    pub id: u64,
    /// The content's place in [`super::Contents::rows`]; its id is `c` and this number, in six digits at least.
    pub content: usize,
    /// The user's number; the id is `u` and this number, in seven digits.
    pub user: u64,
    /// `play`, `pause`, `finish` or `click`.
    pub event_type: &'static str,
    /// When it happened, ms since 1970.
    pub event_ts_ms: i64,
    /// How long it took; 5 % have none, whatever their type.
    pub duration_ms: Option<i64>,
    /// `ios`, `android`, `web` or `tv`.
    pub device: &'static str,
    /// Written as 32 hexadecimal digits.
    pub session: u128,
    /// Such as `5.3.1`.
    pub app_version: &'static str,
    /// Such as `wifi`.
    pub network: &'static str,
}

/// The walk over the events of one [`EventsSpec`]. It does not end.
#[derive(Debug, Clone)]
pub struct Events {
    spec: EventsSpec,
    law: WeightedAliasIndex<f64>,
    dice: Xoshiro256PlusPlus,
    made: u64,
}

impl Events {
    /// Stands before the first event. Refuses a spec without contents or without a rate.
    pub fn new(spec: EventsSpec) -> Result<Self> {
        if spec.contents == 0 || spec.contents > CONTENTS_MAX {
            let text = format!("--contents is {}; it must be from 1 to {CONTENTS_MAX}", spec.contents);
            return Err(Error::new(Kind::Usage, text));
        }
        if !(spec.rate_per_second.is_finite() && spec.rate_per_second > 0.0) {
            let text = format!("the rate is {}; it must be events per second, above 0", spec.rate_per_second);
            return Err(Error::new(Kind::Usage, text));
        }
        if spec.jitter_ms < 0 {
            return Err(Error::new(Kind::Usage, format!("the jitter is {} ms; it cannot be negative", spec.jitter_ms)));
        }
        let law = WeightedAliasIndex::new((1..=spec.contents).map(|rank| 1.0 / rank as f64).collect())
            .map_err(|cause| Error::new(Kind::Bug, "the law of the contents could not be made").because(cause))?;
        let dice = Xoshiro256PlusPlus::seed_from_u64(spec.seed);
        Ok(Self { spec, law, dice, made: 0 })
    }

    /// The next event, at the event time that the spec gives it.
    #[allow(clippy::should_implement_trait, reason = "the walk does not end, so an Option would only be in the way")]
    pub fn next(&mut self) -> Event {
        let since_ms = self.made as f64 * 1000.0 / self.spec.rate_per_second;
        let jitter_ms = self.spec.jitter_ms;
        let mut event = self.draw();
        let off_ms = below(&mut self.dice, 2 * jitter_ms as u64 + 1) as i64 - jitter_ms;
        event.event_ts_ms = self.spec.from_time_ns / 1_000_000 + since_ms as i64 + off_ms;
        event
    }

    /// The next event as if it came in at `now_ms`: it happened then or up to `jitter_ms` before. All else is as [`Self::next`]
    /// would have made it.
    pub fn next_at(&mut self, now_ms: i64) -> Event {
        let mut event = self.draw();
        event.event_ts_ms = now_ms - below(&mut self.dice, self.spec.jitter_ms as u64 + 1) as i64;
        event
    }

    fn draw(&mut self) -> Event {
        self.made += 1;
        let content = self.law.sample(&mut self.dice);
        let (traits, length) = (self.dice.next_u64(), self.dice.next_u64());
        let session = u128::from(self.dice.next_u64()) << 64 | u128::from(self.dice.next_u64());
        // Most engagements are short: the cube of an even draw, up to half an hour.
        let share = (length >> 11) as f64 / (1u64 << 53) as f64;
        let duration_ms = 500 + (share * share * share * 1_800_000.0) as i64;
        Event {
            id: self.made,
            content,
            user: below(&mut self.dice, USERS),
            event_type: EVENT_TYPES[(traits & 7) as usize],
            event_ts_ms: 0,
            duration_ms: (((traits >> 32) * 100) >> 32 >= 5).then_some(duration_ms),
            device: DEVICES[(traits >> 3 & 7) as usize],
            session,
            app_version: APP_VERSIONS[(traits >> 6 & 3) as usize],
            network: NETWORKS[(traits >> 8 & 3) as usize],
        }
    }
}

/// An even draw from `0..bound`; the same on every machine.
pub(super) fn below(dice: &mut Xoshiro256PlusPlus, bound: u64) -> u64 {
    ((u128::from(dice.next_u64()) * u128::from(bound)) >> 64) as u64
}

impl Event {
    /// Appends the event as one JSON object, always with the same keys in the same order; `duration_ms` may be `null`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        write_number(out, self.id, 1);
        out.extend_from_slice(b",\"content_id\":\"");
        self.write_content_id(out);
        out.extend_from_slice(b"\",\"user_id\":\"");
        self.write_user_id(out);
        out.extend_from_slice(b"\",\"event_type\":\"");
        out.extend_from_slice(self.event_type.as_bytes());
        out.extend_from_slice(b"\",\"event_ts\":\"");
        write_time(out, self.event_ts_ms);
        out.extend_from_slice(b"\",\"duration_ms\":");
        match self.duration_ms {
            Some(duration_ms) => write_number(out, duration_ms.unsigned_abs(), 1),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"device\":\"");
        out.extend_from_slice(self.device.as_bytes());
        out.extend_from_slice(b"\",\"raw_payload\":");
        self.write_payload(out);
        out.push(b'}');
    }

    /// Appends `raw_payload`, a JSON object.
    pub fn write_payload(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"session\":\"");
        for shift in (0..32).rev() {
            out.push(b"0123456789abcdef"[(self.session >> (4 * shift) & 15) as usize]);
        }
        out.extend_from_slice(b"\",\"app_version\":\"");
        out.extend_from_slice(self.app_version.as_bytes());
        out.extend_from_slice(b"\",\"network\":\"");
        out.extend_from_slice(self.network.as_bytes());
        out.extend_from_slice(b"\"}");
    }

    /// Appends the content's id, such as `c000123`.
    pub fn write_content_id(&self, out: &mut Vec<u8>) {
        out.push(b'c');
        write_number(out, self.content as u64, 6);
    }

    /// Appends the user's id, such as `u1234567`.
    pub fn write_user_id(&self, out: &mut Vec<u8>) {
        out.push(b'u');
        write_number(out, self.user, 7);
    }
}

/// Appends `number` with zeros in front up to `width` digits.
fn write_number(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while number > 0 {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[first.min(digits.len() - width)..]);
}

/// Appends `2026-11-23T10:00:00.123Z`.
fn write_time(out: &mut Vec<u8>, time_ms: i64) {
    let time = DateTime::from_timestamp_millis(time_ms).unwrap_or_default();
    write_number(out, time.year().unsigned_abs().into(), 4);
    for (mark, part) in
        [(b'-', time.month()), (b'-', time.day()), (b'T', time.hour()), (b':', time.minute()), (b':', time.second())]
    {
        out.push(mark);
        write_number(out, part.into(), 2);
    }
    out.push(b'.');
    write_number(out, time.timestamp_subsec_millis().into(), 3);
    out.push(b'Z');
}

/// Breaks some payloads, for dead letters to look at. It has dice of its own: the events stay the same with and without it.
#[derive(Debug, Clone)]
pub struct Poison {
    dice: Xoshiro256PlusPlus,
    percent: f64,
}

impl Poison {
    /// Breaks `percent` of the payloads (0 to 100).
    pub fn new(seed: u64, percent: f64) -> Result<Self> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Error::new(Kind::Usage, format!("--poison is {percent}; it must be a percentage, from 0 to 100")));
        }
        Ok(Self { dice: Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x706f_6973_6f6e), percent })
    }

    /// Maybe breaks the payload in `json`, so that no decoder can take it: `true` when it did. Call it once for each event.
    pub fn spoil(&mut self, json: &mut Vec<u8>) -> bool {
        if self.percent <= 0.0 {
            return false;
        }
        let (share, way) = (below(&mut self.dice, 1_000_000), below(&mut self.dice, 4));
        if share as f64 >= self.percent * 10_000.0 {
            return false;
        }
        match way {
            0 => json.truncate(json.len() / 2),
            1 => json.clear(),
            2 => json.insert(0, b'['),
            _ => json.extend_from_slice(b"\xff\xfe"),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> EventsSpec {
        let from_time_ns = 1_795_428_000_123_000_000;
        EventsSpec { seed: 42, contents: 1000, from_time_ns, rate_per_second: 1000.0, jitter_ms: 2000 }
    }

    fn bytes(spec: EventsSpec, count: usize) -> Vec<u8> {
        let mut events = Events::new(spec).unwrap();
        let mut out = Vec::new();
        (0..count).for_each(|_| events.next().write_json(&mut out));
        out
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes() {
        assert_eq!(bytes(spec(), 1000), bytes(spec(), 1000));
        assert_ne!(bytes(spec(), 1000), bytes(EventsSpec { seed: 43, ..spec() }, 1000));
    }

    #[test]
    fn an_event_is_written_as_documented() {
        let event = Event {
            id: 1,
            content: 123,
            user: 1_234_567,
            event_type: "play",
            event_ts_ms: 1_795_428_000_123,
            duration_ms: Some(12_345),
            device: "ios",
            session: 0xabc,
            app_version: "5.3.1",
            network: "wifi",
        };
        let mut out = Vec::new();
        event.write_json(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"id\":1,\"content_id\":\"c000123\",\"user_id\":\"u1234567\",\"event_type\":\"play\",\
             \"event_ts\":\"2026-11-23T10:00:00.123Z\",\"duration_ms\":12345,\"device\":\"ios\",\"raw_payload\":\
             {\"session\":\"00000000000000000000000000000abc\",\"app_version\":\"5.3.1\",\"network\":\"wifi\"}}"
        );
    }

    #[test]
    fn every_event_parses_and_the_shares_are_as_documented() {
        let mut events = Events::new(spec()).unwrap();
        let (mut without, mut first, mut out) = (0, 0, Vec::new());
        for i in 0..100_000_i64 {
            let event = events.next();
            out.clear();
            event.write_json(&mut out);
            let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(json["id"], event.id);
            assert_eq!(json["duration_ms"].as_i64(), event.duration_ms);
            let time = DateTime::parse_from_rfc3339(json["event_ts"].as_str().unwrap()).unwrap();
            assert_eq!(time.timestamp_millis(), event.event_ts_ms);
            assert!((event.event_ts_ms - (1_795_428_000_123 + i)).abs() <= 2000);
            assert!(event.content < 1000);
            without += i32::from(event.duration_ms.is_none());
            first += i32::from(event.content == 0);
        }
        assert!((4_700..5_300).contains(&without), "{without}");
        // 1 / H(1000) = 13.36 %
        assert!((13_000..13_700).contains(&first), "{first}");
    }

    #[test]
    fn a_live_event_happened_at_most_the_jitter_ago() {
        let mut events = Events::new(spec()).unwrap();
        assert!((0..1000).all(|_| (8_000..=10_000).contains(&events.next_at(10_000).event_ts_ms)));
    }

    #[test]
    fn poison_breaks_its_share_and_nothing_broken_parses() {
        let (mut events, mut poison) = (Events::new(spec()).unwrap(), Poison::new(1, 10.0).unwrap());
        let mut broken = 0;
        for _ in 0..10_000 {
            let mut json = Vec::new();
            events.next().write_json(&mut json);
            let spoilt = poison.spoil(&mut json);
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).is_err(), spoilt);
            broken += i32::from(spoilt);
        }
        assert!((850..1150).contains(&broken), "{broken}");
    }

    #[test]
    fn wrong_specs_are_refused() {
        for spec in [
            EventsSpec { contents: 0, ..spec() },
            EventsSpec { rate_per_second: 0.0, ..spec() },
            EventsSpec { rate_per_second: f64::NAN, ..spec() },
            EventsSpec { jitter_ms: -1, ..spec() },
        ] {
            assert_eq!(Events::new(spec).unwrap_err().kind(), Kind::Usage);
        }
    }
}
