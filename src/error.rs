//! One error type, and the one place that decides what an error means for a lane.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// What came of an attempt.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is. A kind is a decision (see [`Kind::action`]), not a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The SQL, an option or a setting is wrong: only the user can mend it. Exit code 78.
    Sql,
    /// The command line is wrong. Exit code 2.
    Usage,
    /// An outside system is not there, too slow, or asks us to wait: try again later.
    Unreachable,
    /// An outside system was reached and will not have this row or record, however often it is asked.
    Refused,
    /// Another process, lane or lineage owns what we wanted to write: this process must stop.
    Fenced,
    /// A durable record is torn, changed or foreign.
    Corrupt,
    /// Input that we need is gone (offsets past retention, a deleted topic).
    Lost,
    /// A bound was reached that more waiting will not lift (memory, disk, a size limit).
    Full,
    /// Credentials or rights are missing: waiting does not help, and the data is not at fault.
    Denied,
    /// A defect of falaj's own.
    Bug,
}

/// What a lane does about an error of some [`Kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Try the same thing again, with back-off.
    Retry,
    /// Put the row or record among the dead letters and go on.
    DeadLetter,
    /// Stop the lane (or refuse to start) and tell the operator.
    Stop,
}

impl Kind {
    /// The one decision: retry, dead-letter or stop.
    pub fn action(self) -> Action {
        match self {
            Kind::Unreachable => Action::Retry,
            Kind::Refused => Action::DeadLetter,
            Kind::Sql | Kind::Usage | Kind::Fenced | Kind::Corrupt | Kind::Lost | Kind::Full | Kind::Denied | Kind::Bug => {
                Action::Stop
            }
        }
    }

    /// The exit code of a process that ends with this kind of error.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Sql => 78,
            Kind::Usage => 2,
            _ => 1,
        }
    }
}

/// A failure: a kind for machines, one sentence for people, and the cause (never repeated in the sentence).
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
    told: Option<Instant>,
}

impl Error {
    /// An error with a sentence that says what happened and what to do about it.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None, told: None }
    }

    /// The same error with the failure that led to it.
    pub fn because(mut self, cause: impl StdError + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// The same error with `prefix` in front of its sentence, for a place such as `file:line:column`.
    pub fn at(mut self, prefix: impl fmt::Display) -> Self {
        self.message = format!("{prefix}: {}", self.message);
        self
    }

    /// The same error, of an outage that began at `since` and has been told.
    pub fn told_since(mut self, since: Instant) -> Self {
        self.told = Some(since);
        self
    }

    /// When the outage began, if it has been told: then it need not be told again.
    pub fn told(&self) -> Option<Instant> {
        self.told
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence and all causes in one line, for logs and for a lane's last error. What another server said may be in it: no line is
    /// forged, and no terminal obeys it.
    pub fn chain(&self) -> String {
        let mut line = self.message.clone();
        let mut next = self.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            next = cause.source();
        }
        if line.contains(char::is_control) { line.replace(char::is_control, " ") } else { line }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(cause: arrow::error::ArrowError) -> Self {
        Error::new(Kind::Bug, "a batch could not be built").because(cause)
    }
}
