//! `falaj dlq replay`: records back on their topic.

use clap::Args;

use super::filter::FilterArgs;
use super::{each, excerpt, excerpt_of, letters, name};
use crate::batch::Stage;
use crate::clock::Clock;
use crate::dead::Kept;
use crate::dead::letter::{AT_ONCE, Letter, Mended, Original};
use crate::error::{Error, Kind, Result};
use crate::query::repair::{Broken, Repair, Repaired};

/// Payloads that are held at once, and sent in one transaction; one more may come on top.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How many records a dry run shows, and how much of each.
const SHOWN: usize = 5;
const SHOWN_CHARS: usize = 200;

/// What `falaj dlq replay` takes.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Replay every letter
    #[arg(long)]
    all: bool,
    /// The new payload, as an expression of SQL over payload, payload_bytes, key, topic, partition, offset, code and message; what it
    /// makes NULL is left as it is
    #[arg(long, value_name = "SQL")]
    repair: Option<String>,
    /// Show before and after of the first letters, and count; nothing is written
    #[arg(long)]
    dry_run: bool,
}

/// What became of the letters of one source.
#[derive(Debug, Default)]
struct Tally {
    replayed: u64,
    /// Of those, such as were late.
    late: u64,
    left: u64,
    failed: u64,
    /// The first reason.
    why: Option<String>,
    without_record: u64,
    twice: u64,
}

/// What one run does to each source.
struct Replay {
    filter: FilterArgs,
    repair: Option<Repair>,
    dry_run: bool,
}

pub(super) async fn run(args: ReplayArgs) -> Result<()> {
    let ReplayArgs { filter, all, repair, dry_run } = args;
    if filter.passes_all() && !all {
        let text = "say which letters are to be replayed: by --lane, --stage, --code or another filter, or --all";
        return Err(Error::new(Kind::Usage, text));
    }
    let project = filter.project().await?;
    let repair = match repair {
        Some(sql) => Some(Repair::plan(&project, &sql, Clock::system().now_ns()).await?),
        None => None,
    };
    let replay = Replay { filter: filter.clone(), repair, dry_run };
    each(&filter, &project, (), move |kept, ()| replay.source(kept)).await
}

impl Replay {
    fn source(&self, kept: &mut dyn Kept) -> Result<()> {
        if !self.dry_run
            && let Err(error) = kept.claim()
        {
            // Other sources may have letters that can be replayed.
            if error.kind() != Kind::Usage || self.filter.source.is_some() {
                return Err(error);
            }
            return self.say_why_not(kept, &error);
        }
        let mut tally = Tally::default();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        kept.begin()?;
        while let Some(letter) = kept.next()? {
            if !self.filter.passes(&letter) {
                continue;
            }
            if batch.iter().any(|before: &Letter| before.id() == letter.id()) {
                tally.twice += 1;
                continue;
            }
            bytes += letter.payload.as_ref().map_or(0, Vec::len);
            batch.push(letter);
            if batch.len() >= AT_ONCE || bytes >= BATCH_BYTES_MAX {
                self.batch(kept, std::mem::take(&mut batch), &mut tally)?;
                bytes = 0;
            }
        }
        self.batch(kept, batch, &mut tally)?;
        println!("{}: {}", kept.source(), tally.sentence(self.dry_run));
        Ok(())
    }

    fn say_why_not(&self, kept: &mut dyn Kept, why: &Error) -> Result<()> {
        kept.begin()?;
        let mut found = 0;
        while let Some(letter) = kept.next()? {
            found += u64::from(self.filter.passes(&letter));
        }
        if found > 0 {
            println!("{}: {}: {why}", kept.source(), letters(found));
        }
        Ok(())
    }

    /// Mends a batch, and puts it back.
    fn batch(&self, kept: &mut dyn Kept, batch: Vec<Letter>, tally: &mut Tally) -> Result<()> {
        let (there, gone): (Vec<Letter>, Vec<Letter>) =
            batch.into_iter().partition(|letter| letter.original == Original::There && letter.partition >= 0);
        tally.without_record += gone.len() as u64;
        let made = match &self.repair {
            Some(repair) => repair.apply(&there.iter().map(broken).collect::<Vec<_>>())?,
            None => Vec::new(),
        };
        let mut made = made.into_iter();
        let mut mended = Vec::new();
        for letter in there {
            let payload = match made.next() {
                None => letter.payload.clone(),
                Some(Repaired::Payload(payload)) => Some(payload),
                Some(Repaired::LeftAlone) => {
                    tally.left += 1;
                    continue;
                }
                Some(Repaired::Failed(why)) => {
                    tally.failed += 1;
                    tally.why.get_or_insert_with(|| format!("of {}: {why}", name(&letter)));
                    continue;
                }
            };
            mended.push(Mended { letter, payload });
        }
        if self.dry_run {
            let shown = usize::try_from(tally.replayed).unwrap_or(usize::MAX);
            mended.iter().take(SHOWN.saturating_sub(shown)).for_each(show);
        } else if !mended.is_empty() {
            kept.replay(&mended)?;
        }
        tally.replayed += mended.len() as u64;
        tally.late += mended.iter().filter(|record| record.letter.stage == Stage::Late.as_str()).count() as u64;
        Ok(())
    }
}

fn broken(letter: &Letter) -> Broken<'_> {
    Broken {
        payload: letter.payload.as_deref(),
        key: letter.key.as_deref(),
        topic: &letter.topic,
        partition: letter.partition,
        offset: letter.offset,
        code: &letter.code,
        message: &letter.message,
    }
}

/// Before and after.
fn show(Mended { letter, payload }: &Mended) {
    println!("{}", name(letter));
    println!("  - {}", excerpt_of(letter.payload.as_deref(), SHOWN_CHARS));
    println!("  + {}", excerpt_of(payload.as_deref(), SHOWN_CHARS));
}

impl Tally {
    fn sentence(&self, dry_run: bool) -> String {
        let would = if dry_run { "would be " } else { "" };
        let mut parts = vec![format!("{} {would}replayed", letters(self.replayed))];
        let mut part = |count: u64, what: &str| {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        };
        part(self.left, "left as they are, since --repair gives NULL");
        part(
            self.failed,
            &format!("left as they are, since --repair fails ({})", excerpt(self.why.as_deref().unwrap_or(""), 300)),
        );
        part(self.without_record, "cannot be, since their records are not kept");
        part(self.twice, "were there twice, and go once");
        part(
            self.late,
            "of them late: where their windows are final they are late again; 'falaj backfill' makes such windows anew",
        );
        parts.join("; ")
    }
}
