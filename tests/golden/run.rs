//! The ways to run a case, and what its sink holds in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use falaj::app::{self, Inside, Run, World};
use falaj::batch::{Output, RowIds};
use falaj::checkpoint::memory::MemoryStore;
use falaj::clock::Clock;
use falaj::error::Result;
use falaj::memory::Memory;
use falaj::secrets::Secrets;
use falaj::sink::memory::{Boards, MemoryTables};
use falaj::source::memory::MemorySource;
use falaj::status::Status;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::case::{Case, Record};

/// How a case is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Everything is there before it starts.
    Whole,
    /// Each row is an epoch of its own.
    Rows,
    /// Stopped half-way, and started again over the same checkpoint and sink.
    Stopped,
    /// Broken off half-way, row by row, and started again.
    Killed,
    /// The epochs of the script.
    Script,
    /// The same with a stop and a start after each epoch.
    ScriptStopped,
}

impl Way {
    /// The ways in which `case` can be run.
    pub(super) fn of(case: &Case) -> &'static [Way] {
        match case.script.is_empty() {
            true => &[Way::Whole, Way::Rows, Way::Stopped, Way::Killed],
            false => &[Way::Script, Way::ScriptStopped],
        }
    }
}

/// What is there in the end, line by line.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) rows: Vec<String>,
    pub(super) letters: Vec<String>,
}

/// Only a test that fails waits so long.
const WAIT: Duration = Duration::from_secs(30);

/// What outlives a process: the topic, the checkpoint, the sinks, the folder of dead letters.
struct Outside {
    inside: Inside,
    source: MemorySource,
    clock: Clock,
    tables: MemoryTables,
    folder: tempfile::TempDir,
    pushed: u64,
}

impl Outside {
    fn new(case: &Case) -> Self {
        let source = MemorySource::new("events", case.partitions, usize::MAX);
        let (tables, folder) = (MemoryTables::default(), tempfile::tempdir().unwrap());
        let inside = Inside {
            source: source.clone(),
            contents: case.contents.clone(),
            endpoint: "http://127.0.0.1:1".into(),
            store: Arc::new(MemoryStore::default()),
            folder: folder.path().to_path_buf(),
            kept: Some(tables.clone()),
        };
        Self { inside, source, clock: Clock::held(case.clock_ns()), tables, folder, pushed: 0 }
    }

    /// Appends records, all of one partition at once.
    fn push(&mut self, records: &[Record]) {
        let mut partitions: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for (partition, payload) in records {
            partitions.entry(*partition).or_default().push(payload.clone());
        }
        for (partition, payloads) in partitions {
            self.source.push_all(partition, payloads, 0);
        }
        self.pushed += records.len() as u64;
    }

    /// A process that runs until it is told to stop, or until the log's end.
    fn start(&self, case: &Case, until_latest: bool) -> Process {
        let (stop, stopped) = watch::channel(false);
        let status = Status::default();
        let run = Run {
            world: World::Inside(self.inside.clone()),
            status: status.clone(),
            memory: Memory::new(case.project.settings().memory_limit.resolve(None)),
            boards: Boards::default(),
            clock: self.clock.clone(),
            until_latest,
            stop: stopped,
            reload: watch::Sender::new(false),
        };
        let project = case.project.clone();
        let task = tokio::spawn(async move {
            app::check(&project, Secrets::Optional).await?;
            app::run(&project, run).await
        });
        Process { name: case.name.clone(), status, stop, task, before: self.pushed }
    }

    /// A process that ends at the log's end.
    async fn to_the_end(&self, case: &Case) {
        self.start(case, true).ended().await;
    }
}

/// One process over an [`Outside`].
struct Process {
    name: String,
    status: Status,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
    /// Records that were there before it.
    before: u64,
}

