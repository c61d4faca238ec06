//! A lookup table in memory with its hash index.
