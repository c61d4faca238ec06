//! What a backfill is to do: decided once, written down beside its checkpoint, and the same after each start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::app::sinks::{Outbox, SinkKind, emit_of};
use crate::app::{check, checkpoint_at};
use crate::checkpoint::CheckpointStore;
use crate::checkpoint::fork::lineage_after;
use crate::checkpoint::handover::stands;
use crate::checkpoint::lane_log::LaneLog;
use crate::checkpoint::read::{self, LINEAGE};
use crate::error::{Error, Kind, Result};
use crate::lane::Emit;
use crate::position::Positions;
use crate::query::plan::{LanePlan, Work};
use crate::query::project::Project;
use crate::secrets::Secrets;
use crate::settings::Place;
use crate::sink::Writer;
use crate::sink::files::{FilesOptions, FilesSink};
use crate::source::kafka::{KafkaOptions, KafkaSource};
use crate::source::{Source, Start};
use crate::table::TableDef;

/// The folder of a backfill's checkpoint, in the checkpoint's own. No lane has a name with a dot.
const FOLDER: &str = "falaj.backfill";
/// The folder in the outbox's own for what it sends.
const OUTBOX: &str = "falaj.backfill";
/// The plan, beside the records.
const PLAN: &str = "plan.json";

/// A place in a source where reading begins or ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// The oldest record that is there, or all that there is.
    #[default]
    Outermost,
    /// The first record that was appended at this time or later, ms since 1970.
    Time(i64),
    /// These offsets; of a partition that is not named the outermost one.
    Offsets(Positions),
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Where to begin.
    pub from: Bound,
    /// Where to end.
    pub to: Bound,
    /// The only lane; `None`: all that can.
    pub lane: Option<String>,
    /// Whether rows may be sent a second time, to HTTP receivers and Kafka topics.
    pub send_again: bool,
    /// Whether a result may be replaced though the topic no longer has its oldest records.
    pub drop_older: bool,
}

impl Asked {
    /// Whether the new result is all that there is, so that it can take the place of the old one.
    pub fn hands_over(&self) -> bool {
        self.from == Bound::Outermost && self.to == Bound::Outermost
    }
}

/// How a lane's result is made anew without touching the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// In a folder beside the table's, exchanged for it at the end.
    Folder,
    /// As window state only: the first epoch after the handover writes the whole result over the old one.
    State,
    /// The rows are sent a second time.
    Again,
}

/// One lane of a backfill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLane {
    /// What its query is.
    pub query: String,
    /// The source table.
    pub source: String,
    /// How its result is made.
    pub way: Way,
}

/// What a backfill does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its lineage, later than those of the lanes.
    pub lineage: String,
    /// What was asked for.
    pub asked: Asked,
    /// The lanes by name.
    pub lanes: BTreeMap<String, PlannedLane>,
    /// The offsets of each source table: where reading begins, and where it ends, or would end now.
    pub sources: BTreeMap<String, (Positions, Positions)>,
}

/// A plan, and what else is known of it.
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Whether it was begun before.
    pub is_begun: bool,
    /// The lanes that it leaves out, each with why.
    pub left_out: Vec<(String, String)>,
    /// The folders of new results, by lane.
    pub folders: BTreeMap<String, PathBuf>,
}

/// Where the records are: those of the lanes that are taken over, and the backfill's own.
#[derive(Clone)]
pub(super) struct Stores {
    pub(super) live: Arc<dyn CheckpointStore>,
    pub(super) lineage: String,
    pub(super) own: Arc<dyn CheckpointStore>,
}

/// Where the backfill's own checkpoint is.
fn place(project: &Project) -> Place {
    Place(format!("{}/{FOLDER}", project.settings().checkpoint.0.trim_end_matches('/')))
}

/// The folder of the backfill's own checkpoint, if it is in one.
pub fn folder(project: &Project) -> Option<PathBuf> {
    let place = place(project);
    (!place.is_in_bucket()).then(|| PathBuf::from(place.0))
}

/// Deletes the checkpoint of a backfill that is over. The plan goes first: without it nothing is under way.
pub async fn put_away(project: &Project) -> Result<()> {
    let own = checkpoint_at(&place(project))?;
    own.remove(vec![PLAN.to_string()]).await?;
    clear(own.as_ref()).await
}

/// Deletes all but the plan, the lineage last.
async fn clear(own: &dyn CheckpointStore) -> Result<()> {
    for folder in own.list("").await?.into_iter().filter(|name| name != PLAN && name != LINEAGE) {
        own.remove(own.list(&folder).await?.into_iter().map(|name| format!("{folder}/{name}")).collect()).await?;
    }
    own.remove(vec![LINEAGE.to_string()]).await
}

/// The outbox of a backfill: the lanes clear away what is not theirs in their own.
pub(super) fn outbox(project: &Project) -> Result<Outbox> {
    Outbox::new(project.settings(), Some(OUTBOX))
}

