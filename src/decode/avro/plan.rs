//! How records of one writer's schema become rows: a step for each field, decided once.
//!
//! A column is the field of its name; else, where the newest schema of the subject has a field of its name with aliases, the field with one of
//! them; else the field that has the column's name among its own aliases. A column that the writer has no field for gets the newest schema's
//! default, or NULL.

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use serde_json::Value;

use super::fast::Way;
use super::schema::{Field, Id, Logical, Schema, Type, Wire};
use crate::decode::rows::column::Column;
use crate::decode::rows::put_text;
use crate::decode::rows::time;
use crate::decode::rows::value::{Refusal, Typed};

/// What is done with a field, in the order in which fields are written.
#[derive(Debug)]
pub(super) enum Step {
    Skip(Id),
    Put(usize, Cell),
}

/// How a value becomes a column's.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Flag,
    Int,
    Long,
    /// A `long` for a column of 64-bit integers, which holds each.
    AnyLong,
    Float,
    Double,
    IntAsFloat,
    LongAsFloat,
    Days,
    /// In units of which each is so many of the column's, if the column's are not the longer ones.
    Instant(TimeUnit, Option<i64>),
    /// A number of `size` bytes (its length comes first where that is `None`), times `factor` for the column's scale.
    Decimal {
        size: Option<usize>,
        factor: i128,
    },
    LongAsDecimal {
        factor: i128,
    },
    Text,
    Symbol(Vec<String>),
    /// One for each branch; `None`: the column cannot take it.
    Union(Vec<Option<Cell>>),
}

/// What a column gets that the writer has no field for.
#[derive(Debug)]
pub(super) enum Missing {
    Null,
    Value(Typed),
    Text(String),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) schema: Schema,
    pub(super) steps: Vec<Step>,
    /// The same for the fast path.
    pub(super) ways: Vec<Way>,
    pub(super) missing: Vec<(usize, Missing)>,
}

impl Plan {
    /// Plans the records of `writer` for these columns; the error is a sentence that names the first column that does not fit.
    pub(super) fn new(writer: Schema, newest: Option<&Schema>, columns: &SchemaRef) -> Result<Self, String> {
        let fields = writer.fields()?;
        let newest_fields = newest.and_then(|newest| newest.fields().ok()).unwrap_or_default();
        let mut steps: Vec<Step> = fields.iter().map(|field| Step::Skip(field.is)).collect();
        let mut missing = Vec::new();
        for (index, column) in columns.fields().iter().enumerate() {
            let expected = newest_fields.iter().find(|field| field.name == *column.name());
            let Some(found) = find(fields, column.name(), expected) else {
                let value = expected.and_then(|field| Some((field, newest?)));
                let value = value.map_or(Ok(Missing::Null), |(field, newest)| Missing::new(field, newest, column.data_type()));
                missing.push((index, value.map_err(|why| format!("the default of '{}' {why}", column.name()))?));
                continue;
            };
            if matches!(steps[found], Step::Put(..)) {
                return Err(format!("its field '{}' would be two columns", fields[found].name));
            }
            let cell = cell(&writer, fields[found].is, column.data_type());
            let why = || format!("its field '{}' is {}", fields[found].name, described(&writer, fields[found].is));
            let cell = cell.ok_or_else(|| {
                format!("{}, which column '{}' of type {} cannot hold", why(), column.name(), column.data_type())
            })?;
            steps[found] = Step::Put(index, cell);
        }
        let ways = steps.iter().map(|step| Way::of(step, &writer)).collect();
        Ok(Self { schema: writer, steps, ways, missing })
    }
}

/// The place of the field that a column is.
fn find(fields: &[Field], column: &str, expected: Option<&Field>) -> Option<usize> {
    let by_name = |name: &str| fields.iter().position(|field| field.name == name);
    let by_alias = || expected?.aliases.iter().find_map(|alias| by_name(alias));
    let by_own_alias = || fields.iter().position(|field| field.aliases.iter().any(|alias| alias == column));
    by_name(column).or_else(by_alias).or_else(by_own_alias)
}

/// How values of a type become a column's, if nothing is lost; what single values do not fit is refused when they are read.
fn cell(schema: &Schema, id: Id, column: &DataType) -> Option<Cell> {
    let Type { wire, logical } = schema.get(id);
    let is_whole = column.is_integer();
    let is_text = matches!(column, DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8);
    Some(match (wire, logical) {
        (Wire::Null, _) => Cell::Null,
        (Wire::Union(branches), _) => {
            let cells: Vec<_> = branches.iter().map(|&branch| cell(schema, branch, column)).collect();
            // NULL alone would be no reading.
            let fits = |cell: &Option<Cell>| cell.as_ref().is_some_and(|cell| *cell != Cell::Null);
            if !cells.iter().any(fits) {
                return None;
            }
            Cell::Union(cells)
        }
        (Wire::Boolean, _) if *column == DataType::Boolean => Cell::Flag,
        (Wire::Int, Logical::Date) if *column == DataType::Date32 => Cell::Days,
        (Wire::Int, Logical::None) if is_whole => Cell::Int,
        (Wire::Int, Logical::None) if *column == DataType::Float64 => Cell::IntAsFloat,
        (Wire::Long, Logical::None) if *column == DataType::Int64 => Cell::AnyLong,
        (Wire::Long, Logical::None) if is_whole => Cell::Long,
        (Wire::Long, Logical::None) if *column == DataType::Float64 => Cell::LongAsFloat,
        (Wire::Int | Wire::Long, Logical::None) if matches!(column, DataType::Decimal128(..)) => {
            Cell::LongAsDecimal { factor: rescaled(0, column)? }
        }
        (Wire::Long, logical) if let &DataType::Timestamp(unit, _) = column => {
            let counted = match logical {
                Logical::Millis => TimeUnit::Millisecond,
                Logical::Micros => TimeUnit::Microsecond,
                Logical::Nanos => TimeUnit::Nanosecond,
                _ => return None,
            };
            Cell::Instant(counted, time::multiple(counted, unit))
        }
        (Wire::Float, _) if column.is_floating() => Cell::Float,
        (Wire::Double, _) if *column == DataType::Float64 => Cell::Double,
        (Wire::Bytes, &Logical::Decimal(_, scale)) => Cell::Decimal { size: None, factor: rescaled(scale, column)? },
        (&Wire::Fixed(size), &Logical::Decimal(_, scale)) => {
            Cell::Decimal { size: Some(size), factor: rescaled(scale, column)? }
        }
        (Wire::String, _) | (Wire::Bytes, Logical::None) if is_text => Cell::Text,
        (Wire::Enum(symbols), _) if is_text => Cell::Symbol(symbols.clone()),
        _ => return None,
    })
}

