//! Our own HTTP: the page, health and status. It reads counters and never touches a lane.
//!
//! `/` is the page, `/api/v1/status` what it shows, as JSON. `/livez` answers while the process lives, `/readyz` says 503 until
//! every lane runs and every lookup is loaded, `/metrics` is for Prometheus, `/version` is the version. There is no login, so it listens on loopback only.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::error::{Error, Kind, Result};
use crate::metrics;
use crate::status::{LaneState, Snapshot, Status};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const HTML: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("app.js");
const STYLE: &str = include_str!("style.css");
// The page loads its own script and style and asks its own process; nothing else, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// How long a request may hold up the end of the process.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// The members of one leaderboard with their scores, the leader first.
pub type Board = Vec<(String, f64)>;
/// Answers all leaderboards by name as they are now. Called for each look at the status, so it must be quick.
pub type Boards = Arc<dyn Fn() -> BTreeMap<String, Board> + Send + Sync>;

/// What the pages show. Clones share it.
#[derive(Clone)]
pub struct WebState {
    status: Status,
    boards: Boards,
    started: Instant,
}

impl WebState {
    /// Shows `status` and `boards`; the uptime counts from here.
    pub fn new(status: Status, boards: Boards) -> Self {
        Self { status, boards, started: Instant::now() }
    }
}

impl fmt::Debug for WebState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebState").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Serves on `listener` until `shutdown` is ready, and at most two seconds longer for requests that have begun.
/// Refuses a listener that others than this machine can reach.
pub async fn serve(listener: TcpListener, state: WebState, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let failed = |cause| Error::new(Kind::Unreachable, "the page cannot be served any more").because(cause);
    let addr = listener.local_addr().map_err(failed)?;
    only_loopback(addr)?;
    let (asked, was_asked) = oneshot::channel();
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(async move {
        shutdown.await;
        let _ = asked.send(());
    });
    let deadline = async {
        match was_asked.await {
            Ok(()) => tokio::time::sleep(SHUTDOWN_MAX).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = server.into_future() => served.map_err(failed),
        () = deadline => Ok(()),
    }
}

fn only_loopback(addr: SocketAddr) -> Result<()> {
    if addr.ip().is_loopback() {
        return Ok(());
    }
    let text = format!("the page cannot be served on {addr}: it has no login, so only loopback will do; try 127.0.0.1:8080");
    Err(Error::new(Kind::Usage, text))
}

fn router(state: WebState) -> Router {
    Router::new()
        .route("/", get(|| file("text/html; charset=utf-8", HTML)))
        .route("/app.js", get(|| file("text/javascript; charset=utf-8", SCRIPT)))
        .route("/style.css", get(|| file("text/css; charset=utf-8", STYLE)))
        .route("/api/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/version", get(|| async { concat!(env!("CARGO_PKG_VERSION"), "\n") }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here; see / and /api/v1/status\n") })
        .layer(map_response(guard))
        .with_state(state)
}

/// The headers of every answer.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn file(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

#[derive(Serialize)]
struct StatusAnswer {
    version: &'static str,
    uptime_ms: u64,
    status: Snapshot,
    boards: BTreeMap<String, Board>,
}

async fn status(State(state): State<WebState>) -> Json<StatusAnswer> {
    let uptime_ms = u64::try_from(state.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Json(StatusAnswer { version: VERSION, uptime_ms, status: state.status.snapshot(), boards: (state.boards)() })
}

async fn metrics(State(state): State<WebState>) -> Response {
    match metrics::text(&state.status) {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", error.chain())).into_response(),
    }
}

#[derive(Serialize)]
struct ReadyAnswer {
    ready: bool,
    /// The lanes that do not run, with what they do instead.
    lanes: BTreeMap<String, Unready>,
    /// The lookups that were never loaded, with the reason if there is one: lanes that ask them wait.
    lookups: BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
struct Unready {
    state: LaneState,
    waits_for: Option<String>,
    error: Option<String>,
}

/// Ready when there are lanes, each of them runs or has ended as it was asked to, and every lookup has been loaded.
async fn readyz(State(state): State<WebState>) -> (StatusCode, Json<ReadyAnswer>) {
    let Snapshot { lanes, lookups, .. } = state.status.snapshot();
    let any = !lanes.is_empty();
    let unready: BTreeMap<_, _> = lanes
        .into_iter()
        .filter(|lane| !matches!(lane.state, LaneState::Running | LaneState::Done))
        .map(|lane| (lane.name, Unready { state: lane.state, waits_for: lane.waits_for, error: lane.error }))
        .collect();
    let lookups: BTreeMap<_, _> =
        lookups.into_iter().filter(|lookup| lookup.loaded_ms == 0).map(|lookup| (lookup.name, lookup.trouble)).collect();
    let ready = any && unready.is_empty() && lookups.is_empty();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(ReadyAnswer { ready, lanes: unready, lookups }))
}

#[cfg(test)]
mod tests;
