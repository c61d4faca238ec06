//! Rows that falaj writes by a real schema registry (`SCHEMA_REGISTRY_URL`), read by the official Python clients and by falaj.

mod protobuf;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::falaj::Falaj;
use crate::support::kafka::{self, Record};
use crate::support::project::{Project, lane, wait_until};
use crate::support::proxy::Proxy;

const UNUSED: &str = "http://127.0.0.1:9/";
/// So that the encoder hands over what it has more than once.
const MORE_THAN_AT_ONCE: i64 = 2_500;
const COLUMNS: &str =
    "id BIGINT NOT NULL, name VARCHAR, price DECIMAL(6, 2), seen TIMESTAMP, born DATE, ok BOOLEAN, share DOUBLE, small INT";

fn needed(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} must be set: scripts/test sets it"))
}

/// A project whose lane `copy` writes the rows of a topic of JSON by a schema registry.
struct Setup {
    project: Project,
    registry: String,
}

impl Setup {
    async fn new() -> Self {
        let project = Project::new(1).await;
        project.remove(&[
            "sources",
            "lookups",
            "sinks",
            "enriched",
            "bigquery",
            "partner",
            "top_content",
            "top_content_seconds",
        ]);
        let (name, brokers) = (&project.name, &project.brokers);
        project.write(
            "rows",
            &format!(
                "CREATE UNBOUNDED EXTERNAL TABLE rows ({COLUMNS}) STORED AS KAFKA LOCATION '{name}' OPTIONS ('brokers' '{brokers}', \
                 'format' 'json');"
            ),
        );
        Self { project, registry: needed("SCHEMA_REGISTRY_URL") }
    }

    fn topic(&self) -> String {
        format!("{}-out", self.project.name)
    }

    /// Declares the sink anew, and what goes into it.
    fn sink(&self, format: &str, columns: &str, options: &str, select: &str) {
        let (topic, brokers, registry) = (self.topic(), &self.project.brokers, &self.registry);
        self.project.write(
            "out",
            &format!(
                "CREATE EXTERNAL TABLE out ({columns}) STORED AS KAFKA LOCATION '{topic}' OPTIONS ('brokers' '{brokers}', \
                 'partitions' '1', 'format' '{format}', 'registry.url' '{registry}'{options});"
            ),
        );
        self.project.write("copy", &format!("INSERT INTO out SELECT {select} FROM rows;"));
    }

    fn send(&self, rows: &[Value]) {
        rows.iter().for_each(|row| self.project.topic.send(0, &Record::of(row.to_string().into_bytes())));
        self.project.topic.flush();
    }

    /// What Python's client makes of the topic.
    fn read_by_python(&self, format: &str) -> Vec<Value> {
        self.read_by_python_as(format, "")
    }

