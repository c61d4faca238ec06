//! The port to a schema registry: what a record's id stands for, the newest version of a subject, and a writer's own schemas.
//!
//! * [`id`]: what records carry;
//! * [`proto`]: schemas in Protobuf;
//! * [`options`]: what a table says of its registry;
//! * [`schemas`]: what decoders know of it, kept and shared;
//! * [`http`]: the registry's API, as Confluent's and all that are compatible with it have it.

pub mod http;
pub mod id;
pub mod options;
pub mod proto;
pub mod schemas;

use std::fmt;

use async_trait::async_trait;

use self::id::SchemaId;
use crate::error::Result;

/// The languages of schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaType {
    /// Avro's JSON.
    Avro,
    /// A JSON Schema.
    Json,
    /// The text of a `.proto` file, or its `FileDescriptorProto` in base64.
    Protobuf,
}

impl SchemaType {
    /// The registry's word.
    pub fn as_str(self) -> &'static str {
        match self {
            SchemaType::Avro => "AVRO",
            SchemaType::Json => "JSON",
            SchemaType::Protobuf => "PROTOBUF",
        }
    }
}

impl fmt::Display for SchemaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A schema as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The language of `text`.
    pub schema_type: SchemaType,
    /// The schema itself.
    pub text: String,
    /// What it imports.
    pub references: Vec<Reference>,
}

/// A name in a schema that stands for another subject's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The name: of a type in Avro, of an imported file in Protobuf.
    pub name: String,
    /// Where it is registered.
    pub subject: String,
    /// Under which number.
    pub version: i32,
}

/// One version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The subject, mostly `<topic>-value`.
    pub subject: String,
    /// Its number in the subject.
    pub version: i32,
    /// The id that records carry.
    pub id: u32,
    /// The schema.
    pub schema: Schema,
}

/// A registry. Every method may be called at once with others, and again after any error; dropping a future asks nothing back.
///
/// `Err(Unreachable)`: it is away, too slow or asks us to wait; ask again later. `Err(Denied)`: it was reached and will not let us in.
/// `Err(Sql)`: what answered is no schema registry.
#[async_trait]
pub trait Registry: Send + Sync {
    /// The schema with this id; `None` when the registry has none, or knows no such ids.
    async fn fetch(&self, id: SchemaId) -> Result<Option<Schema>>;

    /// The subjects that have the schema with this id, each with its version's number: for messages. None if there is no such id.
    async fn names(&self, id: SchemaId) -> Result<Vec<(String, i32)>>;

    /// The newest version of a subject; `None` when nothing is registered there.
    async fn latest(&self, subject: &str) -> Result<Option<Version>>;

    /// One version of a subject, for a [`Reference`]; `None` when it is not there.
    async fn version(&self, subject: &str, version: i32) -> Result<Option<Version>>;

    /// Registers `schema` under `subject` and gives its id. Doing it twice registers once.
    /// `Err(Refused)`: the registry will not have it; the sentence holds its reason.
    async fn register(&self, subject: &str, schema: &Schema) -> Result<u32>;

    /// The registry's reasons why `schema` may not follow the newest version of `subject`; `None` when it may, or would be the first.
    async fn incompatible(&self, subject: &str, schema: &Schema) -> Result<Option<String>>;
}
