//! Our own HTTP: the page, health and status. It reads counters and never touches a lane.
//!
//! `/` is the page. `/api/v1/status` is what it shows, as JSON ([`Answer`]), and `/api/v1/events` the same twice a second as server-sent
//! events: first `history` (the last five minutes of each lane), then `status` again and again. `/livez` answers while the process lives,
//! `/readyz` says 503 until every lane runs and every lookup is loaded, `/metrics` is for Prometheus, `/version` is the version.
//!
//! Everything is only read: there is no request that changes anything. Without a token ([`Access`]) it is served on loopback only.

mod access;
mod connections;
mod events;
mod history;
mod look;
mod ready;
#[cfg(test)]
mod tests;
mod tls;

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use self::access::{Access, Token};
pub use self::history::Point;
pub use self::look::{Answer, Board, Boards, WebState};
pub use self::tls::Tls;
use crate::error::{Error, Kind, Result};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPTS: [(&str, &str); 10] = [
    ("app.js", include_str!("page/app.js")),
    ("boards.js", include_str!("page/boards.js")),
    ("chart.js", include_str!("page/chart.js")),
    ("first.js", include_str!("page/first.js")),
    ("flow.js", include_str!("page/flow.js")),
    ("format.js", include_str!("page/format.js")),
    ("lanes.js", include_str!("page/lanes.js")),
    ("stream.js", include_str!("page/stream.js")),
    ("tables.js", include_str!("page/tables.js")),
    ("words.js", include_str!("page/words.js")),
];

/// Where it is served, and for whom.
#[derive(Debug)]
pub struct Door {
    /// Where visitors come in; it does not block.
    pub listener: std::net::TcpListener,
    /// What is asked of them.
    pub access: Access,
    /// With TLS, if so.
    pub tls: Option<Tls>,
}

impl Door {
    /// Where it is. `Err`: others than this machine can reach it, and nothing is asked of them.
    pub fn address(&self) -> Result<SocketAddr> {
        let address = self.listener.local_addr().map_err(failed)?;
        self.access.check(address)?;
        Ok(address)
    }
}

fn failed(cause: std::io::Error) -> Error {
    Error::new(Kind::Unreachable, "the page cannot be served any more").because(cause)
}

/// Serves until `shutdown` is ready, and at most two seconds longer for requests that have begun. Refuses a door that others than this
/// machine can reach when nothing is asked of them.
pub async fn serve(door: Door, state: WebState, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    door.address()?;
    let listener = TcpListener::from_std(door.listener).map_err(failed)?;
    let (stop, stopped) = watch::channel(false);
    let looks = tokio::spawn(events::look(state.clone()));
    let router = router(state.clone(), door.access);
    tokio::join!(connections::serve(listener, door.tls, router, stopped), async {
        shutdown.await;
        looks.abort();
        state.events().end();
        stop.send_replace(true);
    });
    Ok(())
}

#[derive(Clone)]
struct Shown {
    state: WebState,
    access: Access,
}

impl FromRef<Shown> for WebState {
    fn from_ref(shown: &Shown) -> Self {
        shown.state.clone()
    }
}

impl FromRef<Shown> for Access {
    fn from_ref(shown: &Shown) -> Self {
        shown.access.clone()
    }
}

fn router(state: WebState, access: Access) -> Router {
    Router::new()
        .route("/", get(|| file("text/html; charset=utf-8", HTML)))
        .route("/style.css", get(|| file("text/css; charset=utf-8", STYLE)))
        .route("/app/{name}", get(script))
        .route("/api/v1/status", get(status))
        .route("/api/v1/events", get(events::events))
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready::readyz))
        .route("/version", get(|| async { concat!(env!("CARGO_PKG_VERSION"), "\n") }))
        .fallback(nothing)
        .layer(from_fn_with_state(access.clone(), access::guard))
        .with_state(Shown { state, access })
}

async fn nothing() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "there is nothing here; see / and /api/v1/status\n")
}

async fn script(Path(name): Path<String>) -> Response {
    match SCRIPTS.iter().find(|(script, _)| *script == name) {
        Some((_, text)) => file("text/javascript; charset=utf-8", text).await,
        None => nothing().await.into_response(),
    }
}

async fn file(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

async fn status(State(state): State<WebState>) -> Response {
    answer("application/json", state.answer())
}

async fn metrics(State(state): State<WebState>) -> Response {
    answer("text/plain; version=0.0.4; charset=utf-8", state.metrics())
}

fn answer(content_type: &'static str, made: Result<Bytes>) -> Response {
    match made {
        Ok(bytes) => ([(CONTENT_TYPE, content_type)], bytes).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", error.chain())).into_response(),
    }
}
