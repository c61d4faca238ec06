//! The command line: what can be typed, and which part of falaj it calls. Every flag can be given by the environment, too:
//! `--no-web` is `FALAJ_NO_WEB`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::error::{Error, Kind, Result};
use crate::private;
use crate::tls;
use crate::tool::backfill::{self, BackfillArgs};
use crate::tool::capture::{self, CaptureArgs};
use crate::tool::checkpoint::{self, CheckpointArgs};
use crate::tool::demo::{self, DemoArgs};
use crate::tool::dlq::{self, DlqArgs};
use crate::tool::generate::{self, GenerateArgs};
use crate::tool::manual::{self, CompletionsArgs, ManArgs};
use crate::tool::progress::BesideBars;
use crate::tool::receive::{self, ReceiveArgs};
use crate::tool::run::{self, CheckArgs, RunArgs};
use crate::tool::status::{self, StatusArgs};
use crate::tool::top::{self, TopArgs};
use crate::traces;

/// Events from Postgres and Kafka through SQL files into Redis, Parquet and HTTP, exactly once, in well under a second.
#[derive(Debug, Parser)]
#[command(name = "falaj", version)]
struct Cli {
    /// How log lines look on standard error; FALAJ_LOG says which there are (such as falaj=debug)
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Let the system write a core dump when falaj crashes, and debuggers of its user look into it; both see passwords and payloads
    #[arg(long, global = true)]
    core_dumps: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for machines.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the lanes of a folder of SQL files
    Run(RunArgs),
    /// Watch a folder of SQL files at work on made events; no service is needed
    Demo(DemoArgs),
    /// Plan every file and check every table, without a network
    Check(CheckArgs),
    /// Read history again with the SQL as it is, and put the new results in the place of the old ones
    Backfill(BackfillArgs),
    /// Show what a checkpoint holds, verify it, or begin a new lineage from it
    Checkpoint(CheckpointArgs),
    /// Show or drop what Postgres keeps for the tables whose changes are read, or let a table's rows come again
    Capture(CaptureArgs),
    /// List, show, replay or purge the dead letters of a folder's sources
    Dlq(DlqArgs),
    /// Say what a running falaj does: its lanes, their lag and latency, and what is in the way
    Status(StatusArgs),
    /// Watch what a running falaj does, live
    Top(TopArgs),
    /// Make tables, content and events, in Postgres and Kafka
    Generate(GenerateArgs),
    /// Stand for the external HTTP system: take rows, count them, show the last ones
    Receive(ReceiveArgs),
    /// Print what lets a shell complete falaj's commands and flags
    Completions(CompletionsArgs),
    /// Write the man pages to a folder
    Man(ManArgs),
}

/// How long threads that block may go on when all is done.
const THREADS_MAX_WAIT: Duration = Duration::from_millis(500);

/// Lets all threads share two heaps. By itself glibc makes up to eight for each core, and blocks of megabytes that one thread takes
/// and another frees, as the log's do, leave holes in each of them.
fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only sets a parameter of the allocator; nothing else runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Lets commands that print and end do so when whoever reads what they print has gone (`falaj check | head`). The others must survive
/// the end of a connection, which raises the same signal.
fn end_with_the_reader(command: &Command) {
    let only_prints = match command {
        Command::Check(_)
        | Command::Checkpoint(_)
        | Command::Capture(_)
        | Command::Dlq(_)
        | Command::Completions(_)
        | Command::Status(_) => true,
        Command::Backfill(args) => args.only_prints(),
        _ => false,
    };
    if only_prints {
        // SAFETY: it only says what a signal does; nothing else runs yet.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
    }
}

