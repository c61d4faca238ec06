//! The lanes, lookups, captures and memory as lines of text.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};

use super::words::{latency, plain, state_text, thousands};
use crate::memory::shown_bytes;
use crate::status::{CaptureSnapshot, LaneSnapshot, LaneState, LookupSnapshot, Snapshot};

/// Rates are taken over so long.
const RATE_OVER: Duration = Duration::from_secs(3);
/// Between two bars of a lane's rate, and how many there are.
const BAR_EVERY: Duration = Duration::from_secs(1);
const BARS_MAX: usize = 24;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What was seen of the lanes in the last seconds.
#[derive(Debug, Default)]
pub(super) struct Lanes(BTreeMap<String, Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// When, with the records read and rows written until then.
    counted: VecDeque<(Instant, u64, u64)>,
    rates: VecDeque<u64>,
    rated: Option<Instant>,
}

impl Lanes {
    pub(super) fn note(&mut self, status: &Snapshot, now: Instant) {
        self.0.retain(|name, _| status.lanes.iter().any(|lane| lane.name == *name));
        for lane in &status.lanes {
            self.0.entry(lane.name.clone()).or_default().note(lane, now);
        }
    }

    /// Records per second read, and rows per second written, over the last seconds.
    pub(super) fn rates(&self, lane: &str) -> (u64, u64) {
        self.0.get(lane).map(Seen::rates).unwrap_or_default()
    }

    pub(super) fn lines(&self, status: &Snapshot, now_ms: i64) -> Vec<Line<'static>> {
        let mut lines: Vec<Line<'_>> = status.lanes.iter().flat_map(|lane| self.lane(lane, now_ms)).collect();
        if lines.is_empty() {
            lines.push(Line::from("no lane yet").dim());
        }
        lines.extend(status.lookups.iter().flat_map(|of| lookup(of, now_ms)));
        lines.extend(status.captures.iter().flat_map(capture));
        let limit = status.memory.limit_bytes.map_or(String::new(), |limit| format!(" of {}", shown_bytes(limit)));
        lines.push(Line::from(format!("memory {}{limit}", shown_bytes(status.memory.used_bytes))).dim());
        lines
    }

    fn lane(&self, lane: &LaneSnapshot, now_ms: i64) -> Vec<Line<'static>> {
        let color = match lane.state {
            LaneState::Starting => Color::Yellow,
            LaneState::Running | LaneState::Done => Color::Green,
            LaneState::Stopped => Color::Red,
        };
        let name = Span::styled(plain(&lane.name), Style::new().add_modifier(Modifier::BOLD));
        let state = Span::styled(state_text(lane.state), color);
        let mut lines = vec![Line::from(vec![name, Span::from("  "), state])];
        lines.extend(way(lane).map(|way| Line::from(way).dim()));
        let (read, written) = self.rates(&lane.name);
        let bars = self.0.get(&lane.name).map(Seen::bars).unwrap_or_default();
        let rates = format!("  {} records/s  {} rows/s  ", thousands(read), thousands(written));
        lines.push(Line::from(vec![Span::from(rates), Span::from(bars).cyan()]));
        if lane.event_latency_p50_us > 0 {
            let [p50, p95, p99] =
                [lane.event_latency_p50_us, lane.event_latency_p95_us, lane.event_latency_p99_us].map(latency);
            lines.push(Line::from(format!("  event to sink: p50 {p50}  p95 {p95}  p99 {p99}")));
        }
        let behind = behind(lane, now_ms).map_or(String::new(), |behind| format!("  behind {behind}"));
        let lag = thousands(lane.lag.max(0).unsigned_abs());
        lines.push(Line::from(format!("  lag {lag}{behind}  state {}", shown_bytes(lane.state_bytes))));
        let counts = format!(
            "  {} in  {} out  {} late  {} dead",
            thousands(lane.records),
            thousands(lane.emitted),
            thousands(lane.late),
            thousands(lane.dead + lane.refused)
        );
        lines.push(Line::from(counts).dim());
        if let Some(error) = &lane.error {
            lines.push(Line::from(format!("  {}", plain(error))).red());
        } else if let Some(service) = &lane.waits_for {
            lines.push(Line::from(format!("  waits for {}", plain(service))).yellow());
        }
        lines
    }
}

impl Seen {
    fn note(&mut self, lane: &LaneSnapshot, now: Instant) {
        self.counted.push_back((now, lane.records, lane.emitted));
        while self.counted.len() > 2 && self.counted.front().is_some_and(|(at, ..)| now.duration_since(*at) > RATE_OVER) {
            self.counted.pop_front();
        }
        if self.rated.is_none_or(|at| now.duration_since(at) >= BAR_EVERY) {
            self.rated = Some(now);
            if self.rates.len() == BARS_MAX {
                self.rates.pop_front();
            }
            self.rates.push_back(self.rates().0);
        }
    }

    fn rates(&self) -> (u64, u64) {
        let (Some((from, read, written)), Some((to, read_to, written_to))) = (self.counted.front(), self.counted.back()) else {
            return (0, 0);
        };
        let seconds = to.duration_since(*from).as_secs_f64();
        // A lane that began anew counts from 0 again.
        let rate = |before: u64, after: u64| (after.saturating_sub(before) as f64 / seconds) as u64;
        if seconds > 0.0 { (rate(*read, *read_to), rate(*written, *written_to)) } else { (0, 0) }
    }

    fn bars(&self) -> String {
        let most = self.rates.iter().copied().max().unwrap_or(0).max(1);
        self.rates.iter().map(|rate| BARS[(rate * (BARS.len() as u64 - 1) / most) as usize]).collect()
    }
}

/// Where its rows come from and go to.
fn way(lane: &LaneSnapshot) -> Option<String> {
    let wiring = &lane.wiring;
    let asks = if wiring.lookups.is_empty() { String::new() } else { format!(" with {}", wiring.lookups.join(", ")) };
    (!wiring.source.is_empty()).then(|| plain(&format!("  {}{asks} → {}", wiring.source, wiring.sink)))
}

/// How far the watermark is behind the clock.
fn behind(lane: &LaneSnapshot, now_ms: i64) -> Option<String> {
    let us = |at_ns: i64| u64::try_from((now_ms - at_ns / 1_000_000).max(1)).unwrap_or(1).saturating_mul(1_000);
    lane.watermark_ns.map(|at_ns| latency(us(at_ns)))
}

fn lookup(of: &LookupSnapshot, now_ms: i64) -> Vec<Line<'static>> {
    let age =
        if of.loaded_ms == 0 { "not loaded".to_string() } else { format!("{} s old", (now_ms - of.loaded_ms).max(0) / 1000) };
    let text = format!("lookup {}  {} rows  {age}  {} misses", plain(&of.name), thousands(of.rows), thousands(of.misses));
    with_trouble(Line::from(text), of.trouble.as_ref())
}

fn capture(of: &CaptureSnapshot) -> Vec<Line<'static>> {
    let text = format!(
        "capture {}  {} changes  {} behind  {} kept",
        plain(&of.slot),
        thousands(of.changes),
        shown_bytes(of.lag_bytes),
        shown_bytes(of.retained_bytes)
    );
    with_trouble(Line::from(text), of.trouble.as_ref())
}

fn with_trouble(line: Line<'static>, trouble: Option<&String>) -> Vec<Line<'static>> {
    let trouble = trouble.map(|trouble| Line::from(format!("  {}", plain(trouble))).yellow());
    [line].into_iter().chain(trouble).collect()
}
