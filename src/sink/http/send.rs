//! Sends one body until it is taken, refused row by row, or it is time to say that nobody answers.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Client, Identity, Response};

use super::gate::{Gate, Went};
use super::options::{HttpOptions, IDEMPOTENCY_KEY};
use super::outbox::Body;
use crate::backoff::Backoff;
use crate::batch::{DeadLetter, Stage};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::outage::Outage;
use crate::tls::{self, Own};

/// Each wait between attempts lies between these, unless the other side names one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// The longest wait that the other side may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// How much of an answer is read; what is longer costs a new connection.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long the rest of a good answer is waited for; it only serves to use the connection again.
const GOOD_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How much of an answer a dead letter quotes.
const QUOTED_BYTES: usize = 1024;

/// Sends bodies to one address. Shared by all that are under way.
pub(super) struct Sender {
    client: Client,
    options: HttpOptions,
    pub(super) gate: Gate,
    retries: AtomicU64,
    outage: Outage,
}

/// What a status code asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Done,
    /// Send the same again.
    Again,
    /// These rows will not be taken.
    Refused,
    /// No row would be taken: rights or the address are wrong.
    Stop(&'static str),
}

/// What came of one attempt.
enum Attempt {
    Done,
    Again { wait: Option<Duration>, answered: bool, why: String },
    Refused(Refusal),
}

/// An answer that will not change.
struct Refusal {
    status: u16,
    text: String,
}

impl Sender {
    pub(super) fn new(options: HttpOptions, outage: Outage) -> Result<Self> {
        let (table, files) = (options.table.as_str(), &options.files);
        let mut client = Client::builder()
            .timeout(options.timeout)
            .connect_timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(options.concurrency_max)
            .user_agent(concat!("falaj/", env!("CARGO_PKG_VERSION")))
            .default_headers(options.headers.clone());
        if let Some(pem) = files.authority(table)? {
            for certificate in Certificate::from_pem_bundle(&pem).map_err(|cause| files.wrong(table, cause))? {
                client = client.add_root_certificate(certificate);
            }
        }
        if let Some(Own { certificate, key }) = files.own(table)? {
            let own = Identity::from_pem(&[key, certificate].concat()).map_err(|cause| files.wrong(table, cause))?;
            client = client.identity(own);
        }
        let client = client.build().map_err(|cause| {
            Error::new(Kind::Denied, format!("table '{table}': no HTTP client could be made")).because(cause)
        })?;
        Ok(Self { client, gate: Gate::new(options.concurrency_max), options, retries: AtomicU64::new(0), outage })
    }

    /// How many attempts beyond the first there were since this was asked last.
    pub(super) fn take_retries(&self) -> u64 {
        self.retries.swap(0, Ordering::Relaxed)
    }

    /// Sends `body` under `key` and says which rows were refused. A body that is refused is halved, down to the row; the halves'
    /// keys are `key.0` and `key.1`, so that doing it again asks the same. `resumed`: it may have been sent before.
    pub(super) async fn deliver(&self, key: String, body: Body, resumed: bool) -> Result<Vec<DeadLetter>> {
        let mut dead = Vec::new();
        // No deeper than the logarithm of the rows, since the first half is done before the second.
        let mut open: Vec<(String, Range<usize>)> = vec![(key, 0..body.len())];
        while let Some((key, rows)) = open.pop() {
            let bytes = body.part(rows.clone(), self.options.format);
            let Some(refusal) = self.send(&key, bytes, resumed).await? else { continue };
            if rows.len() <= 1 {
                dead.push(dead_letter(&body, rows.start, &refusal));
                continue;
            }
            let middle = rows.start + rows.len() / 2;
            open.push((format!("{key}.1"), middle..rows.end));
            open.push((format!("{key}.0"), rows.start..middle));
        }
        Ok(dead)
    }

    /// Sends the same bytes until they are taken (`None`) or refused.
    async fn send(&self, key: &str, bytes: Bytes, resumed: bool) -> Result<Option<Refusal>> {
        let began = Instant::now();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        // Whether an attempt may still be under way on the other side, which then says 409 to the next one.
        let mut ambiguous = resumed;
        loop {
            let why = match self.attempt(key, bytes.clone()).await? {
                Attempt::Done => {
                    if let Some(lasted) = self.outage.ends() {
                        let (table, url, seconds) = (&self.options.table, self.options.shown_url(), lasted.as_secs_f64());
                        tracing::info!("table '{table}': {url} takes requests again, after {seconds:.1} s");
                    }
                    return Ok(None);
                }
                Attempt::Refused(refusal) if refusal.status == 409 && ambiguous => format!("status 409: {}", refusal.text),
                Attempt::Refused(refusal) => return Ok(Some(refusal)),
                Attempt::Again { wait, answered, why } => {
                    ambiguous |= !answered;
                    if let (Some(_), true) = (wait, began.elapsed() < self.options.retry_for) {
                        self.retries.fetch_add(1, Ordering::Relaxed);
                        continue; // The gate waits, for all.
                    }
                    why
                }
            };
            if began.elapsed() >= self.options.retry_for {
                let message = format!("has not taken a request for {} s ({why}); it is tried again", began.elapsed().as_secs());
                return Err(self.outage.gives_up(self.error(Kind::Unreachable, message)));
            }
            if self.outage.fails(began) {
                let (table, url) = (&self.options.table, self.options.shown_url());
                tracing::warn!("table '{table}': {url} takes no requests: {why}; they are tried again");
            }
            tracing::debug!(table = self.options.table, key, why, "a request was not taken; trying again");
            self.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(backoff.wait().min(self.options.retry_for)).await;
        }
    }

