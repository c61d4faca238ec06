//! A Postgres table as a lookup store.
