//! Dead letters: the ports to where they are written and where they are kept, and the places.
//!
//! Lanes write by [`DeadLetters`]; `falaj dlq` reads, replays and purges by [`Kept`]. [`letter`] is what is kept.

pub mod folder;
pub mod kafka;
pub mod letter;

use async_trait::async_trait;

use self::letter::{Letter, Mended};
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

/// The dead letters of one source, as they are kept. Lanes may go on writing meanwhile. All methods block.
///
/// Order of calls: [`Kept::begin`], then [`Kept::next`] until there is none. To replay, [`Kept::claim`] comes before that, and
/// [`Kept::replay`] in between, as often as wanted.
pub trait Kept: Send {
    /// The name of the source, as its letters carry it.
    fn source(&self) -> &str;

    /// Stands before the oldest letter. What is written from now on is not seen before the next call.
    fn begin(&mut self) -> Result<()>;

    /// The next letter that was neither replayed nor purged; `None` after the last.
    fn next(&mut self) -> Result<Option<Letter>>;

    /// Ends whatever another process replays or purges here: what it has not finished by now it will not finish, and what it has
    /// finished is seen by the next [`Kept::begin`]. `Err(Usage)`: these letters cannot be replayed, and why.
    fn claim(&mut self) -> Result<()>;

    /// Puts records (at most [`letter::AT_ONCE`]) on the source in place of their letters, which are marked as replayed: all of it, or nothing. `Err` leaves it
    /// open which; the next [`Kept::claim`] and [`Kept::begin`] know.
    fn replay(&mut self, records: &[Mended]) -> Result<()>;

    /// Purges every letter that is `wanted`. Claims and begins by itself.
    fn purge(&mut self, wanted: &mut dyn FnMut(&Letter) -> bool) -> Result<u64>;
}
