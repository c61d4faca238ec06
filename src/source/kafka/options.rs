//! What a user may write in the `OPTIONS` of a Kafka table.

use std::fmt;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, TimeUnit};
use rdkafka::ClientConfig;

use crate::debezium;
use crate::error::Result;
use crate::kafka::options::{FOR_WRITERS, wrong_settings};
use crate::registry::SchemaType;
use crate::registry::options::RegistryOptions;
use crate::source::Start;
use crate::source::watermark::WatermarkOptions;
use crate::table::{Options, TableDef};

/// Settings of librdkafka that exactly-once rests on: a user cannot change them.
const FIXED: [(&str, &str); 6] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    // Offsets that are gone must be seen, not skipped.
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("statistics.interval.ms", "0"),
];

/// Settings that a user may change with `kafka.<name>`.
const DEFAULTS: [(&str, &str); 8] = [
    ("client.id", "falaj"),
    // Never joined; librdkafka wants a name before it lets partitions be assigned.
    ("group.id", "falaj"),
    ("queued.min.messages", "1000000"),
    // At the log end the broker holds an empty answer back for so long, and the log end is only known after it.
    ("fetch.wait.max.ms", "50"),
    // A full queue is looked at again after so long; the default of a second starves a fast reader.
    ("fetch.queue.backoff.ms", "5"),
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.nagle.disable", "true"),
    // How soon a new partition is found.
    ("topic.metadata.refresh.interval.ms", "10000"),
];

/// The queue of one reader, and what it has at least when memory is short.
const QUEUE_KIB: usize = 16 << 10;
const QUEUE_KIB_LEAST: usize = 1 << 10;

/// How a payload is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// `json`: one object, which is the row.
    Json,
    /// `debezium-json`: the envelope of a change. With the options `changes` (`inserts`, or `all`), and `time_unit`: what numbers count
    /// that stand for times (`us`, as Debezium's connector for Postgres has it by default; `ms`, `ns`).
    Debezium {
        /// Whether every change is a row, or new rows only.
        all_changes: bool,
        /// What numbers count.
        time_unit: TimeUnit,
    },
    /// `avro`, `json-schema`, `protobuf`: a record behind the id of its schema in a registry, which the options that begin with `registry.` name. Of a
    /// table that declares no columns they come from the registry, or from the option `schema`, the schema's own text (`${file:PATH}`).
    Framed(SchemaType, RegistryOptions),
}

/// The options of a Kafka table, read and checked.
#[derive(Clone)]
pub struct KafkaOptions {
    /// The topic: the table's `LOCATION`.
    pub topic: String,
    /// `brokers`: `host:port`, several with commas.
    pub brokers: String,
    /// `format`: how a payload is written.
    pub format: Format,
    /// `start`: where a lane without a checkpoint begins.
    pub start: Start,
    /// `on_lost`: whether to go on behind offsets that the broker no longer has (`go_on`), or to stop (`stop`).
    pub goes_on_without_lost: bool,
    /// What begins with `watermark.`.
    pub watermark: WatermarkOptions,
    /// The most that one reader reads ahead, and less where memory is short: see [`KafkaOptions::queue_bytes`].
    queue_kib: usize,
    /// `kafka.*`: names and values for librdkafka, without the prefix. May hold secrets.
    pub kafka: Vec<(String, String)>,
}

impl KafkaOptions {
    /// Reads and checks the options of `table`; all problems become one error with its place. Touches no network.
    pub fn from_table(table: &TableDef) -> Result<Self> {
        let mut options = table.options();
        let brokers = options.required("brokers", "localhost:9092").to_string();
        let format = match options.one_of("format", &["json", "debezium-json", "avro", "json-schema", "protobuf"]) {
            "json" => Format::Json,
            "debezium-json" => envelopes(&mut options, table),
            word => {
                let schema_type = match word {
                    "avro" => SchemaType::Avro,
                    "protobuf" => SchemaType::Protobuf,
                    _ => SchemaType::Json,
                };
                let _ = options.text("schema");
                Format::Framed(schema_type, RegistryOptions::read(&mut options, table))
            }
        };
        let start = match options.one_of("start", &["earliest", "latest"]) {
            "latest" => Start::Latest,
            _ => Start::Earliest,
        };
        let goes_on_without_lost = options.one_of("on_lost", &["stop", "go_on"]) == "go_on";
        let watermark = WatermarkOptions::read(&mut options, table);
        let kafka: Vec<(String, String)> =
            options.with_prefix("kafka.").into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        if table.location.is_empty() {
            options.problem("needs the topic as LOCATION");
        }
        let queue_kib = QUEUE_KIB;
        let topic = table.location.clone();
        let read = Self { topic, brokers, format, start, goes_on_without_lost, watermark, queue_kib, kafka };
        // A lane may write the same table.
        for name in FOR_WRITERS {
            let _ = options.text(name);
        }
        let fixed = FIXED.map(|(name, _)| name);
        wrong_settings(&read.kafka, &fixed).into_iter().for_each(|problem| options.problem(problem));
        options.finish()?;
        Ok(read)
    }

