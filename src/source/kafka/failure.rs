//! What an error of librdkafka means for us.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::error::{Error, Kind};

/// The error for `cause`, with advice. Never holds a setting's value.
pub(super) fn of_error(cause: &KafkaError, topic: &str, brokers: &str) -> Error {
    let code = cause.rdkafka_error_code();
    let (kind, text) = match code {
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed,
        ) => (
            Kind::Denied,
            format!("{brokers} refuses to let us read topic '{topic}'; check the credentials and rights ('kafka.sasl.*', ACLs)"),
        ),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
            (Kind::Lost, format!("topic '{topic}' no longer has the offsets that were to be read next; retention was faster"))
        }
        Some(Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::UnsupportedFeature) => (
            Kind::Corrupt,
            format!("a batch of topic '{topic}' cannot be read; check the broker's disk and the producer's compression"),
        ),
        _ => (Kind::Unreachable, format!("topic '{topic}' at {brokers} cannot be read now; is the broker running?")),
    };
    Error::new(kind, text).because(cause.clone())
}
