//! TLS of our own HTTP.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::error::{Error, Kind, Result};
use crate::tls;

/// A certificate with its key.
#[derive(Clone)]
pub struct Tls(pub(super) TlsAcceptor);

impl Tls {
    /// Of PEM files: the certificate, with those above it if there are any, and its private key.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let (chain, private) = (tls::certificates(certificate, "falaj.tls_cert")?, tls::private_key(key, "falaj.tls_key")?);
        let config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, private));
        let config = config.map_err(|cause| {
            let text = format!("the key {} does not belong to the certificate {}", key.display(), certificate.display());
            Error::new(Kind::Sql, text).because(cause)
        })?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}
