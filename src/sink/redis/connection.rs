//! Calls a script until Redis has done it: one connection, its retries, and what the answers and errors mean.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisResult, Script, ServerErrorKind};

use super::hopeless;
use super::node::{Failure, Finder};
use super::server::{Form, Server};
use crate::backoff::Backoff;
use crate::error::{Error, Kind, Result};
use crate::outage::Outage;
use crate::sink::Writer;

/// Each wait between attempts lies between these.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// A connection to the node that has the table's keys, made when first needed and again after each failure.
pub(super) struct Connection {
    finder: Finder,
    node: Option<MultiplexedConnection>,
    /// The table, for messages.
    table: String,
    /// The board's key or the rows' prefix, for messages.
    key: String,
    /// How long one call is tried before it fails as unreachable.
    pub(super) patience: Duration,
    pub(super) outage: Outage,
    /// Attempts beyond the first, since the last [`take_retries`](Self::take_retries).
    retries: u64,
}

/// What a script did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The epoch is visible.
    Done,
    /// It was already.
    Applied,
    /// The board is not what the difference was made for: write all of it.
    Whole,
    /// The part is staged, and this many members with it.
    Staged(u64),
    /// What was staged before is gone: begin again.
    Again,
    /// The fence's lineage and epoch; empty when there is none.
    Held(String, String),
}

/// A script's call in the making: the arguments that all scripts begin with are there.
pub(super) struct Call<'a> {
    script: &'a Script,
    cmd: Cmd,
}

impl<'a> Call<'a> {
    /// `keys` are the board, its fence, its staging key and the script's own.
    pub(super) fn new(script: &'a Script, keys: &[&str], writer: &Writer, epoch: u64, ttl: Duration) -> Self {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(script.get_hash()).arg(keys.len()).arg(keys);
        cmd.arg(&writer.lineage).arg(&writer.lane).arg(writer.incarnation).arg(epoch).arg(ttl.as_millis() as u64);
        Self { script, cmd }
    }

    /// Adds an argument.
    pub(super) fn arg(&mut self, arg: impl redis::ToRedisArgs) -> &mut Self {
        self.cmd.arg(arg);
        self
    }
}

impl Connection {
    pub(super) fn new(server: Server, table: &str, key: &str, patience: Duration) -> Self {
        Self {
            finder: Finder::new(server, key),
            node: None,
            table: table.into(),
            key: key.into(),
            patience,
            outage: Outage::default(),
            retries: 0,
        }
    }

