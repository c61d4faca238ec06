//! Records that the official Python clients write with a real schema registry (`SCHEMA_REGISTRY_URL`), read by falaj.

mod front;
mod protobuf;

use std::io::Write;
use std::process::{Command, Stdio};

use falaj::registry::http::HttpRegistry;
use falaj::registry::id::SchemaId;
use falaj::registry::options::{Login, RegistryOptions};
use falaj::registry::{Registry, Schema, SchemaType};
use serde_json::{Value, json};

use crate::support::falaj::Falaj;
use crate::support::kafka::{self, Record};
use crate::support::project::{Project, lane, wait_until};
use crate::support::proxy::Proxy;

const UNUSED: &str = "http://127.0.0.1:9/";

fn needed(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} must be set: scripts/test sets it"))
}

/// A project with one lane from a topic of the registry's to a topic of JSON.
struct Setup {
    project: Project,
    registry: String,
}

impl Setup {
    /// `columns` as in the statement, with their parentheses, or nothing; `select` is what the lane selects.
    async fn new(format: &str, columns: &str, sink: &str, select: &str, registry: &str) -> Self {
        let project = Project::new(2).await;
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
            "tables",
            &format!(
                "CREATE UNBOUNDED EXTERNAL TABLE plays {columns} STORED AS KAFKA LOCATION '{name}' OPTIONS ('brokers' '{brokers}', \
                 'format' '{format}', 'registry.url' '{registry}');\n\
                 CREATE EXTERNAL TABLE out ({sink}) STORED AS KAFKA LOCATION '{name}-out' OPTIONS ('brokers' '{brokers}', 'partitions' '1');"
            ),
        );
        project.write("copy", &format!("INSERT INTO out SELECT {select} FROM plays;"));
        Self { project, registry: needed("SCHEMA_REGISTRY_URL") }
    }

    /// Lets the Python client write these steps.
    fn write(&self, steps: &[Value]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/produce.py");
        let mut command = Command::new(needed("FALAJ_PYTHON"));
        command.args([script, &self.project.brokers, &self.registry, &self.project.name]);
        let mut python = command.stdin(Stdio::piped()).spawn().unwrap();
        let lines: String = steps.iter().map(|step| format!("{step}\n")).collect();
        python.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(python.wait().unwrap().success());
    }

    /// What the lane wrote, by `id`.
    fn found(&self) -> Vec<Value> {
        let records = kafka::committed(&self.project.brokers, &format!("{}-out", self.project.name));
        let mut rows: Vec<Value> =
            records.iter().map(|record| serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap()).collect();
        rows.sort_by_key(|row| row["id"].as_i64());
        rows
    }

    fn dead(&self) -> Vec<(String, String, String)> {
        let header = |letter: &Record, name: &str| letter.header(name).to_string();
        let letter = |letter: &Record| {
            (
                header(letter, "falaj.dlq.stage"),
                header(letter, "falaj.dlq.code"),
                header(letter, "__connect.errors.exception.message"),
            )
        };
        self.project.topic.letters().iter().map(letter).collect()
    }

    async fn finish(self) {
        kafka::remove(&self.project.brokers, &format!("{}-out", self.project.name)).await;
        self.project.finish().await;
    }
}

fn play(fields: Value) -> Value {
    json!({"type": "record", "name": "Play", "namespace": "shop", "fields": fields})
}

fn avro(fields: &Value, records: Value) -> Value {
    json!({"format": "avro", "schema": play(fields.clone()), "records": records})
}

