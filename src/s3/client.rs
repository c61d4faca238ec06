//! The requests to S3, as the store's client asks for them. Its own HTTP would follow a redirect to any host, with the session's token and
//! with the rows, and read an answer that has no end.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Request, Response};

use crate::table::parse_duration;

/// What S3 answers to anything but a question for an object is smaller, and of an object it says the size.
const UNMEASURED_BYTES_MAX: u64 = 64 << 20;

/// Makes clients that trust these authorities, beside those of the machine.
#[derive(Debug)]
pub(super) struct Connector(pub(super) Vec<Certificate>);

impl HttpConnector for Connector {
    /// Of the options: whether there may be no TLS, and the two times. No others are set.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allows_plain = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let time = |key| options.get_config_value(&key).and_then(|text| parse_duration(&text));
        let mut client = Client::builder()
            .redirect(Policy::none())
            .https_only(!allows_plain)
            .user_agent(concat!("falaj/", env!("CARGO_PKG_VERSION")));
        if let Some(wait) = time(ClientConfigKey::ConnectTimeout) {
            client = client.connect_timeout(wait);
        }
        if let Some(wait) = time(ClientConfigKey::Timeout) {
            client = client.timeout(wait);
        }
        for certificate in &self.0 {
            client = client.add_root_certificate(certificate.clone());
        }
        let client = client.build().map_err(|cause| object_store::Error::Generic { store: "S3", source: Box::new(cause) })?;
        Ok(HttpClient::new(Service(client)))
    }
}

#[derive(Debug)]
struct Service(Client);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url =
            head.uri.to_string().parse().map_err(|cause| HttpError::new(HttpErrorKind::Unknown, Told(format!("{cause}"))))?;
        let mut request = Request::new(head.method, url);
        *request.headers_mut() = head.headers;
        *request.body_mut() = Some(reqwest::Body::wrap(body));
        let response = self.0.execute(request).await.map_err(failed)?;
        Ok(answer(response))
    }
}

fn answer(response: Response) -> HttpResponse {
    let (status, headers) = (response.status(), response.headers().clone());
    let left = response.content_length().unwrap_or(0).max(UNMEASURED_BYTES_MAX);
    let mut answer = HttpResponse::new(HttpResponseBody::new(Bounded { body: response.into(), left }));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// What is read of an answer.
struct Bounded {
    body: reqwest::Body,
    left: u64,
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(cause))) => return Poll::Ready(Some(Err(failed(cause)))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(Some(match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(frame)
            }
            None => {
                let told = Told(format!("an answer of unknown length has more than {UNMEASURED_BYTES_MAX} bytes"));
                Err(HttpError::new(HttpErrorKind::Decode, told))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The kind decides whether the store's client tries again.
fn failed(cause: reqwest::Error) -> HttpError {
    let kind = if cause.is_timeout() {
        HttpErrorKind::Timeout
    } else if cause.is_connect() {
        HttpErrorKind::Connect
    } else {
        interrupted(&cause).unwrap_or(if cause.is_decode() { HttpErrorKind::Decode } else { HttpErrorKind::Unknown })
    };
    HttpError::new(kind, cause.without_url())
}

/// Whether the line was cut.
fn interrupted(cause: &reqwest::Error) -> Option<HttpErrorKind> {
    let mut next = cause.source();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_closed() || error.is_incomplete_message() || error.is_body_write_aborted())
        {
            return Some(HttpErrorKind::Request);
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
            match error.kind() {
                TimedOut => return Some(HttpErrorKind::Timeout),
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => return Some(HttpErrorKind::Interrupted),
                _ => {}
            }
        }
        next = error.source();
    }
    None
}

/// A sentence as an error.
#[derive(Debug)]
struct Told(String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Told {}
