//! Servers that answer what no honest one does: memory and time have bounds, and nothing goes to an address that no table names.

use std::time::{Duration, Instant};

use crate::support::falaj::{Falaj, command};
use crate::support::hostile::{Answer, Hostile};
use crate::support::kafka::Record;
use crate::support::project::Project;

/// What a process of the test's build holds that has read ten records, and twice as much.
const MEMORY_MAX: u64 = 400 << 20;
const SECRET: &str = "s3cret-of-the-test";
const ROWS: usize = 10;

pub(super) fn event(id: usize) -> Record {
    let time = format!("2026-01-01T00:00:{id:02}Z");
    Record::of(format!(r#"{{"id":{id},"content_id":"a","event_type":"play","event_ts":"{time}","duration_ms":1000}}"#))
}

/// One lane, with ten events before it.
async fn project(lane: &str) -> Project {
    let project = Project::new(1).await;
    project.fill_content(1, 1);
    let others: Vec<&str> =
        ["bigquery", "partner", "top_content", "top_content_seconds"].into_iter().filter(|other| *other != lane).collect();
    project.remove(&others);
    project.topic.produce(0, &(0..ROWS).map(event).collect::<Vec<_>>());
    project
}

/// A lane to HTTP that gives a request two seconds, and proves who it is.
async fn partner() -> Project {
    let project = project("partner").await;
    let options = format!("OPTIONS ('batch.rows' '500', 'timeout' '2s', 'header.authorization' 'Bearer {SECRET}')");
    project.replace("sinks", "OPTIONS ('batch.rows' '500')", &options);
    project
}

/// A lane to files in S3, which is at `url`.
async fn bigquery(url: &str) -> Project {
    let project = project("bigquery").await;
    project.replace("sinks", "'data/bigquery_output/'", "'s3://bucket/files/'");
    let options = format!(
        "'aws.endpoint' '{url}', 'aws.access_key_id' 'key', 'aws.secret_access_key' '{SECRET}', 'aws.token' '{SECRET}', 'roll.size'"
    );
    project.replace("sinks", "'roll.size'", &options);
    project
}

fn start(project: &Project, partner: &str) -> Falaj {
    Falaj::start(project.command(&["run", "queries", "--until", "latest", "--no-web"]).env("PARTNER_URL", partner))
}

#[tokio::test]
async fn a_receiver_whose_answer_never_ends_costs_neither_memory_nor_the_row() {
    for answer in [Answer::EndlessBody(200), Answer::Silence(200), Answer::Bomb(200)] {
        let hostile = Hostile::start(answer.clone());
        let project = partner().await;
        let began = Instant::now();
        let mut falaj = start(&project, &hostile.url());
        falaj.wait_for_line(&["lane 'partner': 10 records, 10 rows written, 0 dead letters"]);
        let (status, said) = falaj.end();
        assert_eq!(status.code(), Some(0), "{answer:?}: {said}");
        println!("{answer:?}: {:?}", began.elapsed());
        project.finish().await;
    }
}

#[tokio::test]
async fn a_receiver_that_refuses_without_end_makes_dead_letters_of_bounded_size() {
    for answer in [Answer::EndlessBody(422), Answer::Silence(422), Answer::Bomb(422)] {
        let hostile = Hostile::start(answer.clone());
        let project = partner().await;
        let (status, said) = start(&project, &hostile.url()).end();
        assert_eq!(status.code(), Some(0), "{answer:?}: {said}");
        let letters = project.topic.letters();
        assert_eq!(letters.len(), ROWS, "{answer:?}");
        for letter in letters {
            assert_eq!(letter.header("falaj.dlq.code"), "http_422");
            assert!(letter.header("__connect.errors.exception.message").len() < 8 << 10);
            assert!(!format!("{letter:?}").contains(SECRET));
        }
        project.finish().await;
    }
}

#[tokio::test]
async fn no_log_line_is_forged_and_no_terminal_obeys_what_a_server_says() {
    let text = "x\nFORGED line\r\n\u{1b}[2J\u{9b}31m";
    for status in [422, 500] {
        let hostile = Hostile::start(Answer::Text(status, text));
        let project = partner().await;
        let mut falaj = start(&project, &hostile.url());
        falaj.wait_for_line(&[if status == 422 { "lane 'partner': 10 records" } else { "takes no requests: status 500" }]);
        let mut said = falaj.kill();
        if status == 422 {
            let letters = project.command(&["dlq", "show"]).env("PARTNER_URL", hostile.url()).output().unwrap();
            said.push_str(&String::from_utf8_lossy(&letters.stdout));
            assert!(said.contains("FORGED line"), "{said}");
        }
        assert!(!said.lines().any(|line| line.starts_with("FORGED")), "{said}");
        assert!(!said.contains(['\u{1b}', '\u{9b}', '\r']), "{said:?}");
        project.finish().await;
    }
}

#[tokio::test]
async fn a_receiver_whose_head_never_ends_is_one_that_does_not_answer() {
    let hostile = Hostile::start(Answer::EndlessHead);
    let project = partner().await;
    let mut falaj = start(&project, &hostile.url());
    let line = falaj.wait_for_line(&["takes no requests"]);
    assert!(falaj.peak_memory_bytes() < MEMORY_MAX, "{line}: {} bytes", falaj.peak_memory_bytes());
    falaj.kill();
    project.finish().await;
}

#[tokio::test]
async fn nothing_follows_a_redirect_to_an_address_that_no_table_names() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Hostile::start(Answer::Silence(200));
        let hostile = Hostile::start(Answer::Redirect(status, format!("{}/?token=t0ken", elsewhere.url())));
        let of_http = partner().await;
        let of_s3 = bigquery(&hostile.url()).await;
        for (project, says) in [(of_http, "redirects are not followed"), (of_s3, "it points elsewhere, which is not followed")]
        {
            let (code, said) = start(&project, &hostile.url()).end();
            assert_eq!(code.code(), Some(1), "{status}: {said}");
            assert!(said.contains(says) && !said.contains(SECRET) && !said.contains("t0ken"), "{status}: {said}");
            project.finish().await;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), SECRET).unwrap();
        let asks = command(folder.path(), &["status", "--url", &hostile.url(), "--token-file", "token"]).output().unwrap();
        let said = String::from_utf8_lossy(&asks.stderr).into_owned();
        assert!(asks.status.code() == Some(2) && said.contains("is no falaj"), "{status}: {said}");
        assert!(hostile.asked().iter().any(|asked| asked.contains(SECRET)), "the first address was told who asks");
        assert_eq!(elsewhere.asked(), [""; 0], "{status}");
    }
}

