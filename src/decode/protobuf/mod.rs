//! The format `protobuf`: a message in Protobuf's wire format, written by any version of a schema.
//!
//! Values go from the payload into columns, with nothing in between; fields that no query uses are passed over. Each message of each version
//! is planned once ([`plan`]); its records are walked through field by field ([`wire`]), and what is a column's is put there ([`values`]). Texts
//! stay where they are in the payloads' memory.
//!
//! | column | takes |
//! |---|---|
//! | integers | all whole numbers; what the column cannot hold is refused value by value (`out_of_range`) |
//! | REAL; DOUBLE | `float`; `float`, `double`, whole numbers |
//! | DECIMAL | whole numbers, `confluent.type.Decimal` (`out_of_range`) |
//! | BOOLEAN | `bool` |
//! | DATE | `google.type.Date` |
//! | TIMESTAMP | `google.protobuf.Timestamp` |
//! | VARCHAR | `string`, `bytes` that are UTF-8, enums by name (a number without a name by its digits) |
//! | any | a wrapper of what it takes, such as `google.protobuf.Int64Value` |
//!
//! A field that is not there is NULL where the schema tells that from zero (`optional`, members of a `oneof`, messages), its declared default if
//! it has one, and zero or empty otherwise. Of a field that is there twice the last one counts. Repeated fields, maps and other messages are no
//! columns; they are passed over. A value that is written in another way than the schema says is refused (`wire_type`): readers that know only
//! their own schema would take it for an unknown field, but here it is the writer's.
//!
//! Why not `ptars`: it gives up a whole batch for a fault of one record, reads the first message of a file only, and its stack grows with the
//! payload.

mod plan;
mod schema;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef};

use self::plan::{Plan, column_type};
use self::schema::Files;
use self::values::{Wrong, put, put_absent};
use self::wire::{Broken, Input, zigzag};
use super::framed::Fault;
use super::rows::Rows;
use super::rows::value::Refusal;
use crate::registry::schemas::Known;

/// Messages inside each other that a payload may name.
const PATH_MAX: u64 = 32;

/// How the records of one message of a writer's schema are read.
#[derive(Debug)]
pub(in crate::decode) struct ProtobufPlan(Plan);

/// The length of the indexes at the beginning of a payload, behind the schema's id, that say which message it is.
pub(in crate::decode) fn path_bytes(payload: &[u8]) -> Result<usize, Fault> {
    match payload {
        // As almost all begin.
        [0, ..] => Ok(1),
        _ => read_path(payload).map(|(_, bytes)| bytes),
    }
}

fn read_path(payload: &[u8]) -> Result<(Vec<i32>, usize), Fault> {
    let mut input = Input::new(payload, 0, payload.len());
    let mut path = Vec::new();
    let mut read = || -> Result<bool, Broken> {
        let count = zigzag(input.varint()?);
        let Some(count) = u64::try_from(count).ok().filter(|&count| count <= PATH_MAX) else { return Ok(false) };
        for _ in 0..count {
            match i32::try_from(zigzag(input.varint()?)) {
                Ok(index @ 0..) => path.push(index),
                _ => return Ok(false),
            }
        }
        Ok(true)
    };
    match read() {
        // No indexes are short for the first message.
        Ok(true) if path.is_empty() => Ok((vec![0], input.at)),
        Ok(true) => Ok((path, input.at)),
        Ok(false) => Err(Fault::decode("framing", "behind the schema's id the payload does not say which message it is")),
        Err(_) => Err(Fault::decode("framing", "the payload ends before it has said which message it is")),
    }
}

impl ProtobufPlan {
    /// Plans the records of the message of `writer` that `path` names (see [`path_bytes`]) for `columns`; the error is a sentence.
    pub(in crate::decode) fn new(
        writer: &Known,
        path: &[u8],
        newest: Option<&Known>,
        columns: &SchemaRef,
    ) -> Result<Self, String> {
        let files = Files::read(writer)?;
        let (path, _) = read_path(path).map_err(|_| "it has no such message".to_string())?;
        let message = files.message(&path).ok_or_else(|| format!("it has no message at the place {path:?}"))?;
        // One that cannot be read has nothing to say of names.
        let newest = newest.and_then(|newest| Files::read(newest).ok()).and_then(|files| files.message_like(&message.name));
        Plan::new(&message, newest.as_ref(), columns).map(Self)
    }

