//! Numbers of JSON (already checked against its grammar) as whole numbers and decimals.

use super::value::Shape;
use crate::decode::json::scan;
/// Why a number does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Misfit {
    /// It has a fraction or an exponent.
    NotWhole,
    /// It is too large or too small.
    Range,
}

/// A whole number within `least..=most`, in 64 bits (as `i64` or `u64`). `-0` is 0; `1.0` and `1e2` are not whole.
#[inline]
pub(in crate::decode) fn whole(text: &[u8], least: i64, most: u64) -> Result<i64, Misfit> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut size: u64 = 0;
    // 19 digits cannot overflow, so only longer numbers pay for the check.
    let (sure, rest) = digits.split_at(digits.len().min(19));
    for &byte in sure {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Misfit::NotWhole);
        }
        size = size * 10 + u64::from(digit);
    }
    let mut fits = true;
    for &byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Misfit::NotWhole);
        }
        match size.checked_mul(10).and_then(|size| size.checked_add(u64::from(digit))) {
            Some(larger) => size = larger,
            None => fits = false,
        }
    }
    fits &= if negative { size <= least.unsigned_abs() } else { size <= most };
    if !fits {
        return Err(Misfit::Range);
    }
    let value = size as i64;
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// A decimal of `precision` digits, `scale` of them behind the point, as the number of its smallest units.
/// Further digits are rounded, a half away from zero, as Postgres does; exponents are read.
pub(in crate::decode) fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, Misfit> {
    let (negative, text) = match text {
        [b'-', text @ ..] => (true, text),
        text => (false, text),
    };
    let split = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
    let (digits, exponent) = (&text[..split], exponent(text.get(split + 1..).unwrap_or_default()));
    let before = digits.iter().position(|&byte| byte == b'.').unwrap_or(digits.len());
    // The power of ten, in smallest units, of the digit at hand.
    let mut power = (before as i64 - 1).saturating_add(exponent).saturating_add(i64::from(scale));
    let mut units: i128 = 0;
    for &byte in digits.iter().filter(|&&byte| byte != b'.') {
        let digit = i128::from(byte - b'0');
        if power >= 0 {
            units = units.checked_mul(10).and_then(|units| units.checked_add(digit)).ok_or(Misfit::Range)?;
        } else if power == -1 && digit >= 5 {
            units = units.checked_add(1).ok_or(Misfit::Range)?;
        }
        power = power.saturating_sub(1);
    }
    // `power` now belongs to the digit after the last one.
    if power >= 0 && units != 0 {
        let missing = u32::try_from(power).ok().and_then(|power| power.checked_add(1)).ok_or(Misfit::Range)?;
        units = 10i128.checked_pow(missing).and_then(|ten| units.checked_mul(ten)).ok_or(Misfit::Range)?;
    }
    let bound = 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    if units >= bound { Err(Misfit::Range) } else { Ok(if negative { -units } else { units }) }
}

/// The exponent's value, held within bounds where every number is too large or zero anyway.
fn exponent(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let size = digits.iter().fold(0i64, |size, byte| size.saturating_mul(10).saturating_add(i64::from(byte - b'0')));
    if negative { -size } else { size }
}

/// Whether `text` is a number of JSON; asked of strings that stand for decimals.
pub(in crate::decode) fn is_number(text: &[u8]) -> bool {
    scan::value(text, 0).is_some_and(|found| found.shape == Shape::Number && found.next == text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_keep_to_their_type() {
        for (text, least, most, expected) in [
            ("0", i64::MIN, i64::MAX as u64, Ok(0)),
            ("-0", 0, 255, Ok(0)),
            ("-1", 0, 255, Err(Misfit::Range)),
            ("127", -128, 127, Ok(127)),
            ("128", -128, 127, Err(Misfit::Range)),
            ("-128", -128, 127, Ok(-128)),
            ("-129", -128, 127, Err(Misfit::Range)),
            ("9223372036854775807", i64::MIN, i64::MAX as u64, Ok(i64::MAX)),
            ("9223372036854775808", i64::MIN, i64::MAX as u64, Err(Misfit::Range)),
            ("-9223372036854775808", i64::MIN, i64::MAX as u64, Ok(i64::MIN)),
            ("-9223372036854775809", i64::MIN, i64::MAX as u64, Err(Misfit::Range)),
            ("18446744073709551615", 0, u64::MAX, Ok(-1)),
            ("18446744073709551616", 0, u64::MAX, Err(Misfit::Range)),
            ("100000000000000000000000", i64::MIN, i64::MAX as u64, Err(Misfit::Range)),
            ("100000000000000000000000.5", i64::MIN, i64::MAX as u64, Err(Misfit::NotWhole)),
            ("1.0", i64::MIN, i64::MAX as u64, Err(Misfit::NotWhole)),
            ("1e2", i64::MIN, i64::MAX as u64, Err(Misfit::NotWhole)),
        ] {
            assert_eq!(whole(text.as_bytes(), least, most), expected, "{text}");
        }
    }

    #[test]
    fn decimals_are_exact_or_rounded_away_from_zero() {
        for (text, precision, scale, expected) in [
            ("12.34", 10, 2, Ok(1234)),
            ("-12.345", 10, 2, Ok(-1235)),
            ("12.344999", 10, 2, Ok(1234)),
            ("0.004", 10, 2, Ok(0)),
            ("0.005", 10, 2, Ok(1)),
            ("0.0005", 10, 2, Ok(0)),
            ("1e2", 10, 2, Ok(10000)),
            ("1.5E-1", 10, 2, Ok(15)),
            ("0e999999999999999999999", 10, 2, Ok(0)),
            ("1e999999999999999999999", 10, 2, Err(Misfit::Range)),
            ("1e-999999999999999999999", 10, 2, Ok(0)),
            ("99.99", 4, 2, Ok(9999)),
            ("99.995", 4, 2, Err(Misfit::Range)),
            ("100", 4, 2, Err(Misfit::Range)),
            ("1250", 4, -2, Ok(13)),
            ("0.33333333333333333333333333333333333333333333333333", 38, 4, Ok(3333)),
            ("99999999999999999999999999999999999999", 38, 0, Ok(99999999999999999999999999999999999999)),
            ("999999999999999999999999999999999999999999", 38, 0, Err(Misfit::Range)),
        ] {
            assert_eq!(decimal(text.as_bytes(), precision, scale), expected, "{text}");
        }
    }
}
