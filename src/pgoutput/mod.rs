//! The messages of Postgres' `pgoutput` plugin, protocol version 1 (PostgreSQL documentation, "Logical Replication Message
//! Formats"): parsed in place, without I/O, and unable to panic whatever the bytes are.
//!
//! [`Message`] is what stands in one `XLogData`; [`Tuple`] walks over a row's values; [`Change`] is how a change lies in falaj's
//! memory: a header of fixed size, then the message's own bytes.

mod change;
mod message;
mod tuple;

use std::sync::Arc;

use parking_lot::RwLock;

pub use change::{Change, Op};
pub use message::{Message, Relation, RelationColumn};
pub use tuple::{Tuple, Value};

/// What the rows of one table looked like, by generation: a new one begins with every [`Relation`] that differs from the one before.
pub type Relations = Arc<RwLock<Vec<Arc<Relation>>>>;

/// Why bytes are not a message: a few words that end "a message of Postgres cannot be read: it …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// What is left of a message.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A text that ends with a zero byte.
    fn text(&mut self) -> Result<&'a str, Malformed> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(Malformed("has a name without an end"))?;
        let text = str::from_utf8(&self.0[..end]).map_err(|_| Malformed("has a name that is not UTF-8"))?;
        self.0 = &self.0[end + 1..];
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
