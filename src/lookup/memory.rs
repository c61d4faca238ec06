//! A lookup store in memory, for tests and the demo.
