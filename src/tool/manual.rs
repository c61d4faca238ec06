//! `falaj completions` and `falaj man`: what shells and `man` know of the command line, made from the command line itself.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::{Error, Kind, Result};

/// The options of `falaj completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell; in bash, for instance: source <(falaj completions bash).
    pub shell: Shell,
}

/// The options of `falaj man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// The folder, such as /usr/local/share/man/man1; it is made if it is not there.
    pub folder: PathBuf,
}

/// Prints what the shell reads to complete `command`.
pub fn completions(args: CompletionsArgs, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "falaj", &mut script);
    let failed = |cause| Error::new(Kind::Unreachable, "the completions cannot be printed").because(cause);
    io::stdout().write_all(&script).map_err(failed)
}

/// Writes a page for `command` and one for each command below it.
pub fn pages(args: ManArgs, command: Command) -> Result<()> {
    let folder = args.folder.display().to_string();
    let failed = |cause| Error::new(Kind::Usage, format!("the man pages cannot be written to {folder}")).because(cause);
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(command, &args.folder).map_err(failed)
}
