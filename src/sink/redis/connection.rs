//! Calls a script until Redis has done it: one connection, its retries, and what the answers and errors mean.

use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind};

use super::server::Server;
use crate::backoff::Backoff;
use crate::error::{Error, Kind, Result};
use crate::sink::Writer;
use crate::tls;

/// How long Redis may take for one script; 5 000 members take some 10 ms, so this is a server that hangs.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A call that is not done after this is worth an operator's look.
const SAID_AFTER: Duration = Duration::from_secs(3);
/// Each wait between attempts lies between these.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// A connection that is made when first needed and again whenever it was cut.
pub(super) struct Connection {
    server: Server,
    manager: Option<ConnectionManager>,
    /// The table, for messages.
    table: String,
    /// The board's key or the rows' prefix, for messages.
    key: String,
    /// How long one call is tried before it fails as unreachable.
    pub(super) patience: Duration,
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
        Self { server, manager: None, table: table.into(), key: key.into(), patience, retries: 0 }
    }

    /// Runs the call until it is answered, within the patience. Every script may run twice, since an answer can be lost.
    pub(super) async fn run(&mut self, call: &Call<'_>) -> Result<Answer> {
        let mut manager = match self.manager.take() {
            Some(manager) => manager,
            None => self.manager()?,
        };
        self.manager = Some(manager.clone());
        let began = Instant::now();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut said = false;
        loop {
            let error = match attempt(&mut manager, call).await {
                Ok(answer) => {
                    if said {
                        let (table, seconds) = (&self.table, began.elapsed().as_secs_f64());
                        tracing::info!("table '{table}': Redis at {} does it again, after {seconds:.1} s", self.address());
                    }
                    return self.understand(answer);
                }
                Err(error) => error,
            };
            if let Some(stop) = self.stops(&error) {
                return Err(stop);
            }
            let wait = backoff.wait();
            if began.elapsed() + wait > self.patience {
                let (tried, at) = (began.elapsed().as_secs(), self.address());
                return Err(self
                    .error(Kind::Unreachable, format!("Redis at {at} has not done it for {tried} s; it is tried again"))
                    .because(error));
            }
            if !said && began.elapsed() > SAID_AFTER {
                said = true;
                let table = &self.table;
                tracing::warn!("table '{table}': Redis at {} does not do it: {error}; it is tried again", self.address());
            }
            tracing::debug!(table = self.table, %error, "Redis did not answer; trying again");
            self.retries += 1;
            tokio::time::sleep(wait).await;
        }
    }

    fn address(&self) -> &redis::ConnectionAddr {
        self.server.address()
    }

    /// How many attempts beyond the first there were since this was asked last.
    pub(super) fn take_retries(&mut self) -> u64 {
        std::mem::take(&mut self.retries)
    }

    /// Makes the connection when it is first used.
    fn manager(&self) -> Result<ConnectionManager> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(BACKOFF.0)
            .set_connection_timeout(Some(RESPONSE_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let client = self.server.client(&self.table)?;
        ConnectionManager::new_lazy_with_config(client, config)
            .map_err(|cause| self.error(Kind::Sql, "the option 'url' does not fit this Redis").because(cause))
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

    /// The error that ends all attempts, if waiting does not help. What is not known to be hopeless is tried again:
    /// a server that starts, fails over, is read-only, out of memory or connections comes back.
    fn stops(&self, error: &RedisError) -> Option<Error> {
        let text = error.to_string();
        let stop = |kind, message: &str| Some(self.error(kind, message).because(error.clone()));
        if text.contains("WRONGTYPE") {
            return Some(self.foreign());
        }
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
                stop(Kind::Denied, "Redis refuses the user or the password; check the option 'url' and the user's ACL")
            }
            _ if ["NOAUTH", "WRONGPASS", "NOPERM"].iter().any(|code| text.contains(code)) => {
                stop(Kind::Denied, "Redis refuses the user or the password; check the option 'url' and the user's ACL")
            }
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot) => stop(
                Kind::Sql,
                "this Redis is a cluster: give the address of the node that holds the key, and a LOCATION with a {hash tag}",
            ),
            ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => {
                stop(Kind::Sql, "the option 'url' does not fit this Redis")
            }
            _ if tls::is_distrust(error) => stop(
                Kind::Denied,
                "Redis and falaj do not trust each other: check 'tls.ca' (who vouches for Redis), the host's name in 'url', and 'tls.cert' with \
                 its key (who vouches for falaj)",
            ),
            ErrorKind::UnexpectedReturnType => stop(Kind::Bug, "a script's answer has another form than expected"),
            _ => None,
        }
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

async fn attempt(manager: &mut ConnectionManager, call: &Call<'_>) -> std::result::Result<Vec<String>, RedisError> {
    match call.cmd.query_async(manager).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            call.script.load_async(manager).await?;
            call.cmd.query_async(manager).await
        }
        result => result,
    }
}
