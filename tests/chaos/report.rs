//! What came of a run: every comparison and everything that should not be, and the page that says so.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::compare::{self, POLLED};
use super::event::Log;
use super::generator::Sent;
use super::lanes;
use super::poller::Seen;
use super::records::Collector;
use super::scene::Scene;
use super::verdict::Verdict;

const VIOLATIONS_SHOWN: usize = 20;

/// All comparisons.
pub(super) struct Report {
    verdicts: Vec<Verdict>,
    violations: Vec<String>,
    late: usize,
    excused: usize,
    sent: Sent,
}

impl Report {
    /// Compares.
    pub(super) async fn new(scene: &Scene, collector: &Collector, log: &Log, sent: Sent, seen: &[Seen]) -> Self {
        let (project, lanes) = (&scene.project, &collector.lanes);
        let mut violations = std::mem::take(&mut scene.done.lock().unwrap().violations);
        violations.extend(collector.violations.iter().cloned());
        if log.good() != sent.good {
            violations.push(format!("{} good events were sent, but the topic has {}", sent.good, log.good()));
        }
        accounted(collector, log, &mut violations);
        let mut verdicts = vec![
            compare::parquet_rows(log, &project.path("data/bigquery_output")),
            compare::received_rows("HTTP, honours keys", log, &project.name, &scene.honest, false),
            compare::received_rows("HTTP, cuts the line", log, &project.name, &scene.uncertain, true),
            compare::kafka_rows(log, project),
        ];
        let (letters, late, wrong) = compare::dead_letters(log, collector, &project.topic);
        verdicts.extend(letters);
        violations.extend(wrong);
        verdicts.push(compare::final_windows(log, &lanes[lanes::BY_TYPE.lane], &project.path("data/by_type")));
        for (windows, seen) in POLLED.into_iter().zip(seen) {
            let now = project.board(windows.lane).await;
            let (verdict, wrong) = compare::board(log, windows, &lanes[windows.lane], seen, &now);
            verdicts.push(verdict);
            violations.extend(wrong);
        }
        let lost = scene.done.lock().unwrap().lost.clone();
        let (verdict, excused) = compare::hashes(log, &lanes[lanes::BY_CONTENT.lane], project, &lost).await;
        verdicts.push(verdict);
        for (name, receiver) in [("honours keys", &scene.honest), ("cuts the line", &scene.uncertain)] {
            match receiver.counts().conflicts.load(Ordering::Relaxed) {
                0 => {}
                count => violations.push(format!("HTTP, {name}: {count} keys came again with another body")),
            }
        }
        Self { verdicts, violations, late, excused, sent }
    }

    /// Whether nothing was lost, doubled, or otherwise wrong.
    pub(super) fn is_good(&self) -> bool {
        self.violations.is_empty() && self.sent.good > 0 && self.verdicts.iter().all(Verdict::is_good)
    }