    /// Options for `topic` at `brokers`, with every other option as it is when it is not given.
    pub fn new(topic: &str, brokers: &str) -> Self {
        Self {
            topic: topic.into(),
            brokers: brokers.into(),
            format: Format::Json,
            start: Start::Earliest,
            goes_on_without_lost: false,
            watermark: WatermarkOptions::default(),
            queue_kib: QUEUE_KIB,
            kafka: Vec::new(),
        }
    }

    /// The same for a process that lets one reader's queue have `bytes`; 1 MiB it always has.
    pub fn with_queue_at_most(mut self, bytes: usize) -> Self {
        self.queue_kib = (bytes >> 10).clamp(QUEUE_KIB_LEAST, self.queue_kib);
        self
    }

    /// What one reader holds at most: its queue, and the answer that comes while that is nearly full.
    pub fn queue_bytes(&self) -> usize {
        let given = |name: &str| self.kafka.iter().find(|(given, _)| given == name).and_then(|(_, value)| value.parse().ok());
        let queue: usize = given("queued.max.messages.kbytes").unwrap_or(self.queue_kib) << 10;
        queue + given("fetch.max.bytes").unwrap_or(self.queue_kib << 9)
    }

    /// The settings of a client that reads.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in DEFAULTS {
            config.set(name, value);
        }
        // The bound in memory of one reader. One answer of the broker may go over it, so that is bounded too.
        config.set("queued.max.messages.kbytes", self.queue_kib.to_string());
        config.set("fetch.max.bytes", (self.queue_kib << 9).to_string());
        config.set("fetch.message.max.bytes", (self.queue_kib << 7).to_string());
        for (name, value) in &self.kafka {
            config.set(name, value);
        }
        for (name, value) in FIXED {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// How often the broker is asked for new partitions: as often as librdkafka asks for itself.
    pub(super) fn watch_every(&self) -> Duration {
        let name = "topic.metadata.refresh.interval.ms";
        let given = self.kafka.iter().find(|(given, _)| given == name).and_then(|(_, value)| value.parse().ok());
        Duration::from_millis(given.filter(|&ms| ms > 0).unwrap_or(10_000))
    }
}

fn envelopes(options: &mut Options<'_>, table: &TableDef) -> Format {
    let all_changes = options.one_of("changes", &["inserts", "all"]) == "all";
    let time_unit = match options.one_of("time_unit", &["us", "ms", "ns"]) {
        "ms" => TimeUnit::Millisecond,
        "ns" => TimeUnit::Nanosecond,
        _ => TimeUnit::Microsecond,
    };
    for (name, wanted) in debezium::META {
        let of_type = |field: &Field| match (&wanted, field.data_type()) {
            (DataType::Utf8View, is) => matches!(is, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
            (wanted, is) => std::mem::discriminant(wanted) == std::mem::discriminant(is),
        };
        if table.schema.field_with_name(name).is_ok_and(|field| !of_type(field)) {
            let sql = match wanted {
                DataType::Int64 => "BIGINT",
                DataType::Timestamp(..) => "TIMESTAMP",
                _ => "VARCHAR",
            };
            options.problem(format!("column '{name}' must be {sql}"));
        }
    }
    if all_changes && table.schema.field_with_name("_op").is_err() {
        options.problem("with 'changes' 'all' an update and a delete are rows like any other: declare the column _op VARCHAR, and filter by it");
    }
    Format::Debezium { all_changes, time_unit }
}

/// Without the values of `kafka.*`, which may be secrets.
impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("topic", &self.topic)
            .field("brokers", &self.brokers)
            .field("format", &self.format)
            .field("start", &self.start)
            .field("goes_on_without_lost", &self.goes_on_without_lost)
            .field("watermark", &self.watermark)
            .field("kafka", &self.kafka.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish()
    }
}
