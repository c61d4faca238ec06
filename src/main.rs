//! The `falaj` command: parses, calls, prints an error once, and chooses the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    falaj::cli::run()
}
