//! An HTTP server of the harness' own, which shares no code with falaj: rows that it takes are appended to a file. One honours
//! `Idempotency-Key`; the other takes whatever comes, at random cuts the line before or after that, is slow, or fails.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::value::RawValue;
use twox_hash::XxHash3_64;

use super::plan::Trouble;

/// A running receiver. It lasts as long as the process.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    addr: SocketAddr,
    rows: PathBuf,
}

struct Shared {
    /// Whether it honours keys; if not, it misbehaves.
    honest: bool,
    book: Mutex<Book>,
    dice: Mutex<Xoshiro256PlusPlus>,
    /// 0, or a [`Trouble`] and 1.
    trouble: AtomicU8,
    counts: Counts,
}

struct Book {
    rows: BufWriter<File>,
    /// The hash of each key's body.
    keys: HashMap<String, u64>,
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicUsize,
    /// The same key and the same body again.
    pub(super) repeated: AtomicUsize,
    /// The same key with another body: never.
    pub(super) conflicts: AtomicUsize,
    /// Requests that were not answered, or not well.
    pub(super) failed: AtomicUsize,
}

/// What happens to one request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    CutBefore,
    CutAfter,
    Status(u16),
}

impl Receiver {
    /// Starts it; `rows` is the file for what it takes.
    pub(super) fn start(honest: bool, seed: u64, rows: &Path) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let book = Book { rows: BufWriter::new(File::create(rows).unwrap()), keys: HashMap::new() };
        let shared = Arc::new(Shared {
            honest,
            book: Mutex::new(book),
            dice: Mutex::new(Xoshiro256PlusPlus::seed_from_u64(seed)),
            trouble: AtomicU8::new(0),
            counts: Counts::default(),
        });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                // A client that dies in the middle of a request ends its connection, and nothing else.
                thread::spawn(move || server.serve(&client));
            }
        });
        Self { shared, addr, rows: rows.to_path_buf() }
    }

    /// Where it takes rows.
    pub(super) fn url(&self) -> String {
        format!("http://{}/engagements", self.addr)
    }

    /// Is worse than usual, or not.
    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) {
        let trouble = trouble.map_or(0, |trouble| 1 + trouble as u8);
        self.shared.trouble.store(trouble, Ordering::SeqCst);
    }

    /// What came so far.
    pub(super) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// The rows that it took, as JSON, in their order.
    pub(super) fn rows(&self) -> impl Iterator<Item = String> {
        self.shared.book.lock().unwrap().rows.flush().unwrap();
        BufReader::new(File::open(&self.rows).unwrap()).lines().map_while(Result::ok)
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client);
        loop {
            let Some((key, body)) = request(&mut reader)? else { return Ok(()) };
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            let (pause, fate) = self.fate();
            thread::sleep(pause);
            if fate != Fate::Fine {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
            }
            let status = match fate {
                Fate::CutBefore => return Ok(()),
                Fate::Status(status) => status,
                Fate::Fine | Fate::CutAfter => self.take(key, &body),
            };
            if fate == Fate::CutAfter {
                return Ok(());
            }
            let wait = if status == 429 { "Retry-After: 1\r\n" } else { "" };
            let mut client = client;
            client.write_all(format!("HTTP/1.1 {status} X\r\n{wait}Content-Length: 2\r\n\r\n{{}}").as_bytes())?;
        }
    }

    /// How long it waits before it does what.
    fn fate(&self) -> (Duration, Fate) {
        if self.honest {
            return (Duration::ZERO, Fate::Fine);
        }
        let mut dice = self.dice.lock().unwrap();
        let (share, pause_ms, long_ms) = (dice.random_range(0..100), dice.random_range(0..15), dice.random_range(200..1_500));
        let usual = match share {
            0..3 => Fate::CutAfter,
            3..5 => Fate::CutBefore,
            5 => Fate::Status(500),
            6 => Fate::Status(503),
            7 => Fate::Status(429),
            _ => Fate::Fine,
        };
        let trouble = self.trouble.load(Ordering::SeqCst);
        match [Trouble::Fails, Trouble::Slow, Trouble::Cuts].into_iter().find(|kind| 1 + *kind as u8 == trouble) {
            None => (Duration::from_millis(pause_ms), usual),
            Some(Trouble::Fails) => (Duration::ZERO, Fate::Status([429, 500, 503][share % 3])),
            Some(Trouble::Slow) => (Duration::from_millis(long_ms), usual),
            Some(Trouble::Cuts) => (Duration::ZERO, Fate::CutAfter),
        }
    }

    /// Takes the rows of a body; says the status.
    fn take(&self, key: String, body: &[u8]) -> u16 {
        let Ok(rows) = serde_json::from_slice::<Vec<&RawValue>>(body) else { return 400 };
        let mut book = self.book.lock().unwrap();
        let hash = XxHash3_64::oneshot(body);
        match book.keys.insert(key, hash) {
            Some(before) if before != hash => {
                self.counts.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {
                self.counts.repeated.fetch_add(1, Ordering::Relaxed);
                if self.honest {
                    return 200;
                }
            }
            None => {}
        }
        for row in rows {
            writeln!(book.rows, "{row}").unwrap();
        }
        200
    }
}

/// The key and the body of a request; nothing at the end of the connection.
fn request(reader: &mut impl BufRead) -> io::Result<Option<(String, Vec<u8>)>> {
    let (mut key, mut length, mut line) = (String::new(), 0, String::new());
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(io::Error::other)?,
            "idempotency-key" => key = value.to_string(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((key, body)))
}
