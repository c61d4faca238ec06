//! Redis: a sorted set (a *board*), or one hash for each row. Absolute values, so that doing an epoch twice leaves what doing it
//! once leaves.
//!
//! Beside a board `top` stand its fence `{top}:m` (a hash: lineage, lane, incarnation, epoch, cardinality) and, for moments, its
//! staging key `{top}:s:…`, all in one slot. Every script checks the fence before it writes, and writes it last:
//!
//! | the fence says | what happens |
//! |---|---|
//! | another lane | `Fenced` |
//! | a later lineage, or this one with a greater incarnation | `Fenced` |
//! | an earlier lineage or incarnation, or there is no fence | the whole board is staged and swapped in, whatever the epoch |
//! | this incarnation, this epoch | applied already (the answer was lost): nothing |
//! | this incarnation, the epoch that this process applied last, `ZCARD` as written | only the difference |
//! | this incarnation, a later epoch | `Fenced`: the checkpoint was copied |
//! | this incarnation, anything else (the board was deleted, expired, failed over) | the whole board |
//!
//! "Applied last" and not "e − 1": an epoch without a board is not applied here, so the fence may lag behind the lane.
//! A reader never sees a part: a board comes by one script, or by `RENAME`. `Changes` and `Rows` change the board in place (large
//! ones on a copy that is swapped in); what Redis lost of them only new changes bring back.
//!
//! Hashes are single keys: each row is whole, an epoch is not. `HSET` and `HDEL` under the fence `{LOCATION}:m`. A script writes many
//! of them, so in a cluster they need a `LOCATION` with a `{hash tag}`, which brings them into one slot (`slot.rs`).
//!
//! So all keys of a table are at one node, in a cluster too, and `node.rs` finds it: a failover, or a slot that moves, is an outage
//! that ends when the node is found. A promoted replica may lack the last writes; its fence tells, and a board comes whole. A slot
//! that is just moving takes differences; a whole board waits until it has moved, as Redis will have it (`TRYAGAIN`).

mod board;
mod connection;
mod hopeless;
mod node;
mod options;
mod refused;
mod rows;
mod server;
mod slot;

use std::time::Duration;

use async_trait::async_trait;

use self::board::Board;
use self::connection::{Answer, Call, Connection};
pub use self::options::RedisOptions;
use self::options::Shape;
use self::rows::Rows;
use crate::batch::{DeadLetter, Output};
use crate::error::{Kind, Result};
use crate::failpoint;
use crate::memory::{Account, Use};
use crate::outage::Outage;
use crate::sink::{Applied, Sink, Staged, Writer};

/// How long one script is tried before apply fails and the lane recovers (and says so in its status).
const PATIENCE: Duration = Duration::from_secs(60);
/// The same when opening, where a lane should soon say what it waits for.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);
/// An epoch that no fence can hold: [`Sink::open`] only looks.
const NO_EPOCH: u64 = 1 << 53;
/// What a taken row weighs against the lane's bound.
const ROW_BYTES: u64 = 64;

/// The sink of a `STORED AS REDIS` table.
pub struct RedisSink {
    connection: Connection,
    fence: String,
    place: Place,
    writer: Option<Writer>,
    /// The epoch that is being taken.
    open_epoch: u64,
    /// Of the open epoch.
    refused: Vec<DeadLetter>,
    /// What was taken, and the board that was written last.
    account: Account,
}

enum Place {
    Board(Board),
    Rows(Rows),
}

impl RedisSink {
    /// A sink that connects when it is opened.
    pub fn new(options: RedisOptions) -> Self {
        let RedisOptions { table, key, server, shape, ttl } = options;
        let connection = Connection::new(server, &table, &key, PATIENCE);
        let fence = slot::beside(&key, "m");
        let place = match shape {
            Shape::Zset { member, score } => Place::Board(Board::new(key, fence.clone(), member, score, ttl)),
            Shape::Hash { key: column, columns } => Place::Rows(Rows::new(key, fence.clone(), column, columns, ttl)),
        };
        Self {
            connection,
            fence,
            place,
            writer: None,
            open_epoch: 0,
            refused: Vec::new(),
            account: Account::unlimited(Use::Sink),
        }
    }

