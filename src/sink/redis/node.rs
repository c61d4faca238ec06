//! The node that takes a table's calls. All keys of a table are in one slot, so it is one node at a time. It is looked for whenever
//! it has failed: sentinels say which is the master now, nodes of a cluster which one has the slot.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, RedisError, RedisResult, Value};

use super::server::{Form, Host, Server};
use super::slot;
use crate::error::Result;

/// How long Redis may take for one script; 5 000 members take some 10 ms, so this is a server that hangs.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a question about who has the keys: somebody else can be asked.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);

/// A failure, and whose it is.
pub(super) struct Failure {
    pub(super) by: Party,
    pub(super) error: RedisError,
}

/// Who can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Party {
    Redis,
    Sentinel,
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self { by: Party::Redis, error }
    }
}

/// Finds the node of one key.
pub(super) struct Finder {
    server: Server,
    /// Whether the files of TLS are read.
    is_ready: bool,
    slot: u16,
    /// Who can be asked: the hosts of the url, and all nodes that a cluster has named.
    known: Vec<Host>,
    /// Which of them is asked first. Each time it is another one, since what one says may be out of date.
    next: usize,
}

impl Finder {
    pub(super) fn new(server: Server, key: &str) -> Self {
        Self { known: server.hosts.clone(), server, is_ready: false, slot: slot::of(key), next: 0 }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Reads the files of TLS, once.
    pub(super) fn prepare(&mut self, table: &str) -> Result<()> {
        if !self.is_ready {
            self.server = self.server.clone().with_files(table)?;
            self.is_ready = true;
        }
        Ok(())
    }

    /// Connects to the node. A replica that is taken for the master by mistake refuses to be written, so its role is not asked.
    pub(super) async fn find(&mut self) -> Result<MultiplexedConnection, Failure> {
        let info = match self.server.form.clone() {
            Form::Single => self.server.redis(),
            Form::Cluster => {
                let owner = self.owner().await?;
                self.server.redis_at(&owner)
            }
            Form::Sentinel(name) => {
                let master = self.master(&name).await.map_err(|error| Failure { by: Party::Sentinel, error })?;
                self.server.redis_at(&master)
            }
        };
        Ok(connect(info, RESPONSE_TIMEOUT).await?)
    }

    /// Connects to the node that `error` names, if it names one: `ASK`, of a slot that is moving to it.
    pub(super) async fn asked_for(&self, error: &RedisError) -> Option<RedisResult<MultiplexedConnection>> {
        let (address, _slot) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        let host = (host.to_string(), port.parse().ok()?);
        Some(connect(self.server.redis_at(&host), RESPONSE_TIMEOUT).await)
    }

    /// Which node of the cluster has the slot, as the first one says that answers.
    async fn owner(&mut self) -> RedisResult<Host> {
        let mut failure = None;
        for asked in self.in_turn() {
            match question(self.server.redis_at(&asked), &["CLUSTER", "SLOTS"]).await {
                Ok(ranges) => {
                    let (owner, mut nodes) = read(ranges, self.slot, &asked.0);
                    nodes.extend(self.server.hosts.iter().cloned());
                    self.known = nodes.into_iter().collect();
                    return owner.ok_or_else(|| {
                        (ErrorKind::ClusterConnectionNotFound, "no node of the cluster has the slot of the table's keys").into()
                    });
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| (ErrorKind::ClusterConnectionNotFound, "there is nobody to ask").into()))
    }

    /// Where the master is, as the first sentinel says that knows it. It is unknown when every sentinel says so.
    async fn master(&mut self, name: &str) -> RedisResult<Host> {
        let mut failure = None;
        for asked in self.in_turn() {
            match question(self.server.sentinel_at(&asked), &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]).await {
                Ok(Some(master)) => return Ok(master),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| (ErrorKind::MasterNameNotFoundBySentinel, "every sentinel says so").into()))
    }

    /// Everybody who can be asked, in another order each time.
    fn in_turn(&mut self) -> Vec<Host> {
        let mut hosts = self.known.clone();
        let first = self.next % hosts.len().max(1);
        hosts.rotate_left(first);
        self.next = first + 1;
        hosts
    }
}

async fn question<T: redis::FromRedisValue>(info: ConnectionInfo, words: &[&str]) -> RedisResult<T> {
    let mut connection = connect(info, QUESTION_TIMEOUT).await?;
    let mut question = redis::Cmd::new();
    question.arg(words).query_async(&mut connection).await
}

async fn connect(info: ConnectionInfo, timeout: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}

/// Reads `CLUSTER SLOTS`, as the node at `asked` answered it: the master of `slot`, and all nodes. A range is its first and its last
/// slot, then its master and its replicas, each with host and port; without a host it is the one that was asked.
fn read(ranges: Vec<Value>, slot: u16, asked: &str) -> (Option<Host>, BTreeSet<Host>) {
    let (mut owner, mut all) = (None, BTreeSet::new());
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Int(from), Value::Int(to), nodes @ ..] = range.as_slice() else { continue };
        let hosts: Vec<Option<Host>> = nodes.iter().map(|node| host(node, asked)).collect();
        if (*from..=*to).contains(&i64::from(slot)) {
            owner = hosts.first().cloned().flatten();
        }
        all.extend(hosts.into_iter().flatten());
    }
    (owner, all)
}

fn host(node: &Value, asked: &str) -> Option<Host> {
    let Value::Array(node) = node else { return None };
    let [host, Value::Int(port), ..] = node.as_slice() else { return None };
    let host = match host {
        Value::BulkString(bytes) if !bytes.is_empty() => String::from_utf8(bytes.clone()).ok()?,
        _ => asked.to_string(),
    };
    // What has no name yet is called "?".
    (host != "?").then_some((host, u16::try_from(*port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_slot_and_all_nodes_are_read() {
        let text = |text: &str| Value::BulkString(text.into());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(vec![])]);
        let range = |from, to, nodes: Vec<Value>| Value::Array([vec![Value::Int(from), Value::Int(to)], nodes].concat());
        let ranges = vec![
            range(0, 5, vec![node(text("a"), 1), node(text("b"), 2)]),
            range(6, 9, vec![node(Value::Nil, 3), node(text(""), 4), node(text("?"), 5)]),
            Value::Nil,
        ];
        let host = |host: &str, port| (host.to_string(), port);
        for (slot, owner) in [(0, Some(host("a", 1))), (5, Some(host("a", 1))), (6, Some(host("me", 3))), (10, None)] {
            let (found, all) = read(ranges.clone(), slot, "me");
            assert_eq!(found, owner, "{slot}");
            assert_eq!(all, BTreeSet::from([host("a", 1), host("b", 2), host("me", 3), host("me", 4)]));
        }
    }
}
