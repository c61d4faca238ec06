//! Where a Postgres is, and how it is talked to: its url, with libpq's own words for TLS.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use pgwire_replication::{Lsn, ReplicationConfig, TlsConfig};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::EVENTS_MAX;
use crate::error::{Error, Kind, Result};
use crate::tls;

/// A url, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Address {
    /// Everything but TLS.
    pub(crate) config: Config,
    tls: Option<Tls>,
}

/// What the url says of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tls {
    /// Who vouches for the server: `sslrootcert`.
    authority: PathBuf,
    /// Who we are, and the key that proves it: `sslcert` and `sslkey`.
    own: Option<(PathBuf, PathBuf)>,
}

impl Address {
    /// Reads `postgres://user:password@host:port/database`, or the same with a folder as host for a Unix socket. With
    /// `?sslmode=verify-full&sslrootcert=PATH` it is talked to over TLS, and must be who it says it is; `sslcert` and `sslkey` say who we
    /// are. `Err`: what is wrong, for a person; it holds nothing of the url.
    pub(crate) fn read(url: &str) -> std::result::Result<Self, String> {
        let (rest, said) = without_tls(url);
        let tls = tls_of(&said)?;
        let mut config = Config::from_str(&rest)
            .map_err(|_| "option 'url' is no Postgres url; it looks like 'postgres://user:password@host:5432/database'")?;
        config.application_name("falaj");
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        Ok(Self { config, tls })
    }

    /// Connects; the connection ends with the client. Errors of Postgres and of the way to it become what `problem` makes of them.
    pub(crate) async fn connect(&self, problem: impl Fn(tokio_postgres::Error) -> Error) -> Result<Client> {
        let failed = |error| self.distrust(&error).unwrap_or_else(|| problem(error));
        // What goes wrong with a connection later comes back from the question that it goes wrong in.
        let ended = |ended: std::result::Result<(), tokio_postgres::Error>| {
            if let Err(error) = ended {
                tracing::debug!("a connection to Postgres ended: {error}");
            }
        };
        let client = match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(failed)?;
                tokio::spawn(async move { ended(connection.await) });
                client
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.connector()?).await.map_err(failed)?;
                tokio::spawn(async move { ended(connection.await) });
                client
            }
        };
        Ok(client)
    }

    /// The settings of a connection that replicates from `from` on, telling Postgres each `status` how far it is. Values come as
    /// [`crate::decode`]rs expect them: times in ISO and UTC, bytes in hex.
    pub(crate) fn replication(&self, slot: &str, publication: &str, from: u64, status: Duration) -> ReplicationConfig {
        let config = &self.config;
        let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned()).unwrap_or_default();
        let user = config.get_user().unwrap_or("postgres");
        let database = config.get_dbname().unwrap_or(user);
        let tls = match &self.tls {
            None => TlsConfig::disabled(),
            Some(Tls { authority, own }) => {
                let tls = TlsConfig::verify_full(Some(authority.clone()));
                match own {
                    None => tls,
                    Some((certificate, key)) => tls.with_client_cert(certificate.clone(), key.clone()),
                }
            }
        };
        ReplicationConfig::new(self.host(), user, password, database, slot, publication)
            .with_port(self.port())
            .with_tls(tls)
            .with_start_lsn(Lsn::from_u64(from))
            .with_status_interval(status)
            .with_buffer_size(EVENTS_MAX)
            .with_application_name("falaj")
            .with_options(
                "-c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=1 -c bytea_output=hex",
            )
    }

    /// `Postgres at host:port`.
    pub(crate) fn server(&self) -> String {
        format!("Postgres at {}:{}", self.host(), self.port())
    }

    fn host(&self) -> String {
        match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_string(),
        }
    }

    fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// What no waiting mends: it is not the server that the url names, or it speaks no TLS.
    fn distrust(&self, error: &tokio_postgres::Error) -> Option<Error> {
        let mut why: &dyn std::error::Error = error;
        while let Some(cause) = why.source() {
            why = cause;
        }
        let said = why.to_string();
        let text = if tls::is_distrust(error) {
            "and falaj do not trust each other: check sslrootcert in 'url' (who vouches for the server), the host's name there, and sslcert \
             with its key (who vouches for falaj)"
        } else if said.contains("server does not support TLS") {
            "speaks no TLS: set ssl = on there, or leave sslmode out of 'url'"
        } else {
            return None;
        };
        Some(Error::new(Kind::Denied, format!("{} {text}: {said}", self.server())))
    }
}

