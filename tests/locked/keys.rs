//! An authority of the test's own, with certificates for a server that is called `localhost` and nothing else, and for a client.

use std::path::{Path, PathBuf};
use std::process::Command;

const MAKE: &str = r#"
set -e
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -keyout "$2.key" -out "$2.csr"; }
authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1" -keyout "$1.key" -out "$1.pem"
}
signed() { openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.pem"; }
authority ca
authority other
new localhost server
echo "subjectAltName=DNS:localhost" > server.ext
signed server
new falaj client
echo "extendedKeyUsage=clientAuth" > client.ext
signed client
cat server.key server.pem > server.both
"#;

/// The folder with `ca.pem`, `server.pem`, `server.key`, `server.both`, `client.pem`, `client.key`, and `other.pem`, an authority that has
/// vouched for nobody.
pub(crate) struct Keys(tempfile::TempDir);

impl Keys {
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("bash").args(["-c", MAKE]).current_dir(folder.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Servers run as users of their own.
        let opened = Command::new("chmod").args(["-R", "a+rX"]).arg(folder.path()).status().unwrap();
        assert!(opened.success());
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    /// The same for SQL and settings.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}
