//! Servers that let nobody in without TLS and credentials, and what is said when something of that is wrong.

mod kafka;
mod keys;
mod services;
