//! A backfill while events flow, killed five times and begun again: the table is the old result until it is the new one, whole, and the
//! board goes on as if nothing had been.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use falaj::clock::Clock;
use falaj::tool::generate::{Event, Events, EventsSpec};

use super::{edit, new_rows, project, rows};
use crate::end_to_end::replay::Looking;
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, found, send};
use crate::support::falaj::Falaj;
use crate::support::project::{Project, lane, wait_until};

const HISTORY: usize = 200_000;
const KILLS: usize = 5;
/// Live events, and how many are sent at a time.
const LIVE_MAX: usize = 60_000;
const PIECE: usize = 10;
const EVERY: Duration = Duration::from_millis(50);
const HOUR_MS: i64 = 3_600_000;

/// Whoever fails stops the others.
struct StopAtEnd<'f>(&'f AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Six hours of events that ended an hour ago, and then live ones.
struct Flow {
    events: Vec<(i32, Event)>,
    /// How many of them have been sent.
    sent: AtomicUsize,
    stop: AtomicBool,
}

impl Flow {
    fn new() -> Self {
        let spec = EventsSpec { seed: SEED, contents: CONTENTS, from_time_ns: 0, rate_per_second: 1.0, jitter_ms: 0 };
        let mut made = Events::new(spec).unwrap();
        let (now_ms, step_ms) = (Clock::system().now_ms(), 6 * HOUR_MS / HISTORY as i64);
        let mut next = |at_ms| {
            let event = made.next_at(at_ms);
            ((event.content % PARTITIONS as usize) as i32, event)
        };
        let history = (0..HISTORY as i64).map(|index| now_ms - 7 * HOUR_MS + index * step_ms);
        let mut events: Vec<_> = history.map(&mut next).collect();
        // They happen as they are sent, more or less: some minutes, in the window of the board throughout.
        events.extend((0..LIVE_MAX as i64).map(|index| next(now_ms + index)));
        Self { events, sent: AtomicUsize::new(HISTORY), stop: AtomicBool::new(false) }
    }

    /// Sends live events until it is told to stop.
    fn run(&self, project: &Project) {
        for piece in self.events[HISTORY + 1..].chunks(PIECE) {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            self.sent.fetch_add(piece.len(), Ordering::SeqCst);
            send(project, piece);
            thread::sleep(EVERY);
        }
    }

