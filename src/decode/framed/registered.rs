//! What tests of decoders share: a registry that stands in for a real one, and records decoded by it.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema as ArrowSchema};
use async_trait::async_trait;
use tokio::runtime::Runtime;

use super::FramedDecoder;
use crate::batch::Payloads;
use crate::decode::{Decoded, Decoder};
use crate::error::{Error, Kind, Result};
use crate::registry::id::SchemaId;
use crate::registry::schemas::Schemas;
use crate::registry::{Reference, Registry, Schema, SchemaType, Version};

/// Decodes payloads of schemas of the ids 1 and on into columns.
pub(in crate::decode) fn decode(registry: Registered, columns: &[Field], payloads: &[Vec<u8>]) -> Decoded {
    let (runtime, schema_type) = (Runtime::new().unwrap(), registry.schema_type);
    let schemas = Arc::new(Schemas::new(Arc::new(registry), runtime.handle().clone(), "plays-value".into()));
    let columns = Arc::new(ArrowSchema::new(columns.to_vec()));
    let mut decoder = FramedDecoder::new(columns, schema_type, schemas, 4).unwrap();
    let mut batch = Payloads::default();
    payloads.iter().zip(0..).for_each(|(payload, offset)| batch.push(offset, Some(payload)));
    decoder.prepare(&batch).unwrap();
    decoder.decode(batch).unwrap()
}

/// The subject of what is imported.
const IMPORTED: &str = "imported";

/// The versions 1, 2, … of one subject, the last of them the newest; their ids are the same numbers.
pub(in crate::decode) struct Registered {
    pub(in crate::decode) schema_type: SchemaType,
    pub(in crate::decode) texts: Vec<String>,
    /// What each of them imports.
    pub(in crate::decode) imported: Vec<String>,
}

impl Registered {
    fn schema(&self, text: &str, imported: &[String]) -> Schema {
        let reference =
            |index: usize| Reference { name: index.to_string(), subject: IMPORTED.into(), version: index as i32 + 1 };
        let references = (0..imported.len()).map(reference).collect();
        Schema { schema_type: self.schema_type, text: text.into(), references }
    }
}

/// A GUID is the same number, too.
fn number(id: SchemaId) -> i32 {
    match id {
        SchemaId::Id(id) => id as i32,
        SchemaId::Guid(guid) => guid as i32,
    }
}

#[async_trait]
impl Registry for Registered {
    async fn fetch(&self, id: SchemaId) -> Result<Option<Schema>> {
        Ok(self.version("", number(id)).await?.map(|version| version.schema))
    }

    async fn names(&self, id: SchemaId) -> Result<Vec<(String, i32)>> {
        Ok(vec![("plays-value".into(), number(id))])
    }

    async fn latest(&self, subject: &str) -> Result<Option<Version>> {
        self.version(subject, self.texts.len() as i32).await
    }

    async fn version(&self, subject: &str, version: i32) -> Result<Option<Version>> {
        let (texts, imported) = if subject == IMPORTED { (&self.imported, &[][..]) } else { (&self.texts, &self.imported[..]) };
        let text = usize::try_from(version - 1).ok().and_then(|index| texts.get(index));
        let schema = text.map(|text| self.schema(text, imported));
        Ok(schema.map(|schema| Version { subject: subject.into(), version, id: version as u32, schema }))
    }

    async fn register(&self, _: &str, _: &Schema) -> Result<u32> {
        Err(Error::new(Kind::Bug, "nobody writes here"))
    }

    async fn incompatible(&self, _: &str, _: &Schema) -> Result<Option<String>> {
        Err(Error::new(Kind::Bug, "nobody writes here"))
    }
}
