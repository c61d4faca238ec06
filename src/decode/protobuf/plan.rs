//! How messages of one writer's schema become rows: which field is which column, decided once.
//!
//! A column is the field of its name. A writer that has none of that name may have it under another: where the newest schema of the subject
//! has a field of the column's name, it is the field with that number, unless that is a column itself. Numbers are what fields are told apart by.

use std::borrow::Cow;

use arrow::datatypes::{DataType, SchemaRef};
use prost_types::field_descriptor_proto::Type;

use super::schema::{Field, Kind, Message};
use crate::decode::rows::value::Typed;

/// A field that is watched for.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) number: u32,
    /// Which of [`Plan::cells`] it is; none where it only takes the place of another member of its `oneof`.
    pub(super) cell: Option<usize>,
    pub(super) oneof: Option<usize>,
}

/// A field that is a column.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) column: usize,
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) oneof: Option<usize>,
    pub(super) cell: Cell,
    pub(super) absent: Absent,
}

/// How a value becomes a column's.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Whole(Type, To),
    Flag,
    Float,
    Double,
    /// A string, or bytes that are one.
    Text,
    /// The names by their numbers, in order; a number without a name is its own text.
    Symbol(Vec<(i32, String)>),
    /// `google.protobuf.Timestamp`
    Moment,
    /// `google.type.Date`
    Day,
    /// `confluent.type.Decimal`, for a column of this scale.
    Decimal(i8),
    /// The field 1 of a message, such as `google.protobuf.Int64Value`.
    Wrapped(Box<Cell>),
}

/// What a whole number becomes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum To {
    Whole,
    Float,
    /// Times this.
    Decimal(i128),
}

/// What a column gets when its field is not there.
#[derive(Debug, Clone)]
pub(super) enum Absent {
    Null,
    Required,
    Value(Typed),
    Text(String),
}

#[derive(Debug)]
pub(super) struct Plan {
    /// By number.
    pub(super) watched: Vec<Watched>,
    pub(super) cells: Vec<Planned>,
    /// Columns that the writer has no field for.
    pub(super) missing: Vec<usize>,
}

impl Plan {
    /// Plans the records of `writer` for these columns; the error is a sentence that names the first column that does not fit.
    pub(super) fn new(writer: &Message, newest: Option<&Message>, columns: &SchemaRef) -> Result<Self, String> {
        let (mut cells, mut missing) = (Vec::<Planned>::new(), Vec::new());
        for (index, column) in columns.fields().iter().enumerate() {
            let is_column = |field: &&Field| columns.column_with_name(&field.name).is_some();
            let by_name = writer.fields.iter().find(|field| field.name == *column.name());
            let by_number = || {
                let number = newest?.fields.iter().find(|field| field.name == *column.name())?.number;
                writer.fields.iter().find(|field| field.number == number).filter(|field| !is_column(field))
            };
            let Some(field) = by_name.or_else(by_number) else {
                missing.push(index);
                continue;
            };
            if cells.iter().any(|other| other.number == field.number) {
                return Err(format!("its field '{}' would be two columns", field.name));
            }
            let cell = cell(&field.kind, column.data_type()).filter(|_| !field.repeated).ok_or_else(|| {
                let (name, kind) = (&field.name, described(field));
                format!(
                    "its field '{name}' is {kind}, which column '{}' of type {} cannot hold",
                    column.name(),
                    column.data_type()
                )
            })?;
            let absent =
                absent(field, &cell).ok_or_else(|| format!("the default of its field '{}' is none of its type", field.name))?;
            let (name, number, oneof) = (field.name.clone(), field.number, field.oneof);
            cells.push(Planned { column: index, name, number, oneof, cell, absent });
        }
        let of_cell = |field: &Field| cells.iter().position(|cell| cell.number == field.number);
        let is_watched = |field: &&Field| {
            of_cell(field).is_some() || field.oneof.is_some_and(|oneof| cells.iter().any(|cell| cell.oneof == Some(oneof)))
        };
        let watched = writer.fields.iter().filter(is_watched);
        let mut watched: Vec<Watched> =
            watched.map(|field| Watched { number: field.number, cell: of_cell(field), oneof: field.oneof }).collect();
        watched.sort_by_key(|field| field.number);
        Ok(Self { watched, cells, missing })
    }
}

fn is_text(column: &DataType) -> bool {
    matches!(column, DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8)
}

/// How values of a type become a column's, if nothing is lost; what single values do not fit is refused when they are read.
fn cell(kind: &Kind, column: &DataType) -> Option<Cell> {
    Some(match kind {
        Kind::Scalar(Type::Bool) if *column == DataType::Boolean => Cell::Flag,
        Kind::Scalar(Type::Float) if column.is_floating() => Cell::Float,
        Kind::Scalar(Type::Double) if *column == DataType::Float64 => Cell::Double,
        Kind::Scalar(Type::String | Type::Bytes) if is_text(column) => Cell::Text,
        Kind::Scalar(kind) if is_whole(*kind) => Cell::Whole(
            *kind,
            match column {
                DataType::Float64 => To::Float,
                &DataType::Decimal128(_, scale) => To::Decimal(10i128.checked_pow(u32::try_from(scale).ok()?)?),
                _ if column.is_integer() => To::Whole,
                _ => return None,
            },
        ),
        Kind::Enum(symbols) if is_text(column) => {
            let mut symbols = symbols.clone();
            // Of several names of a number the first counts.
            symbols.sort_by_key(|(number, _)| *number);
            Cell::Symbol(symbols)
        }
        Kind::Message(name) => match (name.as_str(), column) {
            ("google.protobuf.Timestamp", DataType::Timestamp(..)) => Cell::Moment,
            ("google.type.Date", DataType::Date32) => Cell::Day,
            ("confluent.type.Decimal", &DataType::Decimal128(_, scale)) => Cell::Decimal(scale),
            (name, column) => Cell::Wrapped(Box::new(cell(&Kind::Scalar(wrapped(name)?), column)?)),
        },
        _ => return None,
    })
}

