//! `falaj backfill`: history read again with the SQL as it is.

use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use clap::Args;
use tokio::sync::watch;

use super::run::{open_pages, serve_pages};
use super::{machine, progress, project_dir};
use crate::app::backfill::{self, Asked, Bound, Planned, Way};
use crate::app::{Run, World};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::position::Positions;
use crate::query::project::Project;
use crate::settings::Settings;
use crate::sink::memory::Boards;
use crate::status::Status;

/// Any port: the lanes' own process has the one of the settings.
const PAGES: &str = "127.0.0.1:0";

/// What `falaj backfill` takes.
#[derive(Debug, Args)]
pub struct BackfillArgs {
    /// The folder of SQL files
    #[arg(value_name = "DIR", default_value = "queries")]
    folder: PathBuf,
    /// Where to begin: `earliest`; a time (`2026-01-31`, `2026-01-31T12:00:00Z`: when records were appended to the topic, as its broker
    /// has it, and not when events happened); or offsets, by partition (`0:120,1:7`)
    #[arg(long, value_name = "WHERE", default_value = "earliest")]
    from: String,
    /// Where to end: `latest`, a time or offsets; what is there is left out
    #[arg(long, value_name = "WHERE", default_value = "latest")]
    to: String,
    /// Only this lane; without it, all that can be read again
    #[arg(long, value_name = "NAME")]
    lane: Option<String>,
    /// Let lanes into HTTP and Kafka send their rows a second time
    #[arg(long)]
    send_again: bool,
    /// Replace results though the topic no longer has its oldest records
    #[arg(long)]
    drop_older: bool,
    /// Only say what would be read and written
    #[arg(long, conflicts_with = "cancel")]
    dry_run: bool,
    /// Give the backfill up that is under way, or was left half-done
    #[arg(long)]
    cancel: bool,
    /// Do not serve the pages
    #[arg(long)]
    no_web: bool,
}

impl BackfillArgs {
    /// Whether the command says something and ends.
    pub fn only_prints(&self) -> bool {
        self.dry_run || self.cancel
    }
}

/// Runs until every result is whole and has been handed over, or `stop` is true; then the next start goes on.
pub async fn run(args: BackfillArgs, stop: watch::Receiver<bool>) -> Result<()> {
    let asked = Asked {
        from: bound(&args.from, "from", "earliest")?,
        to: bound(&args.to, "to", "latest")?,
        lane: args.lane.clone(),
        send_again: args.send_again,
        drop_older: args.drop_older,
    };
    let project = project_dir::read_asking(&args.folder, stop.clone()).await?;
    if args.cancel {
        return cancel(&project).await;
    }
    let planned = backfill::plan(&project, asked).await?;
    say(&planned);
    if args.dry_run {
        return Ok(());
    }
    let (status, boards) = (Status::default(), Boards::default());
    if !args.no_web {
        let settings = Settings { listen: PAGES.to_string(), ..project.settings().clone() };
        let url = serve_pages(open_pages(&settings).await?, &status, &boards, stop.clone())?;
        tracing::info!("the page is at {url}");
    }
    let run = Run {
        world: World::Real,
        status: status.clone(),
        memory: machine::memory_beside(project.settings()),
        boards,
        clock: Clock::system(),
        until_latest: false,
        stop,
        reload: watch::Sender::new(false),
    };
    let is_done = tokio::select! {
        done = backfill::run(&project, run, &planned) => done?,
        () = progress::show_backfills(status) => false,
    };
    if !is_done {
        println!("stopped; the same command goes on");
        return Ok(());
    }
    put_away(&project).await?;
    for (lane, of) in &planned.plan.lanes {
        println!("{lane}: {}", ended(&planned, lane, of.way));
    }
    Ok(())
}

async fn cancel(project: &Project) -> Result<()> {
    let (went_on, handed_over) = backfill::cancel(project).await?;
    put_away(project).await?;
    for lane in went_on {
        println!("{lane}: goes on as it was");
    }
    for lane in handed_over {
        println!("{lane}: was handed over already, and stays so");
    }
    println!("no backfill is under way");
    Ok(())
}

