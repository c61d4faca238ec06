//! `falaj receive`: stands for the external HTTP system in the demo and in tests. It takes rows as an exactly-once receiver
//! should: a repeated `Idempotency-Key` is not counted again, and rows are upserted by `_id`. And it can be told to misbehave.
//!
//! `POST` or `PUT` on any path take a JSON array of objects, one object, or one a line. `GET /` shows the counts and the last rows,
//! `GET /stats` the counts as JSON, `GET /rows?limit=` the last rows.

mod book;
mod cut;
mod faults;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::book::Counts;
use self::book::{Book, Taken};
use self::cut::{Cut, CuttingListener};
use self::faults::Dice;
pub use self::faults::{Faults, FieldValue};
use crate::error::{Error, Kind, Result};
use crate::table::parse_duration;

/// The largest body that is taken.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Rows that `GET /` shows.
const ROWS_SHOWN: usize = 20;

/// The options of `falaj receive`.
#[derive(Debug, Clone, Args)]
pub struct ReceiveArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub bind: SocketAddr,
    /// Answer so many percent of the requests with 500, without doing anything.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub fail: f64,
    /// Answer every request with this status, without doing anything.
    #[arg(long, value_name = "CODE")]
    pub status: Option<u16>,
    /// With --status: only the first so many requests.
    #[arg(long, value_name = "COUNT", requires = "status")]
    pub times: Option<u64>,
    /// With --status: ask to wait so many seconds (Retry-After).
    #[arg(long, value_name = "SECONDS", requires = "status")]
    pub retry_after: Option<u64>,
    /// Wait so long before each answer, for instance 200ms.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub slow: Option<Duration>,
    /// Take so many percent of the requests, then close the connection without an answer.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub cut: f64,
    /// Answer 400 to a request that has a row with this value.
    #[arg(long, value_name = "FIELD=VALUE")]
    pub refuse: Option<FieldValue>,
    /// What the dice for --fail and --cut begin with: the same seed throws the same.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print each row that is taken.
    #[arg(long)]
    pub print: bool,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "it must be a duration such as '200ms' or '2s'".to_owned())
}

/// Runs until `shutdown` is ready, and prints where it listens and, at the end, what it took.
pub async fn run(args: ReceiveArgs, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
    let bind = args.bind;
    let receiver = Receiver::start(bind, Faults::from(args)).await?;
    println!("receiving on http://{}/ (POST or PUT any path; GET / shows what came)", receiver.addr());
    shutdown.await;
    println!("{}", receiver.counts());
    receiver.stop().await;
    Ok(())
}

/// A receiver that runs in this process. Dropping it stops it, too.
#[derive(Debug)]
pub struct Receiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    dice: Mutex<Dice>,
}

impl Receiver {
    /// Listens on `bind` (port 0: any free one) and serves in the background.
    pub async fn start(bind: SocketAddr, faults: Faults) -> Result<Self> {
        let failed = |cause| Error::new(Kind::Usage, format!("cannot listen on {bind}; is the port in use?")).because(cause);
        let listener = TcpListener::bind(bind).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared { book: Mutex::new(Book::default()), dice: Mutex::new(Dice::new(faults)) });
        let router = Router::new()
            .route("/", get(front).post(take).put(take))
            .route("/stats", get(stats).post(take).put(take))
            .route("/rows", get(rows).post(take).put(take))
            .fallback(take)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(shared.clone());
        let (stop, stopped) = oneshot::channel();
        let service = router.into_make_service_with_connect_info::<Cut>();
        let serving = tokio::spawn(async move {
            let server = axum::serve(CuttingListener(listener), service);
            let ended = server.with_graceful_shutdown(async move { drop(stopped.await) }).await;
            if let Err(error) = ended {
                tracing::warn!(%error, "the receiver ended");
            }
        });
        Ok(Self { addr, shared, stop: Some(stop), serving: Some(serving) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it took so far.
    pub fn counts(&self) -> Counts {
        self.shared.book.lock().counts()
    }

    /// The last rows that it took, the newest first.
    pub fn last_rows(&self, limit: usize) -> Vec<String> {
        self.shared.book.lock().last_rows(limit)
    }

    /// Misbehaves in this way from the next request on; the dice begin anew.
    pub fn set_faults(&self, faults: Faults) {
        *self.shared.dice.lock() = Dice::new(faults);
    }

    /// Stops taking connections, and waits a second for those that are open.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(serving) = &mut self.serving {
            let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if method != Method::POST && method != Method::PUT {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST, PUT")], "send rows with POST or PUT\n")
            .into_response();
    }
    let throw = shared.dice.lock().throw();
    if let Some(slow) = throw.slow {
        tokio::time::sleep(slow).await;
    }
    if let Some(status) = throw.status {
        shared.book.lock().failed();
        let mut response = (status, "told to fail\n").into_response();
        if let Some(seconds) = throw.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        return response;
    }
    let key = headers.get("idempotency-key").map(HeaderValue::as_bytes);
    let taken = match book::parse(&body, throw.refuse.as_ref()) {
        Ok(rows) => shared.book.lock().take(key, &body, &rows, throw.print),
        Err(message) => {
            shared.book.lock().refused();
            return (StatusCode::BAD_REQUEST, message).into_response();
        }
    };
    if throw.cut {
        cut.now();
    }
    match taken {
        Taken::New | Taken::Before => (StatusCode::OK, "{}\n").into_response(),
        Taken::OtherBody => {
            (StatusCode::UNPROCESSABLE_ENTITY, "this Idempotency-Key came with another body before\n").into_response()
        }
    }
}

async fn front(State(shared): State<Arc<Shared>>) -> String {
    let book = shared.book.lock();
    let mut page = format!("{}\n\nlast rows, newest first:\n", book.counts());
    for row in book.last_rows(ROWS_SHOWN) {
        page.push_str(&row);
        page.push('\n');
    }
    page
}

async fn stats(State(shared): State<Arc<Shared>>) -> Json<Counts> {
    Json(shared.book.lock().counts())
}

#[derive(Debug, Deserialize)]
struct RowsQuery {
    limit: Option<usize>,
}

async fn rows(State(shared): State<Arc<Shared>>, Query(query): Query<RowsQuery>) -> Response {
    let rows = shared.book.lock().last_rows(query.limit.unwrap_or(ROWS_SHOWN));
    let body = rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}
