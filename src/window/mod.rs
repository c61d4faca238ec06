//! Windows over event time: a window is a run of panes, and state is kept once for each pane.
//!
//! [`spec`] is the arithmetic, [`panes`] the state, [`state`] what a windowed lane does with both.
//! Nothing here reads a clock, a log or a sink.

pub mod panes;
pub mod spec;
pub mod state;
