//! `falaj demo`: the lanes of a folder of SQL files over events made in this process, with a stand-in for every outside system:
//! memory for Kafka, Postgres and Redis, an HTTP receiver on loopback. Only the files are real, in a folder of their own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::watch;

use super::board::Screen;
use super::generate::{Contents, Events, EventsSpec, Poison};
use super::receive::{Faults, Receiver};
use super::{machine, project_dir, run};
use crate::app::{self, Inside, Run, World};
use crate::checkpoint::memory::MemoryStore;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::query::project::Project;
use crate::query::tables::Role;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::sink::memory::Boards;
use crate::source::memory::MemorySource;
use crate::status::Status;
use crate::table::parse_duration;

/// What the demo writes stands here, and is emptied by the next one.
const FOLDER: &str = "data/demo";
const CONTENTS: usize = 10_000;
const SEED: u64 = 42;
const PARTITIONS: u64 = 4;
/// Events may have happened so long ago when they come.
const JITTER_MS: i64 = 2000;
/// One record in a thousand is malformed, so that dead letters are to be seen.
const POISON_PERCENT: f64 = 0.1;
/// The source keeps so many seconds of events for lanes that are behind: 400 000 records, some 120 MB, at the greatest rate.
const RETENTION_SECONDS: u64 = 20;
const RATE_MAX: u64 = 20_000;
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How long lanes may take at the end to read what was made.
const DRAIN_MAX: Duration = Duration::from_secs(3);
const DRAINED_FOR: Duration = Duration::from_millis(500);

/// What `falaj demo` takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The folder of SQL files
    #[arg(default_value = "queries")]
    pub folder: PathBuf,
    /// End by itself after so long, for instance 30s
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub time: Option<Duration>,
    /// Events per second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub rate: u64,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "it must be a duration such as '30s' or '5m'".to_owned())
}

/// Runs until `stop` is true, q is pressed, or `--for` has passed; then prints what came of it.
pub async fn run(args: DemoArgs, mut stop: watch::Receiver<bool>) -> Result<()> {
    let project = project_dir::read(&args.folder).await?;
    app::check(&project, Secrets::Optional).await?;
    let folder = Path::new(FOLDER);
    empty(folder)?;

    let topic =
        project.tables_of(Role::Source).find(|table| table.stored_as == "KAFKA").map_or("events", |table| &table.location);
    let retained = (args.rate * RETENTION_SECONDS / PARTITIONS) as usize;
    let source = MemorySource::new(topic, PARTITIONS as usize, retained);
    let receiver = Receiver::start(([127, 0, 0, 1], 0).into(), Faults::default()).await?;
    let (status, boards) = (Status::default(), Boards::default());
    let (end, ended) = watch::channel(false);
    let page = pages(&project, &status, &boards, ended.clone()).await?;
    let inside = Inside {
        source: source.clone(),
        contents: Contents::new(CONTENTS, SEED).to_batch()?,
        endpoint: format!("http://{}/engagements", receiver.addr()),
        store: Arc::new(MemoryStore::default()),
        folder: folder.to_path_buf(),
        kept: None,
    };
    let run = Run {
        world: World::Inside(inside),
        status: status.clone(),
        memory: machine::memory(project.settings()),
        boards: boards.clone(),
        clock: Clock::system(),
        until_latest: false,
        stop: ended,
        reload: watch::Sender::new(false),
    };
    let made = Made::start(source, args.rate)?;
    let lanes = tokio::spawn({
        let project = project.clone();
        async move { app::run(&project, run).await }
    });

    let began = Instant::now();
    let mut screen = Screen::start("falaj demo")?;
    let (mut draining, mut behind) = (None::<Instant>, began);
    while !lanes.is_finished() {
        let (left, footer) = left(&args, began, &page);
        screen.draw(&status.snapshot(), &boards.all(), &footer)?;
        let over = left.is_some_and(|left| left.is_zero()) || screen.quit_requested() || *stop.borrow();
        if over && draining.is_none() {
            made.stop();
            draining = Some(Instant::now());
        }
        if status.snapshot().lanes.iter().any(|lane| lane.lag > 0) || draining.is_none() {
            behind = Instant::now();
        }
        // A lane says how far it is when it takes more, so one look is not enough.
        if draining.is_some_and(|since| behind.elapsed() > DRAINED_FOR || since.elapsed() > DRAIN_MAX) {
            break;
        }
        let _ = tokio::time::timeout(DRAW_EVERY, stop.changed()).await;
    }
    let _ = end.send(true);
    let done = lanes.await.unwrap_or_else(|cause| Err(Error::new(Kind::Bug, "the lanes were broken off").because(cause)));
    drop(screen);
    made.stop();
    print!("{}", summary(&project, &status, &made, &receiver, began.elapsed()));
    receiver.stop().await;
    done
}

