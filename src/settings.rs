//! The process's own settings, set in SQL: `SET falaj.checkpoint = 'data/run/checkpoint'`.

use datafusion::common::config::ConfigExtension;
use datafusion::common::extensions_options;

extensions_options! {
    /// The settings of the process; `falaj` in front of each name.
    pub struct Settings {
        /// The folder that holds the checkpoint of every lane.
        pub checkpoint: String, default = "data/run/checkpoint".to_string()
        /// The folder for HTTP bodies that are durable before they are sent.
        pub outbox: String, default = "data/run/outbox".to_string()
        /// The address of falaj's own pages; only loopback for now.
        pub listen: String, default = "127.0.0.1:8080".to_string()
        /// The bound of one source's log in memory, in bytes.
        pub log_bytes_max: usize, default = 64 * 1024 * 1024
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

impl ConfigExtension for Settings {
    const PREFIX: &'static str = "falaj";
}
