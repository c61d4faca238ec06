//! The columns that a JSON Schema names.
//!
//! | property | column |
//! |---|---|
//! | `string`; with format `date-time`, `date` | VARCHAR; TIMESTAMP, DATE |
//! | `integer` | BIGINT |
//! | `number` | DOUBLE |
//! | `boolean` | BOOLEAN |
//! | objects, arrays, several types, anything else | VARCHAR, which holds the value's JSON text |
//!
//! `null` beside one other type, or in a `oneOf` or `anyOf` with it, says nothing: any column may be NULL.

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, TimeUnit};
use serde_json::Value;

/// The columns of a schema's properties; the error is a sentence.
pub(super) fn columns(text: &str) -> Result<ArrowSchema, String> {
    let schema: Value = serde_json::from_str(text).map_err(|cause| format!("the schema is no JSON: {cause}"))?;
    let properties = schema.get("properties").and_then(Value::as_object).ok_or("the schema has no 'properties'")?;
    let columns = properties.iter().map(|(name, property)| Field::new(name, column_type(property), true));
    Ok(ArrowSchema::new(columns.collect::<Vec<_>>()))
}

fn column_type(property: &Value) -> DataType {
    let property = not_null(property);
    let words: Vec<&str> = match &property["type"] {
        Value::String(word) => vec![word.as_str()],
        Value::Array(words) => words.iter().filter_map(Value::as_str).filter(|word| *word != "null").collect(),
        _ => Vec::new(),
    };
    match (words.as_slice(), property["format"].as_str()) {
        (["string"], Some("date-time")) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        (["string"], Some("date")) => DataType::Date32,
        (["integer"], _) => DataType::Int64,
        (["number"], _) => DataType::Float64,
        (["boolean"], _) => DataType::Boolean,
        _ => DataType::Utf8View,
    }
}

/// The only choice that is not `null`, or the property itself.
fn not_null(property: &Value) -> &Value {
    let choices = ["oneOf", "anyOf"].iter().find_map(|name| property.get(name)?.as_array());
    let mut others = choices.into_iter().flatten().filter(|choice| choice["type"] != "null");
    match (others.next(), others.next()) {
        (Some(only), None) => only,
        _ => property,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_property_is_a_column() {
        let columns = columns(
            r#"{"type": "object", "properties": {
                "a": {"type": "string"}, "b": {"type": ["null", "integer"]}, "c": {"oneOf": [{"type": "null"}, {"type": "number"}]},
                "d": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}, "e": {"type": "string", "format": "date"},
                "f": {"type": "boolean"}, "g": {"type": "object"}, "h": {"$ref": "other"}, "i": {"type": ["string", "integer"]},
                "j": {"oneOf": [{"type": "string"}, {"type": "integer"}]}, "k": true}}"#,
        );
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let text = DataType::Utf8View;
        let expected = [
            ("a", &text),
            ("b", &DataType::Int64),
            ("c", &DataType::Float64),
            ("d", &time),
            ("e", &DataType::Date32),
            ("f", &DataType::Boolean),
            ("g", &text),
            ("h", &text),
            ("i", &text),
            ("j", &text),
            ("k", &text),
        ];
        let columns = columns.unwrap();
        let found: Vec<_> = columns.fields().iter().map(|field| (field.name().as_str(), field.data_type())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_has_no_properties_is_a_sentence() {
        assert_eq!(columns("{").unwrap_err().split(':').next(), Some("the schema is no JSON"));
        assert_eq!(columns(r#"{"type": "string"}"#).unwrap_err(), "the schema has no 'properties'");
    }
}