#[tokio::test]
async fn avro_of_the_python_client_is_read_into_columns_that_the_registry_names() {
    let sink = "id BIGINT, title VARCHAR, kind VARCHAR, price DECIMAL(10, 2), at TIMESTAMP, day DATE, pct DOUBLE, live BOOLEAN";
    let select = "id, title, kind, price, at, day, pct, live";
    let setup = Setup::new("avro", "", sink, select, &needed("SCHEMA_REGISTRY_URL")).await;
    let fields = json!([
        {"name": "id", "type": "long"},
        {"name": "title", "type": ["null", "string"]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["play", "a_kind_of_more_than_twelve"]}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "pct", "type": ["double", "null"]},
        {"name": "live", "type": "boolean"},
    ]);
    let full = json!({"id": 1, "title": "é \"quoted\" and longer than twelve", "kind": "a_kind_of_more_than_twelve", "price": {"$decimal": "-12.34"},
        "tags": ["a", "b"], "at": {"$time": 1_700_000_000_123_456_i64}, "day": {"$day": 19_000}, "pct": 0.5, "live": true});
    let empty = json!({"id": -2, "title": null, "kind": "play", "price": {"$decimal": "0.00"}, "tags": [], "at": {"$time": 0},
        "day": null, "pct": null, "live": false});
    setup.write(&[avro(&fields, json!([full, empty]))]);
    setup.project.run_until_latest(UNUSED);
    assert_eq!(setup.dead(), []);
    let expected = [
        json!({"id": -2, "title": null, "kind": "play", "price": 0.0, "at": "1970-01-01T00:00:00Z", "day": null, "pct": null, "live": false}),
        json!({"id": 1, "title": "é \"quoted\" and longer than twelve", "kind": "a_kind_of_more_than_twelve", "price": -12.34,
            "at": "2023-11-14T22:13:20.123456Z", "day": "2022-01-08", "pct": 0.5, "live": true}),
    ];
    assert_eq!(setup.found(), expected);
    setup.finish().await;
}

#[tokio::test]
async fn versions_that_evolve_are_read_into_one_table_and_what_does_not_fit_is_named() {
    let columns = "(id BIGINT, title VARCHAR, length BIGINT, device VARCHAR)";
    let sink = columns.trim_matches(['(', ')']);
    let setup = Setup::new("avro", columns, sink, "id, title, length, device", &needed("SCHEMA_REGISTRY_URL")).await;
    let (id, name) = (json!({"name": "id", "type": "int"}), json!({"name": "name", "type": "string"}));
    let first = json!([id, name, {"name": "length", "type": "int"}]);
    // Another type altogether; the registry has no rule against it.
    let unlike = json!([{"name": "id", "type": "string"}, name]);
    // Renamed, widened, removed, and added with a default.
    let last = json!([
        {"name": "title", "aliases": ["name"], "type": "string"},
        {"name": "id", "type": "long"},
        {"name": "device", "type": "string", "default": "unknown"},
    ]);
    setup.write(&[
        avro(&first, json!([{"id": 1, "name": "one", "length": 11}])),
        avro(&unlike, json!([{"id": "x", "name": "bad"}])),
        avro(&last, json!([{"id": 1_i64 << 40, "title": "two", "device": "tv"}])),
        avro(&first, json!([{"id": 3, "name": "three", "length": 33}])),
    ]);
    // No frame, and an id that the registry does not have.
    setup.project.topic.produce(0, &[Record::of(b"{}".to_vec()), Record::of(vec![0, 0x7f, 0, 0, 1, 2])]);
    setup.project.run_until_latest(UNUSED);
    let expected = [
        json!({"id": 1, "title": "one", "length": 11, "device": "unknown"}),
        json!({"id": 3, "title": "three", "length": 33, "device": "unknown"}),
        json!({"id": 1_i64 << 40, "title": "two", "length": null, "device": "tv"}),
    ];
    assert_eq!(setup.found(), expected);
    let mut dead = setup.dead();
    dead.sort();
    let codes: Vec<_> = dead.iter().map(|(stage, code, _)| (stage.as_str(), code.as_str())).collect();
    assert_eq!(codes, [("decode", "framing"), ("schema", "incompatible_schema"), ("schema", "unknown_schema")]);
    let subject = format!("version 2 of subject '{}-value'", setup.project.name);
    assert!(dead[1].2.contains(&subject) && dead[1].2.contains("'id' is a string"), "{}", dead[1].2);
    setup.finish().await;
}

