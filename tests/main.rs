//! The one integration binary. Tests of adapters reach real servers by the variables that `scripts/services env` prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod compose;
mod dead_letters;
mod generate;
mod http_sink;
mod lookup_postgres;
mod parquet_readers;
mod readme;
mod redis_sink;
