//! Which Redis, and how it is talked to.

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};

use crate::error::Result;
use crate::table::Options;
use crate::tls::Files;

/// An address with its credentials, and the files of TLS. It is never printed whole.
#[derive(Clone)]
pub(super) struct Server {
    info: ConnectionInfo,
    files: Files,
}

impl Server {
    /// Reads `url` and the options `tls.*`; what is wrong is noted there.
    pub(super) fn read(options: &mut Options<'_>, url: &str) -> Option<Self> {
        let info = url.into_connection_info().ok();
        if info.is_none() && !url.is_empty() {
            // The address is not repeated, nor the library's reason, since both may hold the password.
            options.problem("option 'url' must be like 'redis://user:password@host:6379/0', or 'rediss://…' for TLS");
        }
        let is_tls = info.as_ref().is_none_or(|info| matches!(info.addr(), ConnectionAddr::TcpTls { .. }));
        let files = Files::of(options, is_tls);
        Some(Self { info: info?, files })
    }

    pub(super) fn address(&self) -> &ConnectionAddr {
        self.info.addr()
    }

    /// Reads the files; connects to nothing.
    pub(super) fn client(&self, table: &str) -> Result<Client> {
        let (root_cert, own) = (self.files.authority(table)?, self.files.own(table)?);
        let client_tls = own.map(|own| ClientTlsConfig { client_cert: own.certificate, client_key: own.key });
        let client = match (&root_cert, &client_tls) {
            (None, None) => Client::open(self.info.clone()),
            _ => Client::build_with_tls(self.info.clone(), TlsCertificates { client_tls, root_cert }),
        };
        client.map_err(|cause| self.files.wrong(table, cause))
    }
}
