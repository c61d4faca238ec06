//! Kafka that asks for TLS and for SCRAM, and Kafka that asks for a certificate.

use std::path::Path;
use std::process::Command;

use super::keys::Keys;
use super::services::{Service, free_ports};
use crate::support::falaj::Falaj;
use crate::support::kafka::{Record, Topic};
use crate::support::project::Project;

const PASSWORD: &str = "s3cret-of-the-test";

struct Broker {
    keys: Keys,
    service: Service,
    scram: u16,
    certificate: u16,
}

impl Broker {
    fn start() -> Self {
        let keys = Keys::make();
        let ports = free_ports(2);
        let (scram, certificate) = (ports[0], ports[1]);
        let file = |name: &str| keys.text(name);
        // `listeners` names what scripts/services has, too; its ports are put in by the script's own words.
        let more = format!(
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,CERT:SSL
more.listeners=SCRAM://127.0.0.1:{scram},CERT://127.0.0.1:{certificate}
more.advertised.listeners=SCRAM://localhost:{scram},CERT://localhost:{certificate}
ssl.keystore.type=PEM
ssl.keystore.location={}
ssl.truststore.type=PEM
ssl.truststore.location={}
listener.name.cert.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
",
            file("server.both"),
            file("ca.pem"),
        );
        let service = Service::start("kafka", &more);
        let broker = Self { keys, service, scram, certificate };
        broker.add_user();
        broker
    }

    fn add_user(&self) {
        let cache = Path::new(&std::env::var("FALAJ_SERVICES_DIR").unwrap()).parent().unwrap().to_path_buf();
        let conf = std::fs::read_to_string(format!("{}/scripts/services.conf", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let version = conf.lines().find_map(|line| line.strip_prefix("kafka.version=")).unwrap();
        let done = Command::new("java")
            .args(["-cp", &format!("{}/*", cache.join(format!("kafka-{version}")).display()), "kafka.admin.ConfigCommand"])
            .args(["--bootstrap-server", &format!("127.0.0.1:{}", self.service.port), "--alter"])
            .args(["--add-config", &format!("SCRAM-SHA-512=[password={PASSWORD}]")])
            .args(["--entity-type", "users", "--entity-name", "falaj"])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// What the source's table says beside its brokers.
fn options(settings: &[(&str, &str)]) -> String {
    settings.iter().map(|(name, value)| format!("'kafka.{name}' '{value}', ")).collect()
}

#[tokio::test]
async fn kafka_is_read_and_written_with_tls_and_scram_or_a_certificate_and_what_is_wrong_is_one_sentence() {
    let broker = Broker::start();
    let file = |name: &str| broker.keys.text(name);
    let (ca, other, certificate, key) = (file("ca.pem"), file("other.pem"), file("client.pem"), file("client.key"));
    std::fs::write(broker.keys.folder().join("password"), PASSWORD).unwrap();
    let password = format!("${{file:{}}}", file("password"));
    let scram = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "falaj"),
        ("sasl.password", password.as_str()),
        ("ssl.ca.location", ca.as_str()),
    ];
    let mutual = [
        ("security.protocol", "SSL"),
        ("ssl.ca.location", ca.as_str()),
        ("ssl.certificate.location", certificate.as_str()),
        ("ssl.key.location", key.as_str()),
    ];
    for (what, port, settings) in [("scram", broker.scram, &scram[..]), ("mutual", broker.certificate, &mutual[..])] {
        let topic = Topic::create(&format!("127.0.0.1:{}", broker.service.port), what, 1).await;
        topic.produce(0, &[Record::of(r#"{"id":1}"#), Record::of("no JSON")]);
        let project = project(&format!("localhost:{port}"), what, settings, "KAFKA").await;
        let (status, said) = Falaj::start(&mut project.command(&["run", "queries", "--until", "latest", "--no-web"])).end();
        assert_eq!(status.code(), Some(0), "{what}: {said}");
        assert!(said.contains("lane 'copy': 2 records, 1 rows written, 1 dead letters"), "{what}: {said}");
        assert!(!said.contains(PASSWORD), "{said}");
        project.finish().await;
    }
    let with = |settings: &[(&'static str, &str)], name: &str, value: &str| {
        let changed = settings.iter().map(|(of, old)| (*of, if *of == name { value.to_string() } else { old.to_string() }));
        changed.collect::<Vec<_>>()
    };
    let cases = [
        (
            "password",
            broker.scram,
            "localhost",
            with(&scram, "sasl.password", "wrong"),
            "check the credentials and rights ('kafka.sasl.*', ACLs)",
        ),
        ("authority", broker.scram, "localhost", with(&scram, "ssl.ca.location", &other), "'kafka.ssl.ca.location'"),
        ("name", broker.scram, "127.0.0.1", with(&scram, "", ""), "the name by which the broker is asked"),
        (
            "certificate",
            broker.certificate,
            "localhost",
            mutual[..2].iter().map(|(a, b)| (*a, b.to_string())).collect(),
            "'kafka.ssl.certificate.location' with its key",
        ),
        ("plain", broker.scram, "localhost", vec![], "security.protocol"),
    ];
    for (what, port, host, settings, expected) in cases {
        let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // What reads and what writes say it in words of their own.
        let sink = if matches!(what, "password" | "certificate") { "KAFKA" } else { "PRINT" };
        let project = project(&format!("{host}:{port}"), what, &settings, sink).await;
        let mut falaj = Falaj::start(&mut project.command(&["run", "queries", "--no-web"]));
        let line = falaj.wait_for_line(&[&format!("{host}:{port}")]);
        assert!(line.contains(expected), "{what}: {line}");
        falaj.kill();
        project.finish().await;
    }
}

/// A lane that copies a topic into another, or prints it.
async fn project(brokers: &str, name: &str, settings: &[(&str, &str)], sink: &str) -> Project {
    let project = Project::new(1).await;
    project.remove(&["bigquery", "partner", "top_content", "top_content_seconds", "enriched", "lookups", "sinks", "sources"]);
    let options = format!("'brokers' '{brokers}', {}'format' 'json', 'partitions' '1'", options(settings));
    let of_sink = if sink == "KAFKA" { format!(" OPTIONS ({options})") } else { String::new() };
    project.write(
        "tables",
        &format!(
            "CREATE UNBOUNDED EXTERNAL TABLE events (id BIGINT) STORED AS KAFKA LOCATION '{name}' OPTIONS ({options});
             CREATE EXTERNAL TABLE copies (id BIGINT) STORED AS {sink} LOCATION '{name}.copies'{of_sink};"
        ),
    );
    project.write("copy", "INSERT INTO copies SELECT id FROM events;");
    project
}
