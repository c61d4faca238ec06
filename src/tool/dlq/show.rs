//! `falaj dlq show`: letters whole.

use clap::Args;

use super::filter::FilterArgs;
use super::{each, excerpt_of, name, time};
use crate::dead::letter::{Letter, Original};
use crate::error::Result;

/// How much of a line stands before and behind the place that is marked in it.
const AROUND_CHARS: usize = 60;
/// Bytes in a line of a dump.
const DUMP_BYTES: usize = 16;
/// How much of a key and of a header is shown.
const HEADER_CHARS: usize = 200;

/// What `falaj dlq show` takes.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// How many letters are shown, the oldest first
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    limit: usize,
    /// How much of a payload is shown
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    payload_max: usize,
}

pub(super) async fn run(args: ShowArgs) -> Result<()> {
    let ShowArgs { filter, limit, payload_max } = args;
    let passes = filter.clone();
    let shown = each(&filter, &filter.project().await?, 0, move |kept, shown| {
        if *shown >= limit {
            return Ok(());
        }
        kept.begin()?;
        while *shown < limit
            && let Some(letter) = kept.next()?
        {
            if passes.passes(&letter) {
                let gap = if *shown == 0 { "" } else { "\n" };
                print!("{gap}{}", whole(&letter, payload_max));
                *shown += 1;
            }
        }
        Ok(())
    })
    .await?;
    if shown == 0 {
        println!("no letters");
    }
    Ok(())
}

/// All of a letter, in lines.
fn whole(letter: &Letter, payload_max: usize) -> String {
    let mut lines = vec![name(letter)];
    let mut line = |name: &str, text: &str| lines.push(format!("  {name:<10}{}", visible(text)));
    line("reason", &letter.message);
    line("failed", &time(letter.failed_ms));
    line("lane", &letter.lane);
    if let Some(id) = &letter.schema_id {
        line("schema", id);
    }
    if letter.attempts > 0 {
        let lane = letter.restricted_to.as_ref().map_or(String::new(), |lane| format!(", for the lane '{lane}' only"));
        line("replayed", &format!("{} before{lane}", times(letter.attempts)));
    }
    if let Some(ms) = letter.timestamp_ms {
        line("record of", &time(ms));
    }
    if let Some(key) = &letter.key {
        line("key", &excerpt_of(Some(key), HEADER_CHARS));
    }
    for (header, value) in &letter.headers {
        line("header", &format!("{header} = {}", excerpt_of(value.as_deref(), HEADER_CHARS)));
    }
    match (&letter.payload, letter.original) {
        (Some(payload), Original::There) => {
            line("payload", &format!("{} bytes", payload.len()));
            lines.extend(shown(payload, place_of(&letter.message), payload_max));
        }
        (None, Original::There) => line("payload", "none: a tombstone"),
        (_, Original::Gone) => line("payload", "not kept: the record was gone from its source, or its source keeps none"),
        (_, Original::None) => line("payload", "none: it is a row of no single record"),
    }
    lines.join("\n") + "\n"
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_string() } else { format!("{count} times") }
}

/// The byte of the payload, counted from 0, that a reason names.
fn place_of(message: &str) -> Option<usize> {
    let (_, after) = message.rsplit_once("byte ")?;
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..digits].parse().ok()
}

/// The payload, and the place in it.
fn shown(payload: &[u8], place: Option<usize>, payload_max: usize) -> Vec<String> {
    let place = place.filter(|&at| at <= payload.len());
    let cut = payload.len() > payload_max;
    let mut lines = match str::from_utf8(payload) {
        Ok(text) => {
            let mut lines: Vec<String> =
                text[..text.floor_char_boundary(payload_max)].lines().map(|line| format!("  {}", visible(line))).collect();
            lines.extend(place.into_iter().flat_map(|at| marked(text, at)));
            lines
        }
        Err(_) => {
            // The rows that hold the place are shown even if they lie further back.
            let place_row = place.map(|at| at / DUMP_BYTES);
            let rows = payload.chunks(DUMP_BYTES).enumerate();
            let wanted = rows.filter(|(row, _)| row * DUMP_BYTES < payload_max || Some(*row) == place_row);
            wanted.flat_map(|(row, bytes)| dumped(row, bytes, place.filter(|_| Some(row) == place_row))).collect()
        }
    };
    if cut {
        lines.push(format!("  … ({} bytes in all; --payload-max shows more)", payload.len()));
    }
    lines
}

