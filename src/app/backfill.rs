//! `falaj backfill`: reads history again with the SQL as it is, beside the lanes of another process, into results of its own, and
//! hands each of them over to its lane when it is whole.
//!
//! A backfill is a run with a checkpoint of its own, in `falaj.backfill` of the checkpoint, under a lineage that is later than
//! the lanes'. Killed and started again it goes on. One is under way at a time. What becomes of a lane's result meanwhile is its
//! [`Way`]; how it takes the place of the old one is in [`crate::checkpoint::handover`]. One that does not reach from the earliest to
//! the latest record takes no place: it stays where it was made.
//!
//! * `plan`: what is to be done, decided once;
//! * `lane`: one lane, from its first record to its handover.

mod lane;
mod plan;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::lane::BackfillLane;
pub use self::plan::{Asked, Bound, Plan, Planned, PlannedLane, Way, folder, plan, put_away};
use self::plan::{Stores, files_of, outbox, writer};
use super::sources::OpenSource;
use super::{Run, all_ended, lookups};
use crate::checkpoint::handover::{Stopped, stands};
use crate::checkpoint::lane_log::LaneLog;
use crate::checkpoint::read::{self, LINEAGE, Lineage};
use crate::checkpoint::record::Step;
use crate::checkpoint::recover::Needs;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::memory::{Share, Use};
use crate::position::Positions;
use crate::query::plan::{LanePlan, plan_lane};
use crate::query::project::Project;
use crate::secrets::Secrets;
use crate::sink::Sink;
use crate::sink::files::FilesSink;
use crate::sink::memory::MemorySink;
use crate::source::Start;
use crate::source::order::Order;

/// How often it is looked how far the lanes are.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Runs a backfill to its end. `false`: the process was asked to stop before. A lane that fails does not stop the others.
pub async fn run(project: &Project, run: Run, planned: &Planned) -> Result<bool> {
    let stores = Stores::open(project).await?;
    if !planned.is_begun {
        stores.begin(&planned.plan).await?;
    }
    let plan = &planned.plan;
    stores.clear_away_older(plan).await?;
    let own = Lineage { lineage: plan.lineage.clone(), forked_from: Some(stores.lineage.clone()) };
    stores.own.create(LINEAGE, own.encode()?).await?;
    run.status.set_memory(run.memory.clone());
    let mut background = JoinSet::new();
    let lookups = lookups(project, &run, Secrets::Needed, &mut background)?;
    let (mut lanes, mut looks) = (JoinSet::new(), JoinSet::new());
    for (table, (from, to)) in &plan.sources {
        let mut plans = Vec::new();
        for lane in project.lanes().iter().filter(|lane| plan.lanes.get(&lane.name).is_some_and(|of| of.source == *table)) {
            plans.push(plan_lane(project, lane, &lookups, run.memory.lane(&lane.name)).await?);
        }
        let Some(def) = plans.first().map(|first| Secrets::Needed.resolve(&first.source)).transpose()? else { continue };
        let bound = Some(to.clone()).filter(|_| plan.asked.to != Bound::Outermost);
        let (source, order) = OpenSource::open_in_order(project, &run, def, &plans, from.clone(), bound)?;
        for of in plans {
            looks.spawn(look(run.clone(), of.name.clone(), order.clone()));
            // One that is handed over reads on until its lane stands still.
            let until = Some(to.clone()).filter(|_| !plan.asked.hands_over());
            let lane = backfill_lane(project, &run, &source, of, &stores, plan, until)?;
            lanes.spawn(lane.run());
        }
    }
    let done = all_ended(&mut lanes, &mut background, &mut JoinSet::new()).await?;
    Ok(done.into_iter().all(|done| done))
}

