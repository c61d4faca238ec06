//! A server that is not there, comes, and goes: a port on loopback that forwards from [`Proxy::open`] to [`Proxy::cut`].

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A port on which nothing listens until [`Proxy::open`]. Dropping it cuts it.
pub(crate) struct Proxy {
    addr: SocketAddr,
    target: String,
    /// A broker's answers name its own port, to which clients would go.
    is_kafka: bool,
    closed: Arc<AtomicBool>,
    /// Bytes that went to the server.
    taken: Arc<AtomicU64>,
    /// Gives the connections that were open when it ended.
    listening: Mutex<Option<JoinHandle<Vec<TcpStream>>>>,
}

impl Proxy {
    /// A free port for `target` (`host:port`).
    pub(crate) fn of(target: &str) -> Self {
        let addr = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let (closed, taken, listening) = (Arc::default(), Arc::default(), Mutex::default());
        Self { addr, target: target.to_string(), is_kafka: false, closed, taken, listening }
    }

    /// The same for a Kafka broker on `127.0.0.1:port`: where its answers name it, they name the proxy.
    pub(crate) fn of_kafka(target: &str) -> Self {
        let mut proxy = Self::of(target);
        proxy.is_kafka = true;
        proxy
    }

    /// Where it is.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many bytes went to the server so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    /// From now on connections are taken and forwarded.
    pub(crate) fn open(&self) {
        self.cut();
        let listener = TcpListener::bind(self.addr).unwrap();
        self.closed.store(false, Ordering::SeqCst);
        let (target, closed) = (self.target.clone(), Arc::clone(&self.closed));
        let taken = Arc::clone(&self.taken);
        let names = self.is_kafka.then(|| (name(&self.target), name(&self.addr.to_string())));
        *self.listening.lock().unwrap() = Some(thread::spawn(move || {
            let mut open = Vec::new();
            for client in listener.incoming() {
                if closed.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&target)) else { continue };
                forward(&client, &server, Arc::clone(&taken), None);
                forward(&server, &client, Arc::default(), names.clone());
                open.extend([client, server]);
            }
            open
        }));
    }

    /// From now on nothing listens, and what was open is broken off.
    pub(crate) fn cut(&self) {
        let Some(listening) = self.listening.lock().unwrap().take() else { return };
        self.closed.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.addr);
        for stream in listening.join().unwrap() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

/// How Kafka's answers name a broker: the host as a text, then the port in four bytes.
fn name(address: &str) -> Vec<u8> {
    let (host, port) = address.rsplit_once(':').unwrap();
    [host.as_bytes(), &port.parse::<u32>().unwrap().to_be_bytes()].concat()
}

fn forward(from: &TcpStream, to: &TcpStream, taken: Arc<AtomicU64>, names: Option<(Vec<u8>, Vec<u8>)>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let _ = match names {
            None => counted(&mut from, &mut to, &taken),
            Some((real, ours)) => answers(&mut from, &mut to, &real, &ours),
        };
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn counted(from: &mut TcpStream, to: &mut TcpStream, taken: &AtomicU64) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count])?;
        taken.fetch_add(count as u64, Ordering::SeqCst);
    }
}

/// Forwards Kafka's answers, each with its length in front, with `ours` where `real` stood. Both are equally long.
fn answers(from: &mut TcpStream, to: &mut TcpStream, real: &[u8], ours: &[u8]) -> io::Result<()> {
    let mut length = [0; 4];
    loop {
        from.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut answer)?;
        // What is larger holds records.
        for at in 0..answer.len().min(64 << 10) {
            if answer[at..].starts_with(real) {
                answer[at..at + real.len()].copy_from_slice(ours);
            }
        }
        to.write_all(&length)?;
        to.write_all(&answer)?;
    }
}
