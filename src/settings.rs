//! The process's own settings, set in SQL: `SET falaj.checkpoint = 'data/run/checkpoint'`.

use std::fmt;
use std::path::{Path, PathBuf};

use datafusion::common::config::{ConfigExtension, ConfigField, Visit};
use datafusion::common::extensions_options;
use datafusion::error::DataFusionError;

use crate::memory::{LIMIT_LEAST, shown_bytes};
use crate::table::parse_bytes;

extensions_options! {
    /// The settings of the process; `falaj` in front of each name.
    pub struct Settings {
        /// The folder that holds the checkpoint of every lane, or 's3://bucket/folder'.
        pub checkpoint: Place, default = Place("data/run/checkpoint".to_string())
        /// The folder for HTTP bodies that are durable before they are sent. Copies go with a checkpoint that is in a bucket.
        pub outbox: String, default = "data/run/outbox".to_string()
        /// The folder for dead letters of sources that have no broker.
        pub dead_letters: String, default = "data/run/dead_letters".to_string()
        /// The address of falaj's own pages; another than loopback asks for a token.
        pub listen: String, default = "127.0.0.1:8080".to_string()
        /// What visitors of the pages must have, as '${file:PATH}' or '${env:NAME}'. Not set: whoever is on this machine may look.
        pub token: Reference, default = Reference::default()
        /// A file with the certificate of the pages (PEM); not set: they are served without TLS.
        pub tls_cert: String, default = String::new()
        /// A file with its private key.
        pub tls_key: String, default = String::new()
        /// The bound of what the process holds in memory, for instance '1GiB'; at least 64MiB. Not set: 75% of what the machine or
        /// its control group allows.
        pub memory_limit: MemoryLimit, default = MemoryLimit::default()
        /// The bound of one source's log in memory, in bytes.
        pub log_bytes_max: usize, default = 64 * 1024 * 1024
        /// The bound of what waits on disk for slow lanes of the changes of one replication slot, in bytes; beyond, Postgres keeps them.
        pub spool_bytes_max: u64, default = 4 << 30
        /// The bound of one epoch of a lane that does not stage, in bytes of decoded input.
        pub epoch_bytes_max: usize, default = 16 * 1024 * 1024
        /// How long a lane that has caught up rests after an epoch, in milliseconds, so that rows that come one by one share the next.
        pub linger_ms: u64, default = 20
        /// How many input records a windowed lane takes before it writes what has changed of its state: what a restart reads again.
        pub snapshot_records: usize, default = 500_000
        /// How many old checkpoint records of each lane stay, for a person who wants to see what happened.
        pub records_kept: u64, default = 16
    }
}

impl Settings {
    /// The folder for changes that wait on disk: in the checkpoint's, if that is one.
    pub fn spool(&self) -> PathBuf {
        Path::new(if self.checkpoint.is_in_bucket() { "data/run" } else { &self.checkpoint.0 }).join("spool")
    }
}

/// The setting that says where a secret is.
pub const SECRET: &str = "falaj.token";

impl ConfigExtension for Settings {
    const PREFIX: &'static str = "falaj";
}

/// `falaj.checkpoint`: a folder, or `s3://bucket/folder`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(pub String);

impl Place {
    /// Whether it is in a bucket and not a folder.
    pub fn is_in_bucket(&self) -> bool {
        self.0.contains("://")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ConfigField for Place {
    fn visit<V: Visit>(&self, visitor: &mut V, key: &str, description: &'static str) {
        visitor.some(key, self, description);
    }

    fn set(&mut self, _: &str, value: &str) -> Result<(), DataFusionError> {
        let place = Place(value.to_string());
        let is_bucket = value.strip_prefix("s3://").is_some_and(|bucket| !bucket.is_empty() && !bucket.starts_with('/'));
        if place.is_in_bucket() && !is_bucket {
            let text = "it must be a folder such as 'data/run/checkpoint', or 's3://bucket/folder'";
            return Err(DataFusionError::Configuration(text.to_string()));
        }
        *self = place;
        Ok(())
    }
}

/// Where a secret is, never the secret itself: settings are shown by `SHOW ALL`. Empty when it was not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reference(pub String);

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ConfigField for Reference {
    fn visit<V: Visit>(&self, visitor: &mut V, key: &str, description: &'static str) {
        visitor.some(key, self, description);
    }

    fn set(&mut self, _: &str, value: &str) -> Result<(), DataFusionError> {
        let is_reference = (value.starts_with("${file:") || value.starts_with("${env:")) && value.ends_with('}');
        if !is_reference {
            let text = "a secret does not stand in SQL: write where it is, '${file:PATH}' or '${env:NAME}'";
            return Err(DataFusionError::Configuration(text.to_string()));
        }
        self.0 = value.to_string();
        Ok(())
    }
}

/// `falaj.memory_limit`: a size, if it was set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryLimit(pub Option<u64>);

impl MemoryLimit {
    /// The limit in bytes, where the machine has (or lets us have) `machine` bytes, if that is known.
    pub fn resolve(self, machine: Option<u64>) -> Option<u64> {
        self.0.or(machine.map(|bytes| (bytes / 4 * 3).max(LIMIT_LEAST)))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map_or_else(|| "75%".to_string(), shown_bytes))
    }
}

impl ConfigField for MemoryLimit {
    fn visit<V: Visit>(&self, visitor: &mut V, key: &str, description: &'static str) {
        visitor.some(key, self, description);
    }

    fn set(&mut self, _: &str, value: &str) -> Result<(), DataFusionError> {
        let wrong = |text: &str| Err(DataFusionError::Configuration(text.to_string()));
        match parse_bytes(value) {
            Some(bytes) if bytes >= LIMIT_LEAST => self.0 = Some(bytes),
            Some(_) => return wrong("it must be at least 64MiB, or a log could not read ahead while a lane works"),
            None => return wrong("it must be a size such as '512MiB' or '2GiB'"),
        }
        Ok(())
    }
}
