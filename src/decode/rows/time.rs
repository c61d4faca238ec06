//! Times and dates of RFC 3339, to UTC.

use arrow::datatypes::TimeUnit;
use chrono::{Datelike, NaiveDate};

/// The days from 0001-01-01 (as chrono counts) to 1970-01-01.
const DAYS_BEFORE_1970: i32 = 719_163;
const DAY_SECONDS: i64 = 86_400;

/// The minute read last: events that follow each other mostly share it.
#[derive(Debug, Default)]
pub(in crate::decode) struct Minute {
    /// `YYYY-MM-DDTHH:MM`
    text: [u8; 16],
    /// Its seconds since 1970, before the offset.
    seconds: i64,
}

/// The seconds since 1970 and the nanoseconds of `text`; the error ends a sentence that begins with the text.
///
/// `T`, `t` or a blank between date and time; any fraction (digits after the ninth are dropped); the offset as `Z`, `z`,
/// `±HH:MM`, and as Postgres writes it, `±HH` or `±HHMM`. It must be there: a time without one is a guess.
/// Second 60 is read where a leap second can be, and means the next second.
#[inline]
pub(in crate::decode) fn instant(text: &[u8], last: &mut Minute) -> Result<(i64, u32), &'static str> {
    let clock = Clock::read(text, last)?;
    if clock.offset.is_empty() {
        return Err("has no offset from UTC; add Z or one such as +02:00");
    }
    clock.instant(offset(clock.offset).ok_or(FORM)?)
}

/// The same of a text that may have no offset: then it is UTC.
#[inline]
pub(in crate::decode) fn instant_or_utc(text: &[u8], last: &mut Minute) -> Result<(i64, u32), &'static str> {
    let clock = Clock::read(text, last)?;
    clock.instant(if clock.offset.is_empty() { 0 } else { offset(clock.offset).ok_or(FORM)? })
}

const FORM: &str = "is not a time such as 2026-11-23T10:00:00.123Z";

/// What a clock showed, and the text of its offset from UTC.
struct Clock<'a> {
    seconds: i64,
    nanos: u32,
    leaps: bool,
    offset: &'a [u8],
}

impl<'a> Clock<'a> {
    #[inline]
    fn read(text: &'a [u8], last: &mut Minute) -> Result<Self, &'static str> {
        let (minute, rest) = text.split_first_chunk::<16>().ok_or(FORM)?;
        if *minute != last.text {
            *last = Minute { text: *minute, seconds: start_of(minute).ok_or(FORM)? };
        }
        let [b':', tens, ones, rest @ ..] = rest else { return Err(FORM) };
        let second = two(*tens, *ones).filter(|&second| second <= 60).ok_or(FORM)?;
        let (nanos, offset) = fraction(rest).ok_or(FORM)?;
        Ok(Self { seconds: last.seconds + second, nanos, leaps: second == 60, offset })
    }

    fn instant(&self, ahead: i64) -> Result<(i64, u32), &'static str> {
        let seconds = self.seconds - ahead;
        if self.leaps && seconds.rem_euclid(DAY_SECONDS) != 0 {
            return Err("has a leap second where there is none");
        }
        Ok((seconds, self.nanos))
    }
}

/// An instant in `unit`s since 1970, or `None` where they do not reach (nanoseconds: years 1677 to 2262).
/// What is finer than the unit is dropped.
#[inline]
pub(in crate::decode) fn in_unit((seconds, nanos): (i64, u32), unit: TimeUnit) -> Option<i64> {
    let (per_second, per_unit) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    // Wider than the result: in the very first second the product alone does not fit.
    let units = i128::from(seconds) * per_second + i128::from(nanos / per_unit);
    i64::try_from(units).ok()
}

/// The seconds and nanoseconds since 1970 of a number of `unit`s.
pub(in crate::decode) fn of_unit(number: i64, unit: TimeUnit) -> (i64, u32) {
    let per_second = per_second(unit);
    let nanos = number.rem_euclid(per_second) * (1_000_000_000 / per_second);
    (number.div_euclid(per_second), nanos as u32)
}

/// A number of `from`s since 1970 in `to`s, or `None` where they do not reach. What is finer than the unit is dropped.
#[inline]
pub(in crate::decode) fn converted(at: i64, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    match multiple(from, to) {
        Some(times) => at.checked_mul(times),
        None => Some(at.div_euclid(per_second(from) / per_second(to))),
    }
}

/// How many `to`s one `from` is, if `to` is not the longer one.
#[inline]
pub(in crate::decode) fn multiple(from: TimeUnit, to: TimeUnit) -> Option<i64> {
    (per_second(to) >= per_second(from)).then(|| per_second(to) / per_second(from))
}

#[inline]
fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The days since 1970 of `YYYY-MM-DD`.
pub(in crate::decode) fn days(text: &[u8]) -> Option<i32> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = two(y1, y2)? * 100 + two(y3, y4)?;
    let date = NaiveDate::from_ymd_opt(year as i32, two(m1, m2)? as u32, two(d1, d2)? as u32)?;
    Some(date.num_days_from_ce() - DAYS_BEFORE_1970)
}

