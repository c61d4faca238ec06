//! The composition root: it alone, with [`sinks`], names concrete adapters. A [`Project`] goes in, running lanes come out.

pub mod backfill;
pub mod columns;
mod dead;
mod opened;
mod sinks;
mod sources;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, new_null_array};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::checkpoint::CheckpointStore;
use crate::checkpoint::lane_log::LaneLog;
use crate::checkpoint::local::LocalStore;
use crate::checkpoint::s3::S3Store;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::lane::keep::{self, KeepParts};
use crate::lookup::LookupStore;
use crate::lookup::index::LookupTable;
use crate::lookup::memory::MemoryLookup;
use crate::lookup::options::LookupOptions;
use crate::lookup::postgres::PostgresLookup;
use crate::lookup::refresh::keep_fresh;
use crate::memory::{Memory, Share, Use};
use crate::query::plan::{LanePlan, plan_lane};
use crate::query::project::Project;
use crate::query::tables::Role;
use crate::s3::{Bucket, Location};
use crate::secrets::Secrets;
use crate::settings::Place;
use crate::sink::kafka::written_otherwise;
use crate::sink::memory::{Boards, MemoryTables};
use crate::source::memory::MemorySource;
use crate::source::postgres::{PostgresOptions, SlotTables};
use crate::status::Status;
use crate::table::TableDef;

pub use self::dead::kept_letters;

use self::opened::Captured;
use self::sinks::{SinkKind, check_table, placeholder};
use self::sources::OpenSource;

/// What stands for the outside systems.
#[derive(Clone)]
pub enum World {
    /// The systems that the tables name.
    Real,
    /// Stand-ins within the process: no service is needed (`falaj demo`).
    Inside(Inside),
}

/// The stand-ins of [`World::Inside`].
#[derive(Clone)]
pub struct Inside {
    /// Stands for every Kafka topic.
    pub source: MemorySource,
    /// Stands for every Postgres table: columns of the same name and type have these values, others are NULL.
    pub contents: RecordBatch,
    /// Stands for every HTTP endpoint.
    pub endpoint: String,
    /// Stands for the checkpoint.
    pub store: Arc<dyn CheckpointStore>,
    /// Stands for every folder that is written to.
    pub folder: PathBuf,
    /// Where every sink's outputs are kept instead of being written (tests).
    pub kept: Option<MemoryTables>,
}

/// Where [`World::Inside`] writes a table of files: in a folder of the table's name below `folder`.
pub fn inside_folder(folder: &Path, table: &TableDef) -> PathBuf {
    folder.join(table.name.replace(|c: char| !c.is_alphanumeric() && c != '_' && c != '-', "_"))
}

/// The queue of a client that reads may take one part in so many of the memory, and what one epoch takes at once likewise: what
/// comes out of it stands beside it for a moment.
const QUEUE_PARTS: usize = 16;
const EPOCH_PARTS: usize = 32;

/// How often it is looked whether a lane has ended for which another one waits.
const WRITTEN_TICK: Duration = Duration::from_millis(10);

/// Everything around the lanes.
#[derive(Clone)]
pub struct Run {
    /// What stands for the outside systems.
    pub world: World,
    /// The figures.
    pub status: Status,
    /// What the process may hold.
    pub memory: Memory,
    /// The newest boards.
    pub boards: Boards,
    /// The time.
    pub clock: Clock,
    /// Whether to stop at the log ends as of the start.
    pub until_latest: bool,
    /// Becomes true when the process is to stop.
    pub stop: watch::Receiver<bool>,
    /// Is told when the SQL must be read again, since a backfill has handed over a result of other SQL: then the run is to be stopped,
    /// and another one begun.
    pub reload: watch::Sender<bool>,
}

/// The checkpoint in a folder, which is made when something is first written, or in a bucket. Touches nothing.
pub fn checkpoint_at(place: &Place) -> Result<Arc<dyn CheckpointStore>> {
    if place.is_in_bucket() { Ok(Arc::new(S3Store::new(bucket(place)?))) } else { Ok(Arc::new(LocalStore::new(&place.0))) }
}

fn bucket(place: &Place) -> Result<Bucket> {
    let wrong = |text| Error::new(Kind::Sql, format!("falaj.checkpoint: {text}"));
    Location::parse(&place.0, &[]).and_then(|place| place.open(None)).map_err(wrong)
}

