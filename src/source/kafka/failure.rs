//! What an error code of librdkafka means for us.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::error::{Error, Kind};

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
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed => Error::new(
            Kind::Denied,
            format!(
                "{brokers} refuses to let us read topic '{topic}'; check the credentials and rights ('kafka.sasl.*', ACLs)"
            ),
        ),
        Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::UnsupportedFeature => Error::new(
            Kind::Corrupt,
            format!("a batch of topic '{topic}' cannot be read; check the broker's disk and the producer's compression"),
        ),
        _ => Error::new(Kind::Unreachable, format!("topic '{topic}' at {brokers} cannot be read now; is the broker running?")),
    }
    .because(code)
}
