//! What stands in one `XLogData`. Begin and Commit are the transport's to read.

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use super::{Bytes, Malformed, Op};

/// A message, its rows not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// What the rows of a table look like from here on.
    Relation(Relation),
    /// A row was inserted, updated or deleted.
    Row {
        /// The table's number, as in its [`Relation`].
        relation: u32,
        /// Which of the three.
        op: Op,
        /// The rest of the message, for [`super::Change::rows`].
        body: &'a [u8],
    },
    /// Tables were emptied.
    Truncate {
        /// Their numbers.
        relations: Vec<u32>,
    },
    /// Begin, Commit, Origin, Type, and messages of `pg_logical_emit_message`.
    Other,
}

/// A table as of some change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// The number by which changes name it.
    pub id: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The replica identity: `d` (the key), `n` (nothing), `f` (the whole row), `i` (an index).
    pub identity: u8,
    /// Its columns, in the order of the values of a row.
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationColumn {
    /// Its name.
    pub name: String,
    /// Whether it is part of the replica identity.
    pub is_key: bool,
    /// The number of its type in `pg_type`.
    pub type_id: u32,
    /// What follows the type's name in brackets, encoded; -1: nothing.
    pub type_modifier: i32,
}

impl RelationColumn {
    /// Whether its values fit into `declared`; `Err` names its type. What is not known here (domains, enums, …) is left to the
    /// values: each of them is a text.
    pub fn fits(&self, declared: &DataType) -> Result<(), &'static str> {
        let whole = declared.is_integer();
        let number = whole || declared.is_floating() || matches!(declared, DataType::Decimal128(..));
        let text = matches!(declared, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let (name, fits) = match self.type_id {
            16 => ("boolean", *declared == DataType::Boolean),
            17 => ("bytea", false),
            20 => ("bigint", number),
            21 => ("smallint", number),
            23 => ("integer", number),
            25 => ("text", false),
            26 => ("oid", number),
            114 => ("json", false),
            700 => ("real", declared.is_floating()),
            701 => ("double precision", declared.is_floating()),
            1042 => ("character", false),
            1043 => ("character varying", false),
            1082 => ("date", *declared == DataType::Date32),
            1083 => ("time", false),
            1114 => ("timestamp", matches!(declared, DataType::Timestamp(..))),
            1184 => ("timestamp with time zone", matches!(declared, DataType::Timestamp(..))),
            1186 => ("interval", false),
            1266 => ("time with time zone", false),
            1700 => ("numeric", number && !whole),
            2950 => ("uuid", false),
            3802 => ("jsonb", false),
            _ => return Ok(()),
        };
        if fits || text { Ok(()) } else { Err(name) }
    }
}

impl<'a> Message<'a> {
    /// Reads a message of protocol version 1.
    #[inline]
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(message);
        let op = match bytes.u8()? {
            b'I' => Op::Insert,
            b'U' => Op::Update,
            b'D' => Op::Delete,
            b'R' => return relation(bytes).map(Message::Relation),
            b'T' => return truncate(bytes),
            b'B' | b'C' | b'O' | b'Y' | b'M' => return Ok(Message::Other),
            _ => return Err(Malformed("is of an unknown kind")),
        };
        Ok(Message::Row { relation: bytes.u32()?, op, body: bytes.0 })
    }
}

fn relation(mut bytes: Bytes<'_>) -> Result<Relation, Malformed> {
    let (id, schema, name) = (bytes.u32()?, bytes.text()?, bytes.text()?);
    let (identity, count) = (bytes.u8()?, bytes.u16()?);
    let mut columns = Vec::new();
    for _ in 0..count {
        let is_key = bytes.u8()? & 1 == 1;
        let name = bytes.text()?.to_string();
        let (type_id, modifier) = (bytes.u32()?, bytes.u32()?);
        columns.push(RelationColumn { name, is_key, type_id, type_modifier: modifier as i32 });
    }
    // pg_catalog has no name here.
    let schema = if schema.is_empty() { "pg_catalog" } else { schema };
    Ok(Relation { id, schema: schema.to_string(), name: name.to_string(), identity, columns })
}

fn truncate(mut bytes: Bytes<'_>) -> Result<Message<'_>, Malformed> {
    let (count, _options) = (bytes.u32()?, bytes.u8()?);
    let relations = (0..count).map(|_| bytes.u32()).collect::<Result<_, _>>()?;
    Ok(Message::Truncate { relations })
}
