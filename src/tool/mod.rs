//! The commands that stand beside the engine, one file each.
pub mod backfill;
pub mod board;
pub mod capture;
pub mod checkpoint;
pub mod demo;
pub mod dlq;
pub mod generate;
pub mod machine;
pub mod manual;
pub mod progress;
pub mod project_dir;
pub mod receive;
pub mod remote;
pub mod run;
pub mod status;
pub mod top;
