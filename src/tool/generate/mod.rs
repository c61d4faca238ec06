//! `falaj generate`: makes the tables, fills `content`, and produces events to Kafka or Postgres.
//!
//! [`events`] and [`contents`] are pure: the same seed makes the same. [`kafka`] and [`postgres`] carry them out.

pub mod contents;
pub mod events;
mod kafka;
mod postgres;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

pub use self::contents::{Content, Contents};
pub use self::events::{Event, Events, EventsSpec, Poison};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};

/// How far an event time lies off, in milliseconds.
const JITTER_MS: i64 = 2000;
/// Events in one second of event time when there is a --from-time and no --rate.
const EVENT_TIME_RATE: f64 = 1000.0;

/// The options of `falaj generate`.
#[derive(Clone, Args)]
pub struct GenerateArgs {
    /// Where the events go.
    #[arg(long, value_enum, default_value_t = To::Postgres)]
    pub to: To,
    /// End after so many events; without it, at Ctrl-C.
    #[arg(long, value_name = "COUNT")]
    pub events: Option<u64>,
    /// Events per second; without it, as fast as they are taken.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// How many contents there are.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub contents: usize,
    /// The time of the first event, such as 2026-11-23T10:00:00Z; the others follow at --time-rate, or --rate, or 1000 a second.
    /// Without it, events happen now.
    #[arg(long, value_name = "TIME", value_parser = DateTime::parse_from_rfc3339)]
    pub from_time: Option<DateTime<chrono::FixedOffset>>,
    /// Events in one second of event time, however fast they are produced.
    #[arg(long, value_name = "PER_SECOND", requires = "from_time")]
    pub time_rate: Option<f64>,
    /// The same seed makes the same contents and events.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// The number of the first event. Without it 1, and in Postgres the next free one.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..1 << 62))]
    pub first_id: Option<u64>,
    /// The Kafka topic.
    #[arg(long, default_value = "engagement_events")]
    pub topic: String,
    /// The topic's partitions, if it has to be made.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
    /// The Kafka brokers, host:port, several with commas.
    #[arg(long, env = "KAFKA_BROKERS", default_value = "localhost:9092")]
    pub brokers: String,
    /// The Postgres database, postgres://user@host:port/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Leave the tables in Postgres alone.
    #[arg(long)]
    pub no_content: bool,
    /// Break so many percent of the records, for dead letters to look at (Kafka only).
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub poison: f64,
}

/// Where events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum To {
    /// The table `engagement_events`, from whose WAL they reach the topic.
    Postgres,
    /// A Kafka topic at once, as JSON, keyed by the content.
    Kafka,
}

/// Without the database's URL, which may hold a password.
impl fmt::Debug for GenerateArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, events, rate, contents, from_time, seed, topic, brokers, .. } = self;
        write!(f, "GenerateArgs {{ to: {to:?}, events: {events:?}, rate: {rate:?}, contents: {contents}, ")?;
        write!(f, "from_time: {from_time:?}, seed: {seed}, topic: {topic:?}, brokers: {brokers:?}, .. }}")
    }
}

/// What a run made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Generated {
    /// Events that Kafka or Postgres confirmed.
    pub events: u64,
    /// How long that took, tables and contents left out.
    pub seconds: f64,
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = if self.seconds > 0.0 { self.events as f64 / self.seconds } else { 0.0 };
        write!(f, "{} events in {:.1} s: {per_second:.0} events/s", self.events, self.seconds)
    }
}

