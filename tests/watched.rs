//! What watches falaj: a real Prometheus scrapes it, its rules fire, and every metric that rules and dashboard ask for is there.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::kafka::Record;
use crate::support::project::{Project, lane, wait_until};
use crate::support::receiver::Receiver;

const UNUSED: &str = "http://127.0.0.1:9/";

#[test]
fn every_alert_fires_when_it_should() {
    let rules = deployed("prometheus/rules.yml");
    promtool(&["check", "config", deployed("prometheus/prometheus.yml").to_str().unwrap()]);
    promtool(&["check", "rules", "--lint-fatal", rules.to_str().unwrap()]);
    promtool(&["test", "rules", deployed("prometheus/rules_test.yml").to_str().unwrap()]);
    let (rules, tests) = (text_of("prometheus/rules.yml"), text_of("prometheus/rules_test.yml"));
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let silent: Vec<_> = alerts.filter(|alert| !tests.contains(&format!("- alertname: {alert}\n"))).collect();
    assert!(silent.is_empty(), "rules_test.yml sees no {silent:?} fire");
}

#[tokio::test]
async fn another_terminal_sees_what_runs_what_has_stopped_and_where_nobody_answers() {
    let project = Project::new(1).await;
    project.fill_content(1, 1);
    project.remove(&["bigquery", "partner", "top_content_seconds"]);
    let (falaj, page) = project.run(UNUSED, &[]);
    wait_until("the lane runs", async || lane(&page, "top_content").await["state"] == "running").await;
    let status = |url: &str, more: &[&str]| {
        let output = project.command(&["status", "--url", url]).args(more).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, said, why) = status(&page, &[]);
    assert_eq!(code, Some(0), "{why}");
    assert!(said.lines().any(|line| line.starts_with("top_content") && line.contains(" running ")), "{said}");
    let all: Value = serde_json::from_str(&status(&page, &["--json"]).1).unwrap();
    assert_eq!(all["status"]["lanes"].as_array().map(Vec::len), Some(2));

    // The same on a terminal; this is none.
    let (code, _, why) = top(&project, &page, "");
    assert!(code == Some(2) && why.contains("falaj top draws on a terminal, and this is none"), "{why}");
    let (code, seen, _) = top(&project, &page, "script -qec");
    assert_eq!(code, Some(0), "{seen}");
    for part in ["falaj 0.1.0", "top_content", "running", "records/s", "content"] {
        assert!(seen.contains(part), "no {part} in {seen}");
    }

    // Another type of value under its key stops the lane.
    let mut redis = project.redis().await;
    redis::cmd("SET").arg(project.board_key("top_content")).arg("mine").query_async::<()>(&mut redis).await.unwrap();
    let event = Record::of(r#"{"id":1,"content_id":"c000000","event_ts":"2026-01-01T00:00:00Z"}"#);
    project.topic.produce(0, &[event]);
    wait_until("the lane has stopped", async || lane(&page, "top_content").await["state"] == "stopped").await;
    let (code, said, why) = status(&page, &[]);
    assert_eq!((code, why.as_str()), (Some(1), "falaj: stopped: lane 'top_content'\n"));
    assert!(said.contains("lane 'top_content': ") && said.contains("holds another type of value"), "{said}");
    falaj.terminate();
    falaj.end();
    let (code, _, why) = status(&page, &[]);
    assert_eq!(code, Some(1));
    assert!(why.starts_with(&format!("falaj: no falaj answers at {page}/api/v1/status: start one with 'falaj run'")), "{why}");
    let receiver = Receiver::start(project.path("received"));
    let (code, _, why) = status(receiver.url.trim_end_matches(|c| c != '/'), &[]);
    assert!(code == Some(2) && why.contains("is no falaj: say where its page is with --url"), "{why}");
    project.finish().await;
}

/// `falaj top` under `terminal`, until q is pressed when it has drawn something.
fn top(project: &Project, page: &str, terminal: &str) -> (Option<i32>, String, String) {
    let falaj = format!("{} top --url {page}", env!("CARGO_BIN_EXE_falaj"));
    let command = if terminal.is_empty() { falaj } else { format!("{terminal} 'stty cols 120 rows 50; {falaj}' /dev/null") };
    let mut child = Command::new("sh")
        .args(["-c", &command])
        .current_dir(project.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    let mut drawn = child.stdout.take().unwrap();
    let mut part = [0; 4096];
    let mut keys = child.stdin.take();
    while let Ok(read @ 1..) = drawn.read(&mut part) {
        seen.extend_from_slice(&part[..read]);
        if String::from_utf8_lossy(&seen).contains("memory")
            && let Some(mut keys) = keys.take()
        {
            keys.write_all(b"q").unwrap();
        }
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&seen), text(&output.stderr))
}

#[tokio::test]
async fn a_real_prometheus_scrapes_a_running_falaj_and_finds_what_rules_and_dashboard_ask_for() {
    let project = Project::new(2).await;
    let (name, url) = (project.name.clone(), project.database_url.clone());
    project.fill_content(100, 1);
    project.write(
        "changes",
        &format!(
            "CREATE UNBOUNDED EXTERNAL TABLE changes (id VARCHAR, title VARCHAR) STORED AS POSTGRES LOCATION '{name}.content'
             OPTIONS ('url' '{url}', 'slot' '{name}', 'publication' '{name}', 'snapshot' 'initial');
             CREATE EXTERNAL TABLE titles (id VARCHAR, title VARCHAR) STORED AS JSON LOCATION 'data/titles/';"
        ),
    );
    project.write("titles", "INSERT INTO titles SELECT id, title FROM changes;");
    let receiver = Receiver::start(project.path("received"));
    let (falaj, page) = project.run(&receiver.url, &[]);
    let args = ["generate", "--to", "kafka", "--topic", &name, "--events", "500", "--no-content"];
    assert!(project.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    for lane_of_topic in ["top_content", "partner"] {
        wait_until("events are counted", async || lane(&page, lane_of_topic).await["records"].as_u64() >= Some(500)).await;
    }
    wait_until("rows are copied", async || lane(&page, "titles").await["lag"] == 0).await;

    let text = reqwest::get(format!("{page}/metrics")).await.unwrap().text().await.unwrap();
    check_metrics(&text);
    let prometheus = Prometheus::scrape(&page, project.path("prometheus"));
    wait_until("Prometheus has every lane", async || prometheus.series("falaj_lane_up").await >= 6).await;
    let missing = asked().into_iter().filter(|name| !text.lines().any(|line| line.starts_with(name.as_str())));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<String>::new(), "/metrics does not have these:\n{text}");
    wait_until("Prometheus has a place of each partition", async || {
        prometheus.series("falaj_lag_seconds{lane=\"top_content\",partition=~\"0|1\"} < 60").await == 2
    })
    .await;
    let unaccounted = "falaj_records_total != falaj_used_rows_total + falaj_filtered_rows_total + falaj_late_rows_total \
                       + falaj_dead_records_total + falaj_skipped_records_total";
    wait_until("every record is accounted for", async || prometheus.series(unaccounted).await == 0).await;
    let of_topic = "falaj_records_total{lane=~\"partner|top_content|engagement_events.dlq\"} == 500";
    wait_until("Prometheus counts every event in every lane", async || prometheus.series(of_topic).await == 3).await;

    falaj.terminate();
    falaj.end();
    let drop = format!("SELECT pg_drop_replication_slot('{name}'); DROP PUBLICATION {name}");
    project.database.batch_execute(&drop).await.unwrap();
    project.finish().await;
}

/// Every name of ours in the rules and in the dashboard.
fn asked() -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(&text_of("grafana/dashboards/falaj.json")).unwrap();
    let mut texts = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        texts.extend(panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap().to_string()));
    }
    let rules = text_of("prometheus/rules.yml");
    texts.extend(rules.split("expr:").skip(1).map(|rest| rest.split("labels:").next().unwrap().to_string()));
    let words = texts.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let names: BTreeSet<_> = words.filter(|word| word.starts_with("falaj_")).map(str::to_string).collect();
    assert!(names.len() > 25, "{names:?}");
    names
}

/// A Prometheus of the test's own, which asks one falaj every 200 ms; ends with the test.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    fn scrape(page: &str, folder: PathBuf) -> Self {
        let target = page.strip_prefix("http://").unwrap();
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(deployed("prometheus/rules.yml"), folder.join("rules.yml")).unwrap();
        let shipped = text_of("prometheus/prometheus.yml");
        let config = shipped.replace("127.0.0.1:8080", target).replace("scrape_interval: 5s", "scrape_interval: 200ms");
        assert!(config.contains(target) && config.contains("200ms"));
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={addr}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("prometheus: scripts/install tests");
        Self { child, url: format!("http://{addr}") }
    }

    /// How many series answer `query`; none before it is up.
    async fn series(&self, query: &str) -> usize {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/query", self.url), [("query", query)]).unwrap();
        let Ok(answer) = reqwest::get(url).await else { return 0 };
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails with what `promtool check metrics` has to say.
fn check_metrics(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool: scripts/install tests");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

fn promtool(args: &[&str]) {
    let output = Command::new("promtool").args(args).output().expect("promtool: scripts/install tests");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said));
}

fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(deployed(path)).unwrap()
}