/// What an earlier demo left would be doubled by this one.
fn empty(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            let text = format!("{} is what the last demo left, and cannot be deleted", folder.display());
            Err(Error::new(Kind::Denied, text).because(cause))
        }
        _ => Ok(()),
    }
}

/// Serves the page where the settings say, or on a free port if that one is in use.
async fn pages(project: &Project, status: &Status, boards: &Boards, stop: watch::Receiver<bool>) -> Result<String> {
    let settings = project.settings();
    let door = match run::open_pages(settings).await {
        Err(_) => run::open_pages(&Settings { listen: "127.0.0.1:0".to_string(), ..settings.clone() }).await?,
        open => open?,
    };
    run::serve_pages(door, status, boards, stop)
}

/// How long `--for` has left, and what stands at the bottom of the screen.
fn left(args: &DemoArgs, began: Instant, page: &str) -> (Option<Duration>, String) {
    let left = args.time.map(|time| time.saturating_sub(began.elapsed()));
    let seconds = left.map_or(String::new(), |left| format!("   {} s left", left.as_secs_f64().ceil()));
    (left, format!("page: {page}{seconds}"))
}

/// The events, made on a thread of their own by an open schedule: a moment in which the machine was busy is made up for.
struct Made {
    events: Arc<AtomicU64>,
    malformed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Made {
    fn start(source: MemorySource, rate: u64) -> Result<Self> {
        let spec =
            EventsSpec { seed: SEED, contents: CONTENTS, from_time_ns: 0, rate_per_second: rate as f64, jitter_ms: JITTER_MS };
        let (mut events, mut poison) = (Events::new(spec)?, Poison::new(SEED, POISON_PERCENT)?);
        let made = Self { events: Arc::default(), malformed: Arc::default(), stop: Arc::default() };
        let (count, malformed, stop) = (Arc::clone(&made.events), Arc::clone(&made.malformed), Arc::clone(&made.stop));
        let (clock, began) = (Clock::system(), Instant::now());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
                for _ in count.load(Ordering::Relaxed)..due {
                    let now_ms = clock.now_ms();
                    let event = events.next_at(now_ms);
                    let mut json = Vec::with_capacity(320);
                    event.write_json(&mut json);
                    malformed.fetch_add(u64::from(poison.spoil(&mut json)), Ordering::Relaxed);
                    // Keyed by the content, as `falaj generate` does it.
                    source.push((event.content as u64 % PARTITIONS) as usize, Some(json), now_ms);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Ok(made)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn summary(project: &Project, status: &Status, made: &Made, receiver: &Receiver, took: Duration) -> String {
    let (events, malformed) = (made.events.load(Ordering::Relaxed), made.malformed.load(Ordering::Relaxed));
    let mut text = format!("{events} events in {:.1} s, {malformed} of them malformed on purpose\n", took.as_secs_f64());
    for lane in status.snapshot().lanes {
        let _ = write!(
            text,
            "  {:<24} {:>9} records  {:>9} rows out  {:>4} late  {:>4} dead",
            lane.name, lane.records, lane.emitted, lane.late, lane.dead
        );
        if lane.latency_p50_us > 0 {
            let (p50_ms, p99_ms) = (lane.latency_p50_us / 1000, lane.latency_p99_us / 1000);
            let _ = write!(text, "  visible after {p50_ms} ms (p99 {p99_ms} ms)");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "the HTTP receiver took: {}", receiver.counts());
    for table in project.tables_of(Role::Sink).filter(|table| table.stored_as == "PARQUET") {
        let keys = &table.partition_by;
        let partitioned = if keys.is_empty() { String::new() } else { format!(" PARTITIONED BY ({})", keys.join(", ")) };
        let by = if keys.is_empty() { "1".to_string() } else { keys.join(", ") };
        let folder = app::inside_folder(Path::new(FOLDER), table);
        let _ = writeln!(
            text,
            "query the Parquet that it left:\n  datafusion-cli -c \"CREATE EXTERNAL TABLE {0} STORED AS PARQUET{partitioned} \
             LOCATION '{1}/'\" \\\n    -c \"SELECT {by}, count(*) AS events FROM {0} GROUP BY {by} ORDER BY {by}\"",
            table.name,
            folder.display()
        );
    }
    text
}
