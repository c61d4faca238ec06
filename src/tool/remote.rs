//! A running falaj, asked through its pages by `falaj status` and `falaj top`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::{Certificate, Client, StatusCode};

use crate::error::{Error, Kind, Result};
use crate::web::{Answer, Token};

/// The page answers from counters; whoever takes longer is no falaj, or stands still.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A status of a thousand lanes is a tenth of this.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Which falaj to ask.
#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// Where the page of the process is
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A file with the token that its falaj.token names
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// A file with the certificate (PEM) that vouches for its falaj.tls_cert, if this machine does not know it
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
}

/// A connection to its pages.
pub struct Remote {
    client: Client,
    url: String,
    token: Option<Token>,
}

impl Remote {
    /// Reads the files; asks nobody yet.
    pub fn new(args: &RemoteArgs) -> Result<Self> {
        let unread = |path: &PathBuf, cause| {
            Error::new(Kind::Usage, format!("the file {} cannot be read", path.display())).because(cause)
        };
        let read = |path: &PathBuf| std::fs::read(path).map_err(|cause| unread(path, cause));
        let token = match &args.token_file {
            None => None,
            Some(path) => {
                let text = String::from_utf8_lossy(&read(path)?).trim_end().to_string();
                let wrong = |problem| Error::new(Kind::Usage, format!("the token in {} {problem}", path.display()));
                Some(Token::new(text).map_err(wrong)?)
            }
        };
        // The token is for this address, and for none that it points to.
        let mut client = Client::builder().timeout(TIMEOUT).no_proxy().redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &args.ca_file {
            let wrong = |cause| Error::new(Kind::Usage, format!("{} has no certificate in PEM", path.display())).because(cause);
            for certificate in Certificate::from_pem_bundle(&read(path)?).map_err(wrong)? {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client.build().map_err(|cause| Error::new(Kind::Bug, "no client of HTTP").because(cause))?;
        Ok(Self { client, url: format!("{}/api/v1/status", args.url.trim_end_matches('/')), token })
    }

    /// What it says of itself, and the same as it came.
    pub async fn ask(&self) -> Result<(Answer, Vec<u8>)> {
        let url = &self.url;
        let away = |cause: reqwest::Error| {
            let text = format!("no falaj answers at {url}: start one with 'falaj run', or say where its page is with --url");
            Error::new(Kind::Unreachable, text).because(cause.without_url())
        };
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        let mut answer = request.send().await.map_err(away)?;
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED {
            let text = match &self.token {
                None => format!("{url} asks for a token: say where it is with --token-file"),
                Some(_) => format!("{url} refuses the token of --token-file"),
            };
            return Err(Error::new(Kind::Denied, text));
        }
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(away)?.filter(|_| bytes.len() <= BODY_BYTES_MAX) {
            bytes.extend_from_slice(&part);
        }
        match serde_json::from_slice(&bytes) {
            Ok(found) if status == StatusCode::OK => Ok((found, bytes)),
            _ => Err(Error::new(Kind::Usage, not_understood(url, status, &bytes))),
        }
    }
}

fn not_understood(url: &str, status: StatusCode, bytes: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    match json["version"].as_str().filter(|_| json["status"]["lanes"].is_array()) {
        Some(version) => format!(
            "falaj {version} answers at {url}, which this one, {}, does not understand: ask with the same version",
            env!("CARGO_PKG_VERSION")
        ),
        None => format!("what answers {status} at {url} is no falaj: say where its page is with --url"),
    }
}
