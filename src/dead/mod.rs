//! Dead letters: the port to where they are kept, and the places.

pub mod folder;
pub mod kafka;

use async_trait::async_trait;

use crate::batch::DeadLetter;
use crate::error::Result;
use crate::sink::Writer;

/// Where the dead letters of one source go. A letter's identity is topic, partition, offset, lane, stage.
/// The letters carry no payload: the place takes payload, key and headers, byte for byte, from the source itself.
#[async_trait]
pub trait DeadLetters: Send {
    /// Takes the place for `writer` and says the last epoch whose letters it holds, if any.
    /// `Err(Fenced)`: a newer claim of this lane has it.
    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>>;

    /// Writes the letters of `epoch`, all or none; does nothing when it already holds that epoch. Never called without letters.
    async fn write(&mut self, epoch: u64, letters: &[DeadLetter]) -> Result<()>;
}
