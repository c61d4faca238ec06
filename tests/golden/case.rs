//! A case, as its files say it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::DateTime;
use falaj::batch::Payloads;
use falaj::decode::Decoder;
use falaj::decode::json::JsonDecoder;
use falaj::query::project::{Project, SqlFile};
use falaj::table::TableDef;
use serde::Deserialize;

use super::folder;
use super::run::Held;

/// The clock of a case without a script, some hours after the events.
const NOW: &str = "2026-11-23T12:00:00Z";

/// One epoch of a script.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    at: String,
    rows: Vec<usize>,
}

/// A record: its partition and its payload.
pub(super) type Record = (usize, Vec<u8>);

pub(super) struct Case {
    /// The name of the lane, too.
    pub(super) name: String,
    pub(super) project: Project,
    pub(super) input: Vec<Record>,
    /// The epochs in order: the clock and the records, of one partition.
    pub(super) script: Vec<(i64, Vec<Record>)>,
    pub(super) contents: RecordBatch,
    pub(super) partitions: usize,
    ordered: bool,
    folder: PathBuf,
}

impl Case {
    pub(super) async fn read(name: &str) -> Self {
        let case = folder().join("cases").join(name);
        let files = sql_files(name, &case);
        let ordered = files.last().is_some_and(|file| file.text.lines().any(|line| line.starts_with("ORDER BY")));
        let project = Project::read(files).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let input: Vec<Record> = lines(&case.join("input.jsonl")).into_iter().map(record).collect();
        let script = lines(&case.join("script.jsonl")).into_iter().map(|line| {
            let step: Step = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{name}: {line}: {error}"));
            (ns(&step.at), step.rows.iter().map(|row| input[row - 1].clone()).collect::<Vec<_>>())
        });
        let script: Vec<_> = script.collect();
        let one_partition = |rows: &Vec<Record>| rows.iter().all(|(partition, _)| *partition == rows[0].0);
        assert!(script.iter().all(|(_, rows)| one_partition(rows)), "{name}: an epoch of a script has one partition");
        let contents = Some(case.join("content.jsonl")).filter(|path| path.exists());
        let contents = contents_of(&project.tables()["content"], &contents.unwrap_or_else(|| folder().join("content.jsonl")));
        let partitions = input.iter().map(|(partition, _)| partition + 1).max().unwrap_or(1);
        Self { name: name.to_string(), project, input, script, contents, partitions, ordered, folder: case }
    }

    /// The sink that the lane writes.
    pub(super) fn sink(&self) -> Arc<TableDef> {
        let text = std::fs::read_to_string(self.folder.join("query.sql")).unwrap_or_default();
        let sinks = self.project.tables().values().filter(|table| match text.is_empty() {
            true => table.name == self.name || (self.name == "bigquery" && table.name == "bigquery_output"),
            false => text.contains(&format!("INSERT INTO {}\n", table.name)),
        });
        let sinks: Vec<_> = sinks.collect();
        assert_eq!(sinks.len(), 1, "{}: the line 'INSERT INTO sink' names its sink", self.name);
        Arc::clone(sinks[0])
    }

    pub(super) fn clock_ns(&self) -> i64 {
        self.script.first().map_or_else(|| ns(NOW), |(at, _)| *at)
    }

    /// Without an ORDER BY the order says nothing.
    pub(super) fn in_order(&self, mut rows: Vec<String>) -> Vec<String> {
        if !self.ordered {
            rows.sort();
        }
        rows
    }

    pub(super) fn expected(&self) -> Held {
        Held { rows: lines(&self.folder.join("expected.jsonl")), letters: lines(&self.folder.join("letters.jsonl")) }
    }

    /// From now on what is `held` is expected.
    pub(super) fn bless(&self, held: &Held) {
        for (file, lines) in [("expected.jsonl", &held.rows), ("letters.jsonl", &held.letters)] {
            let path = self.folder.join(file);
            if lines.is_empty() && file == "letters.jsonl" {
                let _ = std::fs::remove_file(path);
                continue;
            }
            let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            std::fs::write(path, text).unwrap();
        }
    }
}

/// The shipped tables and the view, and the lane's own file last.
fn sql_files(name: &str, case: &Path) -> Vec<SqlFile> {
    let queries = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
    let own = case.join("query.sql");
    let (shared, own) = match own.exists() {
        true => (vec!["sources", "lookups", "enriched"], own),
        false => (vec!["sources", "lookups", "enriched", "sinks"], queries.join(format!("{name}.sql"))),
    };
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<SqlFile> = shared
        .into_iter()
        .map(|shared| SqlFile { path: format!("{shared}.sql"), text: read(&queries.join(format!("{shared}.sql"))) })
        .collect();
    files.push(SqlFile { path: format!("{name}.sql"), text: read(&own) });
    files
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(str::to_string).collect()
}

fn record(line: String) -> Record {
    let partition = serde_json::from_str::<serde_json::Value>(&line).ok().and_then(|json| json["partition"].as_u64());
    (partition.unwrap_or(0) as usize, line.into_bytes())
}

fn ns(time: &str) -> i64 {
    DateTime::parse_from_rfc3339(time).unwrap().timestamp_nanos_opt().unwrap()
}

/// The rows of the lookup table, read as records are.
fn contents_of(table: &TableDef, path: &Path) -> RecordBatch {
    let mut payloads = Payloads::default();
    for (offset, line) in (0..).zip(lines(path)) {
        payloads.push(offset, Some(line.as_bytes()));
    }
    let decoded = JsonDecoder::new(Arc::clone(&table.schema)).unwrap().decode(payloads).unwrap();
    assert!(decoded.dead.is_empty(), "{}: {:?}", path.display(), decoded.dead);
    decoded.rows
}
