//! A thousandth, a tenth, and all of the records broken: every good event counts once in every sink, every broken one is one letter.

use std::collections::BTreeMap;

use falaj::tool::generate::{Event, Poison};

use super::found::{self, assert_same, files};
use super::oracle::{Oracle, Row};
use super::{PARTITIONS, boards, events, produce};
use crate::support::kafka::Record;
use crate::support::project::Project;
use crate::support::receiver::Receiver;

/// Payloads by partition and offset.
type Places = BTreeMap<(i32, i64), Vec<u8>>;

const LANES: [&str; 4] = ["bigquery", "partner", "top_content", "top_content_seconds"];

/// Sends `count` events of which `percent` are broken, runs all shipped lanes to the log's end, and compares everything.
async fn poisoned(count: usize, percent: f64) {
    let project = Project::new(PARTITIONS).await;
    let (good, broken) = send(&project, count, percent);
    let contents = produce(&project, &[]);
    let receiver = Receiver::start(project.path("received"));
    let said = project.run_until_latest(&receiver.url);

    // Records in the spans = used + dead: nothing is filtered or late here.
    for lane in LANES {
        let line = said
            .lines()
            .find(|line| line.contains(&format!("lane '{lane}': {count} records,")))
            .unwrap_or_else(|| panic!("{said}"));
        assert!(line.ends_with(&format!(" {} dead letters", broken.len())), "{line}");
    }
    for lane in ["bigquery", "partner"] {
        assert!(said.contains(&format!("lane '{lane}': {count} records, {} rows written,", good.len())), "{lane}: {said}");
    }
    let letters = project.topic.letters();
    assert_eq!(letters.len(), broken.len(), "each broken record is one letter");
    let place = |letter: &Record| {
        let number = |name: &str| letter.header(name).parse::<i64>().unwrap();
        (number("__connect.errors.partition") as i32, number("__connect.errors.offset"))
    };
    let found: BTreeMap<_, _> = letters.iter().map(|letter| (place(letter), letter.payload.clone().unwrap())).collect();
    assert_same("letters", &broken, &found);

    let parquet = project.path("data/bigquery_output");
    if good.is_empty() {
        assert_eq!((project.board("top_content").await, project.board("top_content_seconds").await), (vec![], vec![]));
        assert_eq!((files(&parquet, "parquet").len(), receiver.rows().len()), (0, 0));
    } else {
        let oracle = Oracle::new(&good, &contents);
        boards::are_exact(&project, &oracle).await;
        let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
        assert_same("Parquet", &expected, &found::enriched(&parquet));
        assert_same("HTTP", &expected, &found::received(&receiver, &project.name).await);
    }
    project.finish().await;
}

/// The good events, and the broken payloads by their places.
fn send(project: &Project, count: usize, percent: f64) -> (Vec<(i32, Event)>, Places) {
    let mut poison = Poison::new(super::SEED, percent).unwrap();
    let (mut good, mut broken, mut sent) = (Vec::new(), BTreeMap::new(), [0_i64; PARTITIONS as usize]);
    for (partition, event) in events(count) {
        let mut payload = Vec::new();
        event.write_json(&mut payload);
        let is_broken = poison.spoil(&mut payload);
        project.topic.send(partition, &Record::of(payload.clone()));
        if is_broken {
            broken.insert((partition, sent[partition as usize]), payload);
        } else {
            good.push((partition, event));
        }
        sent[partition as usize] += 1;
    }
    project.topic.flush();
    let share = 100.0 * broken.len() as f64 / count as f64;
    assert!((percent * 0.7..=percent * 1.3).contains(&share), "{share} % are broken");
    (good, broken)
}

#[tokio::test]
async fn one_broken_record_in_a_thousand_costs_no_good_one() {
    poisoned(50_000, 0.1).await;
}

#[tokio::test]
async fn one_broken_record_in_ten_costs_no_good_one() {
    poisoned(50_000, 10.0).await;
}

#[tokio::test]
async fn a_topic_of_broken_records_only_becomes_dead_letters_only() {
    poisoned(20_000, 100.0).await;
}
