//! Who may look, and what every answer says to a browser.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::error::{Error, Kind, Result};

// The page loads its own scripts and style and asks its own process; nothing else, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
/// Shorter ones can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// Who may look.
#[derive(Debug, Clone)]
pub enum Access {
    /// Whoever is on this machine.
    Loopback,
    /// Whoever has the token.
    Token(Token),
}

/// What a visitor must have. It is never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// `Err`, for a person: it could be guessed, or no header can carry it.
    pub fn new(token: String) -> std::result::Result<Self, &'static str> {
        if token.len() < TOKEN_BYTES_MIN {
            Err("is too short: take 16 characters at least, for instance from openssl rand -hex 16")
        } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Err("has characters that no header can carry: take letters and digits")
        } else {
            Ok(Self(token))
        }
    }

    /// The token itself, for a header and for nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// In a time that says nothing about where they differ.
    fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Access {
    /// `Err`: others than this machine can reach `addr`, and nothing is asked of them.
    pub(super) fn check(&self, addr: SocketAddr) -> Result<()> {
        match self {
            Access::Token(_) => Ok(()),
            Access::Loopback if addr.ip().is_loopback() => Ok(()),
            Access::Loopback => {
                let text = format!(
                    "the pages cannot be served on {addr}, which others can reach, without a token: SET falaj.token = \
                     '${{file:PATH}}', or listen on 127.0.0.1:8080"
                );
                Err(Error::new(Kind::Usage, text))
            }
        }
    }

    /// Whether the visitor has what is asked.
    pub(super) fn is_known(&self, headers: &HeaderMap) -> bool {
        let Access::Token(token) = self else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|header| header.as_bytes().split_first_chunk::<7>());
        given.is_some_and(|(scheme, given)| scheme.eq_ignore_ascii_case(b"bearer ") && token.is(given))
    }

    /// A page of the web that a name of its own leads to this machine would be asked for under that name (DNS rebinding).
    fn is_asked_by_its_name(&self, headers: &HeaderMap) -> bool {
        match (self, headers.get(HOST)) {
            (Access::Loopback, Some(host)) => host.to_str().is_ok_and(is_loopback),
            _ => true,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Paths that say nothing but that there is a falaj.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/style.css" | "/livez" | "/readyz") || path.starts_with("/app/")
}

/// Turns away who may not look, and puts the headers of every answer.
pub(super) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    let mut answer = if !access.is_asked_by_its_name(request.headers()) {
        let text = "this is no name of this machine: ask localhost or 127.0.0.1, or serve with a token (SET falaj.token)\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    } else if !is_open(request.uri().path()) && !access.is_known(request.headers()) {
        let text = "a token is needed: send the header Authorization: Bearer …\n";
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], text).into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:8080", "127.1.2.3:1", "[::1]:8080", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "example.org:8080",
            "127.0.0.1.example.org",
            "192.0.2.1:8080",
            "localhost.evil.example",
            "[::2]:1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_token_is_long_and_is_never_shown() {
        assert!(Token::new("short".to_string()).is_err());
        assert!(Token::new("0123456789abcde\n".to_string()).is_err());
        let token = Token::new("0123456789abcdef".to_string()).unwrap();
        assert!(token.is(b"0123456789abcdef") && !token.is(b"0123456789abcdeg") && !token.is(b""));
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let token = Access::Token(Token::new("0123456789abcdef".to_string()).unwrap());
        for addr in ["0.0.0.0:8080", "192.0.2.1:8080", "[::]:8080"] {
            let error = Access::Loopback.check(addr.parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains("falaj.token"), "{error}");
            assert!(token.check(addr.parse().unwrap()).is_ok());
        }
        assert!(Access::Loopback.check("[::1]:8080".parse().unwrap()).is_ok());
    }
}
