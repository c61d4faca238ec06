//! Every payload of `tests/json_corpus` in one topic, beside good events and tombstones: each becomes what its folder says, in every sink,
//! and costs no other anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use serde_json::Value;

use super::found::{self, assert_same, files};
use super::oracle::{Oracle, Row};
use super::{PARTITIONS, boards, events, produce};
use crate::json_corpus::{COLUMNS, Case, cases};
use crate::support::kafka::Record;
use crate::support::project::Project;
use crate::support::receiver::Receiver;

/// Their ids are below those of the corpus.
const GOOD: usize = 1_000;
const TOMBSTONES: usize = 20;

const EVERYTHING: &str = "
CREATE EXTERNAL TABLE everything (id BIGINT, note VARCHAR, whole BIGINT, tiny BIGINT, byte BIGINT, huge DECIMAL(20, 0), single REAL,
  wide DOUBLE, flag BOOLEAN, price DECIMAL(6, 2), born DATE, at_ns TIMESTAMP, at_ms TIMESTAMP(3))
STORED AS JSON LOCATION 'data/everything/';
INSERT INTO everything
SELECT id, note, whole, tiny, byte, huge, single, wide, flag, price, born, at_ns, at_ms FROM engagement_events;";

/// The shipped queries, over a table that has the corpus' columns, too, and one query that uses all of these.
async fn project() -> Project {
    let project = Project::new(PARTITIONS).await;
    project.replace("sources", "id BIGINT,", &format!("{COLUMNS},"));
    project.replace(
        "enriched",
        "SELECT e.*",
        "SELECT e.id, e.content_id, e.user_id, e.event_type, e.event_ts, e.duration_ms, e.device, e.raw_payload",
    );
    // Rows of the corpus have no event time, and so no day.
    project.replace("bigquery", "FROM enriched", "FROM enriched WHERE event_ts IS NOT NULL");
    project.write("everything", EVERYTHING);
    project
}

/// Puts the corpus and tombstones on the topic, among events that stay in their order. Gives the place of each payload.
fn send(project: &Project, cases: &[Case], events: usize) -> BTreeMap<(i32, i64), usize> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = std::env::var("FALAJ_TEST_SEED").map_or(clock.as_secs(), |seed| seed.parse().unwrap());
    eprintln!("FALAJ_TEST_SEED={seed} puts them in the same order again");
    let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut below = |bound: usize| (dice.next_u64() % bound as u64) as usize;
    let mut others: Vec<Option<usize>> = (0..cases.len()).map(Some).chain([None; TOMBSTONES]).collect();
    for left in (1..others.len()).rev() {
        others.swap(left, below(left + 1));
    }
    let good = super::events(events);
    let (mut good, mut others) = (good.iter().peekable(), others.into_iter().peekable());
    let (mut sent, mut places) = ([0_i64; PARTITIONS as usize], BTreeMap::new());
    loop {
        let (goods, rest) = (good.len(), others.len());
        let (partition, record) = if goods > 0 && below(goods + rest) < goods {
            let (partition, event) = good.next().unwrap();
            let mut payload = Vec::new();
            event.write_json(&mut payload);
            (*partition, Record::of(payload))
        } else if let Some(other) = others.next() {
            let partition = below(PARTITIONS as usize) as i32;
            let key = Some(partition.to_string().into_bytes());
            let payload = other.map(|index| cases[index].payload.clone());
            if let Some(index) = other {
                places.insert((partition, sent[partition as usize]), index);
            }
            (partition, Record { key, payload, headers: vec![] })
        } else {
            break;
        };
        project.topic.send(partition, &record);
        sent[partition as usize] += 1;
    }
    project.topic.flush();
    places
}

