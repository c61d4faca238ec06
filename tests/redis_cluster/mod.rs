//! Boards and hashes in a Redis Cluster and in a Redis that sentinels watch, on real servers of the tests' own: what is written, what a
//! failover and a slot that moves do to it, and what is said when something is wrong.

mod cluster;
mod sentinel;
mod servers;
mod wrong;

use falaj::tool::generate::{Contents, Event};

use crate::end_to_end::oracle::Oracle;
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, boards, events, send};
use crate::support::falaj::Falaj;
use crate::support::project::Project;

const EVENTS: usize = 4_000;

/// A project with one board, and events that come to it a quarter at a time.
struct World {
    project: Project,
    key: String,
    events: Vec<(i32, Event)>,
    sent: usize,
}

impl World {
    /// `options` say where the board of a key is.
    async fn new(options: impl FnOnce(&str) -> String) -> Self {
        let project = Project::new(PARTITIONS).await;
        let key = project.board_key("top_content");
        project.fill_content(CONTENTS, SEED);
        project.remove(&["bigquery", "partner", "top_content_seconds"]);
        project.replace("sinks", "'url' '${env:REDIS_URL:-redis://localhost:6379}'", &options(&key));
        Self { key, project, events: events(EVENTS), sent: 0 }
    }

    /// Puts the next quarter on the topic; gives the board that is to come of all that are there, the leader first.
    fn produce(&mut self) -> Vec<(String, f64)> {
        let to = self.sent + EVENTS / 4;
        send(&self.project, &self.events[self.sent..to]);
        self.sent = to;
        boards::counts(&Oracle::new(&self.events[..to], &Contents::new(CONTENTS, SEED)))
    }

    fn start(&self) -> Falaj {
        self.project.run("http://unused", &[]).0
    }

    /// Ends the run, which had one outage and told of it once.
    async fn finish(self, falaj: Falaj) {
        falaj.terminate();
        let (status, said) = falaj.end();
        assert_eq!(status.code(), Some(0), "{said}");
        for (level, words) in [("WARN", "does not do it"), ("INFO", "does it again, after")] {
            let lines = said.lines().filter(|line| line.contains(level) && line.contains(words)).count();
            assert_eq!(lines, 1, "'{words}' in {said}");
        }
        self.project.finish().await;
    }
}