fn backfill_lane(
    project: &Project,
    run: &Run,
    source: &OpenSource,
    of: LanePlan,
    stores: &Stores,
    plan: &Plan,
    until: Option<Positions>,
) -> Result<BackfillLane> {
    let name = of.name.clone();
    let planned = plan.lanes[&name].clone();
    let files = files_of(&of)?;
    let memory = of.memory.clone();
    let (until, ends) = watch::channel(until);
    let (told, caught_up) = watch::channel(false);
    let mut parts = source.lane(project, run, of, &stores.own, &plan.lineage, &outbox(project)?)?;
    (parts.until, parts.caught_up, parts.start) = (ends, Some(told), Start::Earliest);
    match (planned.way, files.clone()) {
        (Way::Folder, Some(options)) => {
            parts.make_sink = Arc::new(move || {
                let sink = FilesSink::new(options.clone()).of_backfill().accounted(memory.account(Use::Sink));
                Ok(Box::new(sink) as Box<dyn Sink>)
            });
        }
        (Way::Again, _) => {}
        _ => parts.make_sink = Arc::new(|| Ok(Box::new(MemorySink::forgetful()) as Box<dyn Sink>)),
    }
    Ok(BackfillLane {
        status: run.status.backfill(&name),
        hands_over: plan.asked.hands_over(),
        lineage: plan.lineage.clone(),
        stores: stores.clone(),
        stop: run.stop.clone(),
        files: files.filter(|_| planned.way == Way::Folder),
        name,
        planned,
        parts,
        until,
        caught_up,
        still_since: OnceLock::new(),
    })
}

/// Notes how far a lane is, until the lanes have ended.
async fn look(run: Run, lane: String, order: Order) {
    let (status, of_lane) = (run.status.backfill(&lane), run.status.lane(&lane));
    loop {
        status.note(of_lane.is_running().then(|| of_lane.left()), order.reached_ns());
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Gives a backfill up: lanes that stand still for one go on as they were, and what was made is deleted. The process that runs it ends at
/// its next record. `Err`: an exchange was begun, which can only be finished. Gives the lanes that went on, and those that had been
/// handed over already.
pub async fn cancel(project: &Project) -> Result<(Vec<String>, Vec<String>)> {
    let stores = Stores::open(project).await?;
    // A torn plan says nothing, and must not stand in the way.
    let plan = match stores.begun().await {
        Err(error) if error.kind() == Kind::Corrupt => None,
        plan => plan?,
    };
    let still = standing_still(&stores).await?;
    for lane in plan.iter().flat_map(|plan| plan.lanes.keys()) {
        let (own, lineage) = (Arc::clone(&stores.own), plan.as_ref().map_or("", |plan| plan.lineage.as_str()));
        LaneLog::claim(own, lineage, lane, &Clock::system(), Needs::LastEpoch, u64::MAX).await?;
    }
    let mut went_on = Vec::new();
    for (lane, stopped) in still {
        stopped.off().await?;
        went_on.push(lane);
    }
    let handed_over = match &plan {
        Some(plan) => drop_results(project, &stores, plan).await?,
        None => Vec::new(),
    };
    Ok((went_on, handed_over))
}

/// The lanes that stand still for a backfill. `Err`: the results of one are being exchanged.
async fn standing_still(stores: &Stores) -> Result<Vec<(String, Stopped)>> {
    let mut still = Vec::new();
    for lane in read::lanes(stores.live.as_ref()).await? {
        let Some(stopped) = Stopped::found(Arc::clone(&stores.live), &stores.lineage, &lane).await? else { continue };
        if stopped.handover().step == Step::Swap {
            let text = format!(
                "the results of lane '{lane}' are being exchanged, which can only be finished: start 'falaj backfill' again"
            );
            return Err(Error::new(Kind::Usage, text));
        }
        still.push((lane, stopped));
    }
    Ok(still)
}

/// Deletes the results that were not handed over. Gives the lanes whose were.
async fn drop_results(project: &Project, stores: &Stores, plan: &Plan) -> Result<Vec<String>> {
    let mut handed_over = Vec::new();
    for (name, of) in &plan.lanes {
        let (_, _, lineage) = stands(stores.live.as_ref(), &stores.lineage, name).await?;
        if lineage == plan.lineage {
            handed_over.push(name.clone());
            continue;
        }
        // The folder of a lane that is there no more is for a person to delete.
        let lane = project.lanes().iter().find(|lane| lane.name == *name && of.way == Way::Folder);
        let Some(lane) = lane else { continue };
        let lane = plan_lane(project, lane, &project.empty_lookups()?, Share::unlimited()).await?;
        if let Some(options) = files_of(&lane)? {
            FilesSink::drop_shadow(options, writer(plan, name, 0)).await?;
        }
    }
    Ok(handed_over)
}
