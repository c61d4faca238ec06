//! Begun again: the checkpoint deleted and everything read once more over the same sinks, or an older copy of it put back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::found::{self, assert_same};
use super::oracle::{Oracle, Row};
use super::{PARTITIONS, boards, events, produce, send};
use crate::support::falaj::Falaj;
use crate::support::project::{Project, wait_until};
use crate::support::receiver::Receiver;

const EVENTS: usize = 30_000;
const BY_DEVICE: &str = "
CREATE EXTERNAL TABLE by_device (device VARCHAR, events BIGINT, duration_ms BIGINT)
STORED AS REDIS LOCATION '{key}' OPTIONS ('url' '${env:REDIS_URL}', 'type' 'hash', 'key' 'device');";
const BY_DEVICE_LANE: &str = "
INSERT INTO by_device
SELECT device, count(*), sum(duration_ms) FROM tumble(enriched, event_ts, INTERVAL '1 day') GROUP BY window_start, window_end, device;";

type Hash = BTreeMap<String, BTreeMap<String, String>>;

/// The shipped queries, a hash beside them, and many small epochs.
async fn project() -> Project {
    let project = Project::new(PARTITIONS).await;
    project.replace("sinks", "'30s'", "'200ms'");
    project.write("by_device_table", &BY_DEVICE.replace("{key}", &project.board_key("by_device")));
    project.write("by_device", BY_DEVICE_LANE);
    project.write("settings", "SET falaj.listen = '127.0.0.1:0'; SET falaj.epoch_bytes_max = 200000;");
    project
}

fn on_new_lineage(project: &Project, from: &str, to: &str) {
    project.replace("sinks", &format!("'200ms'{from}"), &format!("'200ms', 'on_new_lineage' '{to}'"));
}

/// Runs to the log's end, where some lane is to fail; gives what was said.
fn run_fails(project: &Project, partner: &str) -> String {
    let mut command = project.command(&["run", "queries", "--until", "latest", "--no-web"]);
    let (status, said) = Falaj::start(command.env("PARTNER_URL", partner)).end();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

async fn hash(project: &Project) -> Hash {
    let mut redis = project.redis().await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}:*", project.board_key("by_device"))).query_async(&mut redis).await.unwrap();
    let mut found = Hash::new();
    for key in keys.into_iter().filter(|key| !key.contains('{')) {
        let fields = redis::cmd("HGETALL").arg(&key).query_async(&mut redis).await.unwrap();
        found.insert(key, fields);
    }
    found
}

/// What a reader of the table finds when it lists everything, and then reads it: each row's id, and the lineages in the names.
/// `None` when a file that was listed is gone: a reader fails then, and begins again.
pub(crate) fn look(folder: &Path) -> Option<(Vec<i64>, BTreeSet<String>)> {
    let (mut ids, mut lineages) = (Vec::new(), BTreeSet::new());
    for path in found::files(folder, "parquet") {
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            file => file.unwrap(),
        };
        let name = path.file_name().unwrap().to_str().unwrap();
        lineages.insert(name["bigquery-".len()..][..36].to_string());
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let only_ids = ProjectionMask::columns(reader.parquet_schema(), ["id"]);
        for batch in reader.with_projection(only_ids).build().unwrap() {
            let batch = batch.unwrap();
            let column = batch.column(0).as_any().downcast_ref::<arrow::array::Int64Array>().unwrap();
            ids.extend(column.values());
        }
    }
    Some((ids, lineages))
}

/// Looks at the table all the time, and panics when it finds neither the one result nor the other.
pub(crate) struct Looking {
    stop: std::sync::Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64, BTreeSet<String>)>,
}

impl Looking {
    /// `rows` is how many rows a result has at least; each has every id once.
    pub(crate) fn begin(folder: PathBuf, rows: usize) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut looks, mut gone, mut seen) = (0, 0, BTreeSet::new());
            while !stopped.load(Ordering::SeqCst) {
                let Some((ids, lineages)) = look(&folder) else {
                    gone += 1;
                    continue;
                };
                assert_eq!(lineages.len(), 1, "a mix of {lineages:?}");
                assert!(ids.len() >= rows, "{} of {rows} rows of {lineages:?}", ids.len());
                assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "a row is there twice");
                looks += 1;
                seen.extend(lineages);
            }
            (looks, gone, seen)
        });
        Self { stop, thread }
    }

    /// Ends it; gives how many lineages were seen.
    pub(crate) fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let (looks, gone, seen) = self.thread.join().unwrap();
        eprintln!("{looks} looks, {gone} of which found a file gone; lineages {seen:?}");
        seen.len()
    }
}

