//! What a checkpoint holds, for a person to read.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::DateTime;

use super::Checkpoint;
use crate::checkpoint::Stored;
use crate::checkpoint::read;
use crate::checkpoint::record::{Entry, Handover, Intent, Record, Snapshot, Step};
use crate::clock::Clock;
use crate::error::Result;
use crate::position::Positions;

/// Prints where each lane stands.
pub(super) async fn lanes(checkpoint: &Checkpoint) -> Result<()> {
    let lineage = &checkpoint.lineage.lineage;
    println!("checkpoint {}", checkpoint.place);
    let from = checkpoint.lineage.forked_from.as_ref().map_or(String::new(), |from| format!(", forked from {from}"));
    println!("lineage {lineage}, begun {}{from}", begun(lineage));
    for lane in &checkpoint.lanes {
        let records = read::all(checkpoint.store.as_ref(), lineage, lane).await?;
        println!("\n{lane}");
        let stored = checkpoint.store.look(lane).await?;
        print!("{}", Standing::of(&records).lines(&stored, Clock::system().now_ms()));
    }
    Ok(())
}

/// Prints the last records of a lane, the newest last.
pub(super) async fn records(checkpoint: &Checkpoint, lane: &str, count: usize) -> Result<()> {
    let records = read::all(checkpoint.store.as_ref(), &checkpoint.lineage.lineage, lane).await?;
    let width = records.last().map_or(1, |(number, _)| number.to_string().len());
    for (number, record) in records.iter().skip(records.len().saturating_sub(count)) {
        match record {
            Ok(record) => println!("{number:width$}  incarnation {}  {}", record.incarnation, words(record)),
            Err(error) => println!("{number:width$}  {error}"),
        }
    }
    Ok(())
}

/// Where a lane stands, as its records say.
#[derive(Default)]
struct Standing<'r> {
    /// Incarnation, time and number.
    claim: Option<(u64, i64, u64)>,
    intent: Option<&'r Intent>,
    committed: u64,
    /// With the number of its record.
    snapshot: Option<(&'r Snapshot, u64)>,
    handover: Option<&'r Handover>,
    /// The first and the last number.
    numbers: Option<(u64, u64)>,
    count: usize,
    unreadable: usize,
}

impl<'r> Standing<'r> {
    fn of(records: &'r [(u64, Result<Record>)]) -> Self {
        let numbers = records.first().zip(records.last()).map(|((first, _), (last, _))| (*first, *last));
        let mut standing = Self { numbers, count: records.len(), ..Self::default() };
        for (number, record) in records {
            let Ok(record) = record else {
                standing.unreadable += 1;
                continue;
            };
            for entry in &record.entries {
                match entry {
                    Entry::Handover(handover) => {
                        standing.handover = Some(handover);
                        if handover.step == Step::Done {
                            (standing.intent, standing.snapshot, standing.committed) = (None, None, 0);
                        }
                    }
                    Entry::Claim { at_ms } => standing.claim = Some((record.incarnation, *at_ms, *number)),
                    Entry::Intent(intent) => standing.intent = Some(intent),
                    Entry::Commit { epoch } => standing.committed = standing.committed.max(*epoch),
                    Entry::Snapshot(snapshot) => standing.snapshot = Some((snapshot, *number)),
                }
            }
        }
        standing
    }

    fn lines(&self, stored: &[Stored], now_ms: i64) -> String {
        let mut text = String::new();
        let mut line = |name: &str, what: String| {
            let _ = writeln!(text, "  {name:<11}{what}");
        };
        if let Some((incarnation, at_ms, number)) = self.claim {
            line("claim", format!("incarnation {incarnation}, {} (record {number})", time(at_ms.saturating_mul(1_000_000))));
        }
        if let Some(handover) = self.handover {
            line("handover", handover_words(handover));
        }
        let last = self.intent.or(self.snapshot.map(|(snapshot, _)| &snapshot.intent));
        match last {
            None => line("epoch", "none yet".to_string()),
            Some(intent) => {
                let committed = if intent.epoch <= self.committed.max(self.snapshot.map_or(0, |(of, _)| of.epoch)) {
                    "committed"
                } else {
                    "open: the next start finishes it"
                };
                line("epoch", format!("{}, {committed}", intent.epoch));
                line("positions", positions(&intent.positions));
                if let Some(at) = intent.watermark_ns {
                    line("watermark", time(at));
                }
                if let Some(at) = intent.board_ns {
                    line("T", time(at));
                }
            }
        }
        if let Some((snapshot, number)) = self.snapshot {
            line("snapshot", snapshot_words(snapshot) + &written(stored, &format!("{number:020}.json"), now_ms));
        }
        let (records, states) = sizes(stored);
        let numbers = self.numbers.map_or(String::new(), |(first, last)| format!(", {first} to {last}"));
        let state = if states > 0 { format!(", and {} of state files", size(states)) } else { String::new() };
        line("records", format!("{}{numbers}, {}{state}", self.count, size(records)));
        if self.unreadable > 0 {
            line("unreadable", format!("{} of them: see 'falaj checkpoint verify'", self.unreadable));
        }
        text
    }
}

