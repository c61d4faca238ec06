//! Every sink against what must come of the topic.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::event::{Entry, Log, Row, What};
use super::lanes::{self, BY_CONTENT, BY_TYPE, TOP, TOP_600, WINDOWED, Windows};
use super::poller::Seen;
use super::receiver::Receiver;
use super::records::{Collector, LaneRecords};
use super::verdict::Verdict;
use super::windows::{self, Sums};
use crate::end_to_end::found::{double, files, long, parquet, text};
use crate::support::kafka::{Record, Topic};
use crate::support::project::Project;

type Place = (i32, i64);
/// A dead letter of one lane: its place and code; and whether it has the original's payload.
type Letter = ((Place, String), bool);

fn places(log: &Log, is: impl Fn(&What) -> bool) -> Vec<(Place, &Entry)> {
    let partitions = log.partitions.iter().enumerate();
    partitions
        .flat_map(|(partition, entries)| entries.iter().map(move |entry| ((partition as i32, entry.offset), entry)))
        .filter(|(_, entry)| is(&entry.what))
        .collect()
}

/// Each good event once in the Parquet files, by its id, with every column.
pub(super) fn parquet_rows(log: &Log, folder: &Path) -> Verdict {
    let rows = files(folder, "parquet").into_iter().flat_map(|path| parquet(&path).map(parquet_row).collect::<Vec<_>>());
    let expected = |id: &i64| log.by_id.get(id).and_then(|(partition, index)| log.row(&log.partitions[*partition][*index]));
    Verdict::with("Parquet rows", log.good(), log.by_id.keys(), rows.map(|row| (row.id.unwrap_or(-1), row)), expected, false)
}

fn parquet_row(columns: Vec<(String, parquet::record::Field)>) -> Row {
    let mut columns = columns.into_iter();
    let mut next = |name: &str| {
        let (found, field) = columns.next().unwrap();
        assert_eq!(found, name);
        field
    };
    Row {
        id: long(&next("id")),
        content_id: text(next("content_id")),
        user_id: text(next("user_id")),
        event_type: text(next("event_type")),
        event_ts: long(&next("event_ts")),
        duration_ms: long(&next("duration_ms")),
        device: text(next("device")),
        raw_payload: text(next("raw_payload")),
        title: text(next("title")),
        content_type: text(next("content_type")),
        length_seconds: long(&next("length_seconds")),
        engagement_seconds: double(&next("engagement_seconds")),
        engagement_pct: double(&next("engagement_pct")),
    }
}

