//! A source held in memory, for tests and the demo.
