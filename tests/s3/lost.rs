//! An answer that is lost after S3 did what was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use falaj::checkpoint::CheckpointStore;
use falaj::checkpoint::s3::S3Store;
use falaj::s3::Location;

use crate::support::s3::{BUCKET, Server};

/// Forwards each request, and keeps the answers to the first few PUTs to itself. Gives the port.
fn swallow(server: u16, answers: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let answers = Arc::clone(&answers);
            thread::spawn(move || while let Some(()) = one(&client, server, &answers) {});
        }
    });
    port
}

/// One request and its answer; `None`: the connection is over.
fn one(client: &TcpStream, server: u16, answers: &AtomicUsize) -> Option<()> {
    let request = message(client, true)?;
    let upstream = TcpStream::connect(("127.0.0.1", server)).ok()?;
    (&upstream).write_all(&request).ok()?;
    let answer = message(&upstream, !request.starts_with(b"HEAD "))?;
    let is_lost = |left: usize| left.checked_sub(1).filter(|_| request.starts_with(b"PUT "));
    if answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_lost).is_ok() {
        return None;
    }
    let mut client = client;
    client.write_all(&answer).ok()
}

/// Head and body; the answer to HEAD says how long a body is that does not come.
fn message(from: &TcpStream, has_body: bool) -> Option<Vec<u8>> {
    let mut from = BufReader::new(from);
    let (mut bytes, mut length) = (Vec::new(), 0);
    loop {
        let begin = bytes.len();
        from.read_until(b'\n', &mut bytes).ok().filter(|read| *read > 0)?;
        let line = String::from_utf8_lossy(&bytes[begin..]).to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let begin = bytes.len();
    bytes.resize(begin + if has_body { length } else { 0 }, 0);
    from.read_exact(&mut bytes[begin..]).ok()?;
    Some(bytes)
}

#[tokio::test]
async fn a_record_whose_answer_was_lost_is_ours_and_nobody_elses() {
    let server = Server::start();
    let answers = Arc::new(AtomicUsize::new(0));
    let port = swallow(server.port, Arc::clone(&answers));
    let store = |port: u16| {
        let endpoint = format!("http://127.0.0.1:{port}");
        let options = [("endpoint", endpoint.as_str()), ("access_key_id", "any"), ("secret_access_key", "any")];
        S3Store::new(Location::parse(&format!("s3://{BUCKET}/lost"), &options).unwrap().open(None).unwrap())
    };
    let (ours, other) = (store(port), store(server.port));
    for number in 0..3 {
        let name = format!("lane/{number}");
        answers.store(1, Ordering::SeqCst);
        assert!(ours.create(&name, b"ours".to_vec()).await.unwrap(), "the answer was lost, and the record is there");
        assert_eq!(answers.load(Ordering::SeqCst), 0, "it was lost");
        assert!(!other.create(&name, b"ours".to_vec()).await.unwrap(), "the same bytes of another are not his");
        assert!(!ours.create(&name, b"ours".to_vec()).await.unwrap());
        assert_eq!(other.read(&name).await.unwrap().unwrap(), b"ours");
    }
    // Somebody was faster, and the answer that says so is lost.
    assert!(other.create("lane/9", b"other".to_vec()).await.unwrap());
    answers.store(1, Ordering::SeqCst);
    assert!(!ours.create("lane/9", b"ours".to_vec()).await.unwrap());
    assert_eq!(answers.load(Ordering::SeqCst), 0);
}