#[tokio::test]
async fn an_s3_whose_answer_never_ends_is_waited_for_in_bounded_memory() {
    for answer in [Answer::EndlessBody(200), Answer::EndlessHead, Answer::EndlessBody(403)] {
        let hostile = Hostile::start(answer.clone());
        let project = bigquery(&hostile.url()).await;
        let mut falaj = start(&project, "http://unused");
        let line = falaj.wait_for_line(&["s3://bucket/files"]);
        assert!(falaj.peak_memory_bytes() < MEMORY_MAX, "{answer:?}: {} bytes", falaj.peak_memory_bytes());
        assert!(line.len() < 4 << 10 && !falaj.kill().contains(SECRET), "{answer:?}: {line}");
        project.finish().await;
    }
}

#[tokio::test]
async fn a_registry_whose_answer_never_ends_is_waited_for_or_stops_with_a_sentence() {
    let elsewhere = Hostile::start(Answer::Silence(200));
    for answer in [
        Answer::EndlessBody(200),
        Answer::EndlessBody(404),
        Answer::EndlessHead,
        Answer::Bomb(200),
        Answer::Silence(200),
        Answer::Redirect(307, elsewhere.url()),
    ] {
        let hostile = Hostile::start(answer.clone());
        let project = project("partner").await;
        let registry = format!("'format' 'avro', 'registry.url' '{}', 'registry.token' '{SECRET}'", hostile.url());
        project.replace("sources", "'format' 'json'", &registry);
        project.topic.produce(0, &[Record::of([0, 0, 0, 0, 7, 2])]);
        let mut falaj = start(&project, "http://unused");
        let began = Instant::now();
        let line = falaj.wait_for_line(&["registry"]);
        assert!(began.elapsed() < Duration::from_secs(60), "{answer:?}");
        assert!(line.len() < 4 << 10, "{answer:?}: {line}");
        println!("{answer:?} after {:?}: {line}", began.elapsed());
        if falaj.runs() {
            assert!(falaj.peak_memory_bytes() < MEMORY_MAX, "{answer:?}: {} bytes", falaj.peak_memory_bytes());
        }
        assert!(!falaj.kill().contains(SECRET));
        project.finish().await;
    }
    assert_eq!(elsewhere.asked(), [""; 0]);
}

#[test]
fn falaj_status_ends_in_bounded_time_whoever_answers() {
    for answer in [Answer::EndlessBody(200), Answer::EndlessHead, Answer::Bomb(200), Answer::Silence(200)] {
        let hostile = Hostile::start(answer.clone());
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let asks = command(folder.path(), &["status", "--url", &hostile.url()]).output().unwrap();
        let said = String::from_utf8_lossy(&asks.stderr).into_owned();
        assert!(!asks.status.success() && said.len() < 1000, "{answer:?}: {said}");
        assert!(began.elapsed() < Duration::from_secs(60), "{answer:?}: {:?}", began.elapsed());
    }
}
