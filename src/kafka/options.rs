//! What tables that are read and tables that are written share: a topic may be both, by one declaration.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::clients::PRODUCER;

/// Options that only a reader looks at; whoever writes the same table knows them, and leaves them alone.
pub(crate) const FOR_READERS: [&str; 9] = [
    "schema",
    "start",
    "on_lost",
    "changes",
    "time_unit",
    "watermark.column",
    "watermark.delay",
    "watermark.idle_timeout",
    "watermark.max_ahead",
];

/// Options that only a writer looks at.
pub(crate) const FOR_WRITERS: [&str; 4] = ["key", "emit", "partitions", "replication"];

/// Settings by which librdkafka would load code into this process or start another, some as soon as it hears of them. SQL says where data
/// goes, not what runs.
const CODE: [&str; 5] =
    ["plugin.library.paths", "ssl.engine.location", "ssl.engine.id", "ssl.providers", "sasl.kerberos.kinit.cmd"];

/// What librdkafka says about `kafka.*` options, without their values: those may be secrets. `fixed` are those that a user
/// cannot set.
pub(crate) fn wrong_settings(settings: &[(String, String)], fixed: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in settings {
        if fixed.contains(&name.as_str()) || name == "bootstrap.servers" {
            problems.push(format!("option 'kafka.{name}' cannot be set: falaj decides it"));
        } else if CODE.contains(&name.as_str()) {
            problems.push(format!("option 'kafka.{name}' cannot be set: it lets librdkafka run other code"));
        } else if let Err(KafkaError::ClientConfig(_, why, ..)) =
            ClientConfig::new().set(name, value).create_native_config().map(drop)
        {
            let why = if value.is_empty() { why } else { why.replace(value.as_str(), "…") };
            problems.push(format!("option 'kafka.{name}' is refused by librdkafka: {why}"));
        }
    }
    problems
}

/// The settings that exactly-once rests on where something is written.
pub(crate) fn fixed_for_writers() -> Vec<&'static str> {
    PRODUCER.iter().map(|(name, _)| *name).chain(["transactional.id", "group.id"]).collect()
}
