//! The one integration binary. Tests of adapters reach real servers by the variables that `scripts/services env` prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]
#![allow(clippy::disallowed_methods, reason = "tests reach servers by environment variables")]

mod backfill;
mod browser;
mod capture;
mod chaos;
mod checkpoint;
mod compose;
#[cfg(feature = "failpoints")]
mod crash;
mod dead_letters;
mod dlq;
mod end_to_end;
mod faults;
mod fingerprint;
mod generate;
mod golden;
mod hostile;
mod http_sink;
mod json_corpus;
mod kafka_sink;
mod layering;
mod locked;
mod logs;
mod lookup_postgres;
mod parquet_readers;
mod readme;
mod redis_cluster;
mod redis_sink;
mod registry;
mod registry_sink;
mod s3;
mod shipped;
mod support;
mod threats;
#[cfg(feature = "otlp")]
mod traces;
mod watched;
mod wrong_use;
