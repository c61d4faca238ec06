//! A real server that speaks S3, for all tests of this process: it ends when we do, and its input with us.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::s3::{Bucket, Location};

static SERVER: OnceLock<Option<(Child, String)>> = OnceLock::new();

/// Where it listens; `None` when no Python is named that could run it.
#[allow(clippy::disallowed_methods, reason = "a test may ask where it runs")]
pub(super) fn endpoint() -> Option<&'static str> {
    let start = || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3/server.py");
        let mut server = Command::new(std::env::var_os("FALAJ_PYTHON")?);
        let mut child = server.args([script, "checkpoints"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Some((child, format!("http://127.0.0.1:{}", port.trim())))
    };
    SERVER.get_or_init(start).as_ref().map(|(_, endpoint)| endpoint.as_str())
}

/// A place of one's own there.
pub(super) fn bucket(folder: &str) -> Bucket {
    let options = [("endpoint", endpoint().unwrap()), ("access_key_id", "any"), ("secret_access_key", "any")];
    Location::parse(&format!("s3://checkpoints/{folder}"), &options).and_then(|place| place.open(None)).unwrap()
}
