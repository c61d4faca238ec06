//! The servers that `scripts/chaos` started for us, so that we may kill them.

use std::path::Path;
use std::process::Command;

/// `scripts/services <name> <action>`, on the folder and the ports that the environment names.
pub(super) fn service(name: &str, action: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services");
    let done = Command::new(script).args([name, action]).output().unwrap();
    assert!(done.status.success(), "scripts/services {name} {action}: {}", String::from_utf8_lossy(&done.stderr));
}
