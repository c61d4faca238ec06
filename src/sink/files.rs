//! Parquet and JSON files.
