//! What librdkafka's errors mean for us.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer as _;

use super::Place;
use super::clients::{Consumer, Producer, Watch};
use crate::error::{Error, Kind};

/// Turns errors of the connections of a place into ours.
pub(super) struct Judge<'a> {
    pub(super) place: &'a Place,
    pub(super) watch: &'a Watch,
    pub(super) consumer: &'a Consumer,
    pub(super) producer: Option<&'a Producer>,
}

impl Judge<'_> {
    /// What `error` means. The reason behind a time-out or a failed transaction goes before it.
    pub(super) fn error(&self, error: KafkaError) -> Error {
        self.listen();
        let fatal = self.producer.and_then(|producer| producer.client().fatal_error()).map(|(code, _)| code);
        let told = self.watch.denied.lock().or(fatal).or(*self.watch.delivery.lock());
        let own = match &error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        match told.or(own) {
            Some(code) => self.code(code).because(error),
            None => self.code(Code::Fail).because(error),
        }
    }

    /// Takes in what the connections have to say; a few events are enough to have the first of each kind.
    fn listen(&self) {
        for _ in 0..16 {
            if let Some(producer) = self.producer {
                producer.poll(std::time::Duration::ZERO);
            }
            if let Some(Err(error)) = self.consumer.poll(std::time::Duration::ZERO) {
                self.watch.note(&error);
            }
        }
    }

    pub(super) fn code(&self, code: Code) -> Error {
        let Place { topic, brokers, words, .. } = self.place;
        let (one, many) = (words.one, words.many);
        let (kind, sentence) = match code {
            _ if is_denied(code) => (
                Kind::Denied,
                format!(
                    "{brokers} does not let us write {many} to '{topic}'; check the credentials and rights ('kafka.sasl.*', ACLs)"
                ),
            ),
            // This alone says nothing of who is newer: the broker answers so when it has ended a transaction by itself, and when a
            // request of a process that is dead by now reached it late. The group's offset and the checkpoint know.
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => (
                Kind::Unreachable,
                format!("the transaction with {many} for '{topic}' was ended by the broker or another writer"),
            ),
            Code::MessageSizeTooLarge => (Kind::Full, format!("{one} is larger than '{topic}' takes; {}", words.too_large)),
            Code::InvalidTimestamp => (
                Kind::Full,
                format!(
                    "'{topic}' does not take the time of {one}; raise its message.timestamp.before.max.ms and message.timestamp.after.max.ms"
                ),
            ),
            Code::InvalidRecord => (
                Kind::Sql,
                format!(
                    "'{topic}' does not take {one} as it is; with cleanup.policy=compact every record needs a key (option 'key')"
                ),
            ),
            Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::PolicyViolation
            | Code::InvalidReplicationFactor
            | Code::InvalidConfig
            | Code::InvalidTransactionTimeout => (
                Kind::Denied,
                format!("{brokers} will not have the topic '{topic}' for {many} as it is made; create it by hand"),
            ),
            _ => (Kind::Unreachable, format!("{many} cannot be written to '{topic}' at {brokers} now; is the broker running?")),
        };
        Error::new(kind, sentence)
    }
}

pub(super) fn is_denied(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}
