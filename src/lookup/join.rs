//! The operator that joins a stream with a lookup index.
