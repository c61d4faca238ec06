//! How a windowed lane comes to its state again: from a snapshot and the spans of later intents, or, when the query was edited so
//! that the state would be another, from the source's oldest records.

use std::collections::BTreeSet;

use super::LaneParts;
use super::driver::blocking_start;
use super::epoch::{Open, Taken};
use super::windowed::Windowed;
use crate::batch::Segment;
use crate::checkpoint::lane_log::StateWriter;
use crate::checkpoint::read::Recovered;
use crate::checkpoint::record::{Intent, Snapshot};
use crate::error::{Kind, Result};
use crate::failpoint;
use crate::position::{Positions, Span};
use crate::query::plan::Windows;
use crate::source::Start;

/// Loads the newest snapshot that is whole, absorbs the spans of later intents again, and finishes an epoch that was left open.
pub(super) async fn restore(parts: &LaneParts, windows: &Windows, open: &mut Open, recovered: &Recovered) -> Result<Windowed> {
    let mut windowed = Windowed::new(parts, windows);
    let is_other = recovered.last().is_some_and(|intent| !fits(windows, intent));
    let from_epoch = match (is_other, recovered.last_committed()) {
        (true, Some(committed)) => {
            rebuild(parts, windows, &mut windowed, committed).await?;
            committed.epoch
        }
        // The first epoch of all is open still: nothing is lost with the plan before.
        (true, None) => 0,
        (false, _) => {
            let reader = open.log.state_writer();
            let (from_epoch, snapshot) = newest_whole(parts, windows, &reader, recovered, &mut windowed).await?;
            if let Some(taken) = snapshot {
                windowed.stand_at(&taken.intent, 0, &parts.emit);
            }
            from_epoch
        }
    };
    failpoint::hit(&parts.plan.name, "recovery.loaded");
    let intents = recovered.intents_after(from_epoch)?;
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
    if recovered.open_intent().is_none() {
        windowed.remember_shown(parts).await?;
    }
    if is_other && let Some(last) = recovered.last() {
        // From here on the records speak of this plan, so no older snapshot may be gone on from.
        windowed.rebuilt(parts, open, &of_plan(windows, last)).await?;
    }
    Ok(windowed)
}

/// Whether the state as of `intent` is that of this plan, and reaches back far enough.
fn fits(windows: &Windows, intent: &Intent) -> bool {
    intent.fingerprint == windows.fingerprint && intent.window_ns >= windows.spec.size_ns
}

/// The same intent, as one of this plan.
fn of_plan(windows: &Windows, intent: &Intent) -> Intent {
    Intent { fingerprint: windows.fingerprint.clone(), window_ns: windows.spec.size_ns, ..intent.clone() }
}

/// The query was edited so that the panes hold something else, or not far enough back: makes the state as of `intent` from the
/// source's oldest records on. A row belongs to it when a window that is not final yet holds it, in whatever order it arrived.
async fn rebuild(parts: &LaneParts, windows: &Windows, windowed: &mut Windowed, intent: &Intent) -> Result<()> {
    tracing::warn!(
        "lane '{}' has another source, filter, grouping or aggregate than its checkpoint, or a larger window: its state is made \
         anew from the oldest records on",
        parts.plan.name
    );
    let oldest = blocking_start(&parts.source, Start::Earliest).await?;
    let span = |(partition, to): (i32, i64)| Span { partition, from: oldest.get(partition).unwrap_or(to).min(to), to };
    let spans: Vec<Span> = intent.positions.iter().map(span).filter(|span| span.from < span.to).collect();
    windowed.stand_at(intent, 0, &parts.emit);
    parts.plan.time.set(intent.now_ns);
    let mut spans = parts.log.spans(&spans);
    while let Some(segments) = spans.next().await? {
        for segment in &Segment::merge_small(segments)? {
            windowed.absorb_needed(windows, segment, &parts.emit, intent.now_ns).await?;
        }
        windowed.account()?;
    }
    Ok(())
}

/// Puts the newest snapshot whose files are whole into `windowed`; gives its epoch, 0 when there is none at all.
async fn newest_whole<'r>(
    parts: &LaneParts,
    windows: &Windows,
    reader: &StateWriter,
    recovered: &'r Recovered,
    windowed: &mut Windowed,
) -> Result<(u64, Option<&'r Snapshot>)> {
    for (index, (_, snapshot)) in recovered.snapshots.iter().enumerate().rev() {
        let Err(torn) = windowed.load(reader, snapshot).await else { return Ok((snapshot.epoch, Some(snapshot))) };
        let before = if index == 0 { 0 } else { recovered.snapshots[index - 1].1.epoch };
        if torn.kind() != Kind::Corrupt
            || recovered.intents_after(before).is_err()
            || !recovered.intents_after(before)?.iter().all(|intent| fits(windows, intent))
        {
            return Err(torn);
        }
        tracing::warn!("lane '{}' goes back to epoch {before}: {}", parts.plan.name, torn.chain());
        *windowed = Windowed::new(parts, windows);
    }
    Ok((0, None))
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
