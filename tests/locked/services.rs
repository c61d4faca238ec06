//! Servers of the test's own, started by `scripts/services` in a folder and on ports of their own, and stopped with the test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

/// One server, by its name in `scripts/services`.
pub(super) struct Service {
    name: &'static str,
    folder: tempfile::TempDir,
    pub(super) port: u16,
    more: PathBuf,
}

impl Service {
    /// Starts it; Kafka with `more` settings, which come last.
    pub(super) fn start(name: &'static str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("more");
        std::fs::write(&file, more).unwrap();
        let service = Self { name, port: free_ports(2)[0], more: file, folder };
        service.script(&[name, "start"]);
        service
    }

    fn script(&self, args: &[&str]) {
        let script = format!("{}/scripts/services", env!("CARGO_MANIFEST_DIR"));
        let port = format!("FALAJ_{}_PORT", self.name.to_uppercase());
        let done = Command::new(script)
            .args(args)
            .env("FALAJ_SERVICES_DIR", self.folder.path())
            .env(port, self.port.to_string())
            .env("FALAJ_KAFKA_MORE", &self.more)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.script(&[self.name, "stop"]);
    }
}

/// Ports that nobody has, of which each but the first follows the one before: Kafka's controller takes the next one.
pub(super) fn free_ports(count: u16) -> Vec<u16> {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ports: Vec<u16> = (0..count).map(|i| first.saturating_add(i)).collect();
        if ports.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return ports;
        }
    }
}
