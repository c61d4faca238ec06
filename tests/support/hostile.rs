//! A server that answers what no honest one does, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// This status, and a body that never ends.
    EndlessBody(u16),
    /// A head that never ends.
    EndlessHead,
    /// This status, and a body of some kilobytes that says it is a gigabyte when it is unpacked.
    Bomb(u16),
    /// This status, and a body that never begins.
    Silence(u16),
    /// This status, and this text.
    Text(u16, &'static str),
    /// Elsewhere, please: with this status, to this address.
    Redirect(u16, String),
}

/// It ends with the test.
pub(crate) struct Hostile {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Hostile {
    pub(crate) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hostile = Self {
            port: listener.local_addr().unwrap().port(),
            asked: Arc::default(),
            ended: Arc::new(AtomicBool::new(false)),
        };
        let (asked, ended) = (Arc::clone(&hostile.asked), Arc::clone(&hostile.ended));
        let bomb = if matches!(answer, Answer::Bomb(_)) { bomb() } else { Vec::new() };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok).take_while(|_| !ended.load(Ordering::Relaxed)) {
                let (asked, ended, answer, bomb) = (Arc::clone(&asked), Arc::clone(&ended), answer.clone(), bomb.clone());
                // Whoever has heard enough goes away.
                thread::spawn(move || serve(stream, &answer, &bomb, &asked, &ended));
            }
        });
        hostile
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests so far, with their heads and bodies.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(mut stream: TcpStream, answer: &Answer, bomb: &[u8], asked: &Mutex<Vec<String>>, ended: &AtomicBool) -> Option<()> {
    asked.lock().unwrap().push(request(&mut stream)?);
    let head = |status: u16, more: &str| format!("HTTP/1.1 {status} Hostile\r\nConnection: close\r\n{more}\r\n");
    match answer {
        Answer::Redirect(status, to) => {
            stream.write_all(head(*status, &format!("Location: {to}\r\nContent-Length: 0\r\n")).as_bytes()).ok()
        }
        Answer::Text(status, text) => {
            stream.write_all(head(*status, &format!("Content-Length: {}\r\n", text.len())).as_bytes()).ok()?;
            stream.write_all(text.as_bytes()).ok()
        }
        Answer::Bomb(status) => {
            let more =
                format!("Content-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", bomb.len());
            stream.write_all(head(*status, &more).as_bytes()).ok()?;
            stream.write_all(bomb).ok()
        }
        Answer::Silence(status) => {
            stream.write_all(head(*status, "Content-Length: 1000\r\n").as_bytes()).ok()?;
            stream.set_read_timeout(Some(Duration::from_millis(100))).ok()?;
            // Until the other side goes.
            while !ended.load(Ordering::Relaxed) && !matches!(stream.read(&mut [0; 1]), Ok(0)) {}
            Some(())
        }
        Answer::EndlessBody(status) => {
            stream.write_all(head(*status, "Transfer-Encoding: chunked\r\n").as_bytes()).ok()?;
            let part = [b"10000\r\n", [b'x'; 0x10000].as_slice(), b"\r\n"].concat();
            again(&mut stream, &part, ended)
        }
        Answer::EndlessHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").ok()?;
            again(&mut stream, format!("X-Again: {}\r\n", "x".repeat(100)).repeat(100).as_bytes(), ended)
        }
    }
}

fn again(stream: &mut TcpStream, part: &[u8], ended: &AtomicBool) -> Option<()> {
    while !ended.load(Ordering::Relaxed) {
        stream.write_all(part).ok()?;
    }
    None
}

/// The head and the body of a request that says how long it is.
fn request(stream: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        match stream.read(&mut part).ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
}

/// A gigabyte of zeros in a megabyte.
fn bomb() -> Vec<u8> {
    let zeros = Command::new("bash").args(["-c", "head -c 1G /dev/zero | gzip -1"]).stdout(Stdio::piped()).output().unwrap();
    assert!(zeros.status.success() && zeros.stdout.len() < 10 << 20);
    zeros.stdout
}