/// Runs until --events are made or Ctrl-C, and prints what was made.
pub async fn run(args: GenerateArgs) -> Result<()> {
    let made = run_until(args, async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
    .await?;
    println!("{made}");
    Ok(())
}

/// Runs until --events are made or `shutdown` is ready; what was begun then is still confirmed. Prints only progress, and that
/// only on a terminal.
pub async fn run_until(args: GenerateArgs, shutdown: impl Future<Output = ()> + Send) -> Result<Generated> {
    let job = Job::new(&args)?;
    let stop = Arc::clone(&job.stop);
    let work = async {
        let database = match (&args.database_url, args.to, args.no_content) {
            (_, To::Kafka, true) => None,
            (Some(url), _, _) => Some(postgres::Database::connect(url).await?),
            (None, _, _) => return Err(no_database(args.to)),
        };
        if let Some(database) = database.as_ref().filter(|_| !args.no_content) {
            database.create_tables().await?;
            database.fill_content(&Contents::new(args.contents, args.seed), &stop).await?;
        }
        match (args.to, database) {
            (To::Postgres, Some(mut database)) => database.insert_events(job, args.first_id).await,
            _ => kafka::produce(job, &args).await,
        }
    };
    tokio::pin!(work, shutdown);
    tokio::select! {
        made = &mut work => return made,
        () = &mut shutdown => stop.store(true, Ordering::Relaxed),
    }
    work.await
}

fn no_database(to: To) -> Error {
    let text = match to {
        To::Kafka => "where is the table content? Set DATABASE_URL or --database-url, or leave it out by --no-content",
        To::Postgres => "where is Postgres? Set DATABASE_URL or --database-url; --to kafka --no-content does without",
    };
    Error::new(Kind::Usage, text)
}

/// What is to be made, and how far it is.
struct Job {
    events: Events,
    poison: Poison,
    live: bool,
    clock: Clock,
    count: u64,
    rate: Option<f64>,
    made: u64,
    stop: Arc<AtomicBool>,
    bar: ProgressBar,
    started: Instant,
}

impl Job {
    fn new(args: &GenerateArgs) -> Result<Self> {
        let from_time_ns = match args.from_time {
            Some(time) => time.with_timezone(&Utc).timestamp_nanos_opt().ok_or_else(|| {
                Error::new(Kind::Usage, format!("--from-time is {time}; it must lie between the years 1678 and 2262"))
            })?,
            None => 0,
        };
        if args.to == To::Postgres && args.poison > 0.0 {
            return Err(Error::new(
                Kind::Usage,
                "--poison breaks records of Kafka, and a table cannot hold a broken row: add --to kafka",
            ));
        }
        let rate_per_second = args.time_rate.or(args.rate).unwrap_or(EVENT_TIME_RATE);
        let spec = EventsSpec { seed: args.seed, contents: args.contents, from_time_ns, rate_per_second, jitter_ms: JITTER_MS };
        Ok(Self {
            events: Events::new(spec)?,
            poison: Poison::new(args.seed, args.poison)?,
            live: args.from_time.is_none(),
            clock: Clock::system(),
            count: args.events.unwrap_or(u64::MAX),
            rate: args.rate,
            made: 0,
            stop: Arc::default(),
            bar: progress(args.events),
            started: Instant::now(),
        })
    }

    /// Begins to count time. Call it when the first event can go out.
    fn start(&mut self) {
        self.started = Instant::now();
        self.bar.reset();
    }

    /// How many more events are to be made now: by the rate and the clock, whatever became of those before (open loop). `None`:
    /// no more at all.
    fn due(&self) -> Option<u64> {
        if self.made >= self.count || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let until = self.rate.map_or(u64::MAX, |rate| (self.started.elapsed().as_secs_f64() * rate) as u64 + 1);
        Some(until.min(self.count).saturating_sub(self.made))
    }

    fn next(&mut self) -> Event {
        self.made += 1;
        if self.live { self.events.next_at(self.clock.now_ms()) } else { self.events.next() }
    }

    fn finish(self, confirmed: u64) -> Generated {
        self.bar.finish_and_clear();
        Generated { events: confirmed, seconds: self.started.elapsed().as_secs_f64() }
    }
}

/// A bar, or a count where there is no end; hidden where there is no terminal.
fn progress(events: Option<u64>) -> ProgressBar {
    let (bar, template) = match events {
        Some(events) => (ProgressBar::new(events), "{bar:40} {human_pos}/{human_len} events, {per_sec}, {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {human_pos} events, {per_sec}"),
    };
    bar.enable_steady_tick(Duration::from_millis(250));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