fn is_whole(kind: Type) -> bool {
    use Type::{Fixed32, Fixed64, Int32, Int64, Sfixed32, Sfixed64, Sint32, Sint64, Uint32, Uint64};
    matches!(kind, Int32 | Int64 | Uint32 | Uint64 | Sint32 | Sint64 | Fixed32 | Fixed64 | Sfixed32 | Sfixed64)
}

/// What a message of `google/protobuf/wrappers.proto` holds.
fn wrapped(name: &str) -> Option<Type> {
    Some(match name.strip_prefix("google.protobuf.")?.strip_suffix("Value")? {
        "Double" => Type::Double,
        "Float" => Type::Float,
        "Int64" => Type::Int64,
        "UInt64" => Type::Uint64,
        "Int32" => Type::Int32,
        "UInt32" => Type::Uint32,
        "Bool" => Type::Bool,
        "String" => Type::String,
        "Bytes" => Type::Bytes,
        _ => return None,
    })
}

/// What stands for a field that is not there; `None`: its default is no value of its type.
fn absent(field: &Field, cell: &Cell) -> Option<Absent> {
    match &field.default {
        _ if field.required => Some(Absent::Required),
        Some(text) => value_of(text, cell),
        None if field.has_presence => Some(Absent::Null),
        None => Some(zero(cell)),
    }
}

/// The value of a field, or within a wrapper, that nobody set.
pub(super) fn zero(cell: &Cell) -> Absent {
    Absent::Value(match cell {
        Cell::Whole(_, To::Float) | Cell::Float | Cell::Double => Typed::Float(0.0),
        Cell::Whole(_, To::Decimal(_)) | Cell::Decimal(_) => Typed::Decimal(0),
        Cell::Whole(_, To::Whole) => Typed::Whole(0),
        Cell::Flag => Typed::Flag(false),
        Cell::Text => return Absent::Text(String::new()),
        Cell::Symbol(symbols) => return Absent::Text(symbol(symbols, 0).into_owned()),
        Cell::Moment | Cell::Day | Cell::Wrapped(_) => return Absent::Null,
    })
}

fn value_of(text: &str, cell: &Cell) -> Option<Absent> {
    Some(Absent::Value(match cell {
        Cell::Whole(_, to) => {
            let number: i128 = text.parse().ok()?;
            match to {
                To::Float => Typed::Float(number as f64),
                To::Decimal(factor) => Typed::Decimal(number.checked_mul(*factor)?),
                To::Whole if number < 0 => Typed::Whole(i64::try_from(number).ok()?),
                To::Whole => Typed::Natural(u64::try_from(number).ok()?),
            }
        }
        Cell::Float | Cell::Double => Typed::Float(text.parse().ok()?),
        Cell::Flag => Typed::Flag(text.parse().ok()?),
        Cell::Text | Cell::Symbol(_) => return Some(Absent::Text(text.to_string())),
        Cell::Moment | Cell::Day | Cell::Decimal(_) | Cell::Wrapped(_) => return None,
    }))
}

/// The name of an enum's number.
pub(super) fn symbol(symbols: &[(i32, String)], number: i32) -> Cow<'_, str> {
    let at = symbols.partition_point(|(other, _)| *other < number);
    match symbols.get(at).filter(|(other, _)| *other == number) {
        Some((_, name)) => name.into(),
        None => number.to_string().into(),
    }
}

/// A field's type in words.
fn described(field: &Field) -> String {
    let kind = match &field.kind {
        Kind::Scalar(kind) => {
            let name = kind.as_str_name().trim_start_matches("TYPE_").to_lowercase();
            format!("{} {name}", if name.starts_with('i') { "an" } else { "a" })
        }
        Kind::Enum(_) => "an enum".to_string(),
        Kind::Message(name) => format!("a message {name}"),
        Kind::Nowhere(name) => format!("of type {name}, which stands neither in it nor in what it refers to"),
    };
    if field.repeated { format!("repeated, {kind} each") } else { kind }
}

/// The SQL type of a field, as DataFusion has it.
pub(super) fn column_type(field: &Field) -> Option<DataType> {
    let scalar = |kind| match kind {
        Type::Bool => Some(DataType::Boolean),
        Type::Float => Some(DataType::Float32),
        Type::Double => Some(DataType::Float64),
        Type::String => Some(DataType::Utf8View),
        Type::Int32 | Type::Sint32 | Type::Sfixed32 => Some(DataType::Int32),
        Type::Int64 | Type::Sint64 | Type::Sfixed64 => Some(DataType::Int64),
        Type::Uint32 | Type::Fixed32 => Some(DataType::UInt32),
        Type::Uint64 | Type::Fixed64 => Some(DataType::UInt64),
        // They need not be a text.
        _ => None,
    };
    match &field.kind {
        _ if field.repeated => None,
        Kind::Scalar(kind) => scalar(*kind),
        Kind::Enum(_) => Some(DataType::Utf8View),
        Kind::Message(name) => match name.as_str() {
            "google.protobuf.Timestamp" => Some(DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None)),
            "google.type.Date" => Some(DataType::Date32),
            name => scalar(wrapped(name)?),
        },
        Kind::Nowhere(_) => None,
    }
}