/// What a record says, in a line.
fn words(record: &Record) -> String {
    let words = record.entries.iter().map(|entry| match entry {
        Entry::Claim { at_ms } => format!("claim at {}", time(at_ms.saturating_mul(1_000_000))),
        Entry::Intent(intent) => intent_words(intent),
        Entry::Commit { epoch } => format!("commit of epoch {epoch}"),
        Entry::Snapshot(snapshot) => format!("snapshot as of {}", snapshot_words(snapshot)),
        Entry::Handover(handover) => handover_words(handover),
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "nothing (a fork left it out)".to_string() } else { words.join("; ") }
}

fn handover_words(Handover { step, lineage, .. }: &Handover) -> String {
    match step {
        Step::Stop => format!("stands still for the backfill {lineage}"),
        Step::Swap => format!("its result is exchanged for that of the backfill {lineage}"),
        Step::Done => format!("goes on from the result of the backfill {lineage}"),
        Step::Off => format!("goes on as it was, without the backfill {lineage}"),
    }
}

fn intent_words(intent: &Intent) -> String {
    let spans: Vec<String> =
        intent.spans.iter().map(|span| format!("{}: [{}, {})", span.partition, span.from, span.to)).collect();
    let spans = if spans.is_empty() { "no spans".to_string() } else { spans.join(" ") };
    let mut text = format!("intent of epoch {}, {spans}", intent.epoch);
    let mut more = |what: String| text += &format!(", {what}");
    if let Some(at) = intent.watermark_ns {
        more(format!("watermark {}", time(at)));
    }
    if !intent.staged.is_empty() {
        let rows: u64 = intent.staged.iter().map(|staged| staged.rows).sum();
        let bytes: u64 = intent.staged.iter().map(|staged| staged.size_bytes).sum();
        more(format!("{} staged with {rows} rows, {}", count(intent.staged.len() as u64, "file"), size(bytes)));
    }
    if intent.letters > 0 {
        more(count(intent.letters, "dead letter"));
    }
    text
}

fn snapshot_words(snapshot: &Snapshot) -> String {
    let bytes: u64 = snapshot.all_files().map(|file| file.size_bytes).sum();
    format!("epoch {}, {}, {}", snapshot.epoch, count(snapshot.all_files().count() as u64, "file"), size(bytes))
}

/// `1 file`, `2 files`.
pub(super) fn count(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// `0: 120, 1: 7`.
pub(super) fn positions(positions: &Positions) -> String {
    let each: Vec<String> = positions.iter().map(|(partition, offset)| format!("{partition}: {offset}")).collect();
    if each.is_empty() { "none".to_string() } else { each.join(", ") }
}

fn time(at_ns: i64) -> String {
    DateTime::from_timestamp_nanos(at_ns).format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

/// The time that a UUIDv7 holds.
fn begun(lineage: &str) -> String {
    let made = uuid::Uuid::parse_str(lineage).ok().and_then(|id| id.get_timestamp());
    made.map_or("at an unknown time".to_string(), |made| {
        let (seconds, nanos) = made.to_unix();
        time((seconds as i64).saturating_mul(1_000_000_000).saturating_add(i64::from(nanos)))
    })
}

/// When a record was written, and how long ago that is.
fn written(stored: &[Stored], name: &str, now_ms: i64) -> String {
    let created = stored.iter().find(|stored| stored.name == name).and_then(|stored| stored.created);
    let Some(created) = created else { return String::new() };
    let at = created.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms.unsigned_abs());
    let age = Duration::from_secs(now.duration_since(created).unwrap_or_default().as_secs());
    format!(", written {}, {} ago", time(i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)), humantime::format_duration(age))
}

/// Bytes of a lane's records, and of its state files.
fn sizes(stored: &[Stored]) -> (u64, u64) {
    let (states, records): (Vec<&Stored>, _) = stored.iter().partition(|stored| stored.name.starts_with("state-"));
    let bytes = |of: Vec<&Stored>| of.iter().map(|stored| stored.size_bytes).sum();
    (bytes(records), bytes(states))
}

fn size(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!([size(0), size(999), size(1_500), size(2_000_000_000)], ["0 bytes", "999 bytes", "1.5 KB", "2.0 GB"]);
        assert_eq!(time(1_500_000_000), "1970-01-01 00:00:01.500 UTC");
        assert_eq!(begun("0198f000-0000-7000-8000-000000000000"), "2025-08-28 09:26:28.608 UTC");
        assert_eq!(begun("mine"), "at an unknown time");
    }
}
