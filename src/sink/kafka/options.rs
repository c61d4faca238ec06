//! What a `STORED AS KAFKA` table says to whoever writes it. Pure: connects to nothing.

use std::fmt;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Schema};

use super::schema::RowSchema;
use crate::debezium;
use crate::error::Result;
use crate::kafka::options::{FOR_READERS, fixed_for_writers, wrong_settings};
use crate::registry::SchemaType;
use crate::registry::options::RegistryOptions;
use crate::table::{Options, TableDef};

/// Brokers may have fewer; a mistyped number should not make a topic that nobody can delete in time.
const PARTITIONS_MAX: u64 = 10_000;

/// The options of a Kafka table that is written, read and checked.
#[derive(Clone)]
pub struct KafkaSinkOptions {
    /// The table's name, for messages.
    pub(super) table: String,
    pub(super) topic: String,
    pub(super) brokers: String,
    /// The index of the column that is the record's key.
    pub(super) key: Option<usize>,
    /// `emit 'update'`: rows replace each other by key, and one that left is a tombstone.
    pub(super) upserts: bool,
    /// `format` `debezium-json`: the column with Debezium's records.
    pub(super) debezium: Option<usize>,
    /// `format` `avro`, `json-schema` or `protobuf`: what the registry gets to know.
    pub(super) registered: Option<(RowSchema, RegistryOptions)>,
    /// For a topic that is missing; -1: as the broker has it.
    pub(super) partitions: i32,
    pub(super) replication: i32,
    /// `kafka.*`: names and values for librdkafka, without the prefix. May hold secrets.
    pub(super) kafka: Vec<(String, String)>,
}

impl KafkaSinkOptions {
    /// Reads the options of `table`; `LOCATION` is the topic.
    ///
    /// | option | default | means |
    /// |---|---|---|
    /// | `brokers` | | `host:port`, several with commas; required |
    /// | `format` | json | one object a record, without `_id`: that is the header `falaj.id`. Or `debezium-json`: the records of the column `_debezium`, which a table of changes has. Or `avro`, `json-schema`, `protobuf`: behind the id of a schema that is registered before the first record |
    /// | `registry.url` | | the schema registry, for `avro`, `json-schema` and `protobuf`; and what else [`RegistryOptions`] has |
    /// | `key` | | the column whose text is the record's key; without it, records have none |
    /// | `emit` | final | or `update` (with `key`): the rows that changed, and a tombstone for each that left |
    /// | `partitions`, `replication` | the broker's | for a topic that falaj makes, because it is missing |
    /// | `kafka.<name>` | | for librdkafka |
    ///
    /// A topic that is made for `update` has `cleanup.policy=compact`. On an `UNBOUNDED` table the reader's options may stand
    /// beside them.
    pub fn from_table(table: &TableDef) -> Result<Self> {
        let mut options = table.options();
        let brokers = options.required("brokers", "localhost:9092").to_string();
        let format = options.one_of("format", &["json", "debezium-json", "avro", "json-schema", "protobuf"]);
        let is_debezium = format == "debezium-json";
        let registered = match format {
            "avro" => registered(&mut options, table, SchemaType::Avro),
            "json-schema" => registered(&mut options, table, SchemaType::Json),
            "protobuf" => registered(&mut options, table, SchemaType::Protobuf),
            _ => None,
        };
        let key = options.text("key").map(|name| key(&mut options, &table.schema, name));
        let upserts = options.one_of("emit", &["final", "update"]) == "update";
        if upserts && key.is_none() {
            options.problem("'emit' 'update' needs the option 'key': the column by which rows replace each other");
        }
        // Of a table that is read they are columns of the row, and no lane may write it: see [`written_otherwise`].
        let is_debezium = is_debezium && !table.unbounded;
        let debezium = if is_debezium { debezium_column(&mut options, &table.schema, key.is_some() || upserts) } else { None };
        let partitions = made_with(&mut options, "partitions", PARTITIONS_MAX);
        let replication = made_with(&mut options, "replication", i16::MAX as u64);
        let kafka: Vec<(String, String)> =
            options.with_prefix("kafka.").into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        if table.location.is_empty() {
            options.problem("needs the topic as LOCATION");
        }
        if table.unbounded {
            // The reader checks what is its own, and settings that it alone may need.
            for name in FOR_READERS {
                let _ = options.text(name);
            }
        } else {
            read_only(&mut options);
            let problems = wrong_settings(&kafka, &fixed_for_writers());
            problems.into_iter().for_each(|problem| options.problem(problem));
        }
        options.finish()?;
        let (name, topic) = (table.name.clone(), table.location.clone());
        let key = key.flatten();
        Ok(Self { table: name, topic, brokers, key, upserts, debezium, registered, partitions, replication, kafka })
    }
}