/// Checks every table and plans every lane, without a network. What is not set is an error where `secrets` are needed.
pub async fn check(project: &Project, secrets: Secrets) -> Result<Vec<LanePlan>> {
    for table in project.tables().values() {
        check_table(&placeholder(secrets.resolve(table)?))?;
    }
    let lookups = project.empty_lookups()?;
    let mut plans = Vec::new();
    let mut written: HashMap<String, String> = HashMap::new();
    for lane in project.lanes() {
        let plan = plan_lane(project, lane, &lookups, Share::unlimited()).await?;
        // A table that is read may be written, too: then it must be right as a sink.
        SinkKind::of(&placeholder(secrets.resolve(&plan.sink)?))?;
        if let Some(why) = written_otherwise(&plan.sink) {
            return Err(Error::new(Kind::Sql, why).at(lane.place()));
        }
        if let Some(other) = written.insert(plan.sink.name.clone(), plan.name.clone()) {
            let text = format!(
                "the lanes '{other}' and '{}' both write '{}': give one of them a table of its own",
                plan.name, plan.sink.name
            );
            return Err(Error::new(Kind::Sql, text).at(lane.place()));
        }
        plans.push(plan);
    }
    refuse_circles(project, &plans, secrets)?;
    if plans.is_empty() {
        return Err(Error::new(Kind::Sql, "there is no lane: a file with INSERT INTO sink SELECT … is one"));
    }
    Ok(plans)
}

/// A lane whose output comes back to it, at once or by way of others, would never end.
fn refuse_circles(project: &Project, plans: &[LanePlan], secrets: Secrets) -> Result<()> {
    let topic = |table: &TableDef| -> Result<_> {
        let table = secrets.resolve(table)?;
        let is_topic = table.stored_as == "KAFKA";
        Ok(is_topic.then(|| (table.location.clone(), table.options.get("brokers").cloned())))
    };
    let mut ways = Vec::new();
    for plan in plans {
        ways.push((topic(&plan.source)?, topic(&plan.sink)?));
    }
    for ((plan, lane), (source, sink)) in plans.iter().zip(project.lanes()).zip(&ways) {
        let mut reached = BTreeSet::from([sink]);
        // Each round but the last finds one more lane at least.
        for _ in &ways {
            reached.extend(
                ways.iter().filter(|(from, _)| from.is_some() && reached.contains(from)).map(|(_, to)| to).collect::<Vec<_>>(),
            );
        }
        if source.is_some() && reached.contains(source) {
            let text = format!(
                "the lane '{}' would read what it writes itself, without end: it reads topic '{}', where its rows arrive; write another topic",
                plan.name, plan.source.location
            );
            return Err(Error::new(Kind::Sql, text).at(lane.place()));
        }
    }
    Ok(())
}