    /// The same, with what it holds on `account`.
    pub fn accounted(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    /// The same, telling its troubles as those of `outage`.
    pub fn in_outage(mut self, outage: Outage) -> Self {
        self.connection.outage = outage;
        self
    }

    fn account(&mut self) -> Result<()> {
        self.account.try_set(match &self.place {
            Place::Board(board) => board.memory_bytes(),
            Place::Rows(rows) => rows.memory_bytes(),
        })
    }
}

#[async_trait]
impl Sink for RedisSink {
    fn stages(&self) -> bool {
        false
    }

    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>> {
        let look = script(include_str!("lua/look.lua"));
        let call = Call::new(&look, &[&self.fence, &self.fence, &self.fence], writer, NO_EPOCH, Duration::ZERO);
        self.connection.patience = OPEN_PATIENCE;
        let answer = self.connection.run(&call).await;
        self.connection.patience = PATIENCE;
        let Answer::Held(lineage, epoch) = answer? else {
            return Err(self.connection.error(Kind::Bug, "the fence could not be read"));
        };
        self.writer = Some(writer.clone());
        Ok(if lineage == writer.lineage { epoch.parse().ok() } else { None })
    }

    async fn discard(&mut self, _keep: &[Staged]) -> Result<()> {
        Ok(()) // What is staged expires by itself.
    }

    async fn write(&mut self, epoch: u64, output: Output) -> Result<()> {
        if epoch != self.open_epoch {
            self.open_epoch = epoch;
            self.refused.clear();
            match &mut self.place {
                Place::Board(board) => board.clear(),
                Place::Rows(rows) => rows.clear(),
            }
        }
        self.refused.extend(refused::letters_of(&output, &self.place)?);
        match &mut self.place {
            Place::Board(board) => board.write(output),
            Place::Rows(rows) => rows.write(&self.connection, output),
        }?;
        self.account()
    }

    fn written_bytes(&self) -> u64 {
        let rows = match &self.place {
            Place::Board(board) => board.pending_members(),
            Place::Rows(rows) => rows.pending_rows(),
        };
        rows as u64 * ROW_BYTES
    }

    async fn seal(&mut self, _epoch: u64) -> Result<Vec<Staged>> {
        Ok(Vec::new())
    }

    async fn apply(&mut self, epoch: u64, _staged: &[Staged]) -> Result<Applied> {
        let Some(writer) = &self.writer else {
            return Err(self.connection.error(Kind::Bug, "apply was called before open"));
        };
        if epoch != self.open_epoch {
            return Ok(Applied::default()); // Nothing was written in this epoch.
        }
        failpoint::hit(&writer.lane, "redis.before");
        let rows = match &mut self.place {
            Place::Board(board) => board.apply(&mut self.connection, writer, epoch).await?,
            Place::Rows(rows) => rows.apply(&mut self.connection, writer, epoch).await?,
        };
        self.account()?;
        let refused = std::mem::take(&mut self.refused);
        let skipped = match &mut self.place {
            Place::Board(board) => &mut board.skipped,
            Place::Rows(rows) => &mut rows.skipped,
        };
        let left_out = std::mem::take(skipped).saturating_sub(refused.len() as u64);
        Ok(Applied { rows, refused, left_out, retries: self.connection.take_retries() })
    }

    async fn committed(&mut self, _epoch: u64, _staged: &[Staged]) -> Result<()> {
        Ok(())
    }
}

/// A script, with the fence in front of it.
fn script(body: &str) -> redis::Script {
    redis::Script::new(&format!("{}\n{body}", include_str!("lua/fence.lua")))
}
