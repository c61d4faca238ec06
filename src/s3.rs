//! S3, or what speaks as it does: how a bucket is reached, and what its errors mean.
//!
//! Who we are and where it is come from the environment as everywhere (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`,
//! `AWS_REGION`, `AWS_ENDPOINT_URL`; a web identity, a container's or the machine's role), and from a table's options `aws.*`, which come
//! first. `AWS_CA_BUNDLE` names a file with who vouches for the server.

mod client;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use reqwest::Certificate;

use self::client::Connector;
use crate::error::{Error, Kind, Result};
use crate::table::did_you_mean;
use crate::tls::is_distrust;

/// What a location begins with.
pub const SCHEME: &str = "s3://";
/// The options of a table that go to the client as they are.
pub const OPTIONS: &str = "aws.";
/// A connection that is not there after this will not come; a request moves 8 MiB of a file, or a file of state.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The client's own attempts are for a request that was cut or asked to slow down; an outage is for the lane to wait for, and to say.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const RETRIES_MAX: usize = 5;
/// The options that a user may want, to be proposed.
const KNOWN: [&str; 6] = ["endpoint", "region", "access_key_id", "secret_access_key", "token", "virtual_hosted_style_request"];

/// A place in a bucket, as a user wrote it: nothing is reached yet. It is never printed with its options, which may hold a secret.
#[derive(Clone)]
pub struct Location {
    location: String,
    bucket: String,
    prefix: Path,
    options: Vec<(AmazonS3ConfigKey, String)>,
}

impl Location {
    /// `s3://bucket/folder`, with the options of a table without their `aws.` in front. The error is what is wrong, to be said about the
    /// table or the setting.
    pub fn parse(location: &str, options: &[(&str, &str)]) -> Result<Self, String> {
        let location = location.trim_end_matches('/').to_string();
        let path = location.strip_prefix(SCHEME).unwrap_or(&location);
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let prefix = Path::parse(prefix).map_err(|cause| format!("'{location}' is no place: {cause}"))?;
        let bucket = bucket.to_string();
        if bucket.is_empty() {
            return Err(format!("'{location}' names no bucket; write 's3://bucket/folder/'"));
        }
        let option = |(name, value): &(&str, &str)| {
            let key = AmazonS3ConfigKey::from_str(&format!("aws_{name}")).map_err(|_| unknown(name))?;
            Ok((key, value.to_string()))
        };
        let options = options.iter().map(option).collect::<Result<_, String>>()?;
        Ok(Self { location, bucket, prefix, options })
    }

    /// Makes the client. Reads `authority` (PEM), or the file that `AWS_CA_BUNDLE` names; connects to nothing.
    pub fn open(&self, authority: Option<Vec<u8>>) -> Result<Bucket, String> {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&self.bucket);
        for (key, value) in &self.options {
            builder = builder.with_config(*key, value);
        }
        // Who writes http:// into an address has said that he means it.
        let is_plain = builder.get_config_value(&AmazonS3ConfigKey::Endpoint).is_some_and(|url| url.starts_with("http://"));
        let client =
            ClientOptions::new().with_allow_http(is_plain).with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT);
        let connector = Connector(authorities(authority)?);
        let (max_retries, retry_timeout) = (RETRIES_MAX, RETRY_TIMEOUT);
        let retry = RetryConfig { max_retries, retry_timeout, backoff: BackoffConfig::default() };
        let built = builder.with_client_options(client).with_http_connector(connector).with_retry(retry).build();
        let store = built.map_err(|cause| format!("'{}' cannot be reached with these settings: {cause}", self.location))?;
        Ok(Bucket { store: Arc::new(store), prefix: self.prefix.clone(), location: self.location.clone() })
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location)
    }
}

/// A place in a bucket, and the client. Clones share its connections.
#[derive(Clone)]
pub struct Bucket {
    /// The client, of the whole bucket.
    pub store: Arc<AmazonS3>,
    /// What the keys of this place begin with.
    prefix: Path,
    /// As the user wrote it, for messages.
    location: String,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location)
    }
}

impl Bucket {
    /// The key of `name` in the bucket.
    pub fn key(&self, name: &str) -> Path {
        // A name that is a key already must not be encoded once more.
        let whole = if self.prefix.as_ref().is_empty() { name.to_string() } else { format!("{}/{name}", self.prefix) };
        Path::parse(&whole).unwrap_or_else(|_| Path::from(whole))
    }

    /// What a key is called within this place; `None`: it is not in it.
    pub fn name<'k>(&self, key: &'k Path) -> Option<&'k str> {
        let rest = key.as_ref().strip_prefix(self.prefix.as_ref())?;
        let name = if self.prefix.as_ref().is_empty() { rest } else { rest.strip_prefix('/')? };
        (!name.is_empty()).then_some(name)
    }

    /// Where `name` is, for messages.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.location)
    }

    /// The error of an attempt to `doing` (such as "write") `name`.
    pub fn failed(&self, doing: &str, name: &str, cause: object_store::Error) -> Error {
        let chain = chain(&cause);
        let (kind, advice) = judge(&cause, &chain);
        let said = said(&chain).unwrap_or(chain);
        Error::new(kind, format!("could not {doing} {}{advice}: {said}", self.url(name)))
    }
}