/// The place that a row's id names: `topic/partition/offset`.
fn place(topic: &str, id: &str) -> Option<Place> {
    let (partition, offset) = id.strip_prefix(topic)?.strip_prefix('/')?.split_once('/')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

/// Each good event once with every column, by the place that its id names.
fn by_place(name: &str, log: &Log, rows: impl Iterator<Item = (Option<Place>, Row)>, is_upserted: bool) -> Verdict {
    let good: Vec<Place> = places(log, |what| matches!(what, What::Good(_))).into_iter().map(|(place, _)| place).collect();
    let expected = |place: &Place| log.at(place.0, place.1).and_then(|entry| log.row(entry));
    let rows = rows.map(|(place, row)| (place.unwrap_or((-1, -1)), row));
    Verdict::with(name, good.len(), good.iter(), rows, expected, is_upserted)
}

/// Each good event once for a reader of committed records, by the header `falaj.id`.
pub(super) fn kafka_rows(log: &Log, project: &Project) -> Verdict {
    let mut found = Vec::new();
    project.topic.read(&lanes::copies(project), |message| {
        let record = Record::read(message);
        let row: Row = serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap();
        // A row with another key is as good as none.
        let is_keyed = record.key.as_deref() == row.content_id.as_deref().map(str::as_bytes);
        found.push((place(&project.name, record.header("falaj.id")).filter(|_| is_keyed), row));
    });
    by_place("Kafka, read_committed", log, found.into_iter(), false)
}

/// Each good event once among a receiver's effective rows, by its `_id`.
pub(super) fn received_rows(name: &str, log: &Log, topic: &str, receiver: &Receiver, is_upserted: bool) -> Verdict {
    #[derive(Deserialize)]
    struct Received {
        #[serde(rename = "_id")]
        id: String,
        #[serde(flatten)]
        row: Row,
    }
    let rows = receiver.rows().map(|line| {
        let received: Received = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        (place(topic, &received.id), received.row)
    });
    by_place(name, log, rows, is_upserted)
}

/// Each record that cannot be decoded once, and each row that came late, from the future or without a time once for each lane
/// with windows; all with the payload of the original.
pub(super) fn dead_letters(log: &Log, collector: &Collector, topic: &Topic) -> (Vec<Verdict>, usize, Vec<String>) {
    let mut violations = Vec::new();
    let mut expected: HashMap<&str, HashMap<(Place, String), bool>> = HashMap::new();
    let poison = places(log, |what| matches!(what, What::Poison)).into_iter();
    expected.insert(lanes::DLQ, poison.map(|(place, _)| ((place, "undecodable".to_string()), true)).collect());
    let mut late = 0;
    for windows in WINDOWED {
        let (letters, wrong) = windows::letters(log, windows, &collector.lanes[windows.lane]);
        violations.extend(wrong.into_iter().take(5));
        late += letters.iter().filter(|(.., code)| *code == "late").count();
        let letters = letters.into_iter().map(|(partition, offset, code)| (((partition, offset), code.to_string()), true));
        expected.insert(windows.lane, letters.collect());
    }
    let mut found: HashMap<String, Vec<Letter>> = HashMap::new();
    for letter in topic.letters() {
        let number = |name: &str| letter.header(name).parse::<i64>().unwrap();
        let place = (number("__connect.errors.partition") as i32, number("__connect.errors.offset"));
        let code = match letter.header("falaj.dlq.stage") {
            "decode" | "schema" => "undecodable".to_string(),
            _ => letter.header("falaj.dlq.code").to_string(),
        };
        let is_whole = log.at(place.0, place.1).is_some_and(|entry| entry.payload.as_deref() == letter.payload.as_deref())
            && letter.header("__connect.errors.topic") == topic.name;
        found.entry(letter.header("falaj.dlq.lane").to_string()).or_default().push(((place, code), is_whole));
    }
    let mut verdicts: Vec<Verdict> = Vec::new();
    for (lane, expected) in &expected {
        let found = found.remove(*lane).unwrap_or_default();
        verdicts.push(Verdict::of(&format!("dead letters of {lane}"), expected, found.into_iter(), false));
    }
    verdicts.sort_by(|a, b| a.sink.cmp(&b.sink));
    violations.extend(found.keys().map(|lane| format!("dead letters of '{lane}', which should have none")));
    (verdicts, late, violations)
}

/// Each window and group of the final lane once.
pub(super) fn final_windows(log: &Log, lane: &LaneRecords, folder: &Path) -> Verdict {
    type Key = (i64, (Option<String>, Option<String>));
    let expected: HashMap<Key, Sums> = windows::finals(log, BY_TYPE, lane)
        .into_iter()
        .map(|((end_ns, kind), sums)| ((end_ns / 1_000_000, log.types[kind].clone()), sums))
        .collect();
    let row = |columns: Vec<(String, parquet::record::Field)>| {
        let [end, content_type, event_type, events, timed, duration, longest] =
            <[_; 7]>::try_from(columns).unwrap().map(|(_, field)| field);
        let sums = Sums {
            events: long(&events).unwrap(),
            timed: long(&timed).unwrap(),
            duration_ms: long(&duration).unwrap_or(0),
            longest_ms: long(&longest).unwrap_or(0),
        };
        ((long(&end).unwrap(), (text(content_type), text(event_type))), sums)
    };
    let found = files(folder, "parquet").into_iter().flat_map(|path| parquet(&path).map(row).collect::<Vec<_>>());
    Verdict::of("final windows", &expected, found, false)
}

/// The board in Redis is that of the last epoch, and whoever looked saw only boards of epochs.
pub(super) fn board(
    log: &Log,
    windows: Windows,
    lane: &LaneRecords,
    seen: &Seen,
    now: &[(String, f64)],
) -> (Verdict, Vec<String>) {
    let boards = windows::boards(log, windows, lane);
    let expected: HashMap<String, i64> = boards.last.clone().into_iter().collect();
    let found = now.iter().map(|(member, score)| (member.clone(), *score as i64));
    let verdict = Verdict::of(&format!("board {}", windows.lane), &expected, found, false);
    let mut violations = Vec::new();
    for (board, looks) in seen.boards.iter().filter(|(hash, _)| !boards.hashes.contains_key(hash)).map(|(_, seen)| seen) {
        violations.push(format!("board '{}' of no epoch, seen {looks} times: {board:?}", windows.lane));
    }
    // A board may only be followed by one of a later epoch, but for what Redis lost: an older process that writes would show here.
    let (mut at, mut losses) = (0, 0);
    for (hash, over, begun) in &seen.order {
        let Some(epochs) = boards.hashes.get(hash) else { continue };
        match epochs.iter().find(|epoch| **epoch >= at) {
            Some(epoch) => at = *epoch,
            None if *begun > losses => at = epochs[0],
            None => violations.push(format!("board '{}' of epochs {epochs:?} was seen after that of epoch {at}", windows.lane)),
        }
        losses = *over;
    }
    if seen.empty > 0 && !boards.empty {
        violations.push(format!("board '{}' was empty for {} looks, and no epoch's board is", windows.lane, seen.empty));
    }
    violations.extend(seen.odd.iter().map(|odd| format!("board '{}' with odd scores: {odd}", windows.lane)));
    (verdict, violations)
}

/// The boards that are polled, with their lanes.
pub(super) const POLLED: [Windows; 2] = [TOP, TOP_600];

/// When Redis lost data (ns since 1970): all of it, or what it took in the last moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    pub(super) at_ns: i64,
    pub(super) all: bool,
}