impl Process {
    /// Waits until everything pushed since its start is committed.
    async fn has_taken_all(&self, outside: &Outside) {
        let (lane, until) = (self.status.lane(&self.name), Instant::now() + WAIT);
        while lane.records.load(Ordering::Relaxed) < outside.pushed - self.before {
            assert!(!self.task.is_finished() && Instant::now() < until, "{}: {:?}", self.name, self.status.snapshot().lanes);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn stopped(self) {
        self.stop.send(true).unwrap();
        self.ended().await;
    }

    async fn ended(self) {
        let ended = tokio::time::timeout(WAIT, self.task).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} does not end", self.name));
        ended.unwrap().unwrap_or_else(|error| panic!("{}: {}", self.name, error.chain()));
    }

    /// As a crash: nothing is finished.
    async fn killed(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Runs `case` in one way.
pub(super) async fn run(case: &Case, way: Way) -> Held {
    let mut outside = Outside::new(case);
    let half = case.input.len() / 2;
    match way {
        Way::Whole => {
            outside.push(&case.input);
            outside.to_the_end(case).await;
        }
        Way::Rows => {
            let process = outside.start(case, false);
            for record in &case.input {
                outside.push(std::slice::from_ref(record));
                process.has_taken_all(&outside).await;
            }
            process.stopped().await;
        }
        Way::Stopped => {
            outside.push(&case.input[..half]);
            outside.to_the_end(case).await;
            outside.push(&case.input[half..]);
            outside.to_the_end(case).await;
        }
        Way::Killed => {
            let process = outside.start(case, false);
            for record in &case.input[..half] {
                outside.push(std::slice::from_ref(record));
                process.has_taken_all(&outside).await;
            }
            process.killed().await;
            outside.push(&case.input[half..]);
            outside.to_the_end(case).await;
        }
        Way::Script => {
            let process = outside.start(case, false);
            for (at_ns, records) in &case.script {
                outside.clock.set(*at_ns);
                outside.push(records);
                process.has_taken_all(&outside).await;
            }
            process.stopped().await;
        }
        Way::ScriptStopped => {
            for (at_ns, records) in &case.script {
                outside.clock.set(*at_ns);
                outside.push(records);
                outside.to_the_end(case).await;
            }
        }
    }
    Held { rows: held(case, &outside), letters: letters(&outside) }
}

/// What the sink holds.
fn held(case: &Case, outside: &Outside) -> Vec<String> {
    let sink = case.sink();
    let outputs = outside.tables.of(&sink.name).outputs();
    let key = ["key", "member"].into_iter().find_map(|option| sink.options.get(option));
    let (mut rows, mut board, mut keyed) = (Vec::new(), None, BTreeMap::new());
    for (epoch, output) in outputs {
        match output {
            Output::Rows { rows: batch, ids } => {
                let epoch = (!case.script.is_empty()).then_some(epoch);
                rows.extend(lines(&batch).into_iter().enumerate().map(|(row, line)| with_id(epoch, &ids, row, &line)));
            }
            Output::Board(batch) => board = Some(lines(&batch)),
            Output::Changes { upserts, deletes } => {
                let key = key.expect("a keyed sink has a key");
                keys(&deletes, key).iter().for_each(|key| drop(keyed.remove(key)));
                keyed.extend(keys(&upserts, key).into_iter().zip(lines(&upserts)));
            }
        }
    }
    match board {
        Some(board) => board,
        None if !keyed.is_empty() => keyed.into_values().collect(),
        None => case.in_order(rows),
    }
}

fn with_id(epoch: Option<u64>, ids: &RowIds, row: usize, line: &str) -> String {
    let mut id = String::new();
    ids.write(row, &mut id);
    let epoch = epoch.map_or_else(String::new, |epoch| format!("\"_epoch\":{epoch},"));
    format!("{{{epoch}\"_id\":{},{}", serde_json::to_string(&id).unwrap(), &line[1..])
}

fn keys(batch: &RecordBatch, key: &str) -> Vec<String> {
    let keys = cast(batch.column_by_name(key).unwrap(), &DataType::Utf8).unwrap();
    keys.as_string::<i32>().iter().map(|key| key.unwrap_or_default().to_string()).collect()
}

/// A batch as JSON, NULLs written.
fn lines(batch: &RecordBatch) -> Vec<String> {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    String::from_utf8(bytes).unwrap().lines().map(str::to_string).collect()
}

/// All dead letters, by lane and offset, without what differs from run to run.
fn letters(outside: &Outside) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![outside.folder.path().join("dead_letters")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let json: serde_json::Value = serde_json::from_str(line).unwrap();
                let names = ["lane", "partition", "offset", "stage", "code", "message", "payload"];
                let fields = names.map(|name| format!("\"{name}\":{}", json[name]));
                let (partition, offset) = (json["partition"].as_i64(), json["offset"].as_i64());
                found.push((json["lane"].to_string(), partition, offset, format!("{{{}}}", fields.join(","))));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(.., line)| line).collect()
}
