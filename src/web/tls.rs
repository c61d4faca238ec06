//! TLS of our own HTTP.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, Kind, Result};

/// A certificate with its key.
#[derive(Clone)]
pub struct Tls(pub(super) TlsAcceptor);

impl Tls {
    /// Of PEM files: the certificate, with those above it if there are any, and its private key.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let wrong =
            |file: &Path, what: &str| format!("{} has no {what} in PEM; see falaj.tls_cert and falaj.tls_key", file.display());
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(|all| all.collect::<std::result::Result<Vec<_>, _>>())
            .map_err(|cause| Error::new(Kind::Usage, wrong(certificate, "certificate")).because(cause))?;
        if chain.is_empty() {
            return Err(Error::new(Kind::Usage, wrong(certificate, "certificate")));
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|cause| Error::new(Kind::Usage, wrong(key, "private key")).because(cause))?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private).map_err(|cause| {
            let text = format!("the key {} does not belong to the certificate {}", key.display(), certificate.display());
            Error::new(Kind::Usage, text).because(cause)
        })?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}
