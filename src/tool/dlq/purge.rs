//! `falaj dlq purge`: letters taken away.

use clap::Args;

use super::filter::FilterArgs;
use super::{each, letters};
use crate::error::{Error, Kind, Result};

/// What `falaj dlq purge` takes.
#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Purge every letter
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(args: PurgeArgs) -> Result<()> {
    let PurgeArgs { filter, all } = args;
    if filter.passes_all() && !all {
        let text = "say which letters are to be purged: by --lane, --stage, --code or another filter, or --all";
        return Err(Error::new(Kind::Usage, text));
    }
    let passes = filter.clone();
    each(&filter, &filter.project().await?, (), move |kept, ()| {
        let purged = kept.purge(&mut |letter| passes.passes(letter))?;
        println!("{}: {} purged", kept.source(), letters(purged));
        Ok(())
    })
    .await
}