    /// The same; a reader of Protobuf has a class with these fields.
    fn read_by_python_as(&self, format: &str, fields: &str) -> Vec<Value> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry_sink/consume.py");
        let arguments = [script, &self.project.brokers, &self.registry, &self.topic(), format, fields];
        let python = Command::new(needed("FALAJ_PYTHON")).args(arguments).output().unwrap();
        assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
        String::from_utf8(python.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The registry refuses the schema of the sink, which stops the lane with a sentence.
    fn may_not_follow(&self, version: i32) {
        let mut command = self.project.command(&["run", "queries", "--until", "latest", "--no-web"]);
        let (status, said) = Falaj::start(command.env("PARTNER_URL", UNUSED)).end();
        assert_eq!(status.code(), Some(78), "{said}");
        let sentence = format!(
            "table 'out': the schema of its columns may not follow version {version} of subject '{}-value' in the registry: ",
            self.topic()
        );
        assert!(said.contains(&sentence), "{said}");
    }

    async fn require_backward(&self) {
        let url = format!("{}/config/{}-value", self.registry, self.topic());
        let put =
            reqwest::Client::new().put(url).header("content-type", "application/json").body(r#"{"compatibility":"BACKWARD"}"#);
        let answer = put.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

fn rows() -> Vec<Value> {
    vec![
        json!({"id": 1, "name": "قهوة ☕", "price": "12.50", "seen": "2026-01-31T12:00:00.123456Z", "born": "1999-02-28", "ok": true,
            "share": 0.25, "small": -7}),
        json!({"id": 2}),
        json!({"id": 3, "name": "", "price": "-0.01", "seen": "1969-12-31T23:59:59.5Z", "born": "1969-12-31", "ok": false,
            "share": -1e300, "small": 2147483647}),
    ]
}

#[tokio::test]
async fn rows_in_avro_are_read_by_the_python_client_with_every_type_and_null() {
    let setup = Setup::new().await;
    setup.sink("avro", COLUMNS, ", 'key' 'id'", "*");
    setup.send(&rows());
    setup.project.run_until_latest(UNUSED);
    let expected = [
        json!({"key": "1", "value": {"id": 1, "name": "قهوة ☕", "price": "12.50", "seen": "2026-01-31 12:00:00.123456+00:00",
            "born": "1999-02-28", "ok": true, "share": 0.25, "small": -7}}),
        json!({"key": "2", "value": {"id": 2, "name": null, "price": null, "seen": null, "born": null, "ok": null, "share": null, "small": null}}),
        json!({"key": "3", "value": {"id": 3, "name": "", "price": "-0.01", "seen": "1969-12-31 23:59:59.500000+00:00",
            "born": "1969-12-31", "ok": false, "share": -1e300, "small": 2147483647}}),
    ];
    assert_eq!(setup.read_by_python("avro"), expected);
    setup.project.finish().await;
}

#[tokio::test]
async fn rows_by_a_json_schema_are_read_and_validated_by_the_python_client() {
    let setup = Setup::new().await;
    setup.sink("json-schema", COLUMNS, "", "*");
    setup.send(&rows());
    setup.project.run_until_latest(UNUSED);
    let expected = [
        json!({"key": null, "value": {"id": 1, "name": "قهوة ☕", "price": 12.5, "seen": "2026-01-31T12:00:00.123456Z",
            "born": "1999-02-28", "ok": true, "share": 0.25, "small": -7}}),
        json!({"key": null, "value": {"id": 2, "name": null, "price": null, "seen": null, "born": null, "ok": null, "share": null, "small": null}}),
        json!({"key": null, "value": {"id": 3, "name": "", "price": -0.01, "seen": "1969-12-31T23:59:59.500Z",
            "born": "1969-12-31", "ok": false, "share": -1e300, "small": 2147483647}}),
    ];
    assert_eq!(setup.read_by_python("json-schema"), expected);
    setup.project.finish().await;
}

#[tokio::test]
async fn a_column_may_be_added_and_a_type_that_readers_could_not_follow_stops_the_lane() {
    let setup = Setup::new().await;
    setup.sink("avro", "id BIGINT NOT NULL, name VARCHAR", "", "id, name");
    setup.send(&rows()[..1]);
    setup.project.run_until_latest(UNUSED);
    setup.require_backward().await;

    setup.sink("avro", "id BIGINT NOT NULL, name VARCHAR, small INT", "", "id, name, small");
    setup.send(&rows()[1..]);
    setup.project.run_until_latest(UNUSED);
    let values: Vec<Value> = setup.read_by_python("avro").into_iter().map(|record| record["value"].clone()).collect();
    let expected = [
        json!({"id": 1, "name": "قهوة ☕"}),
        json!({"id": 2, "name": null, "small": null}),
        json!({"id": 3, "name": "", "small": 2147483647}),
    ];
    assert_eq!(values, expected);

    setup.sink("avro", "id BIGINT NOT NULL, name BOOLEAN, small INT", "", "id, ok, small");
    setup.send(&rows()[..1]);
    setup.may_not_follow(2);
    assert_eq!(setup.read_by_python("avro").len(), 3, "nothing was written");
    setup.project.finish().await;
}

#[tokio::test]
async fn what_one_lane_writes_another_reads_without_declaring_a_column() {
    // Protobuf has neither decimals nor dates of its own.
    let casts = "CAST(price AS DECIMAL(6, 2)) AS price, seen, CAST(born AS DATE) AS born";
    for (format, select) in [("avro", "price, seen, born"), ("protobuf", casts)] {
        let setup = Setup::new().await;
        setup.sink(format, COLUMNS, "", "*");
        setup.send(&rows());
        setup.project.run_until_latest(UNUSED);
        let (topic, brokers, registry) = (setup.topic(), &setup.project.brokers, &setup.registry);
        setup.project.write(
        "back",
        &format!(
            "CREATE UNBOUNDED EXTERNAL TABLE found STORED AS KAFKA LOCATION '{topic}' OPTIONS ('brokers' '{brokers}', 'format' '{format}', \
             'registry.url' '{registry}');\n\
             CREATE EXTERNAL TABLE json ({COLUMNS}) STORED AS KAFKA LOCATION '{topic}-json' OPTIONS ('brokers' '{brokers}', 'partitions' '1');\n\
             INSERT INTO json SELECT id, name, {select}, ok, share, small FROM found;"
        ),
    );
        setup.project.run_until_latest(UNUSED);
        let found: Vec<Value> = kafka::committed(brokers, &format!("{topic}-json"))
            .iter()
            .map(|record| serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap())
            .collect();
        let expected = [
            json!({"id": 1, "name": "قهوة ☕", "price": 12.5, "seen": "2026-01-31T12:00:00.123456Z", "born": "1999-02-28", "ok": true,
            "share": 0.25, "small": -7}),
            json!({"id": 2, "name": null, "price": null, "seen": null, "born": null, "ok": null, "share": null, "small": null}),
            json!({"id": 3, "name": "", "price": -0.01, "seen": "1969-12-31T23:59:59.500Z", "born": "1969-12-31", "ok": false,
            "share": -1e300, "small": 2147483647}),
        ];
        assert_eq!(found, expected, "{format}");
        setup.project.finish().await;
    }
}

#[tokio::test]
async fn an_epoch_in_avro_is_there_once_wherever_the_process_dies() {
    let setup = Setup::new().await;
    setup.sink("avro", "id BIGINT NOT NULL, name VARCHAR", ", 'key' 'id'", "id, name");
    let mut sent = 0;
    for place in ["kafka.sent", "kafka.committed"] {
        let rows: Vec<Value> = (sent..sent + MORE_THAN_AT_ONCE).map(|id| json!({"id": id, "name": format!("é{id}")})).collect();
        setup.send(&rows);
        sent += MORE_THAN_AT_ONCE;
        let mut command = setup.project.command(&["run", "queries", "--until", "latest", "--no-web"]);
        command.env("PARTNER_URL", UNUSED).env("FALAJ_FAILPOINT", format!("copy/{place}/1"));
        let (status, said) = Falaj::start(&mut command).end();
        assert_eq!(status.signal(), Some(9), "{place}: {said}");
        setup.project.run_until_latest(UNUSED);
    }
    let expected: Vec<Value> =
        (0..sent).map(|id| json!({"key": id.to_string(), "value": {"id": id, "name": format!("é{id}")}})).collect();
    assert_eq!(setup.read_by_python("avro"), expected);
    setup.project.finish().await;
}

#[tokio::test]
async fn a_null_in_a_column_that_may_have_none_is_a_dead_letter_and_costs_no_other_row() {
    for format in ["avro", "json-schema", "protobuf"] {
        let setup = Setup::new().await;
        setup.sink(format, "id BIGINT NOT NULL, name VARCHAR NOT NULL", ", 'key' 'id'", "id, name");
        setup.send(&rows());
        setup.project.run_until_latest(UNUSED);
        let expected =
            [json!({"key": "1", "value": {"id": 1, "name": "قهوة ☕"}}), json!({"key": "3", "value": {"id": 3, "name": ""}})];
        assert_eq!(setup.read_by_python_as(format, "id 1 int64,name 2 string"), expected, "{format}");
        let written = kafka::committed(&setup.project.brokers, &setup.topic());
        let ids: Vec<String> = written.iter().map(|record| record.header("falaj.id").to_string()).collect();
        let name = &setup.project.name;
        assert_eq!(ids, [format!("{name}/0/0"), format!("{name}/0/2")], "{format}");
        let letters = setup.project.topic.letters();
        let codes: Vec<&str> = letters.iter().map(|letter| letter.header("falaj.dlq.code")).collect();
        assert_eq!(codes, ["null_value"], "{format}");
        let message = letters[0].header("__connect.errors.exception.message");
        assert!(message.contains("column 'name' of the sink is declared NOT NULL"), "{message}");
        setup.project.finish().await;
    }
}

#[tokio::test]
async fn a_registry_that_is_away_when_the_sink_opens_is_waited_for() {
    let mut setup = Setup::new().await;
    let real = std::mem::take(&mut setup.registry);
    let (host, path) = real.trim_start_matches("http://").split_once('/').unwrap();
    let proxy = Proxy::of(host);
    setup.registry = format!("http://{}/{path}", proxy.addr());
    setup.sink("avro", "id BIGINT NOT NULL, name VARCHAR", "", "id, name");
    setup.send(&rows());
    let (mut falaj, page) = setup.project.run(UNUSED, &[]);
    falaj.wait_for_line(&["lane 'copy' waits", "table 'out'", "schema registry", "cannot be reached"]);
    assert_eq!(lane(&page, "copy").await["records"].as_u64(), Some(0));
    proxy.open();
    wait_until("all are written", async || lane(&page, "copy").await["records"].as_u64() == Some(3)).await;
    falaj.wait_for_line(&["INFO", "lane 'copy' runs again after", " s"]);
    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!((status.code(), setup.project.topic.letters().len()), (Some(0), 0), "{said}");
    assert_eq!(setup.read_by_python("avro").len(), 3);
    setup.project.finish().await;
}
