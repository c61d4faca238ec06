//! A backfill hands its result over while the lanes run, and one of the two processes dies at each step of that, or gives it up.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use falaj::tool::generate::{Contents, Event};

use crate::end_to_end::oracle::{Oracle, Row};
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, events, found, send};
use crate::support::falaj::Falaj;
use crate::support::project::{Project, lane, wait_until};

/// Where the backfill dies, each with whether readers of the table find the new result then.
pub(super) const STEPS: &[(&str, bool)] = &[
    ("handover.stop", false),
    ("handover.read", false),
    ("handover.swap", false),
    ("replace.before", false),
    ("replace.exchanged", true),
    ("replace.renamed", true),
    ("handover.exchanged", true),
    ("handover.done", true),
];
/// Where the process of the lanes dies.
pub(super) const OF_THE_LANES: &[&str] = &["handover.waits", "handover.goes_on"];
const PART: usize = 2_000;

/// The table of the lane 'bigquery' and what must be in it.
struct Scene {
    project: Project,
    events: Vec<(i32, Event)>,
    sent: usize,
    /// The word in front of each title, as the table has it and as the SQL says.
    shown: usize,
    written: usize,
}

impl Scene {
    async fn new() -> Self {
        let project = Project::new(PARTITIONS).await;
        project.remove(&["partner", "top_content_seconds"]);
        project.replace("sinks", "'30s'", "'100ms'");
        project.replace("enriched", "c.title,", "'word 0 ' || c.title AS title,");
        project.fill_content(CONTENTS, SEED);
        let cases = STEPS.len() + OF_THE_LANES.len() + 3;
        let mut scene = Self { project, events: events(PART * 2 * cases), sent: 0, shown: 0, written: 0 };
        scene.send();
        scene
    }

    fn send(&mut self) {
        send(&self.project, &self.events[self.sent..self.sent + PART]);
        self.sent += PART;
    }

    /// The next SQL; of every second case it is the same.
    fn edit(&mut self, case: usize) {
        if case.is_multiple_of(2) {
            let (from, to) = (format!("word {} ", self.written), format!("word {} ", self.written + 1));
            self.project.replace("enriched", &from, &to);
            self.written += 1;
        }
    }

    fn rows(&self, word: usize) -> BTreeMap<i64, Row> {
        let oracle = Oracle::new(&self.events[..self.sent], &Contents::new(CONTENTS, SEED));
        let titled = |row: Row| Row { title: row.title.map(|title| format!("word {word} {title}")), ..row };
        oracle.rows.into_iter().map(|row| (row.id, titled(row))).collect()
    }

    /// The table has every event that was sent, once, with this word.
    async fn becomes(&self, word: usize, what: &str) {
        let folder = self.project.path("data/bigquery_output");
        wait_until(what, async || crate::end_to_end::replay::look(&folder).is_some_and(|(ids, _)| ids.len() >= self.sent))
            .await;
        found::assert_same(what, &self.rows(word), &found::enriched(&folder));
    }

    fn backfill(&self, failpoint: &str) -> (Option<i32>, Option<i32>, String) {
        let mut command = self.project.command(&["backfill", "queries", "--no-web"]);
        let (status, said) = Falaj::start(command.env("FALAJ_FAILPOINT", failpoint)).end();
        (status.code(), status.signal(), said)
    }

    fn ends_well(&mut self, what: &str) {
        let (code, _, said) = self.backfill("");
        assert_eq!(code, Some(0), "{what}:\n{said}");
        self.shown = self.written;
    }

    fn dies_at(&self, step: &str) {
        let (_, signal, said) = self.backfill(&format!("bigquery/{step}/1"));
        assert_eq!(signal, Some(9), "it did not come to {step}, or ended before:\n{said}");
    }