impl KafkaSinkOptions {
    /// The registry that the rows' schema belongs into.
    pub fn registry(&self) -> Option<&RegistryOptions> {
        self.registered.as_ref().map(|(_, registry)| registry)
    }
}

fn registered(options: &mut Options<'_>, table: &TableDef, schema_type: SchemaType) -> Option<(RowSchema, RegistryOptions)> {
    let registry = RegistryOptions::read(options, table);
    if registry.id_bytes != 4 {
        options.problem("option 'registry.id_bytes' is for what is read; ids are written in 4 bytes");
    }
    match RowSchema::of(table, schema_type) {
        Ok(rows) => Some((rows, registry)),
        Err(problems) => {
            problems.into_iter().for_each(|problem| options.problem(problem));
            None
        }
    }
}

/// Why a lane cannot write `table`, though its options are right: it says how envelopes are read.
pub fn written_otherwise(table: &TableDef) -> Option<String> {
    let reads = table.unbounded && table.options.get("format").is_some_and(|format| format == "debezium-json");
    reads.then(|| {
        format!(
            "table '{}' says how Debezium's envelopes are read; to write them, declare another table over the same topic: CREATE EXTERNAL TABLE \
             … (_debezium VARCHAR)",
            table.name
        )
    })
}

/// Without the values of `kafka.*`, which may be secrets.
impl fmt::Debug for KafkaSinkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, topic, brokers, key, upserts, .. } = self;
        let mut shown = f.debug_struct("KafkaSinkOptions");
        shown.field("table", table).field("topic", topic).field("brokers", brokers).field("key", key).field("upserts", upserts);
        shown.finish_non_exhaustive()
    }
}

/// Options of a reader on a table that nobody can read: `UNBOUNDED` was forgotten.
fn read_only(options: &mut Options<'_>) {
    let given: Vec<_> = FOR_READERS.into_iter().filter(|name| options.text(name).is_some()).collect();
    if let Some(name) = given.first() {
        options.problem(format!("option '{name}' is for a topic that is read: write CREATE UNBOUNDED EXTERNAL TABLE"));
    }
}

/// The index of the key's column, or `None` with a problem noted.
fn key(options: &mut Options<'_>, schema: &Schema, name: &str) -> Option<usize> {
    let Some((index, field)) = schema.column_with_name(name) else {
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        options.problem(format!("option 'key' is '{name}', which is no column; there are {}", columns.join(", ")));
        return None;
    };
    let kind = field.data_type();
    if kind.is_nested() || kind.is_binary() || !can_cast_types(kind, &DataType::Utf8) {
        options.problem(format!("option 'key': column '{name}' is {kind}; it must be text, a number or a time"));
    }
    Some(index)
}

/// The index of the column with Debezium's records, or `None` with a problem noted.
fn debezium_column(options: &mut Options<'_>, schema: &Schema, has_key: bool) -> Option<usize> {
    if has_key {
        options.problem("with 'format' 'debezium-json' the change itself says key and order: leave 'key' and 'emit' out");
    }
    match schema.column_with_name(debezium::COLUMN) {
        Some((index, field)) if schema.fields().len() == 1 && can_cast_types(field.data_type(), &DataType::Utf8) => Some(index),
        _ => {
            options.problem(
                "'format' 'debezium-json' writes what a table of changes has in its column _debezium: declare (_debezium VARCHAR) here and \
                 there, and nothing else here",
            );
            None
        }
    }
}

/// A number from 1 on; -1 when it is not given.
fn made_with(options: &mut Options<'_>, name: &'static str, most: u64) -> i32 {
    // What is not given is no number that could be given.
    let number = options.number(name, u64::MAX);
    match number {
        u64::MAX => -1,
        1.. if number <= most => i32::try_from(number).unwrap_or(-1),
        _ => {
            options.problem(format!("option '{name}' is '{number}'; it must be between 1 and {most}"));
            -1
        }
    }
}
