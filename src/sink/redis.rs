//! Redis sorted sets and hashes.
