//! A Redis of the test's own that refuses: out of memory, read-only, loading, and shared with a stranger.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use super::World;
use crate::support::falaj::Falaj;
use crate::support::project::wait_until;

const EVENTS: usize = 12_000;

/// A server that ends with the test.
struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        Self { child: spawn(port, folder, &[]), port, folder: folder.to_path_buf() }
    }

    /// The same server on the same data after it was shut down.
    fn start_again(&mut self, more: &[&str]) {
        self.child.wait().unwrap();
        self.child = spawn(self.port, &self.folder, more);
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        let began = Instant::now();
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
            }
        }
    }

    /// Asks for something, until it is done.
    async fn ask(&self, words: &[&str]) {
        let mut connection = self.connection().await;
        let began = Instant::now();
        while let Err(error) = redis::cmd(words[0]).arg(&words[1..]).query_async::<redis::Value>(&mut connection).await {
            assert!(began.elapsed() < Duration::from_secs(30), "{words:?}: {error}");
        }
    }
}

fn spawn(port: u16, folder: &Path, more: &[&str]) -> Child {
    let port = port.to_string();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--enable-debug-command", "yes", "--dir"]);
    command.arg(folder).args(more).stdout(Stdio::null()).spawn().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn world() -> (World, Server) {
    let mut world = World::new(EVENTS).await;
    let server = Server::start(&world.project.path(""));
    world.project.redis_url = server.url();
    server.ask(&["PING"]).await;
    (world, server)
}

fn ends_well(falaj: Falaj) {
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[tokio::test]
async fn a_server_that_refuses_writes_is_told_of_waited_for_and_gone_on_with() {
    let (mut world, server) = world().await;
    world.produce(EVENTS / 4);
    let (mut falaj, _) = world.start();
    for (refuse, says, allow) in [
        (["CONFIG", "SET", "maxmemory", "1"].as_slice(), "OOM", ["CONFIG", "SET", "maxmemory", "0"].as_slice()),
        (&["REPLICAOF", "127.0.0.1", "1"], "read only replica", &["REPLICAOF", "NO", "ONE"]),
    ] {
        wait_until("the board is there", async || !world.project.board("top_content").await.is_empty()).await;
        server.ask(refuse).await;
        let board = world.project.board("top_content").await;
        world.produce(EVENTS / 4);
        falaj.wait_for_line(&["WARN", "table 'top_content'", says]);
        assert_eq!(world.project.board("top_content").await, board, "what is there stays");
        server.ask(allow).await;
        wait_until("the board moves again", async || world.project.board("top_content").await != board).await;
        falaj.wait_for_line(&["INFO", "table 'top_content'", "does it again, after"]);
    }
    falaj.terminate();
    ends_well(falaj);
    world.produce(EVENTS / 4);
    world.is_exact().await;
    world.project.finish().await;
}

#[tokio::test]
async fn a_server_that_still_loads_its_data_is_waited_for() {
    let (mut world, mut server) = world().await;
    world.produce(EVENTS / 2);
    world.run();
    server.ask(&["DEBUG", "POPULATE", "20000"]).await;
    server.ask(&["SAVE"]).await;
    let mut connection = server.connection().await;
    let _ = redis::cmd("SHUTDOWN").arg("NOSAVE").query_async::<()>(&mut connection).await;
    // 20 000 keys at 300 µs: six seconds of LOADING, in which it answers now and then.
    server.start_again(&["--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024"]);
    world.produce(EVENTS / 4);
    let mut falaj = Falaj::start(&mut world.project.command(&["run", "queries", "--no-web"]));
    falaj.wait_for_line(&["WARN", "lane 'top_content' waits", "loading"]);
    falaj.wait_for_line(&["INFO", "lane 'top_content' runs again after"]);
    falaj.terminate();
    ends_well(falaj);
    world.produce(EVENTS / 4);
    world.is_exact().await;
    world.project.finish().await;
}

#[tokio::test]
async fn what_a_stranger_does_to_a_board_is_put_right_or_stops_the_lane_with_a_sentence() {
    let (mut world, server) = world().await;
    let key = world.project.board_key("top_content");
    world.produce(EVENTS / 4);
    let (falaj, _) = world.start();
    wait_until("the board is there", async || !world.project.board("top_content").await.is_empty()).await;
    server.ask(&["ZADD", &key, "1e9", "stranger"]).await;
    world.produce(EVENTS / 4);
    let has_stranger = async || world.project.board("top_content").await.iter().any(|(member, _)| member == "stranger");
    wait_until("the stranger is gone", async || !has_stranger().await).await;
    // A score that this lane does not change is not looked at; the next start writes the whole board.
    falaj.terminate();
    ends_well(falaj);
    let leader = world.project.board("top_content").await.last().unwrap().0.clone();
    server.ask(&["ZADD", &key, "1e9", &leader]).await;
    world.produce(EVENTS / 4);
    world.is_exact().await;

    server.ask(&["SET", &key, "mine"]).await;
    world.produce(EVENTS / 4);
    let said = world.run_fails();
    let line = said.lines().find(|line| line.contains("lane 'top_content' stopped")).unwrap_or_default();
    super::assert_said(line, &[&key, "another type of value that falaj did not write", "or delete it"]);
    server.ask(&["DEL", &key]).await;
    world.is_exact().await;
    world.project.finish().await;
}
