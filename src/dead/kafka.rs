//! Dead letters on a Kafka topic.
