//! What a lane connects, and what was in its way.

use serde::{Deserialize, Serialize};

/// What a lane connects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// The topic or table that it reads.
    pub source: String,
    /// `KAFKA` or `POSTGRES`.
    pub source_kind: String,
    /// The lookup tables that its query asks, by name.
    pub lookups: Vec<String>,
    /// The table that it writes, as the SQL names it; of a lane of dead letters, where they go.
    pub sink: String,
    /// How that is stored, such as `REDIS`; of a lane of dead letters `DEAD LETTERS`.
    pub sink_kind: String,
    /// The topic that it writes, if it writes one: other lanes may read it.
    pub topic: Option<String>,
}

/// Something that was in a lane's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What it was.
    pub text: String,
    /// When it was last seen, ms since 1970.
    pub at_ms: i64,
}