/// Runs all lanes until they are done, stopped, or one of them fails. A lane that fails does not stop the others; the first
/// error is returned when all have ended. Call [`check`] before: what it refuses is not looked at again.
pub async fn run(project: &Project, run: Run) -> Result<()> {
    let secrets = if matches!(run.world, World::Real) { Secrets::Needed } else { Secrets::Optional };
    run.status.set_memory(run.memory.clone());
    let mut background = JoinSet::new();
    let lookups = lookups(project, &run, secrets, &mut background)?;
    let mut plans = Vec::new();
    for lane in project.lanes() {
        plans.push(plan_lane(project, lane, &lookups, run.memory.lane(&lane.name)).await?);
    }
    if matches!(run.world, World::Inside(_)) {
        // Events enter at the topic there: no table of a Postgres changes.
        plans.retain(|plan| plan.source.stored_as != "POSTGRES");
    }
    let store: Arc<dyn CheckpointStore> = match &run.world {
        World::Real => checkpoint_at(&project.settings().checkpoint)?,
        World::Inside(inside) => Arc::clone(&inside.store),
    };
    let lineage = LaneLog::lineage(store.as_ref()).await?;
    let mut lanes = JoinSet::new();
    let captured = capture(project, &run, secrets, &plans)?;
    let (over, is_over) = watch::channel(false);
    let mut keepers = JoinSet::new();
    for keeper in captured.keepers() {
        keepers.spawn(keep::run(KeepParts {
            keeper,
            store: Arc::clone(&store),
            lineage: lineage.clone(),
            clock: run.clock.clone(),
            records_kept: project.settings().records_kept,
            over: is_over.clone(),
        }));
    }
    // Those that lanes write come after those that the lanes read: with `until_latest` their log ends are asked for when the
    // lanes have written everything.
    let mut sources: Vec<_> = project.tables_of(Role::Source).collect();
    sources.sort_by_key(|table| steps_from_outside(table, &plans, plans.len()));
    for table in sources {
        let of_source: Vec<LanePlan> = plans.iter().filter(|plan| plan.source.name == table.name).cloned().collect();
        if !of_source.is_empty() {
            if run.until_latest {
                written(table, &plans, &run).await;
            }
            let opened = match OpenSource::open(project, &run, secrets.resolve(table)?, &of_source, &captured).await {
                // Asked to stop while it waited for the log ends.
                Err(error) if error.kind() == Kind::Unreachable && *run.stop.borrow() => return Ok(()),
                opened => opened?,
            };
            opened.start(project, &run, of_source, &store, &lineage, &mut lanes)?;
        }
    }
    let mut first_error = all_ended(&mut lanes, &mut background, &mut keepers).await.err();
    // What the lanes were done with last is kept and acknowledged, too.
    over.send_replace(true);
    while let Some(ended) = keepers.join_next().await {
        if let Ok(Err(error)) = ended {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Waits until every lane has ended, or something fails that all of them need. Gives what they gave, or the first error.
async fn all_ended<T: 'static>(
    lanes: &mut JoinSet<Result<T>>,
    background: &mut JoinSet<Result<()>>,
    keepers: &mut JoinSet<Result<()>>,
) -> Result<Vec<T>> {
    let (mut done, mut first_error) = (Vec::new(), None);
    loop {
        let failed = tokio::select! {
            ended = lanes.join_next() => match ended {
                None => break,
                Some(Ok(ended)) => ended.map(|gave| done.push(gave)),
                Some(Err(cause)) => Err(Error::new(Kind::Bug, "a lane was broken off").because(cause)),
            },
            Some(Ok(Err(error))) = background.join_next() => return Err(first_error.unwrap_or(error)),
            Some(Ok(Err(error))) = keepers.join_next() => {
                tracing::error!("{}", error.chain());
                return Err(first_error.unwrap_or(error));
            }
        };
        if let Err(error) = failed {
            tracing::error!("{}", error.chain());
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(done), Err)
}

/// How many lanes lie between the outside and the table, at most. There is no circle, so `left` is never used up.
fn steps_from_outside(table: &TableDef, plans: &[LanePlan], left: usize) -> usize {
    let steps = |plan: &LanePlan| match left {
        0 => 0,
        _ => 1 + steps_from_outside(&plan.source, plans, left - 1),
    };
    writers(table, plans).map(steps).max().unwrap_or(0)
}

/// The lanes whose rows arrive in `table`.
fn writers<'p>(table: &'p TableDef, plans: &'p [LanePlan]) -> impl Iterator<Item = &'p LanePlan> {
    plans.iter().filter(|plan| plan.sink.stored_as == table.stored_as && plan.sink.location == table.location)
}

/// Waits until every lane that writes `table` has ended.
async fn written(table: &TableDef, plans: &[LanePlan], run: &Run) {
    for plan in writers(table, plans) {
        let status = run.status.lane(&plan.name);
        while !status.is_over() && !*run.stop.borrow() {
            tokio::time::sleep(WRITTEN_TICK).await;
        }
    }
}

/// The captures of the changes that `plans` read.
fn capture(project: &Project, run: &Run, secrets: Secrets, plans: &[LanePlan]) -> Result<Captured> {
    if matches!(run.world, World::Inside(_)) {
        return Ok(Captured::default());
    }
    let mut tables = Vec::new();
    for table in project.tables_of(Role::Source).filter(|table| table.stored_as == "POSTGRES") {
        let of_table = plans.iter().filter(|plan| plan.source.name == table.name);
        let mut lanes: Vec<String> = of_table.map(|plan| plan.name.clone()).collect();
        if !lanes.is_empty() {
            lanes.push(format!("{}.dlq", table.name));
            tables.push((secrets.resolve(table)?, lanes));
        }
    }
    Captured::new(tables, project.settings(), run)
}

/// The replication slots that the project's tables name.
pub fn slots(project: &Project) -> Result<Vec<SlotTables>> {
    let mut tables = Vec::new();
    for table in project.tables_of(Role::Source).filter(|table| table.stored_as == "POSTGRES") {
        tables.push(PostgresOptions::from_table(&Secrets::Needed.resolve(table)?)?);
    }
    Ok(SlotTables::of(tables))
}

type Lookups = HashMap<String, Arc<LookupTable>>;

fn lookups(project: &Project, run: &Run, secrets: Secrets, background: &mut JoinSet<Result<()>>) -> Result<Lookups> {
    let mut lookups = HashMap::new();
    for table in project.tables_of(Role::Lookup) {
        let def = secrets.resolve(table)?;
        let memory = run.memory.share("lookup", &def.name);
        let lookup = LookupTable::new(&def, run.clock.clone(), run.status.lookup(&def.name))?;
        lookup.set_account(memory.account(Use::Rows));
        let store: Arc<dyn LookupStore> = match &run.world {
            World::Real => Arc::new(PostgresLookup::new(&def)?.with_memory(memory)),
            World::Inside(inside) => Arc::new(memory_lookup(&def, &inside.contents)?),
        };
        lookup.set_store(Arc::clone(&store));
        background.spawn(keep_fresh(Arc::clone(&lookup), store));
        lookups.insert(def.name.clone(), lookup);
    }
    Ok(lookups)
}

fn memory_lookup(def: &TableDef, contents: &RecordBatch) -> Result<MemoryLookup> {
    let rows = contents.num_rows();
    let columns = def.schema.fields().iter().map(|field| match contents.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
        _ => new_null_array(field.data_type(), rows),
    });
    let options = LookupOptions::from_table(def)?;
    Ok(MemoryLookup::new(RecordBatch::try_new(Arc::clone(&def.schema), columns.collect())?, options.key))
}
