//! Tables into sources: which kind a table is, its log, and the lanes that read it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Schema, SchemaRef};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::opened::{Captured, Opened};
use super::sinks::{Outbox, SinkKind, emit_of, kept, make_sink, placeholder};
use super::{EPOCH_PARTS, Run, World, inside_folder};
use crate::checkpoint::CheckpointStore;
use crate::dead::DeadLetters;
use crate::dead::folder::{FolderDeadLetters, Originals};
use crate::dead::kafka::KafkaDeadLetters;
use crate::error::{Error, Kind, Result};
use crate::lane::letters::{self, LettersParts};
use crate::lane::{Bounds, LaneParts, WatermarkRules, driver};
use crate::memory::Share;
use crate::position::Positions;
use crate::query::plan::LanePlan;
use crate::query::project::Project;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::source::Source;
use crate::source::log::{Log, LogLimits};
use crate::source::order::Order;
use crate::table::TableDef;

/// A source with its log, shared by its lanes.
pub(super) struct OpenSource {
    def: TableDef,
    opened: Opened,
    log: Arc<Log>,
    until: Option<Positions>,
    memory: Share,
}

impl OpenSource {
    pub(super) async fn open(
        project: &Project,
        run: &Run,
        def: TableDef,
        plans: &[LanePlan],
        captured: &Captured,
    ) -> Result<Self> {
        let opened = Opened::new(run, &def, used_of(&def, plans, None), captured, 1)?;
        let until = if run.until_latest { Some(log_ends(&opened.source, run).await?) } else { None };
        Ok(Self::over(project, run, def, opened, plans.len() + 1, until))
    }

    /// The same for a backfill: from `from` on and in the order of event time, up to `to` if there is one.
    pub(super) fn open_in_order(
        project: &Project,
        run: &Run,
        def: TableDef,
        plans: &[LanePlan],
        from: Positions,
        to: Option<Positions>,
    ) -> Result<(Self, Order)> {
        let column = def.options.get("watermark.column").cloned();
        let schema = used_of(&def, plans, column.as_ref());
        let mut opened = Opened::new(run, &def, schema, &Captured::default(), from.len())?;
        let order = Order::new(Arc::clone(&opened.source), from, to);
        opened.make_decoder = order.decoder(opened.make_decoder, column);
        opened.source = Arc::new(order.clone());
        Ok((Self::over(project, run, def, opened, plans.len(), None), order))
    }

    fn over(project: &Project, run: &Run, def: TableDef, opened: Opened, lanes: usize, until: Option<Positions>) -> Self {
        let memory = run.memory.share("log of", &def.name);
        // One thread reads, the others decode and run the lanes.
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let limits = LogLimits {
            bytes_max: opened.log_bytes_max.min(project.settings().log_bytes_max),
            lanes,
            threads,
            memory: memory.clone(),
            reader_bytes: opened.reader_bytes,
        };
        let log = Log::open(Arc::clone(&opened.source), Arc::clone(&opened.make_decoder), limits);
        Self { def, opened, log, until, memory }
    }

    pub(super) fn start(
        self,
        project: &Project,
        run: &Run,
        plans: Vec<LanePlan>,
        store: &Arc<dyn CheckpointStore>,
        lineage: &str,
        lanes: &mut JoinSet<Result<()>>,
    ) -> Result<()> {
        let settings = project.settings();
        let outbox = Outbox::new(settings, None)?;
        for plan in plans {
            lanes.spawn(driver::run(self.lane(project, run, plan, store, lineage, &outbox)?));
        }
        let name = format!("{}.dlq", self.def.name);
        let parts = LettersParts {
            source: Arc::clone(&self.opened.source),
            source_kind: self.def.stored_as.clone(),
            log: Arc::clone(&self.log),
            start: self.opened.start,
            make_dead: self.make_dead(run, settings, &self.def.place),
            store: Arc::clone(store),
            lineage: lineage.to_string(),
            clock: run.clock.clone(),
            status: run.status.lane(&name),
            until: self.until.clone(),
            stop: run.stop.clone(),
            records_kept: settings.records_kept,
            memory: self.memory.clone(),
            commit_interval: self.opened.letters_interval,
            name,
        };
        lanes.spawn(letters::run(parts));
        Ok(())
    }

