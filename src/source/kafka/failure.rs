//! What an error code of librdkafka means for us.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::error::{Error, Kind};
use crate::kafka::judge::{IS_IT_THERE, distrust, distrusted};

/// What librdkafka says of itself, beside the answers to what it was asked.
pub(super) struct Failure {
    pub(super) code: Code,
    /// Its own words. They hold no setting's value.
    pub(super) reason: String,
}

impl Failure {
    /// Whether no waiting mends it.
    pub(super) fn is_for_good(&self) -> bool {
        distrusted(self.code, &self.reason).is_some() || is_refused(self.code)
    }

    /// The error, with advice.
    pub(super) fn error(&self, topic: &str, brokers: &str) -> Error {
        match distrusted(self.code, &self.reason) {
            Some(reason) => distrust(brokers, &reason),
            None => of_code(self.code, topic, brokers),
        }
    }
}

fn is_refused(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
    )
}

/// Whether `code` says that there is no such topic or partition.
pub(super) fn is_unknown_topic(code: Code) -> bool {
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
}

/// Whether `code` says that offsets are not (or no longer) there.
pub(super) fn is_out_of_range(code: Code) -> bool {
    matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange)
}

/// The error for `code`, with advice. Never holds a setting's value.
pub(super) fn of_code(code: Code, topic: &str, brokers: &str) -> Error {
    match code {
        _ if is_refused(code) => Error::new(
            Kind::Denied,
            format!(
                "{brokers} refuses to let us read topic '{topic}'; check the credentials and rights ('kafka.sasl.*', ACLs)"
            ),
        ),
        Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::UnsupportedFeature => Error::new(
            Kind::Corrupt,
            format!("a batch of topic '{topic}' cannot be read; check the broker's disk and the producer's compression"),
        ),
        _ => Error::new(Kind::Unreachable, format!("topic '{topic}' at {brokers} cannot be read now; {IS_IT_THERE}")),
    }
    .because(code)
}
