//! How a windowed lane comes to its state again: from a snapshot and the spans of later intents, or, when the query was edited so
//! that the state would be another, from the source's oldest records.

use std::collections::BTreeSet;

use super::LaneParts;
use super::driver::blocking_start;
use super::epoch::{Open, Taken};
use super::windowed::Windowed;
use crate::batch::Segment;
use crate::checkpoint::lane_log::StateWriter;
use crate::checkpoint::record::{Intent, Snapshot};
use crate::checkpoint::recover::Recovered;
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::position::{Positions, Span};
use crate::query::plan::Windows;
use crate::source::Start;

/// Comes to the state as of the last commit and finishes an epoch that was left open.
pub(super) async fn restore(parts: &LaneParts, windows: &Windows, open: &mut Open, recovered: &Recovered) -> Result<Windowed> {
    let (mut windowed, from_epoch) = begin(parts, windows, &open.log.state_writer(), recovered).await?;
    failpoint::hit(&parts.plan.name, "recovery.loaded");
    let intents = recovered.intents_after(from_epoch)?;
    let snapshot = recovered.snapshots.iter().map(|(_, snapshot)| &snapshot.intent).find(|intent| intent.epoch == from_epoch);
    let needed = match (snapshot, intents.first()) {
        (Some(snapshot), _) => &snapshot.positions,
        (None, Some(first)) => &first.positions_before(),
        (None, None) => &open.positions,
    };
    parts.source.acknowledge(&parts.plan.name, needed);
    let from = first_positions(intents);
    let mut replay = if from.is_empty() { None } else { Some(parts.log.replay(&from)?) };
    for intent in intents {
        let is_open = intent.epoch > recovered.committed;
        if is_open {
            windowed.remember_shown(parts).await?;
        }
        let (mut taken, mut touched) = (Taken::default(), BTreeSet::new());
        let mut spans = intent.spans.clone();
        while let (Some(replay), false) = (&mut replay, spans.is_empty()) {
            let segments = replay.next(&mut spans).await?;
            windowed.absorb_again(parts, windows, intent, &segments, &mut taken, &mut touched).await?;
        }
        let records = taken.records;
        if is_open {
            failpoint::hit(&parts.plan.name, "recovery.absorbed");
            windowed.redo(parts, open, intent.clone(), taken, &touched).await?;
        }
        windowed.stand_at(intent, records, &parts.emit);
    }
    let is_edited = recovered.snapshots.last().is_some_and(|(_, newest)| newest.fingerprint != windows.fingerprint);
    if is_edited || recovered.is_handed_over {
        windowed.tell_all();
    } else if recovered.open_intent().is_none() {
        windowed.remember_shown(parts).await?;
    }
    Ok(windowed)
}

/// The state from which the later intents lead on, and its epoch: that of the newest snapshot that is whole and of this plan; where
/// there is none, nothing before the first intent; where that is gone, what the source still has.
async fn begin(parts: &LaneParts, windows: &Windows, reader: &StateWriter, recovered: &Recovered) -> Result<(Windowed, u64)> {
    let needed = needed_from(parts, windows, recovered);
    let fits = |snapshot: &Snapshot| snapshot.fingerprint == windows.fingerprint && snapshot.from_pane <= needed;
    let mut torn = None;
    for (_, snapshot) in recovered.snapshots.iter().rev().filter(|(_, snapshot)| fits(snapshot)) {
        let mut windowed = Windowed::new(parts, windows);
        match windowed.load(reader, snapshot).await {
            Ok(()) => {
                say_back(parts, torn, snapshot.epoch);
                windowed.stand_at(&snapshot.intent, 0, &parts.emit);
                return Ok((windowed, snapshot.epoch));
            }
            Err(error) if error.kind() == Kind::Corrupt => torn = torn.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    let (mut windowed, from_start) = (Windowed::new(parts, windows), recovered.intents_after(0).is_ok());
    match (torn, recovered.last_committed()) {
        (Some(torn), _) if !from_start => Err(torn),
        (Some(torn), _) => {
            say_back(parts, Some(torn), 0);
            Ok((windowed, 0))
        }
        (None, last) => {
            if !recovered.snapshots.is_empty() {
                tracing::warn!(
                    "lane '{}' has another source, filter, grouping or aggregate than its checkpoint, or a larger window: its state \
                     is made anew from the records that it has read",
                    parts.plan.name
                );
            }
            match last.filter(|_| !from_start) {
                Some(last) => {
                    read_again(parts, windows, &mut windowed, last).await?;
                    Ok((windowed, last.epoch))
                }
                None => Ok((windowed, 0)),
            }
        }
    }
}

/// The first pane that a state of this plan must have whole after the last commit.
fn needed_from(parts: &LaneParts, windows: &Windows, recovered: &Recovered) -> i64 {
    let mut empty = Windowed::new(parts, windows);
    if let Some(last) = recovered.last_committed() {
        empty.stand_at(last, 0, &parts.emit);
    }
    empty.state.complete_from()
}

fn say_back(parts: &LaneParts, torn: Option<Error>, epoch: u64) {
    if let Some(torn) = torn {
        tracing::warn!("lane '{}' goes back to epoch {epoch}: {}", parts.plan.name, torn.chain());
    }
}

/// Makes the state as of `intent` from the source's oldest records on. A row belongs to it when a window holds it that is not final
/// yet, in whatever order it arrived.
async fn read_again(parts: &LaneParts, windows: &Windows, windowed: &mut Windowed, intent: &Intent) -> Result<()> {
    let oldest = blocking_start(&parts.source, Start::Earliest).await?;
    let span = |(partition, to): (i32, i64)| Span { partition, from: oldest.get(partition).unwrap_or(to).min(to), to };
    let spans: Vec<Span> = intent.positions.iter().map(span).filter(|span| span.from < span.to).collect();
    windowed.stand_at(intent, 0, &parts.emit);
    parts.plan.time.set(intent.now_ns);
    let mut spans = parts.log.spans(&spans);
    while let Some(segments) = spans.next().await? {
        for segment in &Segment::merge_small(segments)? {
            windowed.absorb_needed(parts, windows, segment, intent.now_ns).await?;
        }
        windowed.account()?;
    }
    Ok(())
}

fn first_positions(intents: &[Intent]) -> Positions {
    let mut from = Positions::default();
    for span in intents.iter().flat_map(|intent| &intent.spans) {
        if from.get(span.partition).is_none() {
            from.set(span.partition, span.from);
        }
    }
    from
}
