//! What cannot be decoded, and what comes too late, among what is good: a dead letter each, and nothing else is lost.

use std::collections::BTreeSet;

use super::found::files;
use crate::support::kafka::Record;
use crate::support::project::Project;
use crate::support::receiver::Receiver;

/// A good event of content `a`, so many seconds after 2026-01-01.
fn good(id: usize, second: usize) -> Record {
    let payload = format!(
        r#"{{"id":{id},"content_id":"a","user_id":"u","event_type":"play","event_ts":"2026-01-01T00:00:{second:02}Z","duration_ms":1000,"device":"web","raw_payload":{{}}}}"#
    );
    Record::of(payload)
}

/// Each with the code that it gets.
fn malformed() -> Vec<(Vec<u8>, &'static str)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (text(r#"{"id":1,"content_id":"a","us"#), "truncated"),
        (text(""), "empty"),
        (text(r#"[{"id":1}]"#), "not_an_object"),
        (text(r#"{"id":1}{"id":2}"#), "trailing"),
        (b"{\"content_id\":\"\xff\xfe\"}".to_vec(), "utf8"),
        (text(&format!(r#"{{"x":{}{}}}"#, "[".repeat(200), "]".repeat(200))), "depth"),
        (text(r#"{"id":"seven"}"#), "type_mismatch"),
        (text(r#"{"id":1,"event_ts":"yesterday"}"#), "time"),
        ((0..=255).collect(), "utf8"),
    ]
}

async fn with_content(partitions: i32) -> Project {
    let project = Project::new(partitions).await;
    project.fill_content(1, 1);
    project
}

#[tokio::test]
async fn a_malformed_record_is_a_dead_letter_once_for_four_lanes_and_its_neighbours_are_counted() {
    const GOOD: usize = 60;
    let project = with_content(2).await;
    let headers = vec![("trace".to_string(), Some(vec![0, 159, 146])), ("none".to_string(), None)];
    let mut expected = Vec::new();
    let (mut sent, mut bad) = ([0_i64; 2], malformed().into_iter());
    // The first record, some between good ones, several in a row, and the last.
    for id in 0..GOOD {
        let partition = id % 2;
        for _ in 0..[(0, 1), (7, 2), (8, 1), (30, 3), (31, 1)].iter().find(|(at, _)| *at == id).map_or(0, |(_, count)| *count) {
            let (payload, code) = bad.next().unwrap();
            let record = Record { key: Some(vec![0xff, 0]), headers: headers.clone(), ..Record::of(payload) };
            project.topic.send(partition as i32, &record);
            expected.push((partition.to_string(), sent[partition].to_string(), code, record));
            sent[partition] += 1;
        }
        project.topic.send(partition as i32, &good(id, id));
        sent[partition] += 1;
    }
    let (payload, code) = bad.next().unwrap();
    project.topic.send(0, &Record::of(payload.clone()));
    expected.push(("0".to_string(), sent[0].to_string(), code, Record::of(payload)));
    assert_eq!(bad.next(), None);
    project.topic.flush();

    let receiver = Receiver::start(project.path("received"));
    let said = project.run_until_latest(&receiver.url);

    let letters = project.topic.letters();
    let place = |letter: &Record| {
        (letter.header("__connect.errors.partition").to_string(), letter.header("__connect.errors.offset").to_string())
    };
    let places: BTreeSet<_> = letters.iter().map(place).collect();
    assert_eq!((letters.len(), places.len()), (expected.len(), expected.len()), "each once: {letters:?}");
    for (partition, offset, code, original) in &expected {
        let at = (partition.clone(), offset.clone());
        let letter = letters.iter().find(|letter| place(letter) == at).unwrap_or_else(|| panic!("{original:?} is not there"));
        assert_eq!((&letter.key, &letter.payload), (&original.key, &original.payload));
        assert_eq!(letter.headers[..original.headers.len()], original.headers);
        for (name, value) in [
            ("__connect.errors.topic", project.name.as_str()),
            ("__connect.errors.stage", "VALUE_CONVERTER"),
            ("falaj.dlq.stage", if ["type_mismatch", "time"].contains(code) { "schema" } else { "decode" }),
            ("falaj.dlq.code", code),
        ] {
            assert_eq!(letter.header(name), value, "{name} of {original:?}");
        }
        for name in ["connector.name", "task.id", "class.name", "exception.class.name", "exception.message"] {
            assert!(!letter.header(&format!("__connect.errors.{name}")).is_empty());
        }
        for name in ["lane", "attempts", "timestamp_ms"] {
            assert!(!letter.header(&format!("falaj.dlq.{name}")).is_empty());
        }
    }

    assert_eq!(project.board("top_content").await, [("a".to_string(), GOOD as f64)]);
    assert_eq!(project.board("top_content_seconds").await, [("a".to_string(), GOOD as f64)]);
    let ids: Vec<i64> = super::found::enriched(&project.path("data/bigquery_output")).into_keys().collect();
    assert_eq!(ids, (0..GOOD as i64).collect::<Vec<_>>());
    assert_eq!(super::found::received(&receiver, &project.name).await.len(), GOOD);
    for lane in ["bigquery", "partner", "top_content", "top_content_seconds"] {
        let sentence = format!("lane '{lane}': {} records,", GOOD + expected.len());
        let line = said.lines().find(|line| line.contains(&sentence)).unwrap_or_else(|| panic!("no {sentence}:\n{said}"));
        assert!(line.ends_with(&format!(" {} dead letters", expected.len())), "{line}");
    }
    project.finish().await;
}

/// A broker takes 1 048 588 bytes by default, the batch around the record included.
const LARGEST: usize = 1_048_588 - 100;

#[tokio::test]
async fn a_record_as_large_as_the_broker_takes_is_used_and_a_bad_one_is_a_dead_letter_byte_for_byte() {
    let project = with_content(1).await;
    let filled = |text: &str| text.replace("FILL", &"x".repeat(LARGEST + 4 - text.len()));
    let large = filled(
        r#"{"id":1,"content_id":"a","user_id":"u","event_type":"play","event_ts":"2026-01-01T00:00:01Z","duration_ms":1000,"device":"web","raw_payload":"FILL"}"#,
    );
    let bad = Record::of(filled(r#"{"id":2,"device":"FILL"#));
    project.topic.produce(0, &[good(0, 0), Record::of(large), bad.clone(), good(3, 3)]);
    let receiver = Receiver::start(project.path("received"));
    project.run_until_latest(&receiver.url);
    let letters = project.topic.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].payload, letters[0].header("falaj.dlq.code")), (&bad.payload, "truncated"));
    let found = super::found::enriched(&project.path("data/bigquery_output"));
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1, 3]);
    assert!(found[&1].raw_payload.len() > LARGEST - 300);
    assert_eq!(super::found::received(&receiver, &project.name).await.len(), 3);
    assert_eq!(project.board("top_content").await, [("a".to_string(), 3.0)]);
    project.finish().await;
}

const TENS: &str = "
CREATE EXTERNAL TABLE tens (window_end TIMESTAMP, events BIGINT) STORED AS JSON LOCATION 'data/tens/';
INSERT INTO tens
SELECT window_end, count(*) FROM tumble(enriched, event_ts, INTERVAL '10 seconds') GROUP BY window_start, window_end;";

#[tokio::test]
async fn a_late_row_is_counted_and_becomes_a_dead_letter_of_the_lane_whose_windows_are_final() {
    let project = with_content(1).await;
    project.write("tens", TENS);
    let receiver = Receiver::start(project.path("received"));
    // The watermark comes to 25: the first two windows are final.
    project.topic.produce(0, &[good(1, 0), good(2, 12), good(3, 30)]);
    project.run_until_latest(&receiver.url);
    assert_eq!(project.topic.letters(), []);
    // Of the first two only one is late, and only where windows are short.
    let late = Record { key: Some(b"late".to_vec()), ..good(4, 19) };
    project.topic.produce(0, &[late.clone(), good(5, 21), good(6, 50)]);
    let said = project.run_until_latest(&receiver.url);

    let [letter] = <[Record; 1]>::try_from(project.topic.letters()).unwrap();
    assert_eq!((&letter.key, &letter.payload), (&late.key, &late.payload));
    for (name, value) in [
        ("__connect.errors.stage", "TRANSFORMATION"),
        ("__connect.errors.offset", "3"),
        ("falaj.dlq.lane", "tens"),
        ("falaj.dlq.stage", "late"),
        ("falaj.dlq.code", "late"),
    ] {
        assert_eq!(letter.header(name), value, "{name}");
    }
    for (lane, dead) in [("tens", 1), ("top_content", 0), ("bigquery", 0)] {
        let line = said.lines().find(|line| line.contains(&format!("lane '{lane}': 3 records,"))).unwrap();
        assert!(line.ends_with(&format!(" {dead} dead letters")), "{line}");
    }
    assert_eq!(project.board("top_content").await, [("a".to_string(), 6.0)]);
    let mut windows: Vec<(String, u64)> = Vec::new();
    for path in files(&project.path("data/tens"), "json") {
        for window in super::found::json::<serde_json::Value>(&path) {
            windows.push((window["window_end"].as_str().unwrap()[11..19].to_string(), window["events"].as_u64().unwrap()));
        }
    }
    windows.sort();
    let expected = [("00:00:10", 1), ("00:00:20", 1), ("00:00:30", 1), ("00:00:40", 1)];
    assert_eq!(windows, expected.map(|(end, events)| (end.to_string(), events)));
    project.finish().await;
}

#[tokio::test]
async fn a_group_without_a_name_has_no_place_on_a_board_which_is_said_once() {
    let project = Project::new(1).await;
    project.remove(&["bigquery", "partner", "top_content_seconds"]);
    let event = |id: i64, content: &str| {
        Record::of(format!(r#"{{"id":{id},"content_id":{content},"event_ts":"2026-01-01T00:00:0{id}Z"}}"#))
    };
    project.topic.produce(0, &[event(1, r#""a""#), event(2, "null"), event(3, r#""a""#)]);
    let said = project.run_until_latest("http://127.0.0.1:1");
    assert_eq!(project.board("top_content").await, [("a".to_string(), 2.0)]);
    let warning =
        "lane 'top_content': rows of windows without a key or a score have no place in 'top_content' and are left out";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert_eq!(project.topic.letters(), []);
    project.finish().await;
}