    async fn attempt(&self, key: &str, bytes: Bytes) -> Result<Attempt> {
        let mut pass = self.gate.enter().await;
        let request = self.client.request(self.options.method.clone(), self.options.url.clone());
        let mut response = match request.header(IDEMPOTENCY_KEY, key).body(bytes).send().await {
            Ok(response) => response,
            Err(cause) => {
                if cause.is_builder() {
                    return Err(self.error(Kind::Sql, "the request could not be built").because(cause.without_url()));
                }
                if tls::is_distrust(&cause) {
                    let text = "the other side and falaj do not trust each other: check 'tls.ca' (who vouches for it), the host's name in \
                                LOCATION, and 'tls.cert' with its key (who vouches for falaj)";
                    return Err(self.error(Kind::Denied, text).because(cause.without_url()));
                }
                if cause.is_timeout() {
                    pass.went = Went::Pressed(None);
                }
                let why = Error::new(Kind::Unreachable, "no answer").because(cause.without_url()).chain();
                return Ok(Attempt::Again { wait: None, answered: false, why });
            }
        };
        let status = response.status().as_u16();
        match judge(status) {
            Verdict::Done => {
                pass.went = Went::Well;
                let _ = tokio::time::timeout(GOOD_ANSWER_WAIT, read(&mut response)).await;
                Ok(Attempt::Done)
            }
            Verdict::Refused => {
                pass.went = Went::Well;
                Ok(Attempt::Refused(Refusal { status, text: quote(&read(&mut response).await) }))
            }
            Verdict::Again => {
                let wait =
                    if matches!(status, 429 | 503) { retry_after(response.headers(), Clock::system().now_ms()) } else { None };
                if matches!(status, 429 | 503) {
                    pass.went = Went::Pressed(wait);
                }
                let why = format!("status {status}: {}", quote(&read(&mut response).await));
                Ok(Attempt::Again { wait, answered: true, why })
            }
            Verdict::Stop(advice) => {
                let mut message = format!("answers with status {status}; {advice}");
                if let Some(to) = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()) {
                    // Without the query, which may hold a token.
                    message.push_str(&format!(" (it points to {})", to.split(['?', '#']).next().unwrap_or_default()));
                }
                Err(self.error(Kind::Denied, message))
            }
        }
    }

    fn error(&self, kind: Kind, message: impl std::fmt::Display) -> Error {
        Error::new(kind, format!("table '{}': {} {message}", self.options.table, self.options.shown_url()))
    }
}

/// The one decision about an answer.
fn judge(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Done,
        300..=399 => Verdict::Stop("redirects are not followed: make the address LOCATION that finally answers"),
        401 | 403 | 407 => Verdict::Stop("give the rights, for instance with the option 'header.authorization'"),
        404 | 405 | 410 | 501 => Verdict::Stop("nothing takes rows there: look at LOCATION and the option 'method'"),
        415 => Verdict::Stop("it takes another format: look at the option 'format'"),
        408 | 425 | 429 => Verdict::Again,
        500..=599 => Verdict::Again,
        _ => Verdict::Refused,
    }
}

/// How long `Retry-After` (seconds, or a date) asks to wait, bounded.
fn retry_after(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
            Duration::from_millis(u64::try_from(at.timestamp_millis() - now_ms).unwrap_or(0))
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Reads a bounded part of the answer; a line that is cut ends it.
async fn read(response: &mut Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(part)) = response.chunk().await {
        bytes.extend_from_slice(&part);
        if bytes.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    bytes
}

/// As one line that no terminal obeys: it goes to logs and to whoever looks at letters.
fn quote(answer: &[u8]) -> String {
    String::from_utf8_lossy(&answer[..answer.len().min(QUOTED_BYTES)]).replace(char::is_control, " ")
}

fn dead_letter(body: &Body, row: usize, refusal: &Refusal) -> DeadLetter {
    let (partition, offset) = body.origin(row);
    let code = match refusal.status {
        400 => "http_400",
        409 => "http_409",
        413 => "http_413",
        422 => "http_422",
        _ => "http_4xx",
    };
    let message = format!("the receiver refused the row with status {}: {}", refusal.status, refusal.text);
    DeadLetter { partition, offset, stage: Stage::Sink, code, message, schema_id: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_done_again_refused_or_the_end() {
        for (statuses, letter) in [
            (&[200, 201, 204, 299][..], 'd'),
            (&[408, 425, 429, 500, 502, 503, 504, 599], 'a'),
            (&[400, 409, 413, 422, 451], 'r'),
            (&[301, 302, 304, 308, 401, 403, 404, 405, 407, 410, 415, 501], 's'),
        ] {
            for status in statuses {
                let said = match judge(*status) {
                    Verdict::Done => 'd',
                    Verdict::Again => 'a',
                    Verdict::Refused => 'r',
                    Verdict::Stop(_) => 's',
                };
                assert_eq!(said, letter, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_is_bounded() {
        let now_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, seconds) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("86400", Some(300)),
            ("Sun, 06 Nov 1994 08:49:49 GMT", Some(12)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers, now_ms), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
