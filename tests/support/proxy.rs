//! A server that is not there, and comes later: a port on loopback that forwards once it is told to.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A port on which nothing listens until [`Proxy::open`]. Dropping it ends the listening; open connections end with their peers.
pub(crate) struct Proxy {
    addr: SocketAddr,
    target: String,
    closed: Arc<AtomicBool>,
}

impl Proxy {
    /// A free port for `target` (`host:port`).
    pub(crate) fn of(target: &str) -> Self {
        let addr = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        Self { addr, target: target.to_string(), closed: Arc::default() }
    }

    /// Where it is.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on connections are taken and forwarded.
    pub(crate) fn open(&self) {
        let listener = TcpListener::bind(self.addr).unwrap();
        let (target, closed) = (self.target.clone(), Arc::clone(&self.closed));
        thread::spawn(move || {
            for client in listener.incoming() {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&target)) else { continue };
                forward(&client, &server);
                forward(&server, &client);
            }
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        // Wakes the listener, if there is one.
        let _ = TcpStream::connect(self.addr);
    }
}

fn forward(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}
