//! Which letters a command is about.

use std::path::PathBuf;

use clap::Args;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::dead::letter::Letter;
use crate::error::Result;
use crate::query::project::Project;
use crate::tool::project_dir;

/// The filters that all commands share; a letter must pass all that are given.
#[derive(Debug, Clone, Args)]
pub(super) struct FilterArgs {
    /// The folder of SQL files, whose tables name the sources
    #[arg(value_name = "DIR", default_value = "queries")]
    folder: PathBuf,
    /// Only letters of this source: the table's name, or its topic's
    #[arg(long, value_name = "TABLE")]
    pub(super) source: Option<String>,
    #[allow(rustdoc::invalid_html_tags, reason = "it is the help of the command")]
    /// Only letters of this lane; undecodable records are letters of the lane '<table>.dlq'
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,
    /// Only what failed in this step
    #[arg(long, value_name = "STAGE", value_parser = ["decode", "schema", "sql", "late", "sink"])]
    stage: Option<String>,
    /// Only what failed for this reason, such as truncated
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Only what failed at this time or later: 2026-11-26T18:00:00Z, or so long ago: 2h
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    since: Option<i64>,
    /// Only what failed before this time
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    until: Option<i64>,
    /// Only the letters of this record: 0:43271
    #[arg(long, value_name = "PARTITION:OFFSET", value_parser = place)]
    offset: Option<(i32, i64)>,
}

impl FilterArgs {
    /// The project.
    pub(super) async fn project(&self) -> Result<Project> {
        project_dir::read_asking(&self.folder, watch::channel(false).1).await
    }

    /// Whether it lets every letter pass.
    pub(super) fn passes_all(&self) -> bool {
        let texts = [&self.source, &self.lane, &self.stage, &self.code];
        texts.iter().all(|text| text.is_none()) && self.since.or(self.until).is_none() && self.offset.is_none()
    }

    /// Whether a letter of the source passes.
    pub(super) fn passes(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.lane, &letter.lane)
            && is(&self.stage, &letter.stage)
            && is(&self.code, &letter.code)
            && self.since.is_none_or(|since| letter.failed_ms >= since)
            && self.until.is_none_or(|until| letter.failed_ms < until)
            && self.offset.is_none_or(|at| at == (letter.partition, letter.offset))
    }
}

/// A time, in ms since 1970.
fn time_ms(text: &str) -> Result<i64, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Clock::system().now_ms().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)));
    }
    let at =
        humantime::parse_rfc3339_weak(text).map_err(|_| "write a time as 2026-11-26T18:00:00Z, or as 2h for so long ago")?;
    let since_1970 = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

fn place(text: &str) -> Result<(i32, i64), String> {
    let numbers = text.split_once(':').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    numbers.ok_or_else(|| "write partition and offset as 0:43271".to_string())
}
