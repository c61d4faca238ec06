//! What records carry of the schema that wrote them.

use std::fmt;

/// The number or the GUID of a schema in its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaId {
    /// In four bytes, or in eight as Apicurio may write them.
    Id(u64),
    /// The same in every registry that has the schema (Confluent's, since version 8).
    Guid(u128),
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaId::Id(id) => write!(f, "{id}"),
            SchemaId::Guid(guid) => uuid::Uuid::from_u128(*guid).fmt(f),
        }
    }
}