#[tokio::test]
async fn with_the_checkpoint_deleted_all_sinks_end_as_they_were_and_parquet_as_it_is_told() {
    let project = project().await;
    let events = events(EVENTS);
    let oracle = Oracle::new(&events, &produce(&project, &events));
    let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
    let receiver = Receiver::start(project.path("received"));
    let output = project.path("data/bigquery_output");
    project.run_until_latest(&receiver.url);
    boards::are_exact(&project, &oracle).await;
    let first_hash = hash(&project).await;
    assert!(first_hash.len() > 2, "{first_hash:?}");
    let files = found::files(&output, "parquet");

    // Nothing is said about another lineage: the Parquet lane stops, the others do not.
    fs::remove_dir_all(project.path("data/run")).unwrap();
    let said = run_fails(&project, &receiver.url);
    for words in
        ["lane 'bigquery' stopped", "has files of another lineage", "('on_new_lineage' 'replace') on table 'bigquery_output'"]
    {
        assert!(said.contains(words), "no {words} in:\n{said}");
    }
    assert_eq!(found::files(&output, "parquet"), files);
    boards::are_exact(&project, &oracle).await;
    assert_eq!(hash(&project).await, first_hash);
    rows_are_effective_once(&receiver, &project, &expected).await;

    on_new_lineage(&project, "", "replace");
    fs::remove_dir_all(project.path("data/run")).unwrap();
    let looking = Looking::begin(output.clone(), EVENTS);
    project.run_until_latest(&receiver.url);
    assert_eq!(looking.end(), 2, "the old result, then the new one");
    assert_same("Parquet", &expected, &found::enriched(&output));
    assert!(found::files(&output, "parquet").iter().all(|file| !files.contains(file)));
    assert!(!project.path("data/.bigquery_output.replace").exists());
    boards::are_exact(&project, &oracle).await;
    assert_eq!(hash(&project).await, first_hash);
    rows_are_effective_once(&receiver, &project, &expected).await;

    on_new_lineage(&project, ", 'on_new_lineage' 'replace'", "append");
    fs::remove_dir_all(project.path("data/run")).unwrap();
    project.run_until_latest(&receiver.url);
    let mut times: BTreeMap<i64, usize> = BTreeMap::new();
    look(&output).unwrap().0.into_iter().for_each(|id| *times.entry(id).or_default() += 1);
    assert_eq!(times, expected.keys().map(|id| (*id, 2)).collect());
    project.finish().await;
}

/// By `_id` the receiver has each row once, as it was, however often it came.
async fn rows_are_effective_once(receiver: &Receiver, project: &Project, expected: &BTreeMap<i64, Row>) {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for line in receiver.rows() {
        let mut row: Row = serde_json::from_str(&line).unwrap();
        let id = row.row_id.take().unwrap();
        assert!(id.starts_with(&project.name), "{line}");
        if let Some(before) = rows.insert(id, row.clone()) {
            assert_eq!(before, row, "came again, and is another");
        }
    }
    let counts = receiver.counts().await;
    for (figure, value) in [("effective_rows", expected.len()), ("key_conflicts", 0), ("refused", 0)] {
        assert_eq!(counts[figure], value, "{figure}: {counts}");
    }
    assert_same("HTTP", expected, &rows.into_values().map(|row| (row.id, row)).collect());
}

#[tokio::test]
async fn a_table_is_replaced_while_events_keep_coming() {
    let project = project().await;
    project.remove(&["partner", "top_content", "top_content_seconds", "by_device"]);
    // An epoch lasts so long that the log never stands still at the end of one.
    project.replace("sinks", "'200ms'", "'1s', 'on_new_lineage' 'replace'");
    let events = events(3 * EVENTS);
    produce(&project, &events[..EVENTS]);
    let output = project.path("data/bigquery_output");
    project.run_until_latest("http://unused");
    let (_, old) = look(&output).unwrap();

    fs::remove_dir_all(project.path("data/run")).unwrap();
    let looking = Looking::begin(output.clone(), EVENTS);
    let (falaj, _) = project.run("http://unused", &[]);
    let is_replaced = || look(&output).is_some_and(|(_, lineages)| lineages != old);
    let mut later = events[EVENTS..].chunks(20);
    wait_until("the new result is shown", async || {
        send(&project, later.next().expect("events enough"));
        is_replaced()
    })
    .await;
    let sent = 3 * EVENTS - later.map(<[_]>::len).sum::<usize>();
    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(looking.end(), 2);
    project.run_until_latest("http://unused");
    assert_eq!(found::enriched(&output).len(), sent);
    project.finish().await;
}

#[tokio::test]
async fn an_older_copy_of_the_checkpoint_is_noticed_by_every_sink_that_can_be_asked() {
    let project = project().await;
    let events = events(EVENTS);
    let oracle = Oracle::new(&events, &produce(&project, &events[..EVENTS / 2]));
    let receiver = Receiver::start(project.path("received"));
    project.run_until_latest(&receiver.url);
    let (run, older, newer) = (project.path("data/run"), project.path("older"), project.path("newer"));
    copy(&run, &older);
    send(&project, &events[EVENTS / 2..]);
    project.run_until_latest(&receiver.url);
    let files = found::files(&project.path("data/bigquery_output"), "parquet");
    let first_hash = hash(&project).await;

    fs::rename(&run, &newer).unwrap();
    fs::rename(&older, &run).unwrap();
    let said = run_fails(&project, &receiver.url);
    for lane in ["bigquery", "top_content", "top_content_seconds", "by_device"] {
        let line = said.lines().find(|line| line.contains(&format!("lane '{lane}' stopped")));
        let line = line.unwrap_or_else(|| panic!("'{lane}' goes on:\n{said}"));
        assert!(line.contains("put the newer folder back"), "{line}");
    }
    assert_eq!(found::files(&project.path("data/bigquery_output"), "parquet"), files);
    assert_eq!(hash(&project).await, first_hash);
    boards::are_exact(&project, &oracle).await;

    // As the sentences say.
    fs::remove_dir_all(&run).unwrap();
    fs::rename(&newer, &run).unwrap();
    project.run_until_latest(&receiver.url);
    let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
    assert_same("Parquet", &expected, &found::enriched(&project.path("data/bigquery_output")));
    boards::are_exact(&project, &oracle).await;
    assert_eq!(hash(&project).await, first_hash);
    let counts = receiver.counts().await;
    assert_eq!(counts["effective_rows"], EVENTS, "{counts}");
    project.finish().await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
