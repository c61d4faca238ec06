//! Servers that let nobody in without TLS and credentials, and what is said when something of that is wrong.

mod http;
mod kafka;
pub(crate) mod keys;
mod postgres;
mod redis_server;
mod s3;
mod services;
