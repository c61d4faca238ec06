//! The one integration binary.
mod dead_letters;
mod http_sink;
mod redis_sink;
