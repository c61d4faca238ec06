//! What everything that writes to Kafka stands on: one epoch in one transaction, once for readers of committed records.
//!
//! The transaction also moves a group offset whose metadata says `incarnation/epoch`. That is how [`Transactions::open`] knows
//! what is held, and who holds it: the metadata decides, not the broker's producer fence, because a stopped process that wakes
//! could take that fence back. Group and transaction have one name, which contains lineage and lane. In order:
//! `init_transactions`, read the fence, claim it (a transaction of its own); then for each epoch begin, offset with
//! metadata, send, commit.
//!
//! * [`writer`]: the epochs, and what is done after an error whose end is not known;
//! * [`session`]: one claim of the place, from `init_transactions` to the first error;
//! * [`fence`]: the offset's metadata;
//! * [`topic`]: makes the topic when it is missing;
//! * [`reading`]: a topic read to its end, for commands;
//! * [`clients`]: the connections' settings; [`judge`]: what their errors mean for us;
//! * [`options`]: what the tables that are read and those that are written share.

pub(crate) mod clients;
mod fence;
pub(crate) mod judge;
pub(crate) mod options;
pub(crate) mod pass;
mod reading;
mod session;
mod topic;
mod writer;

use std::time::Duration;

pub(crate) use reading::{Bounds, Reading};
pub(crate) use session::Session;
pub(crate) use topic::{MadeTopic, delete_before};
pub(crate) use writer::{Transactions, blocking};

/// How long one question to the broker may take: a cold TLS connection fits.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Who writes, and where to.
pub(crate) struct Place {
    /// `host:port`, several with commas.
    pub(crate) brokers: String,
    /// librdkafka's, as the user gave them. May hold secrets.
    pub(crate) properties: Vec<(String, String)>,
    /// The topic that is written.
    pub(crate) topic: String,
    /// How it is made when it is missing.
    pub(crate) made: MadeTopic,
    /// `transactional.id` and `group.id`: contains lineage and lane.
    pub(crate) id: String,
    /// The lane's name.
    pub(crate) lane: String,
    /// The number of its claim.
    pub(crate) incarnation: u64,
    /// What is written, for messages.
    pub(crate) words: &'static Words,
}

/// How messages name what is written, and the failpoints around the transaction's commit.
pub(crate) struct Words {
    /// `dead letters`.
    pub(crate) many: &'static str,
    /// `a dead letter`.
    pub(crate) one: &'static str,
    /// What to do when one is larger than the topic takes.
    pub(crate) too_large: &'static str,
    /// The failpoint before the commit.
    pub(crate) sent: &'static str,
    /// The failpoint after it.
    pub(crate) committed: &'static str,
}
