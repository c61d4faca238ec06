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
        if let Some(reason) = &*self.watch.distrusted.lock() {
            return distrust(&self.place.brokers, reason);
        }
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
            _ => (Kind::Unreachable, format!("{many} cannot be written to '{topic}' at {brokers} now; {IS_IT_THERE}")),
        };
        Error::new(kind, sentence)
    }
}

/// What librdkafka says of TLS when one side does not trust the other, which no waiting mends; other troubles of TLS come and go.
pub(crate) fn distrusted(code: Code, reason: &str) -> Option<String> {
    // With TLS 1.3 the broker's alert comes after the handshake, when something else is read.
    let after = ["SSL handshake failed: ", "Receive failed: "].iter().find_map(|before| reason.split_once(before));
    let reason = after.map_or(reason, |(_, why)| why);
    // It goes on with advice of its own, for whoever has not installed the authorities of the web.
    let end = [" (after ", ": broker certificate "].iter().filter_map(|end| reason.find(end)).min().unwrap_or(reason.len());
    let is_of_tls = matches!(code, Code::SSL | Code::BrokerTransportFailure) && reason.contains("SSL routines");
    (is_of_tls && reason.contains("certificate")).then(|| reason[..end].trim().to_string())
}

/// The error of a broker and a falaj that do not trust each other.
pub(crate) fn distrust(brokers: &str, reason: &str) -> Error {
    let text = format!(
        "{brokers} and falaj do not trust each other: check 'kafka.ssl.ca.location' (who vouches for the broker), the name by which the \
         broker is asked, and 'kafka.ssl.certificate.location' with its key (who vouches for falaj); librdkafka says: {reason}"
    );
    Error::new(Kind::Denied, text)
}

/// What to ask when a broker does not answer.
pub(crate) const IS_IT_THERE: &str = "is the broker running, and does it ask for another 'kafka.security.protocol'?";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_certificate_that_is_not_trusted_is_for_good() {
        let refused = "ssl://b:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that … (after 3ms in state SSL_HANDSHAKE)";
        let alert = "ssl://b:1/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42 (after 0ms in state APIVERSION_QUERY)";
        let gone = "ssl://b:1/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)";
        assert_eq!(distrusted(Code::SSL, refused).as_deref(), Some("error:0A000086:SSL routines::certificate verify failed"));
        let alerted = Some("error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42");
        assert_eq!(distrusted(Code::BrokerTransportFailure, alert).as_deref(), alerted);
        assert_eq!(distrusted(Code::SSL, gone), None);
        assert_eq!(
            distrusted(Code::BrokerTransportFailure, "b:1: Connect to ipv4#127.0.0.1:1 failed: Connection refused"),
            None
        );
    }
}
