//! A server that is not there, comes, and goes: a port on loopback that forwards from [`Proxy::open`] to [`Proxy::cut`].

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A port on which nothing listens until [`Proxy::open`]. Dropping it cuts it.
pub(crate) struct Proxy {
    addr: SocketAddr,
    target: String,
    closed: Arc<AtomicBool>,
    /// Gives the connections that were open when it ended.
    listening: Mutex<Option<JoinHandle<Vec<TcpStream>>>>,
}

impl Proxy {
    /// A free port for `target` (`host:port`).
    pub(crate) fn of(target: &str) -> Self {
        let addr = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        Self { addr, target: target.to_string(), closed: Arc::default(), listening: Mutex::default() }
    }

    /// Where it is.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on connections are taken and forwarded.
    pub(crate) fn open(&self) {
        self.cut();
        let listener = TcpListener::bind(self.addr).unwrap();
        self.closed.store(false, Ordering::SeqCst);
        let (target, closed) = (self.target.clone(), Arc::clone(&self.closed));
        *self.listening.lock().unwrap() = Some(thread::spawn(move || {
            let mut open = Vec::new();
            for client in listener.incoming() {
                if closed.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&target)) else { continue };
                forward(&client, &server);
                forward(&server, &client);
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

fn forward(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}
