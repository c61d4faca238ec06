//! The one integration binary.
mod http_sink;
mod redis_sink;
