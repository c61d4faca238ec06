//! Server-sent events: what comes, for how many, and that it ends.

use std::time::Duration;

use super::*;
use crate::web::events::STREAMS_MAX;

/// A visitor of the events.
struct Visitor {
    stream: TcpStream,
    seen: String,
}

impl Visitor {
    async fn come(page: &Page) -> Self {
        let mut stream = TcpStream::connect(page.addr).await.unwrap();
        stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut visitor = Self { stream, seen: String::new() };
        visitor.sees("\r\n\r\n").await;
        visitor
    }

    /// Reads until it has seen `part`; `false`: the stream is over.
    async fn sees(&mut self, part: &str) -> bool {
        let mut bytes = vec![0; 64 << 10];
        while !self.seen.contains(part) {
            let read = tokio::time::timeout(Duration::from_secs(10), self.stream.read(&mut bytes)).await;
            match read.unwrap_or_else(|_| panic!("no '{part}' within 10 s after {}", self.seen)).unwrap() {
                0 => return false,
                some => self.seen.push_str(&String::from_utf8_lossy(&bytes[..some])),
            }
        }
        true
    }
}

#[tokio::test]
async fn a_visitor_gets_the_history_and_then_the_status_again_and_again() {
    let page = Page::start().await;
    page.status.lane("top_content").used.store(5, Ordering::Relaxed);
    let mut visitor = Visitor::come(&page).await;
    assert!(visitor.seen.contains("content-type: text/event-stream"), "{}", visitor.seen);
    assert!(visitor.sees("event: history\ndata: {\"newest\":").await);
    assert!(visitor.sees("\"used\":5").await);
    page.status.lane("top_content").used.store(6, Ordering::Relaxed);
    assert!(visitor.sees("\"used\":6").await);
    assert!(visitor.sees("\"points\":{\"top_content\":{\"in\":0.0").await, "a point a second");
}

#[tokio::test]
async fn there_are_only_so_many_streams_and_one_that_ends_makes_room() {
    let page = Page::start().await;
    let mut visitors = Vec::new();
    for _ in 0..STREAMS_MAX {
        visitors.push(Visitor::come(&page).await);
    }
    assert!(visitors.iter().all(|visitor| visitor.seen.starts_with("HTTP/1.1 200")));
    let (code, _, body) = page.get("/api/v1/events").await;
    assert!(code == 503 && body.contains("64 pages are open"), "{code} {body}");
    assert_eq!(page.get("/api/v1/status").await.0, 200);
    visitors.pop();
    let begun = tokio::time::Instant::now();
    while !Visitor::come(&page).await.seen.starts_with("HTTP/1.1 200") {
        assert!(begun.elapsed() < Duration::from_secs(10), "no room");
    }
}

#[tokio::test]
async fn streams_end_with_the_process() {
    let page = Page::start().await;
    let mut visitor = Visitor::come(&page).await;
    assert!(visitor.sees("event: status").await);
    let begun = tokio::time::Instant::now();
    page.stop.send(()).unwrap();
    assert!(!visitor.sees("never").await);
    page.task.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1_900), "a stream held it up");
}