    /// What the lane of `plan` is made of, with its records in `store` and HTTP bodies in `outbox`.
    pub(super) fn lane(
        &self,
        project: &Project,
        run: &Run,
        plan: LanePlan,
        store: &Arc<dyn CheckpointStore>,
        lineage: &str,
        outbox: &Outbox,
    ) -> Result<LaneParts> {
        let settings = project.settings();
        let ns = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let sink = self.sink_of(run, &plan)?;
        let place = project.lanes().iter().find(|lane| lane.name == plan.name).map_or("", |lane| lane.place());
        let kind = SinkKind::of(&sink)?;
        let emit = emit_of(&sink, &kind)?;
        let roll = match &kind {
            SinkKind::Files(files) if kept(run).is_none() => Some((files.roll_size_bytes, files.roll_interval)),
            _ => None,
        };
        Ok(LaneParts {
            emit,
            bounds: Bounds {
                take_bytes_max: run.memory.at_most(settings.epoch_bytes_max, EPOCH_PARTS),
                linger: Duration::from_millis(settings.linger_ms) / self.opened.linger_parts,
                roll,
                snapshot_records: settings.snapshot_records as u64,
                records_kept: settings.records_kept,
            },
            watermark: WatermarkRules {
                delay_ns: ns(self.opened.watermark.delay),
                idle_ns: self.opened.watermark.idle_timeout.map(ns),
                ahead_ns: ns(self.opened.watermark.max_ahead),
            },
            source: Arc::clone(&self.opened.source),
            log: Arc::clone(&self.log),
            start: self.opened.start,
            make_sink: make_sink(kind, &sink, outbox, run, plan.memory.clone()),
            make_dead: self.make_dead(run, settings, place),
            store: Arc::clone(store),
            lineage: lineage.to_string(),
            clock: run.clock.clone(),
            status: run.status.lane(&plan.name),
            until: watch::channel(self.until.clone()).1,
            caught_up: None,
            stop: run.stop.clone(),
            reload: run.reload.clone(),
            plan,
        })
    }

    fn sink_of(&self, run: &Run, plan: &LanePlan) -> Result<TableDef> {
        match &run.world {
            World::Real => Secrets::Needed.resolve(&plan.sink),
            World::Inside(inside) => {
                let mut sink = placeholder(Secrets::Optional.resolve(&plan.sink)?);
                match sink.stored_as.as_str() {
                    "HTTP" => sink.location = inside.endpoint.clone(),
                    "PARQUET" | "JSON" => sink.location = inside_folder(&inside.folder, &sink).display().to_string(),
                    _ => {}
                }
                Ok(sink)
            }
        }
    }

    /// Where the letters of SQL at `place` (`file:line:column`) go.
    fn make_dead(&self, run: &Run, settings: &Settings, place: &str) -> crate::lane::Make<Box<dyn DeadLetters>> {
        let file = place.rsplitn(3, ':').nth(2).unwrap_or(place).to_string();
        let topic = self.opened.source.topic().to_string();
        match (&run.world, self.opened.kafka.clone()) {
            (World::Real, Some(options)) => Arc::new(move || {
                let letters = KafkaDeadLetters::new(options.brokers.clone(), options.kafka.clone(), topic.clone());
                Ok(Box::new(letters.of_file(file.clone())))
            }),
            (World::Real, None) => {
                let folder = settings.dead_letters.clone();
                // Its message has the values that are at fault.
                let originals: Originals = Arc::new(|_, _| None);
                Arc::new(move || Ok(Box::new(FolderDeadLetters::new(folder.clone(), topic.clone(), Arc::clone(&originals)))))
            }
            (World::Inside(inside), _) => {
                let (source, folder) = (inside.source.clone(), inside.folder.join("dead_letters"));
                Arc::new(move || {
                    let source = source.clone();
                    let originals = Arc::new(move |partition, offset| source.payload(partition, offset));
                    Ok(Box::new(FolderDeadLetters::new(folder.clone(), topic.clone(), originals)))
                })
            }
        }
    }
}

/// Only the columns that some lane uses are decoded, in the table's order, and `more`.
fn used_of(def: &TableDef, plans: &[LanePlan], more: Option<&String>) -> SchemaRef {
    let used: BTreeSet<&String> = plans.iter().flat_map(|plan| &plan.columns).chain(more).collect();
    let fields: Vec<_> = def.schema.fields().iter().filter(|field| used.contains(field.name())).cloned().collect();
    Arc::new(Schema::new(fields))
}

/// The log ends as of now; a source that is not there yet is waited for.
async fn log_ends(source: &Arc<dyn Source>, run: &Run) -> Result<Positions> {
    let mut stop = run.stop.clone();
    let mut since: Option<Instant> = None;
    loop {
        let asked = Arc::clone(source);
        let ends = tokio::task::spawn_blocking(move || asked.log_ends()).await;
        match ends.unwrap_or_else(|cause| Err(Error::new(Kind::Bug, "asking the source was broken off").because(cause))) {
            Err(error) if error.kind() == Kind::Unreachable && !*stop.borrow() => {
                if since.is_none() {
                    since = Some(Instant::now());
                    tracing::warn!("waiting: {}", error.chain());
                }
                let stopped = async { stop.wait_for(|stop| *stop).await.is_ok() };
                let _ = tokio::time::timeout(Duration::from_millis(500), stopped).await;
            }
            ends => {
                if let (Ok(_), Some(since)) = (&ends, since) {
                    tracing::info!("topic '{}' answers, after {:.1} s", source.topic(), since.elapsed().as_secs_f64());
                }
                return ends;
            }
        }
    }
}
