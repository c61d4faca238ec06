//! The live view in a terminal: leaderboards with bars and movement on the left, lanes with their figures on the right. Where
//! there is no terminal it is one plain line a second.

mod lanes;
mod view;
mod words;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::view::View;
use crate::error::{Error, Kind, Result};
use crate::status::Snapshot;

/// How far a page up or down goes.
const PAGE: i16 = 10;
/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The terminal while it shows the view. Dropping it gives the terminal back as it was, also when a panic unwinds.
/// While it is up nothing else may write to the terminal, logs included.
#[derive(Debug)]
pub struct Screen {
    terminal: Option<DefaultTerminal>,
    view: View,
    line_at: Option<Instant>,
    quit: bool,
}

impl Screen {
    /// Takes the terminal, if stdout is one that can be drawn on; otherwise [`Self::draw`] prints plain lines.
    pub fn start(title: &str) -> Result<Self> {
        let terminal = match stdout().is_terminal().then(ratatui::try_init).transpose() {
            Ok(terminal) => terminal,
            Err(cause) => {
                // It may have got half-way.
                ratatui::restore();
                return Err(gone(cause));
            }
        };
        Ok(Self { terminal, view: View::new(title), line_at: None, quit: false })
    }

    /// Whether it draws; `false`: it prints plain lines.
    pub fn is_drawn(&self) -> bool {
        self.terminal.is_some()
    }

    /// Shows the figures. Call it some ten times a second; rates and movement are worked out from call to call.
    /// `boards` have the leader first. `Err`: the terminal or the pipe is gone.
    pub fn draw(&mut self, status: &Snapshot, boards: &BTreeMap<String, Vec<(String, f64)>>, footer: &str) -> Result<()> {
        let now = Instant::now();
        self.view.note(status, boards, now);
        if let Some(terminal) = &mut self.terminal {
            let drawn = terminal.draw(|frame| self.view.render(frame, status, boards, footer, now));
            return drawn.map(drop).map_err(gone);
        }
        if self.line_at.is_some_and(|at| now.duration_since(at) < LINE_EVERY) {
            return Ok(());
        }
        self.line_at = Some(now);
        writeln!(stdout(), "{}", self.view.line(status, boards, footer)).map_err(gone)
    }

    /// Whether q or Ctrl-C was pressed, now or before; arrows scroll. Does not wait. Without a drawn view always `false`: Ctrl-C is a
    /// signal then.
    pub fn quit_requested(&mut self) -> bool {
        while self.terminal.is_some() && !self.quit && event::poll(Duration::ZERO).unwrap_or(false) {
            match event::read() {
                Ok(Event::Key(key)) => {
                    self.quit = asks_to_quit(&key);
                    self.view.scroll(asks_to_scroll(&key));
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.quit
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal.take().is_some() {
            ratatui::restore();
        }
    }
}

fn asks_to_quit(key: &KeyEvent) -> bool {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && matches!((key.code, ctrl), (KeyCode::Char('q' | 'Q'), false) | (KeyCode::Char('c'), true))
}

/// By how many lines; up is below 0.
fn asks_to_scroll(key: &KeyEvent) -> i16 {
    match key.code {
        _ if key.kind == KeyEventKind::Release => 0,
        KeyCode::Up | KeyCode::Char('k') => -1,
        KeyCode::Down | KeyCode::Char('j') => 1,
        KeyCode::PageUp => -PAGE,
        KeyCode::PageDown => PAGE,
        KeyCode::Home => i16::MIN,
        KeyCode::End => i16::MAX,
        _ => 0,
    }
}

fn gone(cause: std::io::Error) -> Error {
    Error::new(Kind::Unreachable, "the terminal cannot be written to any more").because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_ctrl_c_quit_and_nothing_else_does() {
        let key = |code, modifiers| asks_to_quit(&KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
        assert!(!key(KeyCode::Enter, KeyModifiers::NONE));
        let scrolls = |code| asks_to_scroll(&KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!([KeyCode::Up, KeyCode::Down, KeyCode::PageDown, KeyCode::Enter].map(scrolls), [-1, 1, PAGE, 0]);
    }
}
