//! Windows over event time: a window is a run of panes, and state is kept once for each pane.
//!
//! [`spec`] is the arithmetic, [`panes`] the state, [`base`] the merged part of it that a board keeps, [`state`] what a windowed lane
//! does with all of them.
//! Nothing here reads a clock, a log or a sink.

pub mod base;
pub mod panes;
pub mod spec;
pub mod state;