#[tokio::test]
async fn each_payload_of_the_corpus_is_a_row_or_one_dead_letter_and_no_good_event_is_lost() {
    let (project, cases) = (project().await, cases());
    let events = events(GOOD);
    let oracle = Oracle::new(&events, &produce(&project, &[]));
    let places = send(&project, &cases, GOOD);
    let receiver = Receiver::start(project.path("received"));
    let said = project.run_until_latest(&receiver.url);

    let dead = cases.iter().filter(|case| case.code().is_some()).count();
    let rows = cases.len() - dead;
    let records = GOOD + cases.len() + TOMBSTONES;
    // Of each lane: rows written, and dead letters beside those that no lane can read.
    let shares = [("bigquery", GOOD, 0), ("partner", GOOD + rows, 0), ("everything", GOOD + rows, 0)];
    for (lane, written, more) in shares {
        let sentence = format!("lane '{lane}': {records} records, {written} rows written, {} dead letters", dead + more);
        assert!(said.contains(&sentence), "no {sentence}:\n{said}");
    }
    for lane in ["top_content", "top_content_seconds"] {
        let line = said
            .lines()
            .find(|line| line.contains(&format!("lane '{lane}': {records} records,")))
            .unwrap_or_else(|| panic!("{said}"));
        assert!(line.ends_with(&format!(" {} dead letters", dead + rows)), "rows without a time belong to no window: {line}");
    }

    letters_are_right(&project, &cases, &places);
    boards::are_exact(&project, &oracle).await;
    let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
    assert_same("Parquet", &expected, &found::enriched(&project.path("data/bigquery_output")));
    let sent: Vec<Value> = receiver.rows().iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(ids(&sent), expected_ids(&cases), "HTTP");
    let everything: Vec<Value> =
        files(&project.path("data/everything"), "json").iter().flat_map(|path| found::json::<Value>(path)).collect();
    assert_eq!(ids(&everything), expected_ids(&cases), "JSON files");
    texts_are_right(&everything, &cases);
    project.finish().await;
}

/// Each payload that cannot be used is one letter of the source's own lane, byte for byte; a row without a time is one of each board's.
fn letters_are_right(project: &Project, cases: &[Case], places: &BTreeMap<(i32, i64), usize>) {
    let mut undecodable: BTreeMap<usize, Record> = BTreeMap::new();
    let mut without_time: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for letter in project.topic.letters() {
        let number = |name: &str| letter.header(name).parse::<i64>().unwrap();
        let place = (number("__connect.errors.partition") as i32, number("__connect.errors.offset"));
        let index = *places.get(&place).unwrap_or_else(|| panic!("a good event is a dead letter: {letter:?}"));
        assert_eq!(letter.payload.as_ref(), Some(&cases[index].payload), "{}", cases[index].name);
        assert_eq!(letter.key, Some(place.0.to_string().into_bytes()), "{}", cases[index].name);
        let once = match letter.header("falaj.dlq.stage") {
            "late" => {
                assert_eq!(letter.header("falaj.dlq.code"), "no_time");
                without_time.entry(letter.header("falaj.dlq.lane").to_string()).or_default().insert(index)
            }
            _ => {
                assert_eq!(letter.header("falaj.dlq.lane"), "engagement_events.dlq");
                undecodable.insert(index, letter).is_none()
            }
        };
        assert!(once, "twice: {}", cases[index].name);
    }
    let mut wrong = String::new();
    for (index, case) in cases.iter().enumerate() {
        let found = undecodable.get(&index).map(|letter| (letter.header("falaj.dlq.stage"), letter.header("falaj.dlq.code")));
        let expected = case.code().map(|code| (Case::stage(code), code));
        if found != expected {
            wrong += &format!("\n{}: {expected:?} expected, {found:?} found", case.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let rows: BTreeSet<usize> = (0..cases.len()).filter(|&index| cases[index].code().is_none()).collect();
    let expected = ["top_content", "top_content_seconds"].map(|lane| (lane.to_string(), rows.clone()));
    assert!(without_time == BTreeMap::from(expected), "the boards' letters are not exactly those of the rows without a time");
}

fn ids(rows: &[Value]) -> Vec<i64> {
    let mut ids: Vec<i64> = rows.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    ids.sort();
    ids
}

/// Those of the good events, and of the corpus' rows.
fn expected_ids(cases: &[Case]) -> Vec<i64> {
    let mut ids: Vec<i64> = (1..=GOOD as i64).chain(cases.iter().filter_map(Case::id)).collect();
    ids.sort();
    ids
}

/// Where serde_json finds a text in a payload, the row has it.
fn texts_are_right(rows: &[Value], cases: &[Case]) {
    let by_id: BTreeMap<i64, &Value> = rows.iter().map(|row| (row["id"].as_i64().unwrap(), row)).collect();
    let mut compared = 0;
    for case in cases {
        let (Some(id), Ok(value)) = (case.id(), serde_json::from_slice::<Value>(&case.payload)) else { continue };
        if let Some(note) = value["note"].as_str() {
            assert_eq!(by_id[&id]["note"].as_str(), Some(note), "{}", case.name);
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");
}
