//! Redis that asks for TLS, a user of its own (ACL), and a certificate.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::keys::Keys;
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, events, send};
use crate::support::falaj::Falaj;
use crate::support::project::Project;

const PASSWORD: &str = "s3cret-of-the-test";

struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    /// With `clients` "yes" it asks who they are.
    fn start(keys: &Keys, clients: &str) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let user = format!("user app on >{PASSWORD} ~* &* +@all -flushall -config");
        let settings = format!(
            "bind 127.0.0.1\nport 0\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients {clients}\n\
             user default off\n{user}\nsave \"\"\ndir {}\n",
            keys.text("server.pem"),
            keys.text("server.key"),
            keys.text("ca.pem"),
            folder.path().display()
        );
        let file = folder.path().join("redis.conf");
        std::fs::write(&file, settings).unwrap();
        let child = Command::new("redis-server").arg(&file).stdout(Stdio::null()).spawn().unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Self { child, port, _folder: folder }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The board alone, in this Redis.
async fn project(url: &str, options: &str) -> Project {
    let project = Project::new(PARTITIONS).await;
    project.fill_content(CONTENTS, SEED);
    project.remove(&["bigquery", "partner", "top_content_seconds"]);
    project.replace("sinks", "'url' '${env:REDIS_URL:-redis://localhost:6379}',", &format!("'url' '{url}',{options}"));
    send(&project, &events(1_000));
    project
}

#[tokio::test]
async fn redis_is_written_with_tls_a_user_and_a_certificate_and_what_is_wrong_is_one_sentence() {
    let keys = Keys::make();
    let (open, closed) = (Server::start(&keys, "no"), Server::start(&keys, "yes"));
    let ca = format!("'tls.ca' '{}',", keys.text("ca.pem"));
    let own = format!("{ca}'tls.cert' '{}','tls.key' '{}',", keys.text("client.pem"), keys.text("client.key"));
    for (what, port, options) in [("user", open.port, &ca), ("certificate", closed.port, &own)] {
        let project = project(&format!("rediss://app:{PASSWORD}@localhost:{port}/0"), options).await;
        let said = project.run_until_latest("http://unused");
        assert!(said.contains("lane 'top_content': 1000 records"), "{what}: {said}");
        assert!(!said.contains(PASSWORD), "{said}");
        project.finish().await;
    }
    let other = format!("'tls.ca' '{}',", keys.text("other.pem"));
    let (user, wrong) = (format!("app:{PASSWORD}"), "app:wrong".to_string());
    for (what, login, host, port, options, expected) in [
        ("password", &wrong, "localhost", open.port, &ca, "Redis refuses the user or the password"),
        ("authority", &user, "localhost", open.port, &other, "do not trust each other: check 'tls.ca'"),
        ("name", &user, "127.0.0.1", open.port, &ca, "do not trust each other: check 'tls.ca'"),
        ("certificate", &user, "localhost", closed.port, &ca, "do not trust each other: check 'tls.ca'"),
    ] {
        let project = project(&format!("rediss://{login}@{host}:{port}/0"), options).await;
        let (status, said) = Falaj::start(&mut project.command(&["run", "queries", "--until", "latest", "--no-web"])).end();
        assert_eq!(status.code(), Some(1), "{what}: {said}");
        assert!(said.lines().any(|line| line.contains(expected)), "{what}: no '{expected}' in {said}");
        assert!(!said.contains(PASSWORD), "{what}: {said}");
        project.finish().await;
    }
}