#[tokio::test]
async fn a_type_that_is_registered_elsewhere_is_found_there() {
    let setup = Setup::new("avro", "", "id BIGINT, kind VARCHAR", "id, kind", &needed("SCHEMA_REGISTRY_URL")).await;
    let fields = json!([{"name": "id", "type": "long"}, {"name": "kind", "type": "shop.Kind"}]);
    let mut step = avro(&fields, json!([{"id": 1, "kind": "pause"}]));
    step["imports"] = json!({"shop.Kind": {"type": "enum", "name": "Kind", "namespace": "shop", "symbols": ["play", "pause"]}});
    setup.write(&[step]);
    setup.project.run_until_latest(UNUSED);
    assert_eq!((setup.found(), setup.dead()), (vec![json!({"id": 1, "kind": "pause"})], vec![]));
    setup.finish().await;
}

#[tokio::test]
async fn json_schema_of_the_python_client_is_read_as_json_behind_its_id() {
    let sink = "id BIGINT, title VARCHAR, at TIMESTAMP, more VARCHAR";
    // The columns are those of the schema.
    let setup = Setup::new("json-schema", "", sink, "id, title, at, more", &needed("SCHEMA_REGISTRY_URL")).await;
    let schema = json!({"$schema": "http://json-schema.org/draft-07/schema#", "title": "Play", "type": "object",
        "properties": {"id": {"type": "integer"}, "title": {"type": ["null", "string"]}, "at": {"type": "string", "format": "date-time"},
            "more": {"type": "object"}}});
    let records =
        json!([{"id": 1, "title": "one", "at": "2026-11-26T10:00:00Z", "more": {"a": [1]}}, {"id": 2, "title": null}]);
    setup.write(&[json!({"format": "json", "schema": schema, "records": records})]);
    setup.project.topic.produce(0, &[Record::of(b"{\"id\":3}".to_vec()), Record::of(vec![0, 0x7f, 0, 0, 1, b'{', b'}'])]);
    setup.project.run_until_latest(UNUSED);
    let expected = [
        json!({"id": 1, "title": "one", "at": "2026-11-26T10:00:00Z", "more": "{\"a\":[1]}"}),
        json!({"id": 2, "title": null, "at": null, "more": null}),
    ];
    assert_eq!(setup.found(), expected);
    let mut codes: Vec<_> = setup.dead().into_iter().map(|(_, code, _)| code).collect();
    codes.sort();
    assert_eq!(codes, ["framing", "unknown_schema"]);
    setup.finish().await;
}

#[tokio::test]
async fn a_registry_that_is_away_is_waited_for_and_nothing_becomes_a_dead_letter() {
    let real = needed("SCHEMA_REGISTRY_URL");
    let (host, path) = real.trim_start_matches("http://").split_once('/').unwrap();
    let proxy = Proxy::of(host);
    let url = format!("http://{}/{path}", proxy.addr());
    let setup = Setup::new("avro", "(id BIGINT)", "id BIGINT", "id", &url).await;
    let fields = json!([{"name": "id", "type": "long"}]);
    setup.write(&[avro(&fields, json!([{"id": 1}, {"id": 2}]))]);
    let (mut falaj, page) = setup.project.run(UNUSED, &[]);
    falaj.wait_for_line(&["waiting", "schema registry", "cannot be reached"]);
    assert_eq!(lane(&page, "copy").await["records"].as_u64(), Some(0));
    proxy.open();
    wait_until("both are written", async || setup.found().len() == 2).await;
    // What is known needs no registry; what is new waits for it again.
    proxy.cut();
    setup.write(&[avro(&fields, json!([{"id": 3}]))]);
    wait_until("a third is written", async || setup.found().len() == 3).await;
    let wider = json!([{"name": "id", "type": "long"}, {"name": "more", "type": ["null", "int"], "default": null}]);
    setup.write(&[avro(&wider, json!([{"id": 4, "more": 1}]))]);
    falaj.wait_for_line(&["waiting", "schema registry", "cannot be reached"]);
    proxy.open();
    wait_until("the fourth is written", async || setup.found().len() == 4).await;
    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!((status.code(), setup.dead()), (Some(0), vec![]), "{said}");
    setup.finish().await;
}