/// `appendfsync everysec` may hold writes back for two seconds.
const UNWRITTEN_NS: i64 = 3_000_000_000;

/// Each slot of the hash is what its rows make. What Redis lost only new rows bring back, so slots that changed last before that
/// may be missing or old; how many were excused is said.
pub(super) async fn hashes(log: &Log, lane: &LaneRecords, project: &Project, losses: &[Lost]) -> (Verdict, usize) {
    let mut redis = project.redis().await;
    let prefix = project.board_key("by_content");
    let all: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}:*")).query_async(&mut redis).await.unwrap();
    let mut others: std::collections::HashSet<String> = all.into_iter().collect();
    let (mut expected, mut found, mut excused) = (HashMap::new(), Vec::new(), 0);
    for ((end_ns, content), (sums, changed_ns)) in windows::updates(log, BY_CONTENT, lane) {
        let end = chrono::DateTime::from_timestamp_nanos(end_ns).format("%Y-%m-%dT%H:%M:%S");
        let key = format!("{prefix}:{}@{end}", log.contents[content]);
        let fields: HashMap<String, String> = redis::cmd("HGETALL").arg(&key).query_async(&mut redis).await.unwrap();
        others.remove(&key);
        let mut right = HashMap::from([
            ("content_id".to_string(), log.contents[content].clone()),
            ("events".to_string(), sums.events.to_string()),
        ]);
        if sums.timed > 0 {
            right.insert("duration_ms".to_string(), sums.duration_ms.to_string());
        }
        let may_be_lost =
            losses.iter().any(|lost| changed_ns <= lost.at_ns && (lost.all || changed_ns > lost.at_ns - UNWRITTEN_NS));
        if fields != right && may_be_lost {
            excused += 1;
            continue;
        }
        if !fields.is_empty() {
            found.push((key.clone(), fields));
        }
        expected.insert(key, right);
    }
    found.extend(others.into_iter().map(|key| (key, HashMap::new())));
    (Verdict::of("hash by_content", &expected, found.into_iter(), false), excused)
}
