//! The options of a source's watermark, the same for every kind of source.

use std::time::Duration;

use crate::table::{Options, TableDef, parse_duration};

/// How a lane computes its watermark over this table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatermarkOptions {
    /// `watermark.column`: the column with the event time. Windows need one.
    pub column: Option<String>,
    /// `watermark.delay`: how much later than the newest an event may come.
    pub delay: Duration,
    /// `watermark.idle_timeout`: how long a partition at its log end holds the others back; `None` (`'off'`): for ever.
    pub idle_timeout: Option<Duration>,
    /// `watermark.max_ahead`: event times further ahead of the clock than this are dead letters.
    pub max_ahead: Duration,
}

impl WatermarkOptions {
    /// Reads `watermark.*`; problems are noted.
    pub fn read(options: &mut Options<'_>, table: &TableDef) -> Self {
        let column = options.text("watermark.column").map(str::to_string);
        if let Some(name) = column.as_deref().filter(|name| table.schema.field_with_name(name).is_err()) {
            options.problem(format!("option 'watermark.column' is '{name}', which is not a column of the table"));
        }
        let delay = options.duration("watermark.delay", Duration::from_secs(5));
        let idle_timeout = match options.text("watermark.idle_timeout") {
            None => Some(Duration::from_secs(60)),
            Some(text) if text.eq_ignore_ascii_case("off") => None,
            Some(text) => parse_duration(text).or_else(|| {
                options.problem(format!(
                    "option 'watermark.idle_timeout' is '{text}'; it must be a duration such as '1m', or 'off'"
                ));
                None
            }),
        };
        let max_ahead = options.duration("watermark.max_ahead", Duration::from_secs(3600));
        Self { column, delay, idle_timeout, max_ahead }
    }
}

impl Default for WatermarkOptions {
    fn default() -> Self {
        Self {
            column: None,
            delay: Duration::from_secs(5),
            idle_timeout: Some(Duration::from_secs(60)),
            max_ahead: Duration::from_secs(3600),
        }
    }
}
