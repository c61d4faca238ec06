//! The join of a stream with a lookup table: how SQL sees the table, how its plans come to use the index, and the operator.
//!
//! DataFusion plans a hash join, which would build its table anew for every micro-batch. [`use_lookup_joins`] puts
//! [`LookupJoinExec`] in its place: for each batch it hashes the keys, asks the table's index, and takes the columns it needs.

mod exec;
mod rewrite;
mod scan;
mod side;
#[cfg(test)]
mod tests;

pub use exec::LookupJoinExec;
pub use rewrite::use_lookup_joins;
pub use scan::{LookupProvider, LookupScanExec};
