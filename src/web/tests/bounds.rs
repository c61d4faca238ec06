//! Who is turned away, and what no visitor can hold.

use std::time::Duration;

use super::*;
use crate::web::connections::{CONNECTIONS_MAX, HEAD_MAX};

const TOKEN: &str = "0123456789abcdef0123";

#[tokio::test]
async fn a_name_that_is_not_of_this_machine_is_refused() {
    let page = Page::start().await;
    for (host, code) in [("localhost:8080", 200), ("127.0.0.1", 200), ("evil.example", 421), ("evil.example:8080", 421)] {
        for path in ["/", "/api/v1/status", "/api/v1/events?x", "/metrics"]
            .iter()
            .filter(|path| code != 200 || !path.contains("events"))
        {
            assert_eq!(page.get_with(path, &format!("Host: {host}\r\n")).await.0, code, "{host} {path}");
        }
    }
    // A probe that is a line of a shell has no Host.
    assert!(page.send("GET /livez HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200"));
}

#[tokio::test]
async fn nothing_is_shown_without_the_token_where_there_is_one() {
    let page = Page::start_for(Access::Token(Token::new(TOKEN.to_string()).unwrap())).await;
    page.status.lane("secret_lane").set_trouble(Some("a secret error".to_string()), None);
    for path in ["/api/v1/status", "/api/v1/events", "/metrics", "/version", "/nothing"] {
        for wrong in [
            "",
            "Authorization: Bearer 0123456789abcdef0124\r\n",
            "Authorization: Basic 0123456789abcdef0123\r\n",
            "Authorization: Bearer \r\n",
        ] {
            let (code, head, body) = page.get_with(path, &format!("Host: falaj.example\r\n{wrong}")).await;
            assert_eq!(code, 401, "{path} {wrong}");
            assert!(head.contains("www-authenticate: bearer") && !body.contains("secret"), "{head} {body}");
        }
    }
    let right = format!("Host: falaj.example\r\nauthorization: bearer {TOKEN}\r\n");
    assert!(page.get_with("/api/v1/status", &right).await.2.contains("secret_lane"));
    assert!(page.get_with("/readyz", &right).await.2.contains("a secret error"));
    // Whoever only asks whether it lives, or loads the page that asks for the token.
    for (path, code) in [("/", 200), ("/app/app.js", 200), ("/style.css", 200), ("/livez", 200), ("/readyz", 503)] {
        let (found, _, body) = page.get(path).await;
        assert_eq!(found, code, "{path}");
        assert!(!body.contains("secret"), "{path}: {body}");
    }
}

#[tokio::test]
async fn nothing_can_be_changed_and_nothing_be_read_from_another_site() {
    let page = Page::start().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        for path in ["/", "/api/v1/status", "/api/v1/events", "/metrics"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nConnection: close\r\n\r\n"
            );
            let answer = page.send(&request).await.to_lowercase();
            assert!(answer.starts_with("http/1.1 405"), "{method} {path}: {answer}");
            assert!(!answer.contains("access-control-allow"), "{answer}");
        }
    }
    let (_, head, _) = page.get_with("/api/v1/status", "Host: localhost\r\nOrigin: https://evil.example\r\n").await;
    assert!(!head.contains("access-control-allow"), "{head}");
    assert!(
        head.contains("cross-origin-resource-policy: same-origin") && head.contains("x-content-type-options: nosniff"),
        "{head}"
    );
}

#[tokio::test]
async fn a_head_or_a_body_that_is_too_large_is_refused_and_others_are_served() {
    let page = Page::start().await;
    let large = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    for request in [large, many] {
        let mut stream = TcpStream::connect(page.addr).await.unwrap();
        // It may be cut off before all of it is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    }
    // Nobody reads a body: it is answered without, and the line is closed.
    let mut stream = TcpStream::connect(page.addr).await.unwrap();
    let head = format!("POST /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 405"));
    assert_eq!(page.get("/livez").await.0, 200);
}

#[tokio::test]
async fn a_visitor_who_never_ends_its_head_is_cut_off() {
    let page = Page::start().await;
    let mut stream = TcpStream::connect(page.addr).await.unwrap();
    let begun = tokio::time::Instant::now();
    let (mut read, mut write) = stream.split();
    let drips = async {
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".iter().chain(std::iter::repeat_n(&b'x', 1_000)) {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = read.read_to_end(&mut answer) => {}
        () = drips => {}
    }
    assert!(begun.elapsed() < 3 * HEAD_MAX, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_that_only_stand_open_give_way_to_the_next() {
    let page = Page::start().await;
    let mut idle = Vec::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        idle.push(TcpStream::connect(page.addr).await.unwrap());
    }
    // Long before their heads are overdue.
    let begun = tokio::time::Instant::now();
    assert_eq!(page.get("/livez").await.0, 200);
    assert!(begun.elapsed() < HEAD_MAX / 2, "{:?}", begun.elapsed());
}
