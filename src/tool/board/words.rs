//! Figures and names as a terminal shows them.

use crate::status::LaneState;

const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// `text` without what could steer a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(super) fn state_text(state: LaneState) -> &'static str {
    match state {
        LaneState::Starting => "starting",
        LaneState::Running => "running",
        LaneState::Done => "done",
        LaneState::Stopped => "stopped",
    }
}

/// A bar of `score / most` of `width` cells, to an eighth of a cell.
pub(super) fn bar_of(score: f64, most: f64, width: u16) -> String {
    let share = if most > 0.0 { (score / most).clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * f64::from(width) * 8.0).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

pub(super) fn score_text(score: f64) -> String {
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

pub(super) fn thousands(number: u64) -> String {
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

pub(super) fn latency(latency_us: u64) -> String {
    match latency_us {
        0 => "–".to_string(),
        1..1_000 => format!("{latency_us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", latency_us as f64 / 1e3),
        1_000_000..600_000_000 => format!("{:.1} s", latency_us as f64 / 1e6),
        600_000_000..172_800_000_000 => format!("{} min", latency_us / 60_000_000),
        _ => format!("{} days", latency_us / 86_400_000_000),
    }
}