    /// Runs the call until it is answered, within the patience. Every script may run twice, since an answer can be lost.
    pub(super) async fn run(&mut self, call: &Call<'_>) -> Result<Answer> {
        self.finder.prepare(&self.table)?;
        let began = Instant::now();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let failure = match self.attempt(call).await {
                Ok(answer) => {
                    if let Some(lasted) = self.outage.ends() {
                        let (table, seconds) = (&self.table, lasted.as_secs_f64());
                        tracing::info!("table '{table}': {} does it again, after {seconds:.1} s", self.finder.server());
                    }
                    return self.understand(answer);
                }
                Err(failure) => failure,
            };
            if let Some(stop) = self.stops(&failure) {
                return Err(stop);
            }
            let error = failure.error;
            let wait = backoff.wait();
            if began.elapsed() + wait > self.patience {
                let (tried, server) = (began.elapsed().as_secs(), self.finder.server());
                let given_up =
                    self.error(Kind::Unreachable, format!("{server} has not done it for {tried} s; it is tried again"));
                return Err(self.outage.gives_up(given_up.because(error)));
            }
            if self.outage.fails(began) {
                let table = &self.table;
                tracing::warn!("table '{table}': {} does not do it: {error}; it is tried again", self.finder.server());
            }
            tracing::debug!(table = self.table, %error, "Redis did not answer; trying again");
            self.retries += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// How many attempts beyond the first there were since this was asked last.
    pub(super) fn take_retries(&mut self) -> u64 {
        std::mem::take(&mut self.retries)
    }

    /// One attempt. What fails lets go of the node: it may be another one by now.
    async fn attempt(&mut self, call: &Call<'_>) -> Result<Vec<String>, Failure> {
        let mut node = match self.node.take() {
            Some(node) => node,
            None => self.finder.find().await?,
        };
        let error = match evaluate(&mut node, call).await {
            Ok(answer) => {
                self.node = Some(node);
                return Ok(answer);
            }
            Err(error) => error,
        };
        if self.finder.server().form == Form::Cluster && error.kind() == ErrorKind::Server(ServerErrorKind::Ask) {
            self.node = Some(node);
            if let Some(other) = self.finder.asked_for(&error).await {
                return Ok(evaluate_there(&mut other?, call).await?);
            }
        }
        Err(error.into())
    }

    /// What a script's answer means; the refusals of the fence become errors.
    fn understand(&self, answer: Vec<String>) -> Result<Answer> {
        let word = |index: usize| answer.get(index).map_or("", String::as_str);
        let fenced = |message: String| Err(self.error(Kind::Fenced, message));
        match word(0) {
            "done" => Ok(Answer::Done),
            "applied" => Ok(Answer::Applied),
            "whole" => Ok(Answer::Whole),
            "again" => Ok(Answer::Again),
            "staged" => Ok(Answer::Staged(word(1).parse().unwrap_or_default())),
            "held" => Ok(Answer::Held(word(1).into(), word(2).into())),
            "lane" => fenced(format!(
                "the lane '{}' writes '{}' in Redis; give this table another LOCATION, or delete the key '{}' and its fence",
                word(1),
                self.key,
                self.key
            )),
            "claim" => fenced(format!(
                "'{}' in Redis belongs to a later claim (lineage {}, incarnation {}): another process runs this lane, or the \
                 checkpoint is older than the board (see 'falaj checkpoint fork')",
                self.key,
                word(1),
                word(2)
            )),
            "ahead" => fenced(format!(
                "'{}' in Redis holds epoch {} of this very claim already: the checkpoint was copied, or is older than the board \
                 (see 'falaj checkpoint fork')",
                self.key,
                word(1)
            )),
            "type" => Err(self.foreign()),
            other => Err(self.error(Kind::Bug, format!("a script answered '{other}'"))),
        }
    }

    /// The error that ends all attempts, if waiting does not help.
    fn stops(&self, failure: &Failure) -> Option<Error> {
        if failure.error.to_string().contains("WRONGTYPE") {
            return Some(self.foreign());
        }
        let (kind, sentence) = hopeless::sentence(failure, &self.finder.server().form)?;
        Some(self.error(kind, sentence).because(failure.error.clone()))
    }

    fn foreign(&self) -> Error {
        self.error(
            Kind::Fenced,
            format!("the key '{}' in Redis, or one beside it, holds another type of value that falaj did not write; give another LOCATION, or delete it", self.key),
        )
    }

    /// An error about this table.
    pub(super) fn error(&self, kind: Kind, message: impl std::fmt::Display) -> Error {
        Error::new(kind, format!("table '{}': {message}", self.table))
    }
}

async fn evaluate(node: &mut MultiplexedConnection, call: &Call<'_>) -> RedisResult<Vec<String>> {
    match call.cmd.query_async(node).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            call.script.load_async(node).await?;
            call.cmd.query_async(node).await
        }
        result => result,
    }
}

/// The same at a node that is just getting the slot, which takes only what asks for that.
async fn evaluate_there(node: &mut MultiplexedConnection, call: &Call<'_>) -> RedisResult<Vec<String>> {
    call.script.load_async(node).await?;
    let (answer,) = redis::pipe().cmd("ASKING").ignore().add_command(call.cmd.clone()).query_async(node).await?;
    Ok(answer)
}
