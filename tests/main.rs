//! The one integration binary.
mod redis_sink;
