//! What a `STORED AS HTTP` table says. Pure: connects to nothing.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use crate::error::Result;
use crate::table::{Options, TableDef};
use crate::tls::Files;

/// The header that makes a repeated request harmless.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How the objects of one body are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `[…,…]`
    Array,
    /// One a line.
    Lines,
}

impl Format {
    /// The `Content-Type` of a body.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Array => "application/json",
            Format::Lines => "application/x-ndjson",
        }
    }

    /// What stands before the first object, between two, and after the last.
    pub(super) fn around(self) -> (&'static [u8], &'static [u8], &'static [u8]) {
        match self {
            Format::Array => (b"[", b",", b"]"),
            Format::Lines => (b"", b"\n", b"\n"),
        }
    }
}

/// A checked HTTP table. `Debug` and messages leave out what may be secret: headers, and the address's user and query.
#[derive(Clone)]
pub struct HttpOptions {
    pub(super) table: String,
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) format: Format,
    pub(super) batch_rows: usize,
    pub(super) batch_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) concurrency_max: usize,
    pub(super) retry_for: Duration,
    pub(super) files: Files,
}

impl std::fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpOptions").field("table", &self.table).field("url", &self.shown_url()).finish_non_exhaustive()
    }
}

impl HttpOptions {
    /// Reads the options of `table`; `LOCATION` is the address.
    ///
    /// | option | default | means |
    /// |---|---|---|
    /// | `batch.rows` | 500 | rows in one request, at most 10 000 |
    /// | `batch.bytes` | 1MiB | bytes in one request, at most 16MiB; a single larger row goes alone |
    /// | `timeout` | 10s | from sending to the answer |
    /// | `concurrency` | 16 | requests at once, at most 200; it begins with 1 and adapts |
    /// | `method` | POST | or PUT |
    /// | `format` | json | an array of objects; or `ndjson`: one object a line |
    /// | `retry.for` | 5m | how long one request is tried before the lane says so and recovers |
    /// | `tls.ca` | | a file with who vouches for an https address (PEM), beside the machine's own authorities |
    /// | `tls.cert`, `tls.key` | | files with who we are, and the key that proves it |
    /// | `header.<name>` | | sent with each request, never printed |
    pub fn from_table(table: &TableDef) -> Result<Self> {
        let mut options = table.options();
        let url = Url::parse(&table.location).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.is_none() {
            options.problem("LOCATION must be an address such as 'https://example.com/events'");
        }
        let batch_rows = bounded(&mut options, "batch.rows", 500, 10_000);
        let batch_bytes = options.bytes("batch.bytes", 1 << 20);
        if !(1..=16 << 20).contains(&batch_bytes) {
            options.problem("option 'batch.bytes' must be between 1 and 16MiB");
        }
        let concurrency_max = bounded(&mut options, "concurrency", 16, 200);
        let timeout = options.duration("timeout", Duration::from_secs(10));
        let retry_for = options.duration("retry.for", Duration::from_secs(300));
        let method = if options.one_of("method", &["POST", "PUT"]) == "PUT" { Method::PUT } else { Method::POST };
        let format = if options.one_of("format", &["json", "ndjson"]) == "ndjson" { Format::Lines } else { Format::Array };
        let files = Files::of(&mut options, url.as_ref().is_none_or(|url| url.scheme() == "https"));
        let headers = headers(&mut options, format);
        options.finish()?;
        let url = url.ok_or_else(|| table.error("LOCATION cannot be read"))?;
        let (table, batch_bytes) = (table.name.clone(), batch_bytes as usize);
        Ok(Self { table, url, method, headers, format, batch_rows, batch_bytes, timeout, concurrency_max, retry_for, files })
    }

    /// The address without user, password, query and fragment.
    pub(super) fn shown_url(&self) -> String {
        let port = self.url.port().map_or_else(String::new, |port| format!(":{port}"));
        format!("{}://{}{port}{}", self.url.scheme(), self.url.host_str().unwrap_or_default(), self.url.path())
    }
}

fn bounded(options: &mut Options<'_>, name: &'static str, default: u64, most: u64) -> usize {
    let number = options.number(name, default);
    if !(1..=most).contains(&number) {
        options.problem(format!("option '{name}' must be between 1 and {most}"));
    }
    number as usize
}

fn headers(options: &mut Options<'_>, format: Format) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    for (name, value) in options.with_prefix("header.") {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            (Ok(header), Ok(mut value)) if header.as_str() != IDEMPOTENCY_KEY => {
                value.set_sensitive(true);
                headers.insert(header, value);
            }
            (Ok(header), Ok(_)) => options.problem(format!("option 'header.{header}' is set by falaj itself")),
            _ => options.problem(format!("option 'header.{name}' is no header that HTTP allows")),
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn wrong_options_are_named_and_secrets_are_not_shown() {
        // (location, option, value, what is said)
        for (location, option, value, says) in [
            ("https://u:secret@h:8443/in?token=secret", "header.authorization", "Bearer secret", ""),
            ("ftp://u:secret@h/in", "method", "POST", "LOCATION must be an address"),
            ("http://h/in", "batch.rows", "0", "must be between 1 and 10000"),
            ("http://h/in", "concurency", "4", "did you mean 'concurrency'?"),
            ("http://h/in", "header.idempotency-key", "secret", "set by falaj itself"),
            ("http://h/in", "header.x y", "secret", "no header that HTTP allows"),
            ("http://h/in", "format", "xml", "must be one of json, ndjson"),
        ] {
            let read = HttpOptions::from_table(&TableDef {
                name: "partner".into(),
                stored_as: "HTTP".into(),
                unbounded: false,
                location: location.into(),
                schema: Arc::new(Schema::empty()),
                partition_by: vec![],
                options: [(option.to_string(), value.to_string())].into(),
                place: "sinks.sql:1:1".into(),
            });
            let said = match &read {
                Ok(options) => format!("{options:?}"),
                Err(error) => error.chain(),
            };
            assert!(said.contains(says) && read.is_ok() == says.is_empty(), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
