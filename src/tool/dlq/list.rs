//! `falaj dlq list`: how many letters there are, by source, cause and lane.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::filter::FilterArgs;
use super::{each, excerpt, excerpt_of, time};
use crate::dead::letter::Letter;
use crate::error::Result;

/// Causes and lanes are few; whoever writes to the topic could make up more, and the rest is counted together.
const GROUPS_MAX: usize = 1000;
/// How much of a sample's reason and payload is shown.
const SAMPLE_CHARS: usize = 80;
const SAMPLE_PAYLOAD_CHARS: usize = 200;

/// What `falaj dlq list` takes.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

/// The letters of one source, cause and lane.
struct Group {
    count: u64,
    first_ms: i64,
    last_ms: i64,
    sample: Letter,
}

/// Source, stage, code, lane.
type Groups = BTreeMap<[String; 4], Group>;

pub(super) async fn run(args: ListArgs) -> Result<()> {
    let ListArgs { filter, json } = args;
    let passes = filter.clone();
    let groups = each(&filter, &filter.project().await?, Groups::new(), move |kept, groups| {
        kept.begin()?;
        while let Some(letter) = kept.next()? {
            if passes.passes(&letter) {
                add(groups, kept.source(), letter);
            }
        }
        Ok(())
    })
    .await?;
    match json {
        true => groups.iter().for_each(|(key, group)| println!("{}", object(key, group))),
        false if groups.is_empty() => println!("no letters"),
        false => table(&groups).iter().for_each(|line| println!("{line}")),
    }
    Ok(())
}

fn add(groups: &mut Groups, source: &str, letter: Letter) {
    let mut key = [source.to_string(), letter.stage.clone(), letter.code.clone(), letter.lane.clone()];
    if groups.len() >= GROUPS_MAX && !groups.contains_key(&key) {
        key = [source, "others", "others", "others"].map(String::from);
    }
    let at = letter.failed_ms;
    let group = groups.entry(key).or_insert_with(|| Group { count: 0, first_ms: at, last_ms: at, sample: letter });
    group.count += 1;
    group.first_ms = group.first_ms.min(at);
    group.last_ms = group.last_ms.max(at);
}

fn object([source, stage, code, lane]: &[String; 4], group: &Group) -> serde_json::Value {
    let Group { count, first_ms, last_ms, sample } = group;
    json!({
        "source": source, "stage": stage, "code": code, "lane": lane, "letters": count, "first_ms": first_ms, "last_ms": last_ms,
        "sample": {
            "partition": sample.partition, "offset": sample.offset, "message": sample.message,
            "payload": excerpt_of(sample.payload.as_deref(), SAMPLE_PAYLOAD_CHARS),
        },
    })
}

/// Columns under their names, each as wide as it must be.
fn table(groups: &Groups) -> Vec<String> {
    let mut rows = vec![["source", "cause", "lane", "letters", "first", "last", "sample"].map(String::from)];
    rows.extend(groups.iter().map(|([source, stage, code, lane], group)| {
        let Letter { partition, offset, message, .. } = &group.sample;
        let sample = format!("{partition}:{offset} {}", excerpt(message, SAMPLE_CHARS));
        let cause = format!("{stage}.{code}");
        let (count, first, last) = (group.count.to_string(), time(group.first_ms), time(group.last_ms));
        [source.clone(), cause, lane.clone(), count, first, last, sample]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let padded = |row: &[String; 7]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_string()
    };
    rows.iter().map(padded).collect()
}