impl Stores {
    pub(super) async fn open(project: &Project) -> Result<Self> {
        let live = checkpoint_at(&project.settings().checkpoint)?;
        let lineage = LaneLog::lineage(live.as_ref()).await?;
        Ok(Self { live, lineage, own: checkpoint_at(&place(project))? })
    }

    /// The same without writing anything: where there is no checkpoint its lineage is empty.
    async fn look(project: &Project) -> Result<Self> {
        let live = checkpoint_at(&project.settings().checkpoint)?;
        let lineage = read::lineage(live.as_ref()).await?.map(|there| there.lineage).unwrap_or_default();
        Ok(Self { live, lineage, own: checkpoint_at(&place(project))? })
    }

    /// Deletes what a backfill has left whose end was cut off when its plan was gone already.
    pub(super) async fn clear_away_older(&self, plan: &Plan) -> Result<()> {
        match read::lineage(self.own.as_ref()).await? {
            Some(there) if there.lineage != plan.lineage => clear(self.own.as_ref()).await,
            _ => Ok(()),
        }
    }

    /// The plan that was begun and has not ended.
    pub(super) async fn begun(&self) -> Result<Option<Plan>> {
        let Some(bytes) = self.own.read(PLAN).await? else { return Ok(None) };
        let torn = |cause| {
            Error::new(Kind::Corrupt, format!("{FOLDER}/{PLAN} is torn; give the backfill up by --cancel")).because(cause)
        };
        serde_json::from_slice(&bytes).map(Some).map_err(torn)
    }

    pub(super) async fn begin(&self, plan: &Plan) -> Result<()> {
        let bytes =
            serde_json::to_vec_pretty(plan).map_err(|cause| Error::new(Kind::Bug, "a plan is no JSON").because(cause))?;
        if !self.own.create(PLAN, bytes).await? {
            return Err(Error::new(Kind::Fenced, "another process has begun a backfill at this moment; this one stops"));
        }
        Ok(())
    }
}

/// Decides what a backfill of `asked` does, or finds it decided. Asks Kafka; writes nothing.
pub async fn plan(project: &Project, asked: Asked) -> Result<Planned> {
    let stores = Stores::look(project).await?;
    let mut lanes = check(project, Secrets::Needed).await?;
    if let Some(name) = &asked.lane
        && !lanes.iter().any(|lane| lane.name == *name)
    {
        let names: Vec<&str> = lanes.iter().map(|lane| lane.name.as_str()).collect();
        return Err(Error::new(Kind::Usage, format!("there is no lane '{name}'; there are {}", names.join(", "))));
    }
    let (mut planned, mut left_out) = (BTreeMap::new(), Vec::new());
    for lane in lanes.iter().filter(|lane| asked.lane.as_ref().is_none_or(|name| *name == lane.name)) {
        match way(lane, &asked)? {
            Ok(way) => {
                let lane_of = PlannedLane { query: lane.query.clone(), source: lane.source.name.clone(), way };
                planned.insert(lane.name.clone(), lane_of);
            }
            Err(why) if asked.lane.is_some() => return Err(Error::new(Kind::Usage, format!("lane '{}' {why}", lane.name))),
            Err(why) => left_out.push((lane.name.clone(), why)),
        }
    }
    if planned.is_empty() {
        let all: Vec<String> = left_out.iter().map(|(lane, why)| format!("lane '{lane}' {why}")).collect();
        return Err(Error::new(Kind::Usage, format!("no lane can be read again: {}", all.join("; "))));
    }
    lanes.retain(|lane| planned.contains_key(&lane.name));
    let (plan, is_begun) = match stores.begun().await? {
        Some(plan) => (begun(plan, &asked, &planned)?, true),
        None => (decide(&stores, asked, planned, &lanes).await?, false),
    };
    let mut folders = BTreeMap::new();
    for lane in &lanes {
        if let Some(options) = files_of(lane)? {
            let writer = writer(&plan, &lane.name, 0);
            folders.insert(lane.name.clone(), FilesSink::shadow_of(&options, &writer)?);
        }
    }
    Ok(Planned { plan, is_begun, left_out, folders })
}

/// One that was begun goes on if it is the same.
fn begun(plan: Plan, asked: &Asked, lanes: &BTreeMap<String, PlannedLane>) -> Result<Plan> {
    let other = |what: &str| {
        let text = format!(
            "a backfill is under way {what}: go on with it as it was begun, or give it up by 'falaj backfill --cancel'"
        );
        Err(Error::new(Kind::Usage, text))
    };
    if plan.asked != *asked {
        return other("with other arguments");
    }
    if plan.lanes != *lanes {
        return other("with other SQL");
    }
    Ok(plan)
}

