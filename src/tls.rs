//! What all TLS here rests on: one provider of cryptography, and certificates and keys from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, Kind, Result};
use crate::table::Options;

/// The provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Makes it the one that libraries take which do not ask us: two are compiled in, and they would not choose. Once, at the start.
pub fn provide() {
    // It is refused when somebody was faster, and then there is one.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// All certificates of a file, one at least. `named_by` says where the file is named, for a person.
pub fn certificates(path: &Path, named_by: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(wrong(path, "certificate", named_by)),
        Err(cause) => Err(wrong(path, "certificate", named_by).because(cause)),
    }
}

/// The private key of a file.
pub fn private_key(path: &Path, named_by: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|cause| wrong(path, "private key", named_by).because(cause))
}

fn wrong(path: &Path, what: &str, named_by: &str) -> Error {
    Error::new(Kind::Sql, format!("{}, which {named_by} names, has no {what} in PEM", path.display()))
}

/// Whether the chain of `error` says that one side does not trust the other, which no waiting mends.
pub fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    says(error, &["invalid peer certificate"]) || is_distrusted(error)
}

/// Whether it says that the other side does not trust us.
pub fn is_distrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    says(error, &["alert: CertificateRequired", "alert: BadCertificate", "alert: UnknownCA"])
}

fn says(error: &(dyn std::error::Error + 'static), parts: &[&str]) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if parts.iter().any(|part| said.contains(part)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The files that the options `tls.ca`, `tls.cert` and `tls.key` of a table name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    authority: Option<PathBuf>,
    /// Who we are, and the key that proves it.
    own: Option<(PathBuf, PathBuf)>,
}

/// A certificate with those above it, and its key, in PEM.
pub struct Own {
    /// The certificates.
    pub certificate: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
}

impl Files {
    /// Reads the options of a table that is talked to over TLS or not, as `is_tls` says; what is wrong is noted there.
    pub fn of(options: &mut Options<'_>, is_tls: bool) -> Self {
        let mut file = |name| options.text(name).map(PathBuf::from);
        let (authority, certificate, key) = (file("tls.ca"), file("tls.cert"), file("tls.key"));
        if certificate.is_some() != key.is_some() {
            options.problem("the options 'tls.cert' and 'tls.key' go together");
        }
        let files = Self { authority, own: certificate.zip(key) };
        if !is_tls && files != Self::default() {
            options.problem("the options 'tls.*' are of no use: the address asks for no TLS (https://, rediss://)");
        }
        files
    }

    /// Whether they say who we are.
    pub fn names_us(&self) -> bool {
        self.own.is_some()
    }

    /// Who vouches for the other side; `None`: the authorities of this machine.
    pub fn authority(&self, table: &str) -> Result<Option<Vec<u8>>> {
        self.authority.as_deref().map(|path| read(path, table)).transpose()
    }

    /// Who we are, if we say so.
    pub fn own(&self, table: &str) -> Result<Option<Own>> {
        let Some((certificate, key)) = &self.own else { return Ok(None) };
        Ok(Some(Own { certificate: read(certificate, table)?, key: read(key, table)? }))
    }

    /// The error of a file that is no certificate or no key.
    pub fn wrong(&self, table: &str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        let text = format!("table '{table}': the files of the options 'tls.*' are no certificates and keys in PEM");
        Error::new(Kind::Sql, text).because(cause)
    }
}

fn read(path: &Path, table: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|cause| {
        let text = format!("table '{table}': the file {}, which an option 'tls.*' names, cannot be read", path.display());
        Error::new(Kind::Sql, text).because(cause)
    })
}
