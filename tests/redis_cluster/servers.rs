//! Redis servers of the test's own: nodes of a cluster, a master with its replica and a sentinel, each a process in a folder of its own,
//! on loopback, that ends with the test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::locked::keys::Keys;

/// Of the user `app`, where servers are locked.
pub(super) const PASSWORD: &str = "s3cret-of-the-test";
/// Of the sentinels' own user `watcher`.
pub(super) const SENTINEL_PASSWORD: &str = "s3cret-of-the-sentinel";
/// Of the servers among themselves.
const ADMIN: &str = "s3cret-of-the-admin";

/// A server process.
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
    /// What lets `redis-cli` in.
    access: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts a server with `settings`, a line each; with `keys` it asks for TLS and a user.
    fn start(settings: &[String], keys: Option<&Keys>, more: &[&str]) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let mut lines = vec!["bind 127.0.0.1".to_string(), format!("dir {}", folder.path().display())];
        let mut access = vec!["-p".to_string(), port.to_string()];
        match keys {
            None => lines.push(format!("port {port}")),
            Some(keys) => {
                lines.extend(locked(port, keys));
                access.extend(["--tls", "--cacert", &keys.text("ca.pem"), "-a", ADMIN, "--no-auth-warning"].map(String::from));
            }
        }
        lines.extend_from_slice(settings);
        let file = folder.path().join("redis.conf");
        std::fs::write(&file, lines.join("\n")).unwrap();
        let child = Command::new("redis-server").arg(&file).args(more).stdout(Stdio::null()).spawn().unwrap();
        let server = Self { child, port, access, _folder: folder };
        until("a server answers", || server.ask(&["PING"]) == "PONG");
        server
    }

    fn data(settings: &[String], keys: Option<&Keys>) -> Self {
        let mut all: Vec<String> = ["save \"\"", "repl-diskless-sync-delay 0", "client-output-buffer-limit replica 1mb 1mb 1"]
            .map(String::from)
            .to_vec();
        all.extend(keys.map(|_| format!("masterauth {ADMIN}\nuser app on >{PASSWORD} ~* &* +@all -flushall -config")));
        all.extend_from_slice(settings);
        Self::start(&all, keys, &[])
    }

    /// A server for itself.
    pub(super) fn single() -> Self {
        Self::data(&[], None)
    }

    /// What it says to a command, as `redis-cli` prints it.
    pub(super) fn ask(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli").args(&self.access).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_string()
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal, by its name.
    pub(super) fn signal(&self, name: &str) {
        Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
    }

    /// From now on `replica` stands still, and what is written here does not come to it: its line is so full that it was cut.
    pub(super) fn leaves_behind(&self, replica: &Server, key: &str) {
        replica.signal("STOP");
        let large = "x".repeat(1 << 16);
        until("the replica is cut off", || {
            // In the slot of the board, which this node has.
            let list = format!("{{{key}}}:large");
            self.ask(&["RPUSH", &list, &large]);
            self.ask(&["INFO", "replication"]).contains("connected_slaves:0")
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn locked(port: u16, keys: &Keys) -> Vec<String> {
    let file = |name: &str| keys.text(name);
    vec![
        format!("port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no"),
        format!(
            "tls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}",
            file("server.pem"),
            file("server.key"),
            file("ca.pem")
        ),
        format!("user default on >{ADMIN} ~* &* +@all"),
    ]
}

/// A cluster.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Server>,
}

impl Cluster {
    /// Three masters, each with so many replicas.
    pub(super) fn start(replicas: usize, keys: Option<&Keys>) -> Self {
        let mut settings: Vec<String> = [
            "cluster-enabled yes",
            "cluster-announce-ip 127.0.0.1",
            "cluster-node-timeout 4000",
            "cluster-replica-validity-factor 0",
        ]
        .map(String::from)
        .to_vec();
        // The certificate knows this name only.
        settings.extend(keys.map(|_| {
            "tls-cluster yes\ncluster-announce-hostname localhost\ncluster-preferred-endpoint-type hostname".to_string()
        }));
        let nodes: Vec<Server> = (0..3 * (1 + replicas)).map(|_| Server::data(&settings, keys)).collect();
        let hosts = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let mut create = Command::new("redis-cli");
        create.args(&nodes[0].access[2..]).args(["--cluster", "create"]).args(hosts);
        let made = create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let known = format!("cluster_known_nodes:{}", nodes.len());
        until("the cluster stands", || {
            nodes.iter().all(|node| {
                let (cluster, replication) = (node.ask(&["CLUSTER", "INFO"]), node.ask(&["INFO", "replication"]));
                let follows = replication.contains("role:master") || replication.contains("master_link_status:up");
                cluster.contains("cluster_state:ok") && cluster.contains(&known) && follows
            })
        });
        Self { nodes }
    }

    /// Its nodes for a url.
    pub(super) fn hosts(&self, name: &str) -> String {
        hosts(name, &self.nodes.iter().collect::<Vec<_>>())
    }

    /// The node that has `key`, of those that run.
    pub(super) fn master_of(&self, key: &str) -> usize {
        self.nodes.iter().position(|node| node.ask(&["EXISTS", key]).parse::<u32>().is_ok()).unwrap()
    }

    /// A replica of a node.
    pub(super) fn replica_of(&self, master: usize) -> usize {
        let port = format!("master_port:{}\r", self.nodes[master].port);
        self.nodes.iter().position(|node| node.ask(&["INFO", "replication"]).contains(&port)).unwrap()
    }

    /// A master that is not this one.
    pub(super) fn another_master(&self, than: usize) -> usize {
        let is_master = |index: &usize| self.nodes[*index].ask(&["ROLE"]).starts_with("master");
        (0..self.nodes.len()).find(|index| *index != than && is_master(index)).unwrap()
    }

    /// A board, the leader first, wherever it is.
    pub(super) fn board(&self, key: &str) -> Vec<(String, f64)> {
        board(self.nodes.iter().find(|node| node.ask(&["PING"]) == "PONG").unwrap(), key)
    }
}

/// A board, the leader first. Redirections are followed.
pub(super) fn board(server: &Server, key: &str) -> Vec<(String, f64)> {
    let said = server.ask(&["-c", "ZRANGE", key, "0", "-1", "REV", "WITHSCORES"]);
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    // While nobody has the board, an error stands there.
    lines.chunks(2).map_while(|pair| Some((pair[0].to_string(), pair.get(1)?.parse().ok()?))).collect()
}

/// A master, its replica, and a sentinel that knows it as `mine`.
pub(super) struct Watched {
    pub(super) master: Server,
    pub(super) replica: Server,
    pub(super) sentinel: Server,
}

impl Watched {
    pub(super) fn start(keys: Option<&Keys>) -> Self {
        // The certificate knows this name only.
        let name = if keys.is_some() { "localhost" } else { "127.0.0.1" };
        let announced = format!("replica-announce-ip {name}");
        let master = Server::data(std::slice::from_ref(&announced), keys);
        let replica = Server::data(&[announced, format!("replicaof {name} {}", master.port)], keys);
        let mut settings = vec![
            "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes".to_string(),
            format!("sentinel monitor mine {name} {} 1", master.port),
            "sentinel down-after-milliseconds mine 4000\nsentinel failover-timeout mine 1000".to_string(),
        ];
        settings
            .extend(keys.map(|_| format!("sentinel auth-pass mine {ADMIN}\nuser watcher on >{SENTINEL_PASSWORD} ~* &* +@all")));
        let sentinel = Server::start(&settings, keys, &["--sentinel"]);
        until("the replica follows and is known", || {
            replica.ask(&["INFO", "replication"]).contains("master_link_status:up")
                && sentinel.ask(&["SENTINEL", "MASTER", "mine"]).contains("num-slaves\n1\n")
        });
        Self { master, replica, sentinel }
    }

    /// Its sentinel for a url.
    pub(super) fn hosts(&self, name: &str) -> String {
        hosts(name, &[&self.sentinel])
    }
}

fn hosts(name: &str, servers: &[&Server]) -> String {
    servers.iter().map(|server| format!("{name}:{}", server.port)).collect::<Vec<_>>().join(",")
}

/// Below the ports that the system gives to whoever asks for any, and so is that of a node's bus, 10 000 above.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(61));
        let port = 11_000 + (number % 10_000) as u16;
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

/// Looks again and again until `reached`.
pub(super) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < Duration::from_secs(120), "waited in vain until {what}");
    }
}
