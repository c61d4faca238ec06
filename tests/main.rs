//! The one integration binary.
mod generate;
mod http_sink;
mod redis_sink;
