//! Traces, as a receiver finds them that shares no code with falaj.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;

use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, events, send};
use crate::support::project::Project;
use crate::support::proxy::Proxy;
use crate::support::s3::Server;

#[derive(Debug, Deserialize)]
struct Span {
    service: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    begin: u64,
    end: u64,
    failed: String,
    attributes: BTreeMap<String, serde_json::Value>,
}

impl Span {
    fn lane(&self) -> &str {
        self.attributes["falaj.lane"].as_str().unwrap()
    }

    fn number(&self, name: &str) -> u64 {
        self.attributes[name].as_u64().unwrap()
    }
}

/// The receiver, until its spans are asked for.
struct Receiver {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    port: u16,
}

impl Receiver {
    fn start() -> Self {
        let python =
            std::env::var("FALAJ_PYTHON").expect("FALAJ_PYTHON names a Python with opentelemetry-proto; scripts/test sets it");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/receiver.py");
        let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().parse().unwrap();
        Self { child, lines, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All spans that came.
    fn spans(mut self) -> Vec<Span> {
        drop(self.child.stdin.take());
        let spans = self.lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        self.child.wait().unwrap();
        spans
    }
}

#[tokio::test]
async fn each_epoch_is_a_span_with_its_parts_within_it() {
    let receiver = Receiver::start();
    let mut project = Project::new(PARTITIONS).await;
    project.fill_content(CONTENTS, SEED);
    project.remove(&["partner", "top_content_seconds"]);
    send(&project, &events(3_000));
    project.environment = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url())];
    project.run_until_latest("http://unused");
    let spans = receiver.spans();
    assert!(spans.iter().all(|span| span.service == "falaj" && span.begin <= span.end), "{spans:?}");
    for lane in ["bigquery", "top_content"] {
        let of_lane: Vec<&Span> = spans.iter().filter(|span| span.lane() == lane).collect();
        let epochs: Vec<&&Span> = of_lane.iter().filter(|span| span.name == "epoch").collect();
        assert_eq!(epochs.iter().map(|span| span.number("falaj.records")).sum::<u64>(), 3_000, "{epochs:?}");
        let numbers: BTreeSet<u64> = epochs.iter().map(|span| span.number("falaj.epoch")).collect();
        assert_eq!((numbers.len(), numbers.first()), (epochs.len(), Some(&1)));
        for epoch in &epochs {
            let parts: Vec<&&Span> = of_lane.iter().filter(|span| span.parent == epoch.id).collect();
            let names: BTreeSet<&str> = parts.iter().map(|span| span.name.as_str()).collect();
            assert!(names.contains("intent") && names.contains("commit"), "{names:?}");
            let within = |part: &&&Span| part.trace == epoch.trace && epoch.begin <= part.begin && part.end <= epoch.end;
            assert!(parts.iter().all(within), "{epoch:?} {parts:?}");
        }
        assert_eq!(of_lane.iter().filter(|span| span.name == "recovery").count(), 1, "a start is a recovery");
    }
    project.finish().await;
}

#[tokio::test]
async fn an_outage_is_a_span_and_whoever_takes_the_traces_may_be_away_himself() {
    let (receiver, server) = (Receiver::start(), Server::start());
    let traces = Proxy::of(&format!("127.0.0.1:{}", receiver.port));
    let bucket = Proxy::of(&format!("127.0.0.1:{}", server.port));
    bucket.open();
    let mut project = Project::new(PARTITIONS).await;
    project.fill_content(CONTENTS, SEED);
    project.remove(&["partner", "top_content", "top_content_seconds"]);
    project.replace("sinks", "'30s'", "'200ms'");
    server.houses(&mut project);
    project.environment[0].1 = format!("http://{}", bucket.addr());
    project.environment.push(("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", traces.addr())));
    project.environment.push(("OTEL_BSP_SCHEDULE_DELAY", "200".to_string()));
    send(&project, &events(500));
    let (mut falaj, _) = project.run("http://unused", &[]);
    falaj.wait_for_line(&["WARN", "traces cannot be sent"]);
    traces.open();
    bucket.cut();
    send(&project, &events(500));
    falaj.wait_for_line(&["WARN", "lane 'bigquery' waits"]);
    bucket.open();
    falaj.wait_for_line(&["INFO", "lane 'bigquery' runs again"]);
    falaj.terminate();
    let (_, said) = falaj.end();
    assert_eq!(said.matches("traces cannot be sent").count(), 1, "{said}");
    assert_eq!(said.matches("traces are sent again").count(), 1, "{said}");
    let spans = receiver.spans();
    let outages: Vec<&Span> = spans.iter().filter(|span| span.name == "outage" && span.lane() == "bigquery").collect();
    assert!(outages.len() == 1 && outages[0].failed.contains("s3://"), "{outages:?}");
    project.finish().await;
}