    /// What the lane 'bigquery' waits for.
    async fn waits(&self, page: &str) {
        wait_until("the lane says what it waits for", async || {
            lane(page, "bigquery").await["waits_for"]
                .as_str()
                .is_some_and(|text| text.contains("'falaj backfill' finishes that"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_backfill_that_dies_at_any_step_of_its_handover_is_finished_by_the_next_start() {
    let mut scene = Scene::new().await;
    let (falaj, page) = scene.project.run("http://unused", &[]);
    scene.becomes(0, "before").await;
    for (case, (step, is_new)) in STEPS.iter().enumerate() {
        scene.edit(case);
        scene.dies_at(step);
        let folder = scene.project.path("data/bigquery_output");
        let word = if *is_new { scene.written } else { scene.shown };
        found::assert_same(step, &scene.rows(word), &found::enriched(&folder));
        if *step != "handover.done" {
            scene.waits(&page).await;
        }
        scene.send();
        scene.ends_well(step);
        scene.becomes(scene.shown, step).await;
    }
    // Nothing is left of it.
    assert!(!scene.project.path("data/run/checkpoint/falaj.backfill").exists());
    assert!(!scene.project.path("data/.bigquery_output.backfill").exists());
    stop(falaj);
    verify(&scene.project);
    scene.project.finish().await;
}

#[tokio::test]
async fn the_process_of_the_lanes_may_die_while_a_backfill_takes_one_over() {
    let mut scene = Scene::new().await;
    for step in OF_THE_LANES {
        let mut command = scene.project.command(&["run", "queries", "--no-web"]);
        let falaj = Falaj::start(command.env("FALAJ_FAILPOINT", format!("bigquery/{step}/1")));
        scene.becomes(scene.shown, "before").await;
        scene.edit(0);
        match *step {
            // A handover may be over before the lane notices it.
            "handover.waits" => scene.dies_at("handover.stop"),
            _ => scene.ends_well(step),
        }
        let (status, said) = falaj.end();
        assert_eq!(status.signal(), Some(9), "it did not come to {step}, or ended before:\n{said}");
        scene.ends_well(step);
        scene.send();
        scene.project.run_until_latest("http://unused");
        scene.becomes(scene.shown, step).await;
    }
    // One that starts while its lane stands still waits, whoever died before.
    scene.edit(0);
    scene.dies_at("handover.swap");
    let (falaj, page) = scene.project.run("http://unused", &[]);
    scene.waits(&page).await;
    scene.ends_well("started while its lane stood still");
    scene.send();
    scene.becomes(scene.shown, "started while its lane stood still").await;
    stop(falaj);
    verify(&scene.project);
    scene.project.finish().await;
}

#[tokio::test]
async fn a_backfill_that_is_given_up_leaves_the_lane_as_it_was_unless_its_exchange_was_begun() {
    let mut scene = Scene::new().await;
    // Another lane may have begun its exchange when the backfill dies at a step of this one's: then it would be refused.
    scene.project.remove(&["top_content"]);
    let (falaj, page) = scene.project.run("http://unused", &[]);
    scene.becomes(0, "before").await;
    let cancel = |scene: &Scene| Falaj::start(&mut scene.project.command(&["backfill", "queries", "--cancel"])).end();
    scene.edit(0);
    scene.dies_at("handover.read");
    scene.waits(&page).await;
    let (status, said) = cancel(&scene);
    assert_eq!(status.code(), Some(0), "{said}");
    scene.send();
    scene.becomes(0, "given up").await;
    assert!(!scene.project.path("data/.bigquery_output.backfill").exists());

    scene.dies_at("handover.swap");
    let (status, said) = cancel(&scene);
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("the results of lane 'bigquery' are being exchanged"), "{said}");
    // Nor may another one be begun meanwhile.
    let mut other = scene.project.command(&["backfill", "queries", "--no-web", "--lane", "bigquery"]);
    let (status, said) = Falaj::start(&mut other).end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("a backfill is under way with other arguments"), "{said}");
    scene.ends_well("after the refusal");
    scene.send();
    scene.becomes(scene.shown, "after the refusal").await;
    stop(falaj);
    verify(&scene.project);
    scene.project.finish().await;
}

fn stop(falaj: Falaj) {
    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
}

fn verify(project: &Project) {
    let (status, said) = Falaj::start(&mut project.command(&["checkpoint", "verify"])).end();
    assert!(status.success(), "{said}");
}
