//! What the real registry does not ask for or does not do: behind a server that adds it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use serde_json::{Value, json};

use super::{Setup, UNUSED, avro, needed};
use crate::support::falaj::Falaj;
use crate::support::kafka::{self, Record};

/// `front.py` before the real registry.
struct Front {
    child: Child,
    url: String,
    statuses: Receiver<String>,
    folder: tempfile::TempDir,
}

impl Front {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/front.py");
        let mut command = Command::new(needed("FALAJ_PYTHON"));
        command.arg(script).arg(needed("SCHEMA_REGISTRY_URL")).arg(folder.path()).args(options);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.next().unwrap().unwrap();
        let (send, statuses) = sync_channel(10_000);
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, url, statuses, folder }
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).to_str().unwrap().to_string()
    }

    /// How often it has answered so.
    fn answered(&self, status: &str) -> usize {
        self.statuses.try_iter().filter(|answered| answered == status).count()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A lane from Avro to JSON whose registry is `front`; `options` begin with a comma.
async fn setup(front: &Front, options: &str) -> Setup {
    let setup = Setup::new("avro", "(id BIGINT)", "id BIGINT", "id", &front.url).await;
    setup.project.replace("tables", &format!("'{}'", front.url), &format!("'{}'{options}", front.url));
    write(&setup);
    setup
}

fn write(setup: &Setup) {
    setup.write(&[avro(&json!([{"name": "id", "type": "long"}]), json!([{"id": 1}, {"id": 2}]))]);
}

fn ids(setup: &Setup) -> Vec<Value> {
    setup.found().into_iter().map(|row| row["id"].clone()).collect()
}

/// Runs it to the log's end; it must end with this code and these words.
fn refuses(setup: &Setup, code: i32, words: &[&str]) -> String {
    let mut command = setup.project.command(&["run", "queries", "--until", "latest", "--no-web"]);
    let (status, said) = Falaj::start(command.env("PARTNER_URL", UNUSED)).end();
    assert_eq!(status.code(), Some(code), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{said}"));
    said
}

#[tokio::test]
async fn a_registry_that_asks_who_we_are_is_told_and_one_that_lets_us_not_in_stops_with_a_sentence() {
    // user:pässword
    let cases = [
        ("login=Basic dXNlcjpww6Rzc3dvcmQ=", ", 'registry.user' 'user', 'registry.password' 'pässword'"),
        ("login=Bearer s3cret", ", 'registry.token' 's3cret'"),
    ];
    for (login, options) in cases {
        let front = Front::start(&[login]);
        let setup = setup(&front, options).await;
        setup.project.run_until_latest(UNUSED);
        assert_eq!((ids(&setup), setup.dead()), (vec![json!(1), json!(2)], vec![]));
        assert!(front.answered("401") == 0);
        setup.finish().await;
    }
    let front = Front::start(&["login=Bearer s3cret"]);
    let setup = setup(&front, ", 'registry.token' 'wr0ng'").await;
    let said = refuses(
        &setup,
        1,
        &["the schema registry at", "answers 401 Unauthorized: give 'registry.user' and 'registry.password', or"],
    );
    assert!(!said.contains("wr0ng") && setup.dead().is_empty(), "{said}");
    setup.finish().await;
}

#[tokio::test]
async fn a_registry_that_is_busy_is_asked_again_and_nothing_becomes_a_dead_letter() {
    let front = Front::start(&["first=503,429,500,408"]);
    let setup = setup(&front, "").await;
    setup.project.run_until_latest(UNUSED);
    assert_eq!((ids(&setup), setup.dead()), (vec![json!(1), json!(2)], vec![]));
    setup.finish().await;
}

#[tokio::test]
async fn a_registry_behind_tls_is_trusted_by_its_ca_alone() {
    let front = Front::start(&["tls"]);
    let setup = setup(&front, &format!(", 'registry.ca' '{}'", front.path("ca.pem"))).await;
    setup.project.run_until_latest(UNUSED);
    assert_eq!(ids(&setup), [json!(1), json!(2)]);

    setup.project.replace("tables", "ca.pem", "other.pem");
    write(&setup);
    let said = refuses(&setup, 1, &["the certificate of the schema registry at", "is not trusted", "'registry.ca'"]);
    assert!(setup.dead().is_empty(), "{said}");
    setup.project.replace("tables", "other.pem", "none.pem");
    refuses(&setup, 78, &["the file of 'registry.ca',", "none.pem, cannot be read"]);
    setup.finish().await;
}

#[tokio::test]
async fn a_registry_that_asks_for_a_certificate_is_shown_ours() {
    let front = Front::start(&["mutual"]);
    let own = |name: &str| {
        let file = |end: &str| front.path(&format!("{name}.{end}"));
        format!(", 'registry.cert' '{}', 'registry.key' '{}'", file("pem"), file("key"))
    };
    let ca = format!(", 'registry.ca' '{}'", front.path("ca.pem"));
    let setup = setup(&front, &format!("{ca}{}", own("client"))).await;
    setup.project.run_until_latest(UNUSED);
    assert_eq!(ids(&setup), [json!(1), json!(2)]);

    let asks = ["the schema registry at", "asks who we are: give 'registry.cert' and 'registry.key'"];
    let mut had = own("client");
    for (has, code, says) in [
        (own("stranger"), 1, &asks[..]),
        (String::new(), 1, &asks),
        (own("nobody"), 78, &["the file of 'registry.key',", "nobody.key, cannot be read"]),
        (format!(", 'registry.cert' '{}'", front.path("client.pem")), 78, &["'registry.cert' and 'registry.key' go together"]),
    ] {
        // What stands behind the CA is taken out, and the next put in.
        setup.project.replace("tables", &format!("{ca}{had}"), &format!("{ca}{has}"));
        had = has;
        write(&setup);
        let said = refuses(&setup, code, says);
        assert!(setup.dead().is_empty(), "{said}");
    }
    setup.finish().await;
}

#[tokio::test]
async fn records_that_name_their_schema_in_a_header_are_read_by_its_guid() {
    let front = Front::start(&["guids"]);
    let mut avro_setup = Setup::new("avro", "(id BIGINT)", "id BIGINT", "id", &front.url).await;
    avro_setup.registry.clone_from(&front.url);
    let step = |mut step: Value| {
        step["header"] = json!(true);
        step
    };
    let fields = json!([{"name": "id", "type": "long"}]);
    let unlike = json!([{"name": "id", "type": "string"}]);
    avro_setup.write(&[
        step(avro(&fields, json!([{"id": 1}]))),
        avro(&fields, json!([{"id": 2}])),
        step(avro(&unlike, json!([{"id": "x"}]))),
    ]);
    // Nobody has this one.
    let unknown = [vec![1], vec![0xab; 16], vec![2]].concat();
    avro_setup.project.topic.produce(0, &[Record::of(unknown)]);
    avro_setup.project.run_until_latest(UNUSED);
    assert_eq!(ids(&avro_setup), [json!(1), json!(2)]);
    let letters = avro_setup.project.topic.letters();
    let [unfit, unknown] = ["incompatible_schema", "unknown_schema"].map(|code| {
        let of_code: Vec<_> = letters.iter().filter(|letter| letter.header("falaj.dlq.code") == code).collect();
        assert_eq!(of_code.len(), 1, "{code}");
        of_code[0]
    });
    assert_eq!(letters.len(), 2);
    assert_eq!(unknown.header("falaj.dlq.schema_id"), "abababab-abab-abab-abab-abababababab");
    let why = unfit.header("__connect.errors.exception.message");
    let version = format!("(version 2 of subject '{}-value') does not fit the table", avro_setup.project.name);
    assert!(why.contains(unfit.header("falaj.dlq.schema_id")) && why.contains(&version), "{why}");
    avro_setup.finish().await;

    let schema = r#"syntax = "proto3"; message Other { int64 id = 2; } message Play { int64 id = 1; }"#;
    let mut setup = Setup::new("protobuf", "(id BIGINT)", "id BIGINT", "id", &front.url).await;
    setup.registry.clone_from(&front.url);
    let of = |message: &str, id: i64| {
        step(json!({"format": "protobuf", "schema": schema, "message": message, "records": [{"id": id.to_string()}]}))
    };
    setup.write(&[of("Play", 1), of("Other", 2)]);
    setup.project.run_until_latest(UNUSED);
    assert_eq!((ids(&setup), setup.dead()), (vec![json!(1), json!(2)], vec![]));
    setup.finish().await;
}

#[tokio::test]
async fn ids_of_eight_bytes_are_read_where_the_table_says_so() {
    let front = Front::start(&[]);
    let setup = setup(&front, ", 'registry.id_bytes' '8'").await;
    let written = kafka::committed(&setup.project.brokers, &setup.project.name);
    let eight = |payload: Vec<u8>| Record::of([&[0, 0, 0, 0], &payload[..]].concat());
    let records: Vec<Record> = written.into_iter().map(|record| eight(record.payload.unwrap())).collect();
    setup.project.topic.produce(1, &records);
    setup.project.run_until_latest(UNUSED);
    assert_eq!(ids(&setup), [json!(1), json!(2)]);
    // Those of four bytes are too short.
    assert_eq!(setup.dead().len(), 2);
    setup.finish().await;
}