fn start_of(minute: &[u8; 16]) -> Option<i64> {
    let (date, time) = minute.split_at(10);
    let &[b'T' | b't' | b' ', h1, h2, b':', m1, m2] = time else { return None };
    let hour = two(h1, h2).filter(|&hour| hour < 24)?;
    let minute = two(m1, m2).filter(|&minute| minute < 60)?;
    Some(i64::from(days(date)?) * DAY_SECONDS + hour * 3600 + minute * 60)
}

/// The nanoseconds of `.fff…`, if there is a point, and what follows.
#[inline]
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let [b'.', digits @ ..] = text else { return Some((0, text)) };
    let mut nanos = 0;
    let mut weight = 100_000_000;
    let mut length = 0;
    while let Some(byte @ b'0'..=b'9') = digits.get(length) {
        nanos += u32::from(byte - b'0') * weight;
        weight /= 10;
        length += 1;
    }
    (length > 0).then(|| (nanos, &digits[length..]))
}

/// The seconds by which a clock with this offset is ahead of UTC.
#[inline]
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match *text {
        [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2] => (sign, two(h1, h2)?, 0),
        [sign, h1, h2, b':', m1, m2] | [sign, h1, h2, m1, m2] => (sign, two(h1, h2)?, two(m1, m2)?),
        _ => return None,
    };
    let ahead = (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?;
    match sign {
        b'+' => Some(ahead),
        b'-' => Some(-ahead),
        _ => None,
    }
}

#[inline]
fn two(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_rfc_3339_and_nothing_else() {
        const TEN: i64 = 1_795_428_000; // 2026-11-23T10:00:00Z
        for (text, expected) in [
            ("2026-11-23T10:00:00Z", Some((TEN, 0))),
            ("2026-11-23t10:00:00z", Some((TEN, 0))),
            ("2026-11-23 10:00:00.5Z", Some((TEN, 500_000_000))),
            ("2026-11-23T10:00:00.123Z", Some((TEN, 123_000_000))),
            ("2026-11-23T10:00:00.123456789Z", Some((TEN, 123_456_789))),
            ("2026-11-23T10:00:00.1234567899999Z", Some((TEN, 123_456_789))),
            ("2026-11-23T12:30:00+02:30", Some((TEN, 0))),
            ("2026-11-23T04:30:00-0530", Some((TEN, 0))),
            ("2026-11-23 12:00:00.25+02", Some((TEN, 250_000_000))),
            ("2026-11-23T10:00:00-00:00", Some((TEN, 0))),
            ("1970-01-01T00:00:00Z", Some((0, 0))),
            ("1969-12-31T23:59:59.9Z", Some((-1, 900_000_000))),
            ("2016-12-31T23:59:60Z", Some((1_483_228_800, 0))),
            ("2017-01-01T00:59:60+01:00", Some((1_483_228_800, 0))),
            ("2024-02-29T00:00:00Z", Some((1_709_164_800, 0))),
            ("0000-01-01T00:00:00Z", Some((-62_167_219_200, 0))),
            ("2016-12-31T22:59:60Z", None),
            ("2026-02-29T00:00:00Z", None),
            ("2026-11-23T24:00:00Z", None),
            ("2026-11-23T10:60:00Z", None),
            ("2026-11-23T10:00:61Z", None),
            ("2026-11-23T10:00:00", None),
            ("2026-11-23T10:00:00.Z", None),
            ("2026-11-23T10:00:00.5", None),
            ("2026-11-23T10:00:00,5Z", None),
            ("2026-11-23T10:00Z", None),
            ("2026-11-23", None),
            ("2026-11-23T10:00:00+24:00", None),
            ("2026-11-23T10:00:00*02:00", None),
            ("2026-11-23T10:00:00+02:00Z", None),
            ("2026-11-23T10:00:00Z ", None),
            (" 2026-11-23T10:00:00Z", None),
            ("2026/11/23T10:00:00Z", None),
            ("+026-11-23T10:00:00Z", None),
            ("", None),
        ] {
            let mut last = Minute::default();
            let fresh = instant(text.as_bytes(), &mut last).ok();
            assert_eq!(fresh, expected, "{text}");
            assert_eq!(instant(text.as_bytes(), &mut last).ok(), expected, "{text} again");
        }
    }

    #[test]
    fn every_unit_drops_what_is_finer_and_refuses_what_it_cannot_hold() {
        for (at, unit, expected) in [
            ((-1, 999_999_999), TimeUnit::Second, Some(-1)),
            ((-1, 999_999_999), TimeUnit::Millisecond, Some(-1)),
            ((1, 1_234_567), TimeUnit::Millisecond, Some(1_001)),
            ((1, 1_234_567), TimeUnit::Microsecond, Some(1_001_234)),
            ((1, 1_234_567), TimeUnit::Nanosecond, Some(1_001_234_567)),
            ((9_223_372_036, 854_775_807), TimeUnit::Nanosecond, Some(i64::MAX)),
            ((9_223_372_036, 854_775_808), TimeUnit::Nanosecond, None),
            ((9_223_372_037, 0), TimeUnit::Nanosecond, None),
            ((-9_223_372_037, 145_224_192), TimeUnit::Nanosecond, Some(i64::MIN)),
            ((-9_223_372_037, 145_224_191), TimeUnit::Nanosecond, None),
        ] {
            assert_eq!(in_unit(at, unit), expected, "{at:?} in {unit:?}");
        }
    }
}