async fn decide(stores: &Stores, asked: Asked, planned: BTreeMap<String, PlannedLane>, lanes: &[LanePlan]) -> Result<Plan> {
    let mut newest = stores.lineage.clone();
    for lane in lanes {
        newest = newest.max(stands(stores.live.as_ref(), &stores.lineage, &lane.name).await?.2);
    }
    let mut sources = BTreeMap::new();
    for lane in lanes {
        if sources.contains_key(&lane.source.name) {
            continue;
        }
        let options = KafkaOptions::from_table(&Secrets::Needed.resolve(&lane.source)?)?;
        let source = KafkaSource::new(options);
        let (from, to) = (asked.from.clone(), asked.to.clone());
        let asking = spawn_blocking(move || {
            let (oldest, ends) = (source.start(Start::Earliest)?, source.log_ends()?);
            let from = resolve(&source, &from, &oldest)?;
            Ok((oldest, from, resolve(&source, &to, &ends)?))
        });
        let asked_it =
            asking.await.unwrap_or_else(|cause| Err(Error::new(Kind::Bug, "asking Kafka was broken off").because(cause)));
        let (oldest, from, to) = asked_it?;
        // What is gone would be gone from the result, too; a board is about the newest records only.
        let in_folders = lanes.iter().any(|of| of.source.name == lane.source.name && planned[&of.name].way != Way::State);
        if let Some((partition, offset)) = oldest.iter().find(|(_, offset)| *offset > 0)
            && asked.hands_over()
            && in_folders
            && !asked.drop_older
        {
            let text = format!(
                "topic '{}' no longer has what came before offset {offset} of partition {partition}, so the new result would lack it; \
                 --drop-older lets it, and with --from TIME or OFFSETS the new result stays beside the old one",
                lane.source.location
            );
            return Err(Error::new(Kind::Lost, text));
        }
        sources.insert(lane.source.name.clone(), (from, to));
    }
    Ok(Plan { lineage: lineage_after(&newest)?, asked, lanes: planned, sources })
}

fn resolve(source: &KafkaSource, bound: &Bound, outermost: &Positions) -> Result<Positions> {
    match bound {
        Bound::Outermost => Ok(outermost.clone()),
        Bound::Time(time_ms) => source.start(Start::At(*time_ms)),
        Bound::Offsets(offsets) => {
            if let Some((partition, _)) = offsets.iter().find(|(partition, _)| outermost.get(*partition).is_none()) {
                let text = format!("topic '{}' has no partition {partition}", source.topic());
                return Err(Error::new(Kind::Usage, text));
            }
            Ok(outermost.iter().map(|(partition, at)| (partition, offsets.get(partition).unwrap_or(at))).collect())
        }
    }
}

/// How the lane's result can be made anew, or why it cannot: what is true of the lane.
fn way(lane: &LanePlan, asked: &Asked) -> Result<std::result::Result<Way, String>> {
    let sink = Secrets::Needed.resolve(&lane.sink)?;
    let kind = SinkKind::of(&sink)?;
    let emit = emit_of(&sink, &kind)?;
    if lane.source.stored_as != "KAFKA" {
        return Ok(Err("reads the changes of a Postgres table, and a WAL cannot be read again".to_string()));
    }
    let is_row_by_row = matches!(lane.work, Work::Rows(_));
    Ok(match kind {
        SinkKind::Files(files) if files.is_in_bucket() => {
            Err("writes to a bucket, where no result takes another's place in one step; with a new checkpoint and \
                 another LOCATION all of it is written there".to_string())
        }
        SinkKind::Files(_) => Ok(Way::Folder),
        SinkKind::Redis(_) if is_row_by_row || emit == Emit::Final => {
            Err("writes rows to Redis that stay, and has no second place for them; delete the checkpoint to write all of them again".to_string())
        }
        SinkKind::Redis(_) if !asked.hands_over() => {
            Err("has a board, which is about the newest records: read it from earliest to latest".to_string())
        }
        SinkKind::Redis(_) => Ok(Way::State),
        SinkKind::Http(_) | SinkKind::Kafka(_) if asked.send_again => Ok(Way::Again),
        SinkKind::Http(_) => Err("would send every row a second time, with the same _id; --send-again lets it".to_string()),
        SinkKind::Kafka(_) => Err("would append every row to its topic a second time; --send-again lets it".to_string()),
        SinkKind::Print => Err("only prints".to_string()),
    })
}

/// The options of a lane that writes files.
pub(super) fn files_of(lane: &LanePlan) -> Result<Option<FilesOptions>> {
    let sink: TableDef = Secrets::Needed.resolve(&lane.sink)?;
    Ok(match SinkKind::of(&sink)? {
        SinkKind::Files(options) => Some(options),
        _ => None,
    })
}

/// Who writes a lane's new result.
pub(super) fn writer(plan: &Plan, lane: &str, incarnation: u64) -> Writer {
    Writer { lineage: plan.lineage.clone(), lane: lane.to_string(), incarnation }
}
