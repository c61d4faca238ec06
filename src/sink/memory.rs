//! A sink held in memory, for tests and the demo.