/// What units of a scale are multiplied by to be the column's.
fn rescaled(scale: i8, column: &DataType) -> Option<i128> {
    let &DataType::Decimal128(_, wanted) = column else { return None };
    10i128.checked_pow(u32::try_from(i32::from(wanted) - i32::from(scale)).ok()?)
}

/// A type in words.
pub(super) fn described(schema: &Schema, id: Id) -> String {
    let Type { wire, logical } = schema.get(id);
    let word = match (wire, logical) {
        (Wire::Union(branches), _) => {
            let words = branches.iter().map(|&branch| match &schema.get(branch).wire {
                Wire::Union(_) => "a union".to_string(),
                _ => described(schema, branch),
            });
            return words.collect::<Vec<_>>().join(" or ");
        }
        (_, Logical::Date) => "a date",
        (_, Logical::Millis | Logical::Micros | Logical::Nanos) => "a timestamp",
        (_, Logical::Decimal(precision, scale)) => return format!("a decimal({precision}, {scale})"),
        (_, Logical::Other) => "a time of day, a duration or the like",
        (Wire::Null, _) => "null",
        (Wire::Boolean, _) => "a boolean",
        (Wire::Int, _) => "an int",
        (Wire::Long, _) => "a long",
        (Wire::Float, _) => "a float",
        (Wire::Double, _) => "a double",
        (Wire::Bytes, _) => "bytes",
        (Wire::String, _) => "a string",
        (Wire::Fixed(_), _) => "a fixed",
        (Wire::Enum(_), _) => "an enum",
        (Wire::Array(_), _) => "an array",
        (Wire::Map(_), _) => "a map",
        (Wire::Record(_), _) => "a record",
    };
    word.to_string()
}

impl Missing {
    /// The default of the newest schema's field; the error ends a sentence.
    fn new(field: &Field, newest: &Schema, column: &DataType) -> Result<Self, String> {
        let Some(default) = &field.default else { return Ok(Missing::Null) };
        let found = cell(newest, field.is, column).and_then(|cell| Self::of(default, &cell));
        found.ok_or_else(|| format!("is {default}, which a column of type {column} cannot hold"))
    }

    fn of(default: &Value, cell: &Cell) -> Option<Self> {
        Some(Missing::Value(match cell {
            _ if default.is_null() => return Some(Missing::Null),
            // A default is of the first branch; later specifications let it be of any.
            Cell::Union(branches) => return branches.iter().flatten().find_map(|cell| Self::of(default, cell)),
            Cell::Text | Cell::Symbol(_) => return default.as_str().map(|text| Missing::Text(text.to_string())),
            Cell::Null => return None,
            Cell::Flag => Typed::Flag(default.as_bool()?),
            Cell::Int | Cell::Long | Cell::AnyLong => Typed::Whole(default.as_i64()?),
            Cell::Float | Cell::Double | Cell::IntAsFloat | Cell::LongAsFloat => Typed::Float(default.as_f64()?),
            Cell::Days => Typed::Days(i32::try_from(default.as_i64()?).ok()?),
            Cell::Instant(unit, _) => Typed::Instant(default.as_i64()?, *unit),
            Cell::LongAsDecimal { factor } => Typed::Decimal(i128::from(default.as_i64()?).checked_mul(*factor)?),
            // Bytes stand in JSON as letters up to U+00FF.
            Cell::Decimal { factor, .. } => {
                let bytes = default.as_str()?.chars().map(|letter| u8::try_from(u32::from(letter)).ok());
                let bytes = bytes.collect::<Option<Vec<u8>>>().filter(|bytes| bytes.len() <= 16)?;
                let first = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
                let units = bytes.iter().fold(first, |units: i128, &byte| units << 8 | i128::from(byte));
                Typed::Decimal(units.checked_mul(*factor)?)
            }
        }))
    }

    pub(super) fn put(&self, column: &mut Column, resolved: &mut Vec<u8>) -> Result<(), Refusal> {
        match self {
            Missing::Null => column.put_null(),
            Missing::Value(value) => column.put_typed(*value),
            Missing::Text(text) => put_text(text, column, resolved),
        }
    }
}