#[tokio::test]
async fn a_registry_that_is_none_or_lets_nobody_in_stops_the_start_with_a_sentence() {
    let setup = Setup::new("avro", "", "id BIGINT", "id", "http://127.0.0.1:1/").await;
    for (url, words) in [
        (format!("{}/nosuch", setup.registry), "is no schema registry: correct 'registry.url'"),
        (setup.registry.clone(), "has no schema of subject"),
    ] {
        let sql = std::fs::read_to_string(setup.project.path("queries/tables.sql")).unwrap();
        let from = sql.find("'registry.url' '").unwrap() + "'registry.url' '".len();
        let to = from + sql[from..].find('\'').unwrap();
        setup.project.write("tables", &format!("{}{url}{}", &sql[..from], &sql[to..]));
        let (status, said) = Falaj::start(&mut setup.project.command(&["run", "queries", "--no-web"])).end();
        assert_eq!(status.code(), Some(78), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let (status, said) = Falaj::start(&mut setup.project.command(&["check", "queries"])).end();
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("its columns are in the schema registry, which is not asked here"), "{said}");
    let schema = play(json!([{"name": "id", "type": "long"}])).to_string();
    std::fs::write(setup.project.path("plays.avsc"), schema).unwrap();
    setup.project.replace("tables", "'format'", "'schema' '${file:plays.avsc}', 'format'");
    let (status, said) = Falaj::start(&mut setup.project.command(&["check", "queries"])).end();
    assert_eq!(status.code(), Some(0), "{said}");
    setup.finish().await;
}

#[tokio::test]
async fn a_schema_is_registered_once_found_by_id_and_subject_and_refused_where_it_does_not_fit() {
    let url = needed("SCHEMA_REGISTRY_URL");
    let subject = format!("falaj-test-{}-value", uuid::Uuid::now_v7());
    let options =
        RegistryOptions { url: url.clone(), subject: subject.clone(), login: Login::None, id_bytes: 4, ca: None, own: None };
    let registry = HttpRegistry::new(&options).unwrap();
    let schema = |kind: &str| Schema {
        schema_type: SchemaType::Avro,
        text: play(json!([{"name": "id", "type": kind}])).to_string(),
        references: vec![],
    };
    assert_eq!(registry.latest(&subject).await.unwrap(), None);
    assert_eq!(registry.incompatible(&subject, &schema("int")).await.unwrap(), None);
    let id = registry.register(&subject, &schema("int")).await.unwrap();
    assert_eq!(registry.register(&subject, &schema("int")).await.unwrap(), id);
    let latest = registry.latest(&subject).await.unwrap().unwrap();
    assert_eq!((latest.id, latest.version, &latest.subject), (id, 1, &subject));
    assert_eq!(registry.version(&subject, 1).await.unwrap(), Some(latest));
    assert_eq!(registry.version(&subject, 2).await.unwrap(), None);
    let carried = SchemaId::Id(id.into());
    assert_eq!(registry.fetch(carried).await.unwrap().map(|schema| schema.schema_type), Some(SchemaType::Avro));
    assert!(registry.names(carried).await.unwrap().contains(&(subject.clone(), 1)));
    // This one has no GUIDs.
    for unknown in [SchemaId::Id(2_000_000_000), SchemaId::Guid(7)] {
        assert_eq!(registry.fetch(unknown).await.unwrap(), None);
    }
    let rule = reqwest::Client::new().put(format!("{url}/config/{subject}")).body(r#"{"compatibility":"BACKWARD"}"#);
    let answer = rule.header("content-type", "application/vnd.schemaregistry.v1+json").send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    assert_eq!(registry.incompatible(&subject, &schema("long")).await.unwrap(), None);
    assert!(registry.incompatible(&subject, &schema("string")).await.unwrap().is_some());
    let refused = registry.register(&subject, &schema("string")).await.unwrap_err();
    assert_eq!(refused.kind(), falaj::error::Kind::Refused, "{refused}");
    assert!(refused.to_string().contains(&subject), "{refused}");
}
