//! What the view shows, and what it remembers from one look to the next. It never touches the terminal itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use crate::status::{LaneSnapshot, LaneState, Snapshot};

type Boards = BTreeMap<String, Vec<(String, f64)>>;

/// Rates are taken over so long.
const RATE_OVER: Duration = Duration::from_secs(3);
/// A movement is shown for so long.
const MOVED_FOR: Duration = Duration::from_secs(3);
/// Members of a board that are remembered: more than fit on a screen.
const MEMBERS_MAX: usize = 200;
/// Below this width lanes stand under the boards.
const WIDE: u16 = 90;
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// The view and its memory.
#[derive(Debug)]
pub(super) struct View {
    title: String,
    places: BTreeMap<String, BTreeMap<String, Place>>,
    samples: BTreeMap<String, VecDeque<(Instant, u64)>>,
}

/// Where a member stood at the last look, and how it last moved (up is above 0).
#[derive(Debug, Clone, Copy)]
struct Place {
    place: usize,
    moved: i64,
    at: Instant,
}

impl View {
    pub(super) fn new(title: &str) -> Self {
        Self { title: plain(title), places: BTreeMap::new(), samples: BTreeMap::new() }
    }

    /// Remembers this look, for rates and movement. Call it before showing it.
    pub(super) fn note(&mut self, status: &Snapshot, boards: &Boards, now: Instant) {
        self.places = boards.iter().map(|(name, members)| (name.clone(), self.places_of(name, members, now))).collect();
        self.samples.retain(|name, _| status.lanes.iter().any(|lane| lane.name == *name));
        for lane in &status.lanes {
            let samples = self.samples.entry(lane.name.clone()).or_default();
            samples.push_back((now, lane.records));
            while samples.len() > 2 && samples.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_OVER) {
                samples.pop_front();
            }
        }
    }

    fn places_of(&self, name: &str, members: &[(String, f64)], now: Instant) -> BTreeMap<String, Place> {
        let before = self.places.get(name);
        let place_of = |(place, (member, _)): (usize, &(String, f64))| {
            let next = match before.and_then(|places| places.get(member)) {
                Some(last) if last.place == place => *last,
                Some(last) => Place { place, moved: last.place as i64 - place as i64, at: now },
                None => Place { place, moved: 0, at: now },
            };
            (member.clone(), next)
        };
        members.iter().take(MEMBERS_MAX).enumerate().map(place_of).collect()
    }

    /// Records per second over the last seconds.
    fn rate(&self, lane: &str) -> u64 {
        let ends = self.samples.get(lane).and_then(|samples| Some((samples.front()?, samples.back()?)));
        ends.map_or(0, |((from, before), (to, after))| {
            let seconds = to.duration_since(*from).as_secs_f64();
            if seconds > 0.0 { (after.saturating_sub(*before) as f64 / seconds) as u64 } else { 0 }
        })
    }

    pub(super) fn render(&self, frame: &mut Frame<'_>, status: &Snapshot, boards: &Boards, footer: &str, now: Instant) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
        let title = Line::from(vec![Span::from(format!(" {} ", self.title)).bold().cyan(), Span::from("q quits").dim()]);
        frame.render_widget(title, head);
        frame.render_widget(Line::from(format!(" {}", plain(footer))).dim(), foot);
        let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
        let [left, right] =
            if body.width >= WIDE { Layout::horizontal(halves).areas(body) } else { Layout::vertical(halves).areas(body) };
        let areas = Layout::vertical(boards.iter().map(|_| Constraint::Fill(1))).split(left);
        for ((name, members), area) in boards.iter().zip(areas.iter()) {
            self.render_board(frame, *area, name, members, now);
        }
        if boards.is_empty() {
            frame.render_widget(Paragraph::new("no leaderboard yet").dim().block(Block::bordered()), left);
        }
        let lanes: Vec<Line<'_>> = status.lanes.iter().flat_map(|lane| self.lane_lines(lane)).collect();
        let lanes = if lanes.is_empty() { vec![Line::from("no lane yet").dim()] } else { lanes };
        let block = Block::bordered().title(" lanes ").border_style(Style::new().dim());
        frame.render_widget(Paragraph::new(lanes).wrap(Wrap { trim: false }).block(block), right);
    }

    fn render_board(&self, frame: &mut Frame<'_>, area: Rect, name: &str, members: &[(String, f64)], now: Instant) {
        let block = Block::bordered().title(format!(" {} ", plain(name))).border_style(Style::new().dim());
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let most = members.iter().map(|(_, score)| *score).fold(0.0, f64::max);
        for (place, (row, (member, score))) in inner.rows().zip(members).enumerate() {
            let columns = [
                Constraint::Length(4),
                Constraint::Length(4),
                Constraint::Length((inner.width / 3).min(28)),
                Constraint::Fill(1),
                Constraint::Length(13),
            ];
            let [number, movement, text, bar, value] = Layout::horizontal(columns).areas(row);
            frame.render_widget(Line::from(format!("{} ", place + 1)).dim().alignment(Alignment::Right), number);
            frame.render_widget(self.movement(name, member, now), movement);
            frame.render_widget(Span::from(plain(member)), text);
            frame.render_widget(Span::from(bar_of(*score, most, bar.width)).cyan(), bar);
            frame.render_widget(Line::from(score_text(*score)).bold().alignment(Alignment::Right), value);
        }
    }

    fn movement(&self, board: &str, member: &str, now: Instant) -> Span<'static> {
        match self.places.get(board).and_then(|places| places.get(member)) {
            Some(place) if place.moved != 0 && now.duration_since(place.at) < MOVED_FOR => match place.moved {
                up @ 1.. => Span::from(format!("▲{up}")).green(),
                down => Span::from(format!("▼{}", -down)).red(),
            },
            _ => Span::default(),
        }
    }

    fn lane_lines(&self, lane: &LaneSnapshot) -> Vec<Line<'static>> {
        let color = match lane.state {
            LaneState::Starting => Color::Yellow,
            LaneState::Running | LaneState::Done => Color::Green,
            LaneState::Stopped => Color::Red,
        };
        let mut lines = vec![
            Line::from(vec![
                Span::styled(plain(&lane.name), Style::new().add_modifier(Modifier::BOLD)),
                Span::from("  "),
                Span::styled(state_text(lane.state), color),
                Span::from(format!("  {} records/s", thousands(self.rate(&lane.name)))),
            ]),
            Line::from(format!(
                "  p50 {}  p99 {}  lag {}  epoch {}",
                latency(lane.latency_p50_us),
                latency(lane.latency_p99_us),
                thousands(lane.lag.max(0).unsigned_abs()),
                lane.epoch
            )),
            Line::from(format!(
                "  {} in  {} out  {} late  {} dead",
                thousands(lane.records),
                thousands(lane.emitted),
                thousands(lane.late),
                thousands(lane.dead)
            ))
            .dim(),
        ];
        if let Some(error) = &lane.error {
            lines.push(Line::from(format!("  {}", plain(error))).red());
        } else if let Some(service) = &lane.waits_for {
            lines.push(Line::from(format!("  waits for {}", plain(service))).yellow());
        }
        lines
    }

    /// Everything in one line, for where nothing can be drawn.
    pub(super) fn line(&self, status: &Snapshot, boards: &Boards, footer: &str) -> String {
        let board_text = |(name, members): (&String, &Vec<(String, f64)>)| {
            let leaders: Vec<_> =
                members.iter().take(3).map(|(member, score)| format!("{} {}", plain(member), score_text(*score))).collect();
            format!("{}: {}", plain(name), if leaders.is_empty() { "empty".into() } else { leaders.join(", ") })
        };
        let lane_text = |lane: &LaneSnapshot| {
            let trouble = lane.error.as_deref().or(lane.waits_for.as_deref()).map(plain);
            let state = match (lane.state, trouble) {
                (LaneState::Running, None) => {
                    format!("{}/s p99 {}", thousands(self.rate(&lane.name)), latency(lane.latency_p99_us))
                }
                (state, None) => state_text(state).to_string(),
                (state, Some(trouble)) => format!("{} ({trouble})", state_text(state)),
            };
            format!("{} {} {state}", plain(&lane.name), thousands(lane.records))
        };
        let mut parts: Vec<String> = boards.iter().map(board_text).collect();
        parts.extend(status.lanes.iter().map(lane_text));
        parts.extend((!footer.is_empty()).then(|| plain(footer)));
        parts.join(" | ")
    }
}

