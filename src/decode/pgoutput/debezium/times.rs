//! Times as Postgres writes them (ISO, in UTC), in µs.

use chrono::{Datelike, NaiveDate};

const DAY_US: i64 = 86_400_000_000;
/// The first of January 1970, as chrono counts days.
const DAYS_BEFORE_1970: i32 = 719_163;

/// Days since 1970. Years may have more than four digits, and `BC` may follow.
fn days(text: &str, before_christ: bool) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let year: i32 = parts.next()?.parse().ok()?;
    let (month, day) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let year = if before_christ { 1 - year } else { year };
    Some(i64::from(NaiveDate::from_ymd_opt(year, month, day)?.num_days_from_ce() - DAYS_BEFORE_1970))
}

/// Days since 1970 of a DATE; one without an end is the last, or first, that 32 bits can count to.
pub(super) fn date(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i32::MAX.into()),
        "-infinity" => Some(i32::MIN.into()),
        _ => match text.strip_suffix(" BC") {
            Some(text) => days(text, true),
            None => days(text, false),
        },
    }
}

/// µs since midnight of `HH:MM:SS.ffffff`.
pub(super) fn time(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i32 = parts.next()?.parse().ok()?;
    hours.checked_mul(60)?.checked_add(minutes.into())?.checked_mul(60_000_000)?.checked_add(micros(parts.next()?)?)
}

/// µs of `SS.ffffff`, which may have a sign.
fn micros(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i32 = whole.parse().ok()?;
    let padded = format!("{fraction:0<6}");
    let part: i64 = padded.get(..6)?.parse().ok()?;
    Some(i64::from(seconds) * 1_000_000 + if whole.starts_with('-') { -part } else { part })
}

/// µs since 1970 of `YYYY-MM-DD HH:MM:SS.ffffff`, maybe with ` BC`.
pub(super) fn instant(text: &str) -> Option<i64> {
    let (text, before_christ) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (date, clock) = text.split_once(' ')?;
    days(date, before_christ)?.checked_mul(DAY_US)?.checked_add(time(clock)?)
}

/// The same of a time with the zone UTC, which stands before ` BC`.
pub(super) fn utc(text: &str) -> Option<i64> {
    match text.strip_suffix("+00 BC") {
        Some(text) => instant(&format!("{text} BC")),
        None => instant(text.strip_suffix("+00")?),
    }
}

/// `2025-06-01T10:34:56.789012Z`
pub(super) fn shown(us: i64) -> Option<String> {
    let day = i32::try_from(us.div_euclid(DAY_US)).ok()?.checked_add(DAYS_BEFORE_1970)?;
    let date = NaiveDate::from_num_days_from_ce_opt(day)?;
    let sign = match date.year() {
        10_000.. => "+",
        ..0 => "-",
        _ => "",
    };
    let (year, month, day) = (date.year().unsigned_abs(), date.month(), date.day());
    Some(format!("{sign}{year:04}-{month:02}-{day:02}T{}", clock(us.rem_euclid(DAY_US))))
}

/// `10:34:56.789012Z`
pub(super) fn clock(us: i64) -> String {
    let (seconds, micros) = (us / 1_000_000, us % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06}Z")
}

/// `12:34:56.789012+02:30`, as µs since midnight in UTC.
pub(super) fn time_with_zone(text: &str) -> Option<i64> {
    let sign = text.rfind(['+', '-'])?;
    let mut zone = text.get(sign + 1..)?.splitn(3, ':').map(|part| part.parse::<i32>().ok().map(i64::from));
    let mut part = || zone.next().unwrap_or(Some(0));
    let ahead = (part()? * 3600 + part()? * 60 + part()?) * 1_000_000;
    let ahead = if text.as_bytes()[sign] == b'-' { -ahead } else { ahead };
    Some(time(&text[..sign])?.checked_sub(ahead)?.rem_euclid(DAY_US))
}

/// µs of `1 year 2 mons 3 days -04:05:06.789`; a month has 30.4375 days.
pub(super) fn interval(text: &str) -> Option<i64> {
    let (mut months, mut us) = (0_i64, 0_i64);
    let mut parts = text.split(' ');
    while let Some(part) = parts.next() {
        if part.contains(':') {
            let (negative, clock) = part.strip_prefix('-').map_or((false, part), |clock| (true, clock));
            let of_day = time(clock.trim_start_matches('+'))?;
            us = if negative { us.checked_sub(of_day)? } else { us.checked_add(of_day)? };
            continue;
        }
        let number: i64 = part.parse().ok()?;
        match parts.next()? {
            "year" | "years" => months = months.checked_add(number.checked_mul(12)?)?,
            "mon" | "mons" => months = months.checked_add(number)?,
            "day" | "days" => us = us.checked_add(number.checked_mul(DAY_US)?)?,
            _ => return None,
        }
    }
    // 30.4375 days are a whole number of µs.
    us.checked_add(months.checked_mul(DAY_US / 10_000 * 304_375)?)
}
