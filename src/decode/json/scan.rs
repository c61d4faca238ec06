//! A strict scanner of JSON for the fast path: it finds where a value ends without an allocation.
//!
//! Every function takes bytes that are valid UTF-8 and a position, and gives `None` for whatever is not JSON
//! *or not usual* (an escape where none is expected, `\u`, deep nesting). `None` costs a second look, never a record.

use super::LEVELS_MAX;
use crate::decode::rows::value::Shape;

/// A value found: its text is `bytes[from..to]` (without the quotes of a string), and what follows begins at `next`.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Found {
    pub(in crate::decode) shape: Shape,
    pub(in crate::decode) from: usize,
    pub(in crate::decode) to: usize,
    pub(in crate::decode) next: usize,
}

/// The value that begins at `at`. A string with an escape is refused, inside of nested values only `\u` is.
#[inline]
pub(in crate::decode) fn value(bytes: &[u8], at: usize) -> Option<Found> {
    let (shape, next) = match *bytes.get(at)? {
        b'"' => {
            let end = plain_string(bytes, at + 1)?;
            return Some(Found { shape: Shape::String, from: at + 1, to: end, next: end + 1 });
        }
        b'-' | b'0'..=b'9' => (Shape::Number, number(bytes, at)?),
        b'{' | b'[' => (Shape::Nested, skip(bytes, at, 1)?),
        b't' => (Shape::True, word(bytes, at, b"true")?),
        b'f' => (Shape::False, word(bytes, at, b"false")?),
        b'n' => (Shape::Null, word(bytes, at, b"null")?),
        _ => return None,
    };
    Some(Found { shape, from: at, to: next, next })
}

/// Passes over any value, checking all of it; `level` is how many objects and arrays are open around it.
pub(in crate::decode) fn skip(bytes: &[u8], at: usize, level: usize) -> Option<usize> {
    match *bytes.get(at)? {
        b'"' => string(bytes, at + 1),
        b'-' | b'0'..=b'9' => number(bytes, at),
        b'{' if level < LEVELS_MAX => object(bytes, at + 1, level + 1),
        b'[' if level < LEVELS_MAX => array(bytes, at + 1, level + 1),
        b't' => word(bytes, at, b"true"),
        b'f' => word(bytes, at, b"false"),
        b'n' => word(bytes, at, b"null"),
        _ => None,
    }
}

fn object(bytes: &[u8], at: usize, level: usize) -> Option<usize> {
    let mut at = blanks(bytes, at);
    if bytes.get(at) == Some(&b'}') {
        return Some(at + 1);
    }
    loop {
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        at = blanks(bytes, string(bytes, at + 1)?);
        if bytes.get(at) != Some(&b':') {
            return None;
        }
        at = blanks(bytes, skip(bytes, blanks(bytes, at + 1), level)?);
        match bytes.get(at)? {
            b',' => at = blanks(bytes, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

fn array(bytes: &[u8], at: usize, level: usize) -> Option<usize> {
    let mut at = blanks(bytes, at);
    if bytes.get(at) == Some(&b']') {
        return Some(at + 1);
    }
    loop {
        at = blanks(bytes, skip(bytes, at, level)?);
        match bytes.get(at)? {
            b',' => at = blanks(bytes, at + 1),
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// The position of the first byte from `at` on that is not white space.
#[inline]
pub(in crate::decode) fn blanks(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

#[inline]
fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(word).then_some(at + word.len())
}

/// The position of the closing quote of a string without escapes whose text begins at `at`.
#[inline]
pub(in crate::decode) fn plain_string(bytes: &[u8], at: usize) -> Option<usize> {
    let end = stop(bytes, at)?;
    (bytes[end] == b'"').then_some(end)
}

/// The position behind the closing quote of a string whose text begins at `at`; two-letter escapes are allowed.
#[inline]
fn string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = stop(bytes, at)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            b'\\' if matches!(bytes.get(at + 1), Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => at += 2,
            _ => return None,
        }
    }
}

/// The first quote, backslash or control character from `at` on.
#[inline]
fn stop(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(eight) = bytes.get(at..)?.first_chunk::<8>() {
        let marks = stops(u64::from_le_bytes(*eight));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20)).map(|found| at + found)
}

/// Marks the high bit of every byte of `eight` that ends a run of plain text; bytes above the lowest mark may be
/// marked wrongly (a borrow runs upwards), so only the lowest counts.
#[inline]
fn stops(eight: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let quotes = eight ^ (ONES * b'"' as u64);
    let slashes = eight ^ (ONES * b'\\' as u64);
    let quote = quotes.wrapping_sub(ONES) & !quotes;
    let slash = slashes.wrapping_sub(ONES) & !slashes;
    let control = eight.wrapping_sub(ONES * 0x20) & !eight;
    (quote | slash | control) & HIGH
}

/// The position behind the number that begins at `at`.
#[inline]
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let at = if bytes.get(at) == Some(&b'-') { at + 1 } else { at };
    let mut at = match bytes.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => digits(bytes, at + 1),
        _ => return None,
    };
    if bytes.get(at) == Some(&b'.') {
        let end = digits(bytes, at + 1);
        if end == at + 1 {
            return None;
        }
        at = end;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let from = if let Some(b'+' | b'-') = bytes.get(at + 1) { at + 2 } else { at + 1 };
        at = digits(bytes, from);
        if at == from {
            return None;
        }
    }
    Some(at)
}

#[inline]
fn digits(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b'0'..=b'9') = bytes.get(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_plain_text_ends_at_the_first_stop_wherever_it_stands() {
        for stop_byte in [b'"', b'\\', 0, 1, 0x1f] {
            for position in 0..20 {
                // The bytes around differ from a stop by one bit or by one, which is what tricks on words get wrong.
                for around in [b'a', b'#', b'!', b']', b'[', 0x20, 0x7f, 0x80, 0xff] {
                    let mut bytes = [around; 24];
                    bytes[position] = stop_byte;
                    assert_eq!(stop(&bytes, 0), Some(position), "{stop_byte} at {position} among {around}");
                    bytes[position + 1..].fill(stop_byte);
                    assert_eq!(stop(&bytes, 0), Some(position));
                }
            }
        }
        assert_eq!(stop(b"nothing of that kind", 0), None);
    }
}