/// `text` without what could steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn state_text(state: LaneState) -> &'static str {
    match state {
        LaneState::Starting => "starting",
        LaneState::Running => "running",
        LaneState::Done => "done",
        LaneState::Stopped => "stopped",
    }
}

/// A bar of `score / most` of `width` cells, to an eighth of a cell.
fn bar_of(score: f64, most: f64, width: u16) -> String {
    let share = if most > 0.0 { (score / most).clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * f64::from(width) * 8.0).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

fn score_text(score: f64) -> String {
    let sign = if score < 0.0 { "-" } else { "" };
    match score.abs() {
        // Beyond it a score is no longer exact to the tenth.
        large @ 1e15.. => format!("{sign}{large:.3e}"),
        size if size.fract() == 0.0 => format!("{sign}{}", thousands(size as u64)),
        size => {
            let tenths = (size * 10.0).round() as u64;
            format!("{sign}{}.{}", thousands(tenths / 10), tenths % 10)
        }
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn latency(latency_us: u64) -> String {
    match latency_us {
        0 => "–".to_string(),
        1..1_000 => format!("{latency_us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", latency_us as f64 / 1e3),
        _ => format!("{:.1} s", latency_us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::status::Status;

    fn boards(members: &[(&str, f64)]) -> Boards {
        BTreeMap::from([("top_content".to_string(), members.iter().map(|(m, s)| (m.to_string(), *s)).collect())])
    }

    fn screen(view: &View, status: &Snapshot, boards: &Boards, size: (u16, u16), now: Instant) -> String {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| view.render(frame, status, boards, "8 s left", now)).unwrap();
        let buffer = terminal.backend().buffer();
        buffer
            .content
            .chunks(size.0.into())
            .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
            .collect()
    }

    #[test]
    fn boards_show_bars_and_movement_and_lanes_show_rates() {
        let (status, now) = (Status::default(), Instant::now());
        let lane = status.lane("top_content");
        lane.set_state(LaneState::Running);
        status.lane("partner").set_trouble(None, Some("http://localhost:8090".to_string()));
        let mut view = View::new("falaj");
        view.note(&status.snapshot(), &boards(&[("c1", 9.0), ("c2", 8.0)]), now);
        lane.records.store(20_000, Ordering::Relaxed);
        let (later, next) = (now + Duration::from_secs(2), boards(&[("c2", 1200.0), ("c1", 600.5)]));
        view.note(&status.snapshot(), &next, later);

        let text = screen(&view, &status.snapshot(), &next, (120, 20), later);
        let row = |part: &str| text.lines().find(|line| line.contains(part)).unwrap_or_default().to_string();
        assert!(row("c2").contains("▲1") && row("c2").contains("1,200"), "{text}");
        assert!(row("c1 ").contains("▼1") && row("c1 ").contains("600.5"), "{text}");
        assert!(row("c2").matches('█').count() > row("c1 ").matches('█').count(), "{text}");
        assert!(text.contains("10,000 records/s") && text.contains("20,000 in"), "{text}");
        assert!(text.contains("waits for http://localhost:8090"), "{text}");
        assert!(text.contains("8 s left") && text.contains("q quits"), "{text}");

        let much_later = later + MOVED_FOR;
        view.note(&status.snapshot(), &next, much_later);
        assert!(!screen(&view, &status.snapshot(), &next, (120, 20), much_later).contains('▲'));
    }

    #[test]
    fn any_size_and_any_figures_can_be_drawn() {
        let (status, now) = (Status::default(), Instant::now());
        status.lane("a").lag.store(-5, Ordering::Relaxed);
        let odd = boards(&[("حكاية القهوة", f64::NAN), ("\u{1b}[2J", f64::INFINITY), ("", -3.5), ("x", 1e300)]);
        let mut view = View::new("falaj");
        for size in [(1, 1), (3, 2), (20, 5), (89, 10), (300, 80)] {
            for boards in [&odd, &Boards::new()] {
                view.note(&status.snapshot(), boards, now);
                screen(&view, &status.snapshot(), boards, size, now);
            }
        }
        let line = view.line(&status.snapshot(), &odd, "done");
        assert!(!line.contains('\u{1b}') && line.ends_with("| done"), "{line}");
    }

    #[test]
    fn a_plain_line_has_leaders_and_lanes() {
        let status = Status::default();
        status.lane("enriched").set_state(LaneState::Running);
        status.lane("partner").set_trouble(Some("it is gone".to_string()), None);
        let view = View::new("falaj");
        let line = view.line(&status.snapshot(), &boards(&[("c1", 12_345.0), ("c2", 1.25)]), "");
        assert_eq!(line, "top_content: c1 12,345, c2 1.3 | enriched 0 0/s p99 – | partner 0 starting (it is gone)");
    }
}
