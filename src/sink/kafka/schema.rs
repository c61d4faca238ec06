//! What a registry gets to know of a table's rows: a schema in Avro, JSON Schema or Protobuf, made from the declared columns. The same columns
//! make the same text, so that registering it again finds it.
//!
//! | column | Avro | JSON Schema | Protobuf |
//! |---|---|---|---|
//! | BOOLEAN | `boolean` | `boolean` | `bool` |
//! | TINYINT, SMALLINT, INT | `int` | `integer` | `int32` |
//! | BIGINT | `long` | `integer` | `int64` |
//! | TINYINT, SMALLINT, INT UNSIGNED | `int`, `int`, `long` | `integer` | `uint32` |
//! | BIGINT UNSIGNED | | | `uint64` |
//! | REAL, DOUBLE | `float`, `double` | `number`; NaN and the infinities are `null` | `float`, `double` |
//! | DECIMAL(p, s) | `decimal` over `bytes` | `number` | `string` |
//! | DATE | `date` over `int` | `string`, format `date` | `string`, as 2026-01-31 |
//! | TIMESTAMP | `timestamp-micros` over `long`, in UTC; finer digits are dropped | `string`, format `date-time` | `google.protobuf.Timestamp` |
//! | VARCHAR | `string` | `string` | `string` |
//! | BYTEA | `bytes` | `string`, in hex | `bytes` |
//!
//! A column that may be NULL is a union with `null`, and `null` by default: a reader of older records finds it so, and the column may be
//! added to a table whose older schema is registered. A JSON Schema allows no other properties, for the same reason. In Protobuf such a field is
//! `optional`, and not there when the column is NULL; the numbers of fields are those of the newest registered version ([`protobuf`]).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

use super::protobuf::{self, Numbers};
use crate::registry::{Schema, SchemaType, Version};
use crate::table::TableDef;

/// What a table writes.
#[derive(Clone)]
pub(super) struct RowSchema {
    /// What is registered.
    pub(super) schema: Schema,
    /// The columns as they are encoded.
    pub(super) columns: SchemaRef,
    /// The numbers of their fields in Protobuf.
    pub(super) numbers: Numbers,
    /// What a record is called.
    name: String,
}