/// Runs what was typed; the exit code is 0 done, 1 failed while running, 2 wrong usage, 78 the SQL or settings are wrong.
pub fn run() -> ExitCode {
    share_heaps();
    tls::provide();
    let cli = match command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures; clap knows which is which.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    if !cli.core_dumps {
        private::close_memory();
    }
    end_with_the_reader(&cli.command);
    // What ends a replication connection comes back as an error of ours, and is told once.
    // The demo shows what happens itself, and draws where log lines would go.
    let default = if matches!(cli.command, Command::Demo(_)) { "off" } else { "falaj=info,warn,pgwire_replication=off" };
    let filter = EnvFilter::try_from_env("FALAJ_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(BesideBars::default);
    match cli.log_format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    let traces = traces::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = match &traces {
                Ok(_) => runtime.block_on(dispatch(cli.command)),
                Err(error) => Err(error.clone()),
            };
            // A thread may wait for a server that is away for half a minute; nothing depends on what it does by now.
            runtime.shutdown_timeout(THREADS_MAX_WAIT);
            done
        }
        Err(cause) => Err(Error::new(Kind::Bug, "the async runtime could not be started").because(cause)),
    };
    drop(traces);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match cli.log_format {
                LogFormat::Text => eprintln!("falaj: {}", error.chain()),
                LogFormat::Json => tracing::error!(kind = ?error.kind(), "{}", error.chain()),
            }
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// What can be typed, with the variables.
fn command() -> clap::Command {
    with_variables(Cli::command())
}

fn with_variables(command: clap::Command) -> clap::Command {
    command.mut_args(with_variable).mut_subcommands(with_variables)
}

fn with_variable(arg: Arg) -> Arg {
    match arg.get_long() {
        Some(long) if arg.get_env().is_none() => {
            let name = format!("FALAJ_{}", long.to_uppercase().replace('-', "_"));
            // clap wants names that live as long as the process. There are some twenty, made once.
            arg.env(&*name.leak())
        }
        _ => arg,
    }
}

async fn dispatch(typed: Command) -> Result<()> {
    match typed {
        Command::Run(args) => run::run(args, stop_signal()).await,
        Command::Demo(args) => demo::run(args, stop_signal()).await,
        Command::Check(args) => run::check(args).await,
        Command::Backfill(args) => backfill::run(args, stop_signal()).await,
        Command::Checkpoint(args) => checkpoint::run(args).await,
        Command::Capture(args) => capture::run(args).await,
        Command::Dlq(args) => dlq::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Top(args) => top::run(args, stop_signal()).await,
        Command::Generate(args) => generate::run(args).await,
        Command::Receive(args) => receive::run(args, stopped()).await,
        Command::Completions(args) => manual::completions(args, command()),
        Command::Man(args) => manual::pages(args, command()),
    }
}

/// Ends at SIGINT or SIGTERM.
async fn stopped() {
    let interrupted = tokio::signal::ctrl_c();
    let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        let _ = interrupted.await;
        return;
    };
    tokio::select! {
        _ = interrupted => {}
        _ = terminated.recv() => {}
    }
}

/// Becomes true at the first SIGINT or SIGTERM; the second ends the process at once.
#[allow(clippy::disallowed_methods, reason = "the one place that may: somebody has asked twice")]
fn stop_signal() -> tokio::sync::watch::Receiver<bool> {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        stopped().await;
        tracing::info!("stopping: the open epochs are finished first; once more ends at once");
        let _ = sender.send(true);
        stopped().await;
        std::process::exit(1);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_a_variable() {
        command().debug_assert();
        let command = command();
        let run = command.find_subcommand("run").unwrap();
        let no_web = run.get_arguments().find(|arg| arg.get_long() == Some("no-web")).unwrap();
        assert_eq!(no_web.get_env().unwrap(), "FALAJ_NO_WEB");
        let checkpoint = command.find_subcommand("checkpoint").unwrap();
        for arg in command.get_subcommands().chain(checkpoint.get_subcommands()).flat_map(clap::Command::get_arguments) {
            assert_eq!(arg.get_long().is_some(), arg.get_env().is_some(), "{arg}");
        }
    }
}