    /// Says it.
    pub(super) fn print(&self, scene: &Scene, collector: &Collector, log: &Log, seen: &[Seen]) {
        let done = scene.done.lock().unwrap();
        let records: usize = log.partitions.iter().map(Vec::len).sum();
        let Sent { good, poison, tombstones } = self.sent;
        eprintln!(
            "\n{records} records on {} partitions: {good} events, {poison} poison, {tombstones} tombstones",
            log.partitions.len()
        );
        let faults: Vec<String> = done.faults.iter().map(|(fault, count)| format!("{count} × {fault}")).collect();
        eprintln!("faults: {}", faults.join(", "));
        let epochs: usize = collector.lanes.values().map(|lane| lane.epochs.len()).sum();
        let claims: u64 = collector.lanes.values().map(|lane| lane.claims).sum();
        let snapshots: usize = collector.lanes.values().map(|lane| lane.snapshots).sum();
        eprintln!(
            "{epochs} epochs, {claims} claims, {snapshots} snapshots in {} lanes; rows late for a lane: {}",
            collector.lanes.len(),
            self.late
        );
        eprintln!("SIGKILL to the first new commit, where one came before the next end:");
        for name in [lanes::TOP.lane, lanes::TOP_600.lane, lanes::BY_TYPE.lane, lanes::ROWS[0]] {
            let is_hindered =
                |(at, took): &(SystemTime, Duration)| done.away.iter().any(|(from, to)| *at >= *from && *at - *took <= *to);
            let all = collector.lanes[name].recoveries(&done.kills, &done.others);
            let (hindered, free): (Vec<_>, Vec<_>) = all.into_iter().partition(is_hindered);
            let took = |all: Vec<(SystemTime, Duration)>| spread(all.into_iter().map(|(_, took)| took).collect());
            eprintln!("  {name:<12} {}; while a server was away: {}", took(free), took(hindered));
        }
        eprintln!("SIGTERM to the end: {}", spread(done.stops.clone()));
        eprintln!("SIGCONT to the end of the older process: {}", spread(done.fenced.clone()));
        for (windows, seen) in POLLED.iter().zip(seen) {
            eprintln!(
                "board {}: {} looks saw {} different boards; empty {} times before the first or after a loss, {} times otherwise",
                windows.lane,
                seen.looks,
                seen.boards.len(),
                seen.excused,
                seen.empty
            );
        }
        for (name, receiver) in [("honours keys", &scene.honest), ("cuts the line", &scene.uncertain)] {
            let count = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::Relaxed);
            let counts = receiver.counts();
            let (requests, repeated, failed) = (count(&counts.requests), count(&counts.repeated), count(&counts.failed));
            eprintln!("HTTP, {name}: {requests} requests, {repeated} of them repeated, {failed} failed on purpose");
        }
        eprintln!("hash slots that Redis had lost and no new row brought back: {}\n", self.excused);
        eprintln!(
            "{:<42} {:>9} {:>9} {:>6} {:>7} {:>6} {:>7}",
            "sink", "expected", "found", "lost", "doubled", "wrong", "foreign"
        );
        for it in &self.verdicts {
            let Verdict { sink, expected, found, lost, doubled, wrong, foreign, examples } = it;
            eprintln!("{sink:<42} {expected:>9} {found:>9} {lost:>6} {doubled:>7} {wrong:>6} {foreign:>7}");
            examples.iter().for_each(|example| eprintln!("    {}", short(example)));
        }
        self.violations.iter().take(VIOLATIONS_SHOWN).for_each(|what| eprintln!("VIOLATION: {}", short(what)));
        eprintln!("{} violations beside these", self.violations.len().saturating_sub(VIOLATIONS_SHOWN));
    }
}

/// I1: every record of the topic is in the spans of every lane (which touch, as the collector has seen), and every epoch that was
/// intended is committed.
fn accounted(collector: &Collector, log: &Log, violations: &mut Vec<String>) {
    for (name, lane) in &collector.lanes {
        let ends = log.ends();
        let open = ends.iter().enumerate().find(|(partition, end)| lane.positions.get(*partition as i32).unwrap_or(0) < **end);
        // The lane of undecodable records writes its positions down only when there are some.
        if let Some((partition, end)) = open.filter(|_| name != lanes::DLQ) {
            violations.push(format!("lane '{name}' ends at {:?}, but partition {partition} at {end}", lane.positions));
        }
        if lane.committed != lane.epochs.len() as u64 {
            violations.push(format!("lane '{name}' has {} intents and {} commits", lane.epochs.len(), lane.committed));
        }
    }
}

fn spread(mut times: Vec<Duration>) -> String {
    if times.is_empty() {
        return "none".to_string();
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_millis();
    format!("p50 {} ms, p99 {} ms, most {} ms of {}", at(0.5), at(0.99), at(1.0), times.len())
}

fn short(text: &str) -> String {
    text.chars().take(2_000).collect()
}
