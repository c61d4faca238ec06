//! `falaj dlq`: the dead letters of a project's sources, listed, shown, replayed and purged.

mod filter;
mod list;
mod purge;
mod replay;
mod show;

use chrono::DateTime;
use clap::{Args, Subcommand};

use self::filter::FilterArgs;
use self::list::ListArgs;
use self::purge::PurgeArgs;
use self::replay::ReplayArgs;
use self::show::ShowArgs;
use crate::app;
use crate::dead::Kept;
use crate::dead::letter::Letter;
use crate::error::{Error, Kind, Result};
use crate::query::project::Project;

/// What `falaj dlq` takes.
#[derive(Debug, Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count the letters by source, cause and lane, each with its first and last time and a sample
    List(ListArgs),
    /// Show letters whole: why each failed, where in its payload, its key and its headers
    Show(ShowArgs),
    /// Put the records of letters back on their topic, mended if --repair says how; each is replayed once, whatever dies. A row that
    /// only one lane could not use is for that lane; a record that could not be decoded is for all
    Replay(ReplayArgs),
    /// Take letters away; nothing is purged without a filter or --all
    Purge(PurgeArgs),
}

/// Runs one of them; prints what was found or done.
pub async fn run(args: DlqArgs) -> Result<()> {
    match args.command {
        Command::List(args) => list::run(args).await,
        Command::Show(args) => show::run(args).await,
        Command::Replay(args) => replay::run(args).await,
        Command::Purge(args) => purge::run(args).await,
    }
}

/// Hands the letters of each source that `filter` names to `work`, on a thread that may block; what it gathers is given back.
async fn each<T: Send + 'static>(
    filter: &FilterArgs,
    project: &Project,
    mut gathered: T,
    mut work: impl FnMut(&mut dyn Kept, &mut T) -> Result<()> + Send + 'static,
) -> Result<T> {
    let kept = app::kept_letters(project, filter.source.as_deref())?;
    let all = move || {
        kept.into_iter().try_for_each(|mut kept| work(kept.as_mut(), &mut gathered))?;
        Ok(gathered)
    };
    match tokio::task::spawn_blocking(all).await {
        Ok(done) => done,
        Err(cause) => Err(Error::new(Kind::Bug, "a command over dead letters was broken off").because(cause)),
    }
}

/// What a letter is called: its record, and why it is one.
fn name(letter: &Letter) -> String {
    let Letter { topic, partition, offset, stage, code, .. } = letter;
    let record = if *partition < 0 { "a window's row".to_string() } else { format!("{partition}:{offset}") };
    format!("{topic} {record} {stage}.{code}")
}

fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| format!("{ms} ms"), |at| at.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string())
}

/// `1 letter`, `2 letters`.
fn letters(count: u64) -> String {
    if count == 1 { "1 letter".to_string() } else { format!("{count} letters") }
}

/// At most so many characters of a text, in one line.
fn excerpt(text: &str, chars_max: usize) -> String {
    let mut short: String = text.chars().take(chars_max).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The same of bytes, which may be no text.
fn excerpt_of(bytes: Option<&[u8]>, chars_max: usize) -> String {
    match bytes.map(str::from_utf8) {
        None => "(no payload)".to_string(),
        Some(Ok(text)) => excerpt(text, chars_max),
        Some(Err(_)) => {
            let hex = bytes.unwrap_or_default().iter().take(chars_max).map(|byte| format!("{byte:02x}")).collect::<String>();
            format!("0x{}", excerpt(&hex, chars_max))
        }
    }
}
