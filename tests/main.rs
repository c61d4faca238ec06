//! The one integration binary.
mod dead_letters;
mod http_sink;
mod lookup_postgres;
mod redis_sink;
