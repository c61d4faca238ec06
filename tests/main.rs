//! The one integration binary.
mod http_sink;
mod lookup_postgres;
mod redis_sink;
