//! Postgres that asks for TLS and a password, and of one user for a certificate.

use std::path::Path;

use tokio_postgres::{Client, NoTls};

use super::keys::Keys;
use super::services::Service;
use crate::support::falaj::{Falaj, command};
use crate::support::project::Project;

const PASSWORD: &str = "s3cret-of-the-test";

/// The server, and a connection of whoever administers it.
struct Server {
    service: Service,
    admin: Client,
}

impl Server {
    async fn start(keys: &Keys) -> Self {
        let service = Service::start("postgres", "");
        let url = format!("postgres://falaj@127.0.0.1:{}/falaj", service.port);
        let (admin, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let data: String = admin.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
        for name in ["server.key", "server.pem", "ca.pem"] {
            // Its key must be its own, and be closed to others.
            let copy = format!("umask 077; cat {} > {data}/{name}", keys.text(name));
            admin.batch_execute(&format!("COPY (SELECT 1) TO PROGRAM '{copy}'")).await.unwrap();
        }
        let rules = [
            "hostssl all app 127.0.0.1/32 scram-sha-256",
            "hostssl all falaj 127.0.0.1/32 cert",
            "hostnossl all falaj 127.0.0.1/32 trust",
        ];
        let values: Vec<String> = rules.iter().map(|rule| format!("('{rule}')")).collect();
        for sql in [
            format!("COPY (VALUES {}) TO '{data}/pg_hba.conf'", values.join(",")),
            "ALTER SYSTEM SET ssl_cert_file = 'server.pem'".to_string(),
            "ALTER SYSTEM SET ssl_key_file = 'server.key'".to_string(),
            "ALTER SYSTEM SET ssl_ca_file = 'ca.pem'".to_string(),
            "ALTER SYSTEM SET ssl = on".to_string(),
            "SELECT pg_reload_conf()".to_string(),
            format!(
                "CREATE TABLE events (id BIGINT PRIMARY KEY); INSERT INTO events VALUES (1), (2);
                 CREATE TABLE names (id BIGINT PRIMARY KEY, name TEXT); INSERT INTO names VALUES (1, 'one');
                 CREATE ROLE app LOGIN REPLICATION PASSWORD '{PASSWORD}'; GRANT SELECT ON events, names TO app;
                 CREATE PUBLICATION falaj FOR TABLE events, names"
            ),
        ] {
            admin.batch_execute(&sql).await.unwrap();
        }
        Self { service, admin }
    }
}

/// A lane whose rows come from the WAL, with a lookup that follows its changes there, too.
async fn project(url: &str, slot: &str) -> Project {
    let project = Project::new(1).await;
    project.remove(&["bigquery", "partner", "top_content", "top_content_seconds", "enriched", "lookups", "sinks", "sources"]);
    project.write(
        "tables",
        &format!(
            "CREATE UNBOUNDED EXTERNAL TABLE events (id BIGINT) STORED AS POSTGRES LOCATION 'public.events'
               OPTIONS ('url' '{url}', 'slot' '{slot}', 'snapshot' 'initial');
             CREATE EXTERNAL TABLE names (id BIGINT, name VARCHAR) STORED AS POSTGRES LOCATION 'public.names'
               OPTIONS ('url' '{url}', 'key' 'id', 'refresh' 'cdc');
             CREATE EXTERNAL TABLE named (id BIGINT, name VARCHAR) STORED AS JSON LOCATION 'data/named' OPTIONS ('roll.interval' '1s');"
        ),
    );
    project.write("copy", "INSERT INTO named SELECT e.id, n.name FROM events e LEFT JOIN names n ON e.id = n.id;");
    project
}

#[tokio::test]
async fn postgres_is_read_with_tls_and_a_password_or_a_certificate_and_what_is_wrong_is_one_sentence() {
    let keys = Keys::make();
    let server = Server::start(&keys).await;
    let port = server.service.port;
    let ca = format!("sslmode=verify-full&sslrootcert={}", keys.text("ca.pem"));
    let own = format!("{ca}&sslcert={}&sslkey={}", keys.text("client.pem"), keys.text("client.key"));
    let right = [
        ("scram", format!("postgres://app:{PASSWORD}@localhost:{port}/falaj?{ca}")),
        ("certificate", format!("postgres://falaj@localhost:{port}/falaj?{own}")),
    ];
    for (what, url) in right {
        let project = project(&url, what).await;
        let said = project.run_until_latest("http://unused");
        assert!(said.contains("lane 'copy': 2 records, 2 rows written"), "{what}: {said}");
        assert!(!said.contains(PASSWORD), "{said}");
        assert_eq!(rows(&project.path("data/named")), [r#"{"id":1,"name":"one"}"#, r#"{"id":2}"#], "{what}");
        project.finish().await;
    }
    let other = format!("sslmode=verify-full&sslrootcert={}", keys.text("other.pem"));
    for (what, url, expected) in [
        ("password", format!("postgres://app:wrong@localhost:{port}/falaj?{ca}"), "check user and password"),
        ("authority", format!("postgres://app:{PASSWORD}@localhost:{port}/falaj?{other}"), "do not trust each other"),
        ("name", format!("postgres://app:{PASSWORD}@127.0.0.1:{port}/falaj?{ca}"), "do not trust each other"),
        ("no certificate", format!("postgres://falaj@localhost:{port}/falaj?{ca}"), "check user and password"),
        ("plain", format!("postgres://app:{PASSWORD}@localhost:{port}/falaj"), "no encryption"),
        (
            "no file",
            format!("postgres://app:{PASSWORD}@localhost:{port}/falaj?sslmode=verify-full&sslrootcert=/nowhere.pem"),
            "/nowhere.pem, which 'url' names",
        ),
    ] {
        let project = project(&url, "wrong").await;
        let (status, said) = Falaj::start(&mut project.command(&["run", "queries", "--no-web"])).end();
        // A file that is not there is a mistake in SQL.
        assert_eq!(status.code(), Some(if what == "no file" { 78 } else { 1 }), "{what}: {said}");
        let line =
            said.lines().find(|line| line.contains(expected)).unwrap_or_else(|| panic!("{what}: no '{expected}' in {said}"));
        println!("{what}: {line}");
        assert!(!said.contains(PASSWORD), "{what}: {said}");
        project.finish().await;
    }
    drop(server.admin);
}

#[tokio::test]
async fn postgres_is_filled_by_generate_with_tls_and_a_certificate() {
    let keys = Keys::make();
    let server = Server::start(&keys).await;
    let folder = tempfile::tempdir().unwrap();
    let own = format!("&sslcert={}&sslkey={}", keys.text("client.pem"), keys.text("client.key"));
    for (ca, own, expected) in
        [("ca.pem", own.as_str(), ""), ("other.pem", &own, "do not trust each other"), ("ca.pem", "", "let us in")]
    {
        let ca = keys.text(ca);
        let url = format!("postgres://falaj@localhost:{}/falaj?sslmode=verify-full&sslrootcert={ca}{own}", server.service.port);
        let mut generate = command(folder.path(), &["generate", "--to", "postgres", "--events", "10", "--contents", "5"]);
        let (status, said) = Falaj::start(generate.env("DATABASE_URL", url)).end();
        assert_eq!(status.success(), expected.is_empty(), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let filled = server.admin.query_one("SELECT count(*) FROM engagement_events", &[]).await.unwrap();
    assert_eq!(filled.get::<_, i64>(0), 10);
}

fn rows(folder: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        rows.extend(std::fs::read_to_string(file).unwrap().lines().map(str::to_string));
    }
    rows.sort();
    rows
}
