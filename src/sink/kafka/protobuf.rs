//! The `.proto` text of a table's rows, and their payloads ([`encode`]).
//!
//! A column is told apart by its number, not by its name: one that the newest registered version has keeps its number there, a new one gets
//! the next that was never used, and those of columns that are gone stay reserved, with their names. So readers of older versions go on,
//! whatever the order of the columns.

pub(super) mod encode;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use arrow::datatypes::{DataType, Schema as ArrowSchema};

use crate::registry::proto::parse;
use crate::registry::{Schema, SchemaType};

/// Numbers that Protobuf keeps for itself.
const KEPT: (u32, u32) = (19_000, 19_999);
/// The greatest number that a field can have.
const NUMBER_MAX: u32 = 536_870_911;

/// The numbers that a version of the schema uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Of its fields, by their names.
    fields: Vec<(String, u32)>,
    /// From and to, both of them too, of fields that are gone.
    reserved: BTreeSet<(u32, u32)>,
    /// The names of fields that are gone.
    gone: BTreeSet<String>,
}

/// The numbers in the first message of a registered schema; none if it is none in Protobuf or nobody can read it.
pub(super) fn numbers(schema: &Schema) -> Option<Numbers> {
    if schema.schema_type != SchemaType::Protobuf {
        return None;
    }
    let file = parse(&schema.text).ok()?;
    let message = file.message_type.first()?;
    let number = |number: i32| u32::try_from(number).unwrap_or(NUMBER_MAX);
    Some(Numbers {
        fields: message.field.iter().map(|field| (field.name().to_string(), number(field.number()))).collect(),
        // The end of a range in a descriptor is behind it.
        reserved: message
            .reserved_range
            .iter()
            .map(|range| (number(range.start()), number(range.end().saturating_sub(1))))
            .collect(),
        gone: message.reserved_name.iter().cloned().collect(),
    })
}

impl Numbers {
    /// The numbers of these columns after a version with those of `self`.
    pub(super) fn then(&self, columns: &ArrowSchema) -> Self {
        let mut next = self.fields.iter().map(|(_, number)| *number).max().unwrap_or(0);
        let mut reserved = self.reserved.clone();
        let mut fields = Vec::with_capacity(columns.fields().len());
        for column in columns.fields() {
            let kept = self.fields.iter().find(|(name, _)| name == column.name());
            let number = kept.map_or_else(
                || {
                    next = self.free(next + 1);
                    next
                },
                |(_, number)| *number,
            );
            fields.push((column.name().clone(), number));
        }
        let is_gone = |name: &str| columns.field_with_name(name).is_err();
        let left = self.fields.iter().filter(|(name, _)| is_gone(name));
        reserved.extend(left.map(|(_, number)| (*number, *number)));
        let gone = self.fields.iter().map(|(name, _)| name).chain(&self.gone);
        let gone = gone.filter(|name| is_gone(name)).cloned().collect();
        Self { fields, reserved, gone }
    }

    /// The least number from `number` on that may be used. Where there is none, the registry says so.
    fn free(&self, mut number: u32) -> u32 {
        // In order of where they begin, so that once is enough; those that Protobuf keeps may lie anywhere between.
        for (from, to) in [&KEPT].into_iter().chain(&self.reserved).chain([&KEPT]) {
            if (*from..=*to).contains(&number) {
                number = to.saturating_add(1);
            }
        }
        number
    }
}

/// As what a column is encoded, and its type's name.
pub(super) fn column(data_type: &DataType) -> Option<(DataType, &'static str)> {
    Some(match data_type {
        DataType::Boolean => (DataType::Boolean, "bool"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => (DataType::Int32, "int32"),
        DataType::Int64 => (DataType::Int64, "int64"),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => (DataType::UInt32, "uint32"),
        DataType::UInt64 => (DataType::UInt64, "uint64"),
        DataType::Float32 => (DataType::Float32, "float"),
        DataType::Float64 => (DataType::Float64, "double"),
        DataType::Timestamp(unit, _) => (DataType::Timestamp(*unit, None), TIMESTAMP),
        DataType::Date32 | DataType::Decimal128(..) => (DataType::Utf8, "string"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (DataType::Utf8, "string"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => (DataType::Binary, "bytes"),
        _ => return None,
    })
}

const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// The text that is registered: one message with a field for each of these columns, as they are encoded.
pub(super) fn text(message: &str, columns: &ArrowSchema, numbers: &Numbers) -> String {
    let mut text = "syntax = \"proto3\";\n\n".to_string();
    if columns.fields().iter().any(|field| matches!(field.data_type(), DataType::Timestamp(..))) {
        text.push_str("import \"google/protobuf/timestamp.proto\";\n\n");
    }
    let _ = writeln!(text, "message {message} {{");
    for (from, to) in &numbers.reserved {
        let _ = if from == to { writeln!(text, "  reserved {from};") } else { writeln!(text, "  reserved {from} to {to};") };
    }
    for name in &numbers.gone {
        let _ = writeln!(text, "  reserved \"{name}\";");
    }
    for (field, (name, number)) in columns.fields().iter().zip(&numbers.fields) {
        let kind = column(field.data_type()).map_or("bytes", |(_, name)| name);
        let label = if field.is_nullable() && kind != TIMESTAMP { "optional " } else { "" };
        let _ = writeln!(text, "  {label}{kind} {name} = {number};");
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    fn columns(names: &[&str]) -> ArrowSchema {
        ArrowSchema::new(names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Vec<_>>())
    }

    fn after(text: &str, names: &[&str]) -> String {
        let schema = Schema { schema_type: SchemaType::Protobuf, text: text.into(), references: Vec::new() };
        let columns = columns(names);
        super::text("M", &columns, &numbers(&schema).unwrap().then(&columns))
    }

    fn message(lines: &[&str]) -> String {
        let lines: String = lines.iter().map(|line| format!("  {line};\n")).collect();
        format!("syntax = \"proto3\";\n\nmessage M {{\n{lines}}}\n")
    }

    #[test]
    fn a_column_keeps_its_number_and_that_of_one_that_is_gone_is_never_used_again() {
        let first = columns(&["a", "b", "c"]);
        let numbers = Numbers::default().then(&first);
        let text = text("M", &first, &numbers);
        assert_eq!(text, message(&["optional int64 a = 1", "optional int64 b = 2", "optional int64 c = 3"]));
        let text = after(&text, &["d", "c", "a"]);
        assert_eq!(
            text,
            message(&["reserved 2", "reserved \"b\"", "optional int64 d = 4", "optional int64 c = 3", "optional int64 a = 1"])
        );
        let text = after(&text, &["d", "a", "b"]);
        let expected = [
            "reserved 2",
            "reserved 3",
            "reserved \"c\"",
            "optional int64 d = 4",
            "optional int64 a = 1",
            "optional int64 b = 5",
        ];
        assert_eq!(text, message(&expected));
        assert_eq!(after(&text, &["d", "a", "b"]), text, "so that registering it again finds it");
    }

    #[test]
    fn new_numbers_pass_over_those_that_are_reserved() {
        let text = message(&["reserved 5 to 9", "int64 a = 4"]);
        let expected = ["reserved 5 to 9", "optional int64 a = 4", "optional int64 b = 10"];
        assert_eq!(after(&text, &["a", "b"]), message(&expected));
        let text = message(&["int64 a = 18999"]);
        assert_eq!(after(&text, &["a", "b"]), message(&["optional int64 a = 18999", "optional int64 b = 20000"]));
    }
}