/// Where to begin or end, as it was typed. `outermost` is the word for all that there is.
fn bound(typed: &str, option: &str, outermost: &str) -> Result<Bound> {
    if typed == outermost {
        return Ok(Bound::Outermost);
    }
    let offset = |pair: &str| {
        let (partition, offset) = pair.split_once(':')?;
        Some((partition.trim().parse::<i32>().ok()?, offset.trim().parse::<i64>().ok().filter(|offset| *offset >= 0)?))
    };
    if let Some(offsets) = typed.split(',').map(offset).collect::<Option<Positions>>() {
        return Ok(Bound::Offsets(offsets));
    }
    let with_zone = DateTime::parse_from_rfc3339(typed).ok().map(|at| at.timestamp_millis());
    let in_utc = || typed.parse::<NaiveDateTime>().ok().map(|at| at.and_utc().timestamp_millis());
    let midnight = || typed.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0).map(|at| at.and_utc().timestamp_millis());
    with_zone.or_else(in_utc).or_else(midnight).map(Bound::Time).ok_or_else(|| {
        let text = format!(
            "--{option} '{typed}': write '{outermost}', a time such as 2026-01-31T12:00:00Z, or offsets such as 0:120,1:7"
        );
        Error::new(Kind::Usage, text)
    })
}

/// Says what is read and written.
fn say(planned: &Planned) {
    let plan = &planned.plan;
    let goes_on = if planned.is_begun { ", which goes on" } else { "" };
    println!("backfill {}{goes_on}", plan.lineage);
    for (source, (from, to)) in &plan.sources {
        println!("{source}: {} records at most", from.behind(to));
        for (partition, end) in to.iter() {
            println!("  partition {partition}: [{}, {end})", from.get(partition).unwrap_or(0));
        }
    }
    for (lane, of) in &plan.lanes {
        let into = match (of.way, planned.folders.get(lane)) {
            (Way::Folder, Some(folder)) if plan.asked.hands_over() => {
                format!("into {}, which takes the table's place", folder.display())
            }
            (Way::Folder, Some(folder)) => format!("into {}, where it stays", folder.display()),
            (Way::Again, _) => "sends its rows a second time".to_string(),
            _ => "in memory; the whole result takes the old one's place".to_string(),
        };
        println!("{lane}: from {} {into}", of.source);
    }
    for (lane, why) in &planned.left_out {
        println!("{lane}: left out, since it {why}");
    }
}

fn ended(planned: &Planned, lane: &str, way: Way) -> String {
    match planned.folders.get(lane) {
        Some(folder) if way == Way::Folder && !planned.plan.asked.hands_over() => {
            format!("the result is in {}", folder.display())
        }
        _ if planned.plan.asked.hands_over() => "the new result is in the place of the old one".to_string(),
        _ => "all rows were sent".to_string(),
    }
}

/// Deletes the checkpoint of a backfill that is over, and the folders that are empty then; one that stays does no harm.
async fn put_away(project: &Project) -> Result<()> {
    backfill::put_away(project).await?;
    let Some(folder) = backfill::folder(project) else { return Ok(()) };
    for inside in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir(inside.path());
    }
    let _ = std::fs::remove_dir(&folder);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_word_a_time_or_offsets() {
        let offsets = |pairs: &[(i32, i64)]| Some(Bound::Offsets(pairs.iter().copied().collect()));
        for (typed, expected) in [
            ("earliest", Some(Bound::Outermost)),
            ("1970-01-02", Some(Bound::Time(86_400_000))),
            ("1970-01-01T00:00:01.5", Some(Bound::Time(1_500))),
            ("1970-01-01T01:00:00+01:00", Some(Bound::Time(0))),
            ("0:12", offsets(&[(0, 12)])),
            ("0:12, 3:300", offsets(&[(0, 12), (3, 300)])),
            ("latest", None),
            ("0:-1", None),
            ("0:12,", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(bound(typed, "from", "earliest").ok(), expected, "{typed}");
        }
    }
}
