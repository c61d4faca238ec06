//! The log: one source, read and decoded once, shared by every lane.
