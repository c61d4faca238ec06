//! What `falaj run` does when something around it breaks: it waits and goes on by itself, or stops with a sentence that says what to
//! do; and after the repair nothing is lost and nothing is there twice. Where things are broken inside one sink, its own tests do it.

mod checkpoint;
mod kafka;
mod redis_server;
mod stopping;
mod table;

use std::collections::BTreeMap;

use falaj::tool::generate::{Contents, Event};

use crate::end_to_end::oracle::{Oracle, Row};
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, boards, events, found, send};
use crate::support::falaj::Falaj;
use crate::support::project::Project;

/// A project with both shipped boards and the Parquet lane, and the events that are to come to it.
struct World {
    project: Project,
    contents: Contents,
    events: Vec<(i32, Event)>,
    /// How many of them are on the topic.
    sent: usize,
}

impl World {
    async fn new(count: usize) -> Self {
        let project = Project::new(PARTITIONS).await;
        project.remove(&["partner"]);
        // Small epochs, so that whatever breaks falls between many.
        project.replace("sinks", "'30s'", "'100ms'");
        project.write("settings", "SET falaj.listen = '127.0.0.1:0'; SET falaj.epoch_bytes_max = 100000;");
        project.fill_content(CONTENTS, SEED);
        Self { project, contents: Contents::new(CONTENTS, SEED), events: events(count), sent: 0 }
    }

    /// Puts the next `count` events on the topic.
    fn produce(&mut self, count: usize) {
        let to = (self.sent + count).min(self.events.len());
        send(&self.project, &self.events[self.sent..to]);
        self.sent = to;
    }

    /// How many of the events on the topic are in a partition: its log end.
    fn log_end(&self, partition: i32) -> usize {
        self.events[..self.sent].iter().filter(|(there, _)| *there == partition).count()
    }

    fn run(&self) {
        self.project.run_until_latest("http://unused");
    }

    /// Runs, where something is to go wrong; gives what was said.
    fn run_fails(&self) -> String {
        let (status, said) =
            Falaj::start(&mut self.project.command(&["run", "queries", "--until", "latest", "--no-web"])).end();
        assert_eq!(status.code(), Some(1), "{said}");
        said
    }

    /// A run without an end.
    fn start(&self) -> (Falaj, String) {
        self.project.run("http://unused", &[])
    }

    /// Runs on to the end, and compares every sink with what plain Rust makes of the events on the topic.
    async fn is_exact(&self) {
        self.run();
        let oracle = Oracle::new(&self.events[..self.sent], &self.contents);
        boards::are_exact(&self.project, &oracle).await;
        let expected: BTreeMap<i64, Row> = oracle.rows.iter().map(|row| (row.id, row.clone())).collect();
        found::assert_same("Parquet", &expected, &found::enriched(&self.project.path("data/bigquery_output")));
    }
}

/// All of `words` were said.
fn assert_said(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "no '{word}' in:\n{said}");
    }
}