    /// Adds the row of the record `bytes[from..to]`, or a part of it and says what is wrong.
    pub(in crate::decode) fn read(&self, rows: &mut Rows, bytes: &[u8], from: usize, to: usize) -> Result<(), Fault> {
        let Plan { watched, cells, missing } = &self.0;
        let mut input = Input::new(bytes, from, to);
        let mut next = 0;
        while input.next().map_err(|broken| broken_fault(broken, input.at - from))? {
            let number = input.number;
            // Fields mostly come in the order of their numbers.
            if watched.get(next).is_none_or(|field| field.number != number) {
                next = match watched.binary_search_by_key(&number, |field| field.number) {
                    Ok(at) => at,
                    Err(_) => continue,
                };
            }
            let field = &watched[next];
            next += 1;
            if let Some(oneof) = field.oneof {
                for other in cells.iter().filter(|other| other.oneof == Some(oneof)) {
                    rows.columns[other.column].truncate(rows.count);
                }
            }
            let Some(cell) = field.cell.map(|cell| &cells[cell]) else { continue };
            let column = &mut rows.columns[cell.column];
            // The last one counts.
            if column.len() > rows.count {
                column.truncate(rows.count);
            }
            put(&cell.cell, input.raw(), bytes, column, &mut rows.resolved).map_err(|wrong| field_fault(&cell.name, wrong))?;
        }
        for cell in cells {
            let column = &mut rows.columns[cell.column];
            if column.len() == rows.count {
                put_absent(&cell.absent, column, &mut rows.resolved).map_err(|wrong| field_fault(&cell.name, wrong))?;
            }
        }
        for &column in missing {
            let column = &mut rows.columns[column];
            if column.put_null().is_err() {
                let why = format!("the writer's schema has no field '{}', which may not be NULL", column.field().name());
                return Err(Fault::schema("null", why));
            }
        }
        Ok(())
    }
}

/// The code, and what ends a sentence.
fn broken_words(broken: Broken) -> (&'static str, &'static str) {
    match broken {
        Broken::Truncated => ("truncated", "it ends within a field"),
        Broken::Number => ("number", "a number is longer than ten bytes"),
        Broken::Tag => ("tag", "there is no such field or wire type"),
        Broken::Group => ("group", "a group ends that has not begun, or too many lie in each other"),
    }
}

#[cold]
fn broken_fault(broken: Broken, at: usize) -> Fault {
    let (code, what) = broken_words(broken);
    Fault::decode(code, format!("the message cannot be read beyond byte {at}: {what}"))
}

#[cold]
fn field_fault(name: &str, wrong: Wrong) -> Fault {
    match wrong {
        Wrong::Broken(broken) => {
            let (code, what) = broken_words(broken);
            Fault::decode(code, format!("the field '{name}' cannot be read: {what}"))
        }
        Wrong::WireType => {
            Fault::decode("wire_type", format!("the field '{name}' is written in another way than its schema says"))
        }
        Wrong::Utf8 => Fault::decode("utf8", format!("the field '{name}' cannot be read: the text is not UTF-8")),
        Wrong::Required => Fault::schema("required", format!("the field '{name}' is required, and not there")),
        Wrong::Refused(refusal) => {
            let (code, what) = match refusal {
                Refusal::Null => ("null", "is NULL, which its column may not be"),
                Refusal::Range => ("out_of_range", "is a value that its column cannot hold"),
                Refusal::Type | Refusal::Time(_) => ("type_mismatch", "is no value of its type"),
            };
            Fault::schema(code, format!("the field '{name}' {what}"))
        }
    }
}

/// The columns that the fields of a schema's first message are by themselves, and the names of those that are none; the error is a sentence.
pub(in crate::decode) fn columns(known: &Known) -> Result<(ArrowSchema, Vec<String>), String> {
    let message = Files::read(known)?.message(&[0]).ok_or("it has no message")?;
    let (mut columns, mut others) = (Vec::new(), Vec::new());
    for field in &message.fields {
        match column_type(field) {
            Some(data_type) => columns.push(Field::new(&field.name, data_type, true)),
            None => others.push(field.name.clone()),
        }
    }
    Ok((ArrowSchema::new(columns), others))
}
