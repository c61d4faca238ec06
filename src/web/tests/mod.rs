//! The pages over real sockets.

mod bounds;
mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::status::{LaneState, Status};

struct Page {
    addr: SocketAddr,
    status: Status,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Page {
    async fn start() -> Self {
        Self::start_for(Access::Loopback).await
    }

    async fn start_for(access: Access) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
        let addr = listener.local_addr().unwrap();
        let status = Status::default();
        let boards: Boards = Arc::new(|| BTreeMap::from([("top_content".to_string(), vec![("c<1>".to_string(), 7.0)])]));
        let (stop, stopped) = oneshot::channel::<()>();
        let state = WebState::new(status.clone(), boards);
        let task = tokio::spawn(serve(Door { listener, access, tls: None }, state, async move {
            let _ = stopped.await;
        }));
        Self { addr, status, stop, task }
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.get_with(path, "Host: localhost\r\n").await
    }

    /// The code, the head in lower case, and the body.
    async fn get_with(&self, path: &str, headers: &str) -> (u16, String, String) {
        let answer = self.send(&format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_string())
    }

    /// Asks until the answer has this code and this in it, since one look serves all who ask within a moment; gives the body.
    async fn becomes(&self, path: &str, code: u16, part: &str) -> String {
        let begun = tokio::time::Instant::now();
        loop {
            let (found, _, body) = self.get(path).await;
            if found == code && body.contains(part) {
                return body;
            }
            assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{path} answers {found}: {body}");
        }
    }

    /// All that is answered until the end of the connection.
    async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn the_page_and_its_files_load_under_a_strict_policy() {
    let page = Page::start().await;
    let scripts = SCRIPTS.map(|(name, _)| (format!("/app/{name}"), "text/javascript", ""));
    let files = [("/", "text/html", "/app/app.js"), ("/style.css", "text/css", "dark")];
    for (path, content_type, part) in files.map(|(path, kind, part)| (path.to_string(), kind, part)).into_iter().chain(scripts)
    {
        let path = path.as_str();
        let (code, head, body) = page.get(path).await;
        assert_eq!(code, 200, "{path}");
        assert!(head.contains(&format!("content-type: {content_type}")), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
        assert!(body.contains(part), "{path}");
        assert!(!body.contains("https://") && !body.contains(" onclick") && !body.contains("innerHTML"), "{path}");
    }
    assert_eq!(page.get("/nothing").await.0, 404);
    assert_eq!(page.get("/livez").await.2, "alive\n");
    assert_eq!(page.get("/version").await.2.trim(), VERSION);
}

#[tokio::test]
async fn the_status_has_lanes_lookups_and_boards() {
    let page = Page::start().await;
    page.status.lane("top_content").used.store(5, Ordering::Relaxed);
    page.status.lookup("content").rows.store(9, Ordering::Relaxed);
    let (code, _, body) = page.get("/api/v1/status").await;
    let json: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(code, 200);
    assert_eq!(json["version"], VERSION);
    assert!(json["uptime_ms"].is_u64());
    assert_eq!(json["status"]["lanes"][0]["used"], 5);
    assert_eq!(json["status"]["lanes"][0]["state"], "starting");
    assert_eq!(json["status"]["lookups"][0]["rows"], 9);
    assert_eq!(json["status"]["memory"]["used_bytes"], 0);
    assert_eq!(json["boards"]["top_content"], serde_json::json!([["c<1>", 7.0]]));
}

#[tokio::test]
async fn prometheus_gets_what_the_status_has() {
    let page = Page::start().await;
    page.status.lane("top_content").used.store(5, Ordering::Relaxed);
    let (code, head, body) = page.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\nfalaj_used_rows_total{lane=\"top_content\"} 5\n"), "{body}");
}

#[tokio::test]
async fn whether_it_is_ready_is_asked_by_its_code_and_what_is_in_the_way_stands_in_the_body() {
    let page = Page::start().await;
    assert_eq!(page.get("/readyz").await.0, 503);
    let lane = page.status.lane("two");
    lane.set_trouble(None, Some("Redis at localhost:6379".to_string()));
    let body = page.becomes("/readyz", 503, "Redis at localhost:6379").await;
    let json: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&json["ready"], &json["lanes"]["two"]["state"]), (&Value::Bool(false), &Value::from("starting")));
    lane.set_state(LaneState::Running);
    page.becomes("/readyz", 200, r#"{"ready":true,"lanes":{},"lookups":{}}"#).await;
    let json: Value = serde_json::from_str(&page.get("/api/v1/status").await.2).unwrap();
    assert!(json["status"]["lanes"][0]["waits_for"].is_null(), "it waits no more: {json}");
    assert_eq!(json["status"]["lanes"][0]["last_trouble"]["text"], "Redis at localhost:6379");
}

#[tokio::test]
async fn it_ends_when_it_is_asked_to() {
    let page = Page::start().await;
    page.get("/livez").await;
    page.stop.send(()).unwrap();
    page.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(page.addr).await.is_err());
}
