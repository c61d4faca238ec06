//! What the view shows, and what it remembers from one look to the next. It never touches the terminal itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use super::lanes::Lanes;
use super::words::{bar_of, latency, plain, score_text, state_text, thousands};
use crate::clock::Clock;
use crate::status::{LaneSnapshot, LaneState, Snapshot};

type Boards = BTreeMap<String, Vec<(String, f64)>>;

/// A movement is shown for so long.
const MOVED_FOR: Duration = Duration::from_secs(3);
/// Members of a board that are remembered: more than fit on a screen.
const MEMBERS_MAX: usize = 200;
/// Below this width lanes stand under the boards.
const WIDE: u16 = 90;

/// The view and its memory.
#[derive(Debug)]
pub(super) struct View {
    title: String,
    places: BTreeMap<String, BTreeMap<String, Place>>,
    lanes: Lanes,
    now_ms: i64,
    /// Lines of the lanes above the first that is shown.
    scrolled: u16,
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
        Self { title: plain(title), places: BTreeMap::new(), lanes: Lanes::default(), now_ms: 0, scrolled: 0 }
    }

    /// Remembers this look, for rates and movement. Call it before showing it.
    pub(super) fn note(&mut self, status: &Snapshot, boards: &Boards, now: Instant) {
        self.places = boards.iter().map(|(name, members)| (name.clone(), self.places_of(name, members, now))).collect();
        self.lanes.note(status, now);
        self.now_ms = Clock::system().now_ms();
    }

    /// Moves the lanes by so many lines; up is below 0.
    pub(super) fn scroll(&mut self, lines: i16) {
        self.scrolled = self.scrolled.saturating_add_signed(lines);
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

    pub(super) fn render(&mut self, frame: &mut Frame<'_>, status: &Snapshot, boards: &Boards, footer: &str, now: Instant) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
        let title =
            Line::from(vec![Span::from(format!(" {} ", self.title)).bold().cyan(), Span::from("q quits, ↑ ↓ scroll").dim()]);
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
        let lines = self.lanes.lines(status, self.now_ms);
        // The last line stays in sight. Long lines wrap, so this is the least that there is.
        self.scrolled = self.scrolled.min(u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(1));
        let block = Block::bordered().title(" lanes ").border_style(Style::new().dim());
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((self.scrolled, 0)).block(block), right);
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
                    format!("{}/s p99 {}", thousands(self.lanes.rates(&lane.name).0), latency(lane.latency_p99_us))
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

    fn screen(view: &mut View, status: &Snapshot, boards: &Boards, size: (u16, u16), now: Instant) -> String {
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

        let text = screen(&mut view, &status.snapshot(), &next, (120, 20), later);
        let row = |part: &str| text.lines().find(|line| line.contains(part)).unwrap_or_default().to_string();
        assert!(row("c2").contains("▲1") && row("c2").contains("1,200"), "{text}");
        assert!(row("c1 ").contains("▼1") && row("c1 ").contains("600.5"), "{text}");
        assert!(row("c2").matches('█').count() > row("c1 ").matches('█').count(), "{text}");
        assert!(text.contains("10,000 records/s") && text.contains("20,000 in"), "{text}");
        assert!(text.contains("waits for http://localhost:8090"), "{text}");
        assert!(text.contains("8 s left") && text.contains("q quits"), "{text}");

        let much_later = later + MOVED_FOR;
        view.note(&status.snapshot(), &next, much_later);
        assert!(!screen(&mut view, &status.snapshot(), &next, (120, 20), much_later).contains('▲'));
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
                screen(&mut view, &status.snapshot(), boards, size, now);
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