impl RowSchema {
    /// The schema of `table`'s rows in this language, or all that stands in its way.
    pub(super) fn of(table: &TableDef, schema_type: SchemaType) -> Result<Self, Vec<String>> {
        let (mut problems, mut columns, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        for field in table.schema.fields() {
            if schema_type != SchemaType::Json && !is_name(field.name()) {
                let language = if schema_type == SchemaType::Avro { "Avro" } else { "Protobuf" };
                problems.push(format!(
                    "column '{}' is no name in {language}: letters, digits and _ only, and no digit first; give it another one",
                    field.name()
                ));
            }
            match column(field.data_type(), schema_type) {
                Some((data_type, written)) => {
                    columns.push(Field::new(field.name(), data_type, field.is_nullable()));
                    fields.push((field, written));
                }
                None => problems.push(format!(
                    "column '{}' is {}, which has no place in a schema of a registry: cast it to VARCHAR or DECIMAL",
                    field.name(),
                    field.data_type()
                )),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let (name, columns) = (record_name(&table.location), ArrowSchema::new(columns));
        let numbers = if schema_type == SchemaType::Protobuf { Numbers::default().then(&columns) } else { Numbers::default() };
        let text = match schema_type {
            SchemaType::Avro => avro(&name, &fields).to_string(),
            SchemaType::Json => json_schema(&name, &fields).to_string(),
            SchemaType::Protobuf => protobuf::text(&name, &columns, &numbers),
        };
        let schema = Schema { schema_type, text, references: Vec::new() };
        Ok(Self { schema, columns: Arc::new(columns), numbers, name })
    }

    /// The schema that may follow `newest`. One in another language, or that nobody can read, is the registry's to refuse.
    pub(super) fn following(&self, newest: &Version) -> Self {
        let mut following = self.clone();
        if let Some(before) = protobuf::numbers(&newest.schema) {
            following.numbers = before.then(&self.columns);
            following.schema.text = protobuf::text(&self.name, &self.columns, &following.numbers);
        }
        following
    }
}

/// As what a column is encoded, and its type in Avro or JSON Schema.
fn column(data_type: &DataType, schema_type: SchemaType) -> Option<(DataType, Value)> {
    if schema_type == SchemaType::Protobuf {
        return protobuf::column(data_type).map(|(encoded, name)| (encoded, json!(name)));
    }
    let (encoded, avro, json) = avro_and_json(data_type)?;
    Some((encoded, if schema_type == SchemaType::Avro { avro } else { json }))
}

fn avro_and_json(data_type: &DataType) -> Option<(DataType, Value, Value)> {
    let text = json!({"type": "string"});
    Some(match data_type {
        DataType::Boolean => (DataType::Boolean, json!("boolean"), json!({"type": "boolean"})),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            (DataType::Int32, json!("int"), json!({"type": "integer"}))
        }
        DataType::Int64 | DataType::UInt32 => (DataType::Int64, json!("long"), json!({"type": "integer"})),
        DataType::Float32 => (DataType::Float32, json!("float"), json!({"type": "number"})),
        DataType::Float64 => (DataType::Float64, json!("double"), json!({"type": "number"})),
        &DataType::Decimal128(precision, scale) if scale >= 0 => {
            let avro = json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale});
            (data_type.clone(), avro, json!({"type": "number"}))
        }
        DataType::Date32 => {
            (DataType::Date32, json!({"type": "int", "logicalType": "date"}), json!({"type": "string", "format": "date"}))
        }
        DataType::Timestamp(..) => {
            let avro = json!({"type": "long", "logicalType": "timestamp-micros"});
            let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
            (micros, avro, json!({"type": "string", "format": "date-time"}))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (DataType::Utf8, json!("string"), text),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => (DataType::Binary, json!("bytes"), text),
        _ => return None,
    })
}

fn avro(name: &str, fields: &[(&Arc<Field>, Value)]) -> Value {
    let field = |(field, avro): &(&Arc<Field>, Value)| {
        if field.is_nullable() {
            json!({"name": field.name(), "type": ["null", avro], "default": null})
        } else {
            json!({"name": field.name(), "type": avro})
        }
    };
    json!({"type": "record", "name": name, "fields": fields.iter().map(field).collect::<Vec<_>>()})
}

fn json_schema(name: &str, fields: &[(&Arc<Field>, Value)]) -> Value {
    let property = |(field, json): &(&Arc<Field>, Value)| {
        let is_float = matches!(field.data_type(), DataType::Float32 | DataType::Float64);
        let property = if field.is_nullable() || is_float { json!({"oneOf": [{"type": "null"}, json]}) } else { json.clone() };
        (field.name().clone(), property)
    };
    let required: Vec<&String> =
        fields.iter().filter(|(field, _)| !field.is_nullable()).map(|(field, _)| field.name()).collect();
    let properties: serde_json::Map<String, Value> = fields.iter().map(property).collect();
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": name,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// A record's name by its topic: what is no part of a name becomes an underscore.
fn record_name(topic: &str) -> String {
    let name: String = topic.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if is_name(&name) { name } else { format!("_{name}") }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: Vec<Field>) -> TableDef {
        TableDef {
            name: "t".into(),
            stored_as: "KAFKA".into(),
            unbounded: false,
            location: "2 topics.x".into(),
            schema: Arc::new(ArrowSchema::new(columns)),
            partition_by: Vec::new(),
            options: Default::default(),
            place: "q.sql:1:1".into(),
        }
    }

    #[test]
    fn columns_make_a_schema_in_each_language() {
        let table = table(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("price", DataType::Decimal128(6, 2), true),
            Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        ]);
        let avro = RowSchema::of(&table, SchemaType::Avro).map_err(|problems| problems.join("; ")).unwrap();
        let expected = json!({"type": "record", "name": "_2_topics_x", "fields": [
            {"name": "id", "type": "long"},
            {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}], "default": null},
            {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": null},
        ]});
        assert_eq!(serde_json::from_str::<Value>(&avro.schema.text).unwrap(), expected);
        let json = RowSchema::of(&table, SchemaType::Json).map_err(|problems| problems.join("; ")).unwrap();
        let expected = json!({"$schema": "http://json-schema.org/draft-07/schema#", "title": "_2_topics_x", "type": "object",
        "additionalProperties": false, "required": ["id"], "properties": {
            "id": {"type": "integer"},
            "price": {"oneOf": [{"type": "null"}, {"type": "number"}]},
            "at": {"oneOf": [{"type": "null"}, {"type": "string", "format": "date-time"}]},
        }});
        assert_eq!(serde_json::from_str::<Value>(&json.schema.text).unwrap(), expected);
    }

    #[test]
    fn what_has_no_place_in_a_schema_is_said_all_at_once() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        let table = table(vec![
            Field::new("a b", DataType::Int64, true),
            Field::new("c", list, true),
            Field::new("d", DataType::UInt64, true),
        ]);
        assert_eq!(RowSchema::of(&table, SchemaType::Avro).err().unwrap().len(), 3);
        assert_eq!(RowSchema::of(&table, SchemaType::Json).err().unwrap().len(), 2, "any text is a name in JSON");
        assert_eq!(RowSchema::of(&table, SchemaType::Protobuf).err().unwrap().len(), 2, "Protobuf has numbers without a sign");
    }
}