/// Whether nothing is there under the name that was asked for; a bucket that is not there is something else.
pub fn is_absent(cause: &object_store::Error) -> bool {
    matches!(cause, object_store::Error::NotFound { .. }) && !chain(cause).contains("NoSuchBucket")
}

/// What S3 calls it when it does not know us, or will not have us.
const REFUSALS: [&str; 6] =
    ["AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"];

fn judge(cause: &object_store::Error, chain: &str) -> (Kind, &'static str) {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    let is_refusal = matches!(cause, PermissionDenied { .. } | Unauthenticated { .. });
    if is_refusal || REFUSALS.iter().any(|code| chain.contains(&format!("<Code>{code}<"))) {
        (Kind::Denied, ", since S3 refuses who we are; check the access key, its secret, and what it may do in the bucket")
    } else if chain.contains("169.254.") {
        let advice = ", since nothing says who we are; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the options \
                      'aws.access_key_id' and 'aws.secret_access_key'";
        (Kind::Denied, advice)
    } else if chain.contains("NoSuchBucket") {
        (Kind::Sql, ", since there is no such bucket; make it, or change the location")
    } else if chain.contains("status code: 30") || chain.contains("redirect") {
        (Kind::Denied, ", since it points elsewhere, which is not followed; check the region and the endpoint of the bucket")
    } else if is_distrust(cause) {
        let advice = ", since the server's certificate is not trusted for this host; check who vouches for it ('tls.ca', AWS_CA_BUNDLE) \
                      and the host's name";
        (Kind::Denied, advice)
    } else {
        (Kind::Unreachable, "")
    }
}

/// What S3 said itself, from its answer in XML.
fn said(chain: &str) -> Option<String> {
    let element = |name: &str| Some(chain.split_once(&format!("<{name}>"))?.1.split_once(&format!("</{name}>"))?.0.to_string());
    let code = element("Code")?;
    Some(element("Message").map_or(code.clone(), |message| format!("{code}, {message}")))
}

fn chain(cause: &object_store::Error) -> String {
    let mut text = cause.to_string();
    let mut next = std::error::Error::source(cause);
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

fn unknown(name: &str) -> String {
    let hint = did_you_mean(name, KNOWN).map_or_else(
        || format!("some that there are: {}", KNOWN.map(|known| format!("'{OPTIONS}{known}'")).join(", ")),
        |known| format!("did you mean '{OPTIONS}{known}'?"),
    );
    format!("there is no option '{OPTIONS}{name}'; {hint}")
}

#[allow(clippy::disallowed_methods, reason = "AWS_CA_BUNDLE, which the client does not read, beside those that it reads")]
fn authorities(authority: Option<Vec<u8>>) -> Result<Vec<Certificate>, String> {
    let named = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let bytes = match (authority, named) {
        (Some(bytes), _) => bytes,
        (None, Some(path)) => std::fs::read(&path)
            .map_err(|cause| format!("the file {}, which AWS_CA_BUNDLE names, cannot be read: {cause}", path.display()))?,
        (None, None) => return Ok(Vec::new()),
    };
    Certificate::from_pem_bundle(&bytes).map_err(|cause| format!("who vouches for S3 is no certificate in PEM: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(location: &str, options: &[(&str, &str)]) -> Result<Bucket, String> {
        Location::parse(location, options)?.open(None)
    }

    #[test]
    fn names_and_keys_are_each_others_reverse() {
        for name in
            ["dt=2026-11-27/a%3Ab.parquet", "k=größer 大/x y.json", "k=50%25 off~|&+<x>$@!;/,().parquet", "k=.../_staging"]
        {
            for (location, before) in [("s3://b/some/place/", "some/place/"), ("s3://b", ""), ("s3://b/größer", "größer/")]
            {
                let bucket = bucket(location, &[]).unwrap();
                let key = bucket.key(name);
                assert_eq!(key.as_ref(), format!("{before}{name}"));
                assert_eq!(bucket.name(&key), Some(name));
            }
        }
        assert_eq!(bucket("s3://b/here", &[]).unwrap().name(&Path::from("hereafter/x")), None);
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_reached() {
        for (location, options, says) in [
            ("s3:///x", vec![], "names no bucket"),
            ("s3://b/a//b", vec![], "'s3://b/a//b'"),
            ("s3://b", vec![("acces_key_id", "x")], "did you mean 'aws.access_key_id'?"),
            ("s3://b", vec![("colour", "x")], "some that there are: 'aws.endpoint'"),
        ] {
            let error = bucket(location, &options).unwrap_err();
            assert!(error.contains(says), "{says} is not in: {error}");
        }
    }
}