/// The part of the line around byte `at`, and a mark below that byte.
fn marked(text: &str, at: usize) -> Vec<String> {
    let at = text.floor_char_boundary(at);
    let from = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let (before, after) = (&text[from..at], text[at..].split('\n').next().unwrap_or_default());
    let skipped = before.chars().count().saturating_sub(AROUND_CHARS);
    let before: String = before.chars().skip(skipped).collect();
    let after: String = after.chars().take(AROUND_CHARS).collect();
    let width = before.chars().count();
    let caret = format!("  {:width$}^ byte {at}", "");
    vec!["  at this place:".to_string(), format!("  {}", visible(&(before + &after))), caret]
}

/// A line of a dump, and below it a mark.
fn dumped(row: usize, bytes: &[u8], place: Option<usize>) -> Vec<String> {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text: String = bytes.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' }).collect();
    let line = format!("  {:08x}  {:<47}  {text}", row * DUMP_BYTES, hex.join(" "));
    let caret = place.map(|at| format!("  {:width$}^ byte {at}", "", width = 10 + 3 * (at % DUMP_BYTES)));
    std::iter::once(line).chain(caret).collect()
}

/// A text without what a terminal would obey.
fn visible(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{b7}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_that_a_reason_names_is_marked_in_a_text() {
        let payload = br#"{"id": 1, "kind": tru, "x": 0}"#;
        let place = place_of("the payload is not JSON: expected ident at byte 21");
        let lines = shown(payload, place, 1000);
        let at = lines.iter().position(|line| line.contains('^')).unwrap();
        assert_eq!(lines[at].find('^'), lines[at - 1].find(", \"x\""), "{lines:#?}");
        assert_eq!(shown(b"{}", place_of("it says nothing"), 1000), ["  {}"]);
        assert_eq!(shown(b"{}", place_of("at byte 99"), 1000), ["  {}"]);
    }

    #[test]
    fn a_place_far_back_in_a_long_line_is_shown_with_what_is_around_it() {
        let payload = format!("{}é!{}", "a".repeat(5000), "b".repeat(5000));
        let lines = shown(payload.as_bytes(), Some(5002), 100);
        assert_eq!(lines[2], format!("  {}é!{}", "a".repeat(59), "b".repeat(59)));
        assert_eq!(lines[3], format!("  {}^ byte 5002", " ".repeat(60)));
        assert_eq!(lines[4], "  … (10003 bytes in all; --payload-max shows more)");
    }

    #[test]
    fn what_is_no_text_is_dumped_and_its_place_marked() {
        let payload: Vec<u8> = (0x30..0x40).chain([0xff, 0x41]).collect();
        let lines = shown(&payload, Some(16), 1000);
        assert_eq!(lines[0], "  00000000  30 31 32 33 34 35 36 37 38 39 3a 3b 3c 3d 3e 3f  0123456789:;<=>?");
        assert!(lines[1].starts_with("  00000010  ff 41 ") && lines[1].ends_with(" .A"), "{lines:#?}");
        assert_eq!(lines[2], "            ^ byte 16");
    }

    #[test]
    fn a_terminal_obeys_nothing_that_a_payload_says() {
        assert_eq!(shown(b"a\x1b[2Jb\rc", None, 1000), ["  a\u{b7}[2Jb\u{b7}c"]);
    }
}