impl Tls {
    fn connector(&self) -> Result<MakeRustlsConnect> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(tls::certificates(&self.authority, "'url'")?);
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|cause| Error::new(Kind::Bug, "no version of TLS").because(cause))?
            .with_root_certificates(roots);
        let config = match &self.own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let wrong = |cause| Error::new(Kind::Sql, "sslkey does not belong to sslcert").because(cause);
                let own = (tls::certificates(certificate, "'url'")?, tls::private_key(key, "'url'")?);
                config.with_client_auth_cert(own.0, own.1).map_err(wrong)?
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }
}

/// The url without what it says of TLS, and that.
fn without_tls(url: &str) -> (String, Vec<(&str, String)>) {
    let Some((front, query)) = url.split_once('?') else { return (url.to_string(), Vec::new()) };
    let (mut said, mut rest) = (Vec::new(), Vec::new());
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some((name @ ("sslmode" | "sslrootcert" | "sslcert" | "sslkey"), value)) => {
                said.push((name, percent_decode_str(value).decode_utf8_lossy().into_owned()));
            }
            _ => rest.push(pair),
        }
    }
    let rest = if rest.is_empty() { front.to_string() } else { format!("{front}?{}", rest.join("&")) };
    (rest, said)
}

fn tls_of(said: &[(&str, String)]) -> std::result::Result<Option<Tls>, String> {
    let get = |name: &str| said.iter().find(|(of, _)| *of == name).map(|(_, value)| value.as_str());
    let verify = "write sslmode=verify-full&sslrootcert=PATH";
    match get("sslmode") {
        Some("verify-full") => {}
        None | Some("disable" | "allow" | "prefer") => {
            return match ["sslrootcert", "sslcert", "sslkey"].into_iter().find(|name| get(name).is_some()) {
                Some(name) => Err(format!("option 'url' has {name}, but does not ask for TLS: {verify}")),
                None => Ok(None),
            };
        }
        Some("require" | "verify-ca") => {
            return Err(format!("option 'url' has an sslmode that takes any server for the right one: {verify}"));
        }
        Some(_) => return Err(format!("option 'url' has an unknown sslmode: {verify}")),
    }
    let Some(authority) = get("sslrootcert") else {
        return Err(format!("option 'url' does not say who vouches for the server: {verify}"));
    };
    let own = match (get("sslcert"), get("sslkey")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        _ => return Err("option 'url' has one of sslcert and sslkey: they go together".to_string()),
    };
    Ok(Some(Tls { authority: authority.into(), own }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_said_in_libpqs_words_and_anything_less_than_verify_full_is_refused() {
        let plain = "postgres://me:secret@db/falaj";
        for (query, expected) in [
            ("", Ok(false)),
            ("?sslmode=disable", Ok(false)),
            ("?sslmode=prefer&connect_timeout=3", Ok(false)),
            ("?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem", Ok(true)),
            ("?connect_timeout=3&sslmode=verify-full&sslrootcert=ca.pem&sslcert=c.pem&sslkey=k.pem", Ok(true)),
            ("?sslmode=require", Err("takes any server for the right one")),
            ("?sslmode=verify-ca", Err("takes any server for the right one")),
            ("?sslmode=secret", Err("unknown sslmode")),
            ("?sslmode=verify-full", Err("who vouches for the server")),
            ("?sslrootcert=ca.pem", Err("does not ask for TLS")),
            ("?sslmode=verify-full&sslrootcert=ca.pem&sslcert=c.pem", Err("go together")),
            ("?secret=1", Err("no Postgres url")),
        ] {
            match (Address::read(&format!("{plain}{query}")), expected) {
                (Ok(address), Ok(with_tls)) => assert_eq!(address.tls.is_some(), with_tls, "{query}"),
                (Err(problem), Err(part)) => {
                    assert!(problem.contains(part) && !problem.contains("secret"), "{query}: {problem}")
                }
                (found, _) => panic!("{query}: {found:?}"),
            }
        }
        let address = Address::read(&format!("{plain}?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem")).unwrap();
        assert_eq!(address.tls, Some(Tls { authority: "/etc/ca.pem".into(), own: None }));
        assert!(!format!("{address:?}").contains("secret"));
    }
}
