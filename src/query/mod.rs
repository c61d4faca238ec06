//! From SQL files to plans. DataFusion parses and plans all of it; nothing is cut out of a statement as text.
//!
//! [`project`] reads the files, [`plan`] plans a lane, [`windows`] are `tumble` and `hop`, [`cut`] takes an aggregate apart; [`repair`]
//! plans an expression over dead letters.
//! Nothing here opens a connection or a file.

pub mod cell;
pub mod cut;
mod insert;
mod key;
pub mod plan;
mod problem;
pub mod project;
pub mod repair;
mod statements;
mod stream;
pub mod tables;
pub mod time;
pub mod windows;
mod wording;