    /// Waits until the lane has written rows under the new lineage.
    fn until_is_new(&self, output: &Path) {
        let files = || found::files(output, "parquet").len();
        let before = files();
        while files() < before + 2 {
            assert!(self.sent.load(Ordering::SeqCst) < self.events.len(), "no live event was left, or the lane writes none");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Looks at the board until it is told to stop: it has live events only, and goes back for none.
    fn watch(&self, project: &Project) -> usize {
        let _stop = StopAtEnd(&self.stop);
        let mut redis = redis::Client::open(project.redis_url.as_str()).unwrap().get_connection().unwrap();
        let (mut looks, mut shown) = (0, HashMap::<String, f64>::new());
        while !self.stop.load(Ordering::SeqCst) {
            let board: Vec<(String, f64)> = redis::cmd("ZRANGE")
                .arg(project.board_key("top_content"))
                .arg(0)
                .arg(-1)
                .arg("WITHSCORES")
                .query(&mut redis)
                .unwrap();
            let mut live: HashMap<String, f64> = HashMap::new();
            for (_, event) in &self.events[HISTORY..self.sent.load(Ordering::SeqCst)] {
                *live.entry(format!("c{:06}", event.content)).or_default() += 1.0;
            }
            assert!(!board.is_empty() || shown.is_empty(), "the board is empty");
            for (content, score) in board {
                assert!(score <= live[&content], "the board shows history: {content} has {score} of {}", live[&content]);
                let before = shown.insert(content.clone(), score).unwrap_or(0.0);
                assert!(score >= before, "{content} went back from {before} to {score}");
            }
            looks += 1;
            thread::sleep(Duration::from_millis(5));
        }
        looks
    }
}

#[tokio::test]
async fn a_backfill_beside_live_lanes_that_is_killed_five_times_hands_over_without_gap_or_double() {
    let project = project().await;
    project.replace("sinks", "'200ms'", "'500ms'");
    let flow = Flow::new();
    let output = project.path("data/bigquery_output");
    send(&project, &flow.events[..HISTORY]);
    project.run_until_latest("http://unused");
    let old = rows(&flow.events[..HISTORY]);
    found::assert_same("before", &old, &found::enriched(&output));
    // One live event, and the board has nothing else.
    send(&project, &flow.events[HISTORY..HISTORY + 1]);
    flow.sent.store(HISTORY + 1, Ordering::SeqCst);
    let (mut falaj, page) = project.run("http://unused", &[]);
    wait_until("history has left the board", async || project.board("top_content").await.len() == 1).await;
    edit(&project);

    let looking = Looking::begin(output.clone(), HISTORY);
    let looks = thread::scope(|scope| {
        let sending = scope.spawn(|| flow.run(&project));
        let watching = scope.spawn(|| flow.watch(&project));
        let _stop = StopAtEnd(&flow.stop);
        for kill in 0..KILLS {
            killed_at_work(&project, kill);
            assert!(found::enriched(&output).values().all(|row| is_old(row.title.as_deref())), "during: the old result");
        }
        shows_itself_and_ends(&project);
        flow.until_is_new(&output);
        flow.stop.store(true, Ordering::SeqCst);
        sending.join().unwrap();
        watching.join().unwrap()
    });
    assert!(falaj.runs(), "it goes on by itself");
    let sent = flow.sent.load(Ordering::SeqCst);
    wait_until("all is read", async || {
        let figures = lane(&page, "bigquery").await;
        figures["state"] == "running" && figures["lag"] == 0
    })
    .await;
    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("is read again"), "{said}");
    assert_eq!(looking.end(), 2, "the old result, then the new one");
    project.run_until_latest("http://unused");
    found::assert_same("after", &new_rows(&flow.events[..sent]), &found::enriched(&output));
    eprintln!("{} live events; {looks} looks at the board", sent - HISTORY);
    project.finish().await;
}

fn is_old(title: Option<&str>) -> bool {
    title.is_none_or(|title| !title.starts_with("new "))
}

/// Runs the backfill to its end; its own pages say how far it is.
fn shows_itself_and_ends(project: &Project) {
    let mut falaj = Falaj::start(&mut project.command(&["backfill", "queries"]));
    let line = falaj.wait_for_line(&["the page is at http://"]);
    let page = line[line.find("http://").unwrap()..].trim_end().trim_end_matches('/').to_string();
    let lanes = ["bigquery", "top_content", "top_content_seconds"];
    let has_all = |text: &str, of: &dyn Fn(&str) -> String| lanes.iter().all(|lane| text.contains(&of(lane)));
    // The lanes are known a moment after the page.
    loop {
        let (status, metrics) = thread::spawn({
            let page = page.clone();
            move || (get(&format!("{page}/api/v1/status")), get(&format!("{page}/metrics")))
        })
        .join()
        .unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let backfills = status["status"]["backfills"].to_string();
        if has_all(&backfills, &|lane| format!("\"lane\":\"{lane}\""))
            && backfills.contains("\"step\":\"reading\"")
            && has_all(&metrics, &|lane| format!("falaj_backfill_left_records{{lane=\"{lane}\"}}"))
        {
            break;
        }
        assert!(falaj.runs(), "it has ended without saying how far it is: {backfills}");
    }
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
    let still: Vec<&str> = said.lines().filter(|line| line.contains("goes on from the new result")).collect();
    assert_eq!(still.len(), lanes.len(), "{said}");
    eprintln!("{}", still.join("\n"));
}

fn get(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() })
}

/// Starts a backfill and kills it when its lanes have written some more records.
fn killed_at_work(project: &Project, kill: usize) {
    let folder = project.path("data/run/checkpoint/falaj.backfill/bigquery");
    let records = || folder.read_dir().map_or(0, |names| names.count());
    let before = records();
    let mut falaj = Falaj::start(&mut project.command(&["backfill", "queries", "--no-web"]));
    while records() < before + 2 + kill {
        assert!(falaj.runs(), "the backfill has ended before it was killed: {}", falaj.kill());
        thread::sleep(Duration::from_millis(5));
    }
    falaj.kill();
}
