//! `scripts/chaos`: the proof that each event counts once, in every sink, whatever dies. A generator sends events at a steady rate,
//! falaj runs and is killed again and again, its servers and receivers are broken beside it; in the end every sink is compared
//! with an independent recomputation from the topic. Rows that arrival order made late are those that the intents say.
//!
//! It needs servers of its own, which it kills: `scripts/chaos` brings them. `FALAJ_CHAOS_KILLS`, `FALAJ_CHAOS_SEED`, `FALAJ_CHAOS_S3`,
//! `FALAJ_CHAOS_RATE` (events a second) and `FALAJ_CHAOS_BINARY` (instead of the one that cargo built) are read.

mod compare;
mod event;
mod generator;
mod lanes;
mod plan;
mod poller;
mod receiver;
mod records;
mod report;
mod scene;
mod services;
mod verdict;
mod windows;

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

use falaj::tool::generate::Contents;

use self::event::Log;
use self::plan::Plan;
use self::poller::Losses;
use self::receiver::Receiver;
use self::records::{Collector, Place};
use self::report::Report;
use self::scene::{Done, Scene};
use crate::support::project::Project;
use crate::support::s3::Server;

/// Rows in the table `content`.
const CONTENTS: usize = 300;
const CONTENTS_SEED: u64 = 7;
const PARTITIONS: i32 = 4;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills servers, which must be its own: scripts/chaos"]
async fn nothing_is_lost_or_doubled_whatever_dies() {
    let began = Instant::now();
    let seed = setting("FALAJ_CHAOS_SEED", 1);
    let kills = setting("FALAJ_CHAOS_KILLS", 20) as usize;
    let rate_per_second = setting("FALAJ_CHAOS_RATE", 1_000);
    assert!(std::env::var_os("FALAJ_SERVICES_DIR").is_some(), "run scripts/chaos, which brings servers that may be killed");
    eprintln!("chaos: seed {seed}, {kills} kills, {rate_per_second} events a second");
    let plan = Plan::deal(seed, kills);
    // What a failed run leaves is worth a look, so nothing is removed before the end.
    let scene = ManuallyDrop::new(build(seed).await);
    let mut names: Vec<&str> = lanes::WINDOWED.map(|windows| windows.lane).to_vec();
    names.extend(lanes::ROWS);
    names.push(lanes::DLQ);
    let place =
        scene.bucket.as_ref().map_or_else(|| Place::Folder(scene.project.path("data/run/checkpoint")), lanes::checkpoint_in);
    let mut collector = Collector::new(place, &names);
    let keys = compare::POLLED.map(|windows| scene.project.board_key(windows.lane));
    let (stop_events, stop_looks) = (AtomicBool::new(false), AtomicBool::new(false));

    let (sent, seen) = thread::scope(|scope| {
        let generator = scope.spawn(|| generator::run(&scene.project.topic, seed, rate_per_second, PARTITIONS, &stop_events));
        let poller = scope.spawn(|| poller::watch(&scene.project.redis_url, &keys, &scene.losses, &stop_looks));
        run(&scene, &plan, &mut collector);
        stop_events.store(true, Ordering::Relaxed);
        let sent = generator.join().unwrap();
        finish(&scene);
        collector.collect();
        collector.check_all_read();
        stop_looks.store(true, Ordering::Relaxed);
        (sent, poller.join().unwrap())
    });
    let ran = began.elapsed();
    if let Some(bucket) = &scene.bucket {
        for folder in ["bigquery_output", "by_type"] {
            bucket.copy(&format!("{folder}/"), &scene.project.path(&format!("data/{folder}")));
        }
    }
    let log = Log::read(&scene.project.topic, PARTITIONS, Contents::new(CONTENTS, CONTENTS_SEED));
    let report = Report::new(&scene, &collector, &log, sent, &seen).await;
    report.print(&scene, &collector, &log, &seen);
    eprintln!("chaos: {} s, of which {} s to compare", began.elapsed().as_secs(), (began.elapsed() - ran).as_secs());
    if !report.is_good() {
        let (folder, topic) = (scene.project.path(""), &scene.project.name);
        panic!("chaos: seed {seed} found something; kept: {} and the topic {topic}", folder.display());
    }
    // What is in the servers goes with them.
    drop(ManuallyDrop::into_inner(scene));
}

async fn build(seed: u64) -> Scene {
    let mut project = Project::new(PARTITIONS).await;
    let binary = std::env::var("FALAJ_CHAOS_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_falaj").to_string());
    let honest = Receiver::start(true, seed, &project.path("received"));
    let uncertain = Receiver::start(false, seed, &project.path("received_uncertain"));
    lanes::write(&project, &uncertain.url());
    let bucket = std::env::var_os("FALAJ_CHAOS_S3").map(|_| Server::start());
    if let Some(bucket) = &bucket {
        lanes::live_in(bucket, &mut project);
    }
    project.fill_content(CONTENTS, CONTENTS_SEED);
    let binary = PathBuf::from(binary);
    Scene { project, binary, honest, uncertain, bucket, losses: Losses::default(), done: Mutex::new(Done::default()) }
}

/// Plays all rounds, and breaks what is beside falaj on a thread of its own, one after the other.
fn run(scene: &Scene, plan: &Plan, collector: &mut Collector) {
    thread::scope(|scope| {
        let (send, sides) = sync_channel(plan.rounds.len());
        scope.spawn(move || {
            for (at, side) in sides {
                thread::sleep(at);
                scene.break_side(side);
            }
        });
        for (index, round) in plan.rounds.iter().enumerate() {
            if let Some(side) = round.side {
                send.send(side).unwrap();
            }
            scene.play(round, collector);
            if index % 20 == 19 {
                eprintln!("chaos: {} of {} rounds", index + 1, plan.rounds.len());
            }
        }
    });
}

/// Runs to the end of the log.
fn finish(scene: &Scene) {
    let began = Instant::now();
    let (status, said) = match scene.start(&["--until", "latest"]).end_within(std::time::Duration::from_secs(600)) {
        Ok(ended) => ended,
        Err(said) => return scene.violation(format!("the last run does not end:\n{said}")),
    };
    if status.code() != Some(0) {
        scene.violation(format!("the last run ended with {status}:\n{said}"));
    }
    eprintln!("chaos: the last run took {} ms", began.elapsed().as_millis());
}
