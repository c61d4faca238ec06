//! Visitors of the page while time is measured: such as a team has, and such as nobody wants.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Pages that follow the events.
const PAGES: u64 = 50;
/// Connections that are opened while it is measured, and kept open as long as falaj lets them.
const CONNECTIONS: u64 = 10_000;
/// So they are opened: faster ones would take the processor from what is measured, which stands on the same machine.
const EVERY: Duration = Duration::from_millis(2);
/// Heads that come byte by byte.
const DRIPS: u64 = 100;
const LARGE_EVERY: Duration = Duration::from_millis(100);

/// Who comes to the page of `scripts/latency`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Who {
    Nobody,
    Pages,
    Hostile,
}

impl Who {
    /// What `FALAJ_LIVE_VISITORS` says.
    pub(super) fn asked() -> Self {
        match std::env::var("FALAJ_LIVE_VISITORS").as_deref() {
            Err(_) | Ok("nobody") => Who::Nobody,
            Ok("pages") => Who::Pages,
            Ok("hostile") => Who::Hostile,
            Ok(other) => panic!("FALAJ_LIVE_VISITORS is nobody, pages or hostile, not {other}"),
        }
    }

    /// Lets them come to `page`, from a thread of their own, until the end is dropped.
    pub(super) fn come(self, page: &str) -> Visitors {
        let address: SocketAddr = page.strip_prefix("http://").unwrap().parse().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            // They stand for other machines.
            falaj::tool::machine::give_way();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                match self {
                    Who::Nobody => {}
                    Who::Pages => (0..PAGES).for_each(|_| drop(tokio::spawn(page_of(address)))),
                    Who::Hostile => {
                        (0..DRIPS).for_each(|_| drop(tokio::spawn(drip(address))));
                        tokio::spawn(connect(address));
                        tokio::spawn(large(address));
                    }
                }
                let _ = ended.await;
            });
        });
        Visitors { end: Some(end), thread: Some(thread) }
    }
}

/// They go when it is dropped.
pub(super) struct Visitors {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Visitors {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn page_of(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut part = vec![0; 64 << 10];
    while let Ok(1..) = stream.read(&mut part).await {}
}

async fn connect(address: SocketAddr) {
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.extend(TcpStream::connect(address).await.ok());
        tokio::time::sleep(EVERY).await;
    }
    std::future::pending::<()>().await;
}

/// Again and again: falaj cuts it off.
async fn drip(address: SocketAddr) {
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else { return };
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn large(address: SocketAddr) {
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let body =
        format!("POST /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n{}", "x".repeat(1 << 20));
    loop {
        for request in [&head, &body] {
            if let Ok(mut stream) = TcpStream::connect(address).await {
                let _ = stream.write_all(request.as_bytes()).await;
            }
            tokio::time::sleep(LARGE_EVERY).await;
        }
    }
}
