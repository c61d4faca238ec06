//! A lane and the backfill that takes it over: the lane stands still until that is done or given up, and then goes on.
//! [`crate::checkpoint::handover`] has the protocol, of which this is the lane's side.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::LaneParts;
use crate::checkpoint::handover::{Stands, stands};
use crate::checkpoint::record::{Handover, Step};
use crate::error::Result;
use crate::failpoint;

/// How often a lane that stands still looks whether it may go on: readers of its board wait for that.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Whether the lane, driven as incarnation `mine`, lost its record to a backfill.
pub(super) async fn was_stopped(parts: &LaneParts, mine: u64) -> bool {
    match look(parts).await {
        Ok((Stands::Still(handover) | Stands::Over(handover), _)) => mine > 0 && handover.before == mine,
        _ => false,
    }
}

/// Waits while the lane stands still. Whoever drove it before as incarnation `claimed` may claim it again afterwards, since nobody else
/// has. `false`: the lane is to end, since the process was asked to stop or must read its SQL again.
pub(super) async fn wait(parts: &LaneParts, claimed: &AtomicU64) -> Result<bool> {
    let mut stop = parts.stop.clone();
    loop {
        let (stands, incarnation) = look(parts).await?;
        let mine = claimed.load(Ordering::Relaxed);
        match stands {
            Stands::Still(handover) => {
                parts.status.set_trouble(None, Some(waits_for(&handover)));
                failpoint::hit(&parts.plan.name, "handover.waits");
                let stopped = async { stop.wait_for(|stop| *stop).await.is_ok() };
                if tokio::time::timeout(LOOK_INTERVAL, stopped).await.is_ok() {
                    return Ok(false);
                }
            }
            Stands::Over(handover) if mine > 0 && handover.before == mine => {
                parts.status.set_trouble(None, None);
                failpoint::hit(&parts.plan.name, "handover.goes_on");
                if handover.step == Step::Done && handover.query != parts.plan.query {
                    parts.reload.send_replace(true);
                    return Ok(false);
                }
                claimed.store(incarnation, Ordering::Relaxed);
                return Ok(true);
            }
            Stands::Over(handover) => {
                if handover.step == Step::Done && handover.query != parts.plan.query {
                    tracing::warn!(
                        "lane '{}' goes on from a backfill's result, which other SQL has made than stands in this folder",
                        parts.plan.name
                    );
                }
                return Ok(true);
            }
            Stands::Driven => return Ok(true),
        }
    }
}

async fn look(parts: &LaneParts) -> Result<(Stands, u64)> {
    let (stands, incarnation, _) = stands(parts.store.as_ref(), &parts.lineage, &parts.plan.name).await?;
    Ok((stands, incarnation))
}

fn waits_for(handover: &Handover) -> String {
    let advice = match handover.step {
        Step::Stop => "'falaj backfill' finishes that if it has ended too soon, and 'falaj backfill --cancel' gives it up",
        _ => "'falaj backfill' finishes that if it has ended too soon",
    };
    format!("the backfill {} hands its result over; {advice}", handover.lineage)
}
