//! The connections of our own HTTP, each with its bounds: no visitor, however slow or many, holds more than these.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use super::Tls;

/// Beyond it the connection that has waited longest for its visitor's next request gives way; when all are at work, the new one does.
/// A process may have 1024 files open as a rule, and most of those are for the lanes.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// A head must be whole after so long; so long may a connection rest between two requests.
pub(super) const HEAD_MAX: Duration = Duration::from_secs(5);
/// The head of a request: eight times what a browser sends.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Who takes nothing for so long is no visitor any more.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How long a request may hold up the end of the process.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);
/// After an error of accepting, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// One connection, as the others know it.
#[derive(Default)]
struct Open {
    /// Whether a request is being answered.
    at_work: AtomicBool,
    gives_way: Notify,
}

/// Serves until `stop` is true, and at most two seconds longer for requests that have begun.
pub(super) async fn serve(listener: TcpListener, tls: Option<Tls>, router: Router, mut stop: watch::Receiver<bool>) {
    let mut open: VecDeque<Weak<Open>> = VecDeque::new();
    let (mut tasks, each_stop) = (JoinSet::new(), stop.clone());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if !has_room(&mut open) {
            continue;
        }
        let one = Arc::new(Open::default());
        open.push_back(Arc::downgrade(&one));
        let (router, stop) = (router.clone(), each_stop.clone());
        match tls.clone() {
            None => tasks.spawn(connection(stream, router, one, stop)),
            Some(tls) => tasks.spawn(async move {
                // A visitor who cannot agree on a cipher, or never begins, is no news either.
                let agreed = tokio::select! {
                    agreed = tokio::time::timeout(HEAD_MAX, tls.0.accept(stream)) => agreed,
                    () = one.gives_way.notified() => return,
                };
                if let Ok(Ok(stream)) = agreed {
                    connection(stream, router, one, stop).await;
                }
            }),
        };
    }
    drop(listener);
    let _ = tokio::time::timeout(SHUTDOWN_MAX, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Makes room for one more connection; `false`: all are at work.
fn has_room(open: &mut VecDeque<Weak<Open>>) -> bool {
    if open.len() < CONNECTIONS_MAX {
        return true;
    }
    open.retain(|one| one.strong_count() > 0);
    if open.len() < CONNECTIONS_MAX {
        return true;
    }
    let waits = |one: &Weak<Open>| one.upgrade().is_none_or(|one| !one.at_work.load(Ordering::Relaxed));
    let Some(longest) = open.iter().position(waits).and_then(|at| open.remove(at)) else { return false };
    if let Some(longest) = longest.upgrade() {
        longest.gives_way.notify_one();
    }
    true
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    open: Arc<Open>,
    mut stop: watch::Receiver<bool>,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL_MAX));
    let answer = service_fn(|request: Request<Incoming>| {
        let (router, open) = (router.clone(), Arc::clone(&open));
        async move {
            open.at_work.store(true, Ordering::Relaxed);
            let answer = router.oneshot(request.map(Body::new)).await;
            let goes_on = |kind: &HeaderValue| kind.as_bytes() == b"text/event-stream";
            let is_stream = answer.as_ref().is_ok_and(|answer| answer.headers().get(CONTENT_TYPE).is_some_and(goes_on));
            open.at_work.store(is_stream, Ordering::Relaxed);
            answer
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), answer);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        // A visitor who breaks off, or breaks the rules of HTTP, is no news.
        _ = served.as_mut() => return,
        () = open.gives_way.notified() => return,
        _ = stop.wait_for(|stop| *stop) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}
