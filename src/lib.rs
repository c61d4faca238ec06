//! falaj: events from Kafka through SQL files into Redis, Parquet and HTTP, exactly once, in well under a second.
//!
//! ```text
//!  enters                          thinks                                 leaves
//!  Kafka ──▶ log: read, decode ──▶ lane: one INSERT INTO … SELECT ──▶ Redis · Parquet · HTTP
//!            (once per source)     lookup join → SQL → panes               │ refused rows
//!                │ bad records         │ late rows                         │
//!                └────────────────────▶┴──────▶ dead letters ◀─────────────┘
//!            a lane drives itself, one epoch at a time: intent → apply → commit
//! ```
pub mod app;
pub mod batch;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod dead;
pub mod decode;
pub mod error;
pub mod lane;
pub mod lookup;
pub mod position;
pub mod query;
pub mod secrets;
pub mod settings;
pub mod sink;
pub mod source;
pub mod status;
pub mod table;
pub mod tool;
pub mod web;
pub mod window;
