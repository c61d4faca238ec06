//! One column of a batch in the making: values come in one by one, the last ones can be taken back.
//!
//! Both paths hand their values to [`Column::put`], so they cannot disagree about what a value means.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Decimal128Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Date32Type, Field, Float32Type, Float64Type, TimeUnit};

use super::arrays::{bitmap, primitive, times, wholes};
use super::number;
use super::text::{self, Texts};
use super::time::{self, Minute};
use super::value::{Refusal, Shape, Typed, Value};
use crate::error::{Error, Kind, Result};

/// One column of the rows so far.
#[derive(Debug)]
pub(in crate::decode) struct Column {
    field: Arc<Field>,
    cells: Cells,
    /// The rows that are NULL, in order.
    nulls: Vec<usize>,
}

#[derive(Debug)]
enum Cells {
    /// All integers, in 64 bits.
    Whole {
        least: i64,
        most: u64,
        values: Vec<i64>,
    },
    /// Both widths: every `f32` is an `f64`, but must be rounded from the text only once.
    Float {
        single: bool,
        values: Vec<f64>,
    },
    Flag(Vec<bool>),
    Decimal {
        precision: u8,
        scale: i8,
        values: Vec<i128>,
    },
    Date {
        /// Whether a number is a number of days.
        numbers: bool,
        values: Vec<i32>,
    },
    Time {
        unit: TimeUnit,
        /// What a number counts, where numbers are times.
        numbers: Option<TimeUnit>,
        last: Minute,
        values: Vec<i64>,
    },
    Text(Vec<u128>),
}

/// Does the same with the vector of each kind of cells.
macro_rules! each {
    ($cells:expr, $values:ident => $body:expr) => {
        match $cells {
            Cells::Whole { values: $values, .. } | Cells::Time { values: $values, .. } => $body,
            Cells::Float { values: $values, .. } => $body,
            Cells::Flag($values) => $body,
            Cells::Decimal { values: $values, .. } => $body,
            Cells::Date { values: $values, .. } => $body,
            Cells::Text($values) => $body,
        }
    };
}

impl Column {
    /// An empty column; the error names it if its type cannot be decoded from JSON.
    pub(in crate::decode) fn new(field: &Arc<Field>) -> Result<Self> {
        let whole = |least, most| Cells::Whole { least, most, values: Vec::new() };
        let cells = match field.data_type() {
            DataType::Int8 => whole(i8::MIN.into(), i8::MAX as u64),
            DataType::Int16 => whole(i16::MIN.into(), i16::MAX as u64),
            DataType::Int32 => whole(i32::MIN.into(), i32::MAX as u64),
            DataType::Int64 => whole(i64::MIN, i64::MAX as u64),
            DataType::UInt8 => whole(0, u8::MAX.into()),
            DataType::UInt16 => whole(0, u16::MAX.into()),
            DataType::UInt32 => whole(0, u32::MAX.into()),
            DataType::UInt64 => whole(0, u64::MAX),
            DataType::Float32 => Cells::Float { single: true, values: Vec::new() },
            DataType::Float64 => Cells::Float { single: false, values: Vec::new() },
            DataType::Boolean => Cells::Flag(Vec::new()),
            &DataType::Decimal128(precision, scale) => Cells::Decimal { precision, scale, values: Vec::new() },
            DataType::Date32 => Cells::Date { numbers: false, values: Vec::new() },
            &DataType::Timestamp(unit, _) => Cells::Time { unit, numbers: None, last: Minute::default(), values: Vec::new() },
            DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => Cells::Text(Vec::new()),
            other => {
                let message = format!(
                    "column '{}' has type {other}, which the format json cannot decode; declare it VARCHAR, which holds \
                     any value's JSON text",
                    field.name()
                );
                return Err(Error::new(Kind::Sql, message));
            }
        };
        Ok(Self { field: Arc::clone(field), cells, nulls: Vec::new() })
    }

    /// From now on a number is a time, which counts `unit`s since 1970, or a date, which counts days.
    pub(in crate::decode) fn take_numbers_as_times(&mut self, counted: TimeUnit) {
        match &mut self.cells {
            Cells::Time { numbers, .. } => *numbers = Some(counted),
            Cells::Date { numbers, .. } => *numbers = true,
            _ => {}
        }
    }

    /// The column's declaration.
    pub(in crate::decode) fn field(&self) -> &Field {
        &self.field
    }

    /// How many values it has.
    #[inline]
    pub(in crate::decode) fn len(&self) -> usize {
        each!(&self.cells, values => values.len())
    }

    /// Makes room for `rows` values.
    pub(in crate::decode) fn reserve(&mut self, rows: usize) {
        each!(&mut self.cells, values => values.reserve_exact(rows));
    }

    /// Takes back the values after the first `rows`.
    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        each!(&mut self.cells, values => values.truncate(rows));
        while self.nulls.last().is_some_and(|&row| row >= rows) {
            self.nulls.pop();
        }
    }

    /// Adds a value, or nothing and says why.
    #[inline]
    pub(in crate::decode) fn put(&mut self, value: Value<'_>) -> Result<(), Refusal> {
        if value.shape == Shape::Null {
            return self.put_null();
        }
        let text = value.text;
        match (&mut self.cells, value.shape) {
            (Cells::Text(views), _) => views.push(text::view(text, value.buffer, value.offset)),
            (Cells::Whole { least, most, values }, Shape::Number) => values.push(number::whole(text, *least, *most)?),
            (Cells::Time { unit, last, values, .. }, Shape::String) => {
                let at = time::instant(text, last).map_err(Refusal::Time)?;
                values.push(time::in_unit(at, *unit).ok_or(Refusal::Range)?);
            }
            (Cells::Time { unit, numbers: Some(counted), values, .. }, Shape::Number) => {
                let at = time::of_unit(number::whole(text, i64::MIN, i64::MAX as u64)?, *counted);
                values.push(time::in_unit(at, *unit).ok_or(Refusal::Range)?);
            }
            (Cells::Date { numbers: true, values }, Shape::Number) => {
                let days = number::whole(text, i32::MIN.into(), i32::MAX as u64)?;
                values.push(i32::try_from(days).map_err(|_| Refusal::Range)?);
            }
            (Cells::Float { single, values }, Shape::Number) => values.push(float(text, *single)?),
            (Cells::Flag(values), Shape::True | Shape::False) => values.push(value.shape == Shape::True),
            (Cells::Decimal { precision, scale, values }, shape)
                if shape == Shape::Number || shape == Shape::String && number::is_number(text) =>
            {
                values.push(number::decimal(text, *precision, *scale)?);
            }
            (Cells::Date { values, .. }, Shape::String) => {
                values.push(time::days(text).ok_or(Refusal::Time("is not a date such as 2026-11-23"))?);
            }
            _ => return Err(Refusal::Type),
        }
        Ok(())
    }

    /// Adds a value as Postgres writes it, or nothing and says why. `text` stands at `offset` of `buffer`.
    #[inline]
    pub(in crate::decode) fn put_postgres(&mut self, text: &[u8], buffer: u32, offset: usize) -> Result<(), Refusal> {
        match &mut self.cells {
            Cells::Text(views) => {
                simdutf8::basic::from_utf8(text).map_err(|_| Refusal::Type)?;
                views.push(text::view(text, buffer, offset));
            }
            Cells::Whole { least, most, values } => values.push(number::whole(text, *least, *most)?),
            Cells::Time { unit, last, values, .. } => {
                let at = time::instant_or_utc(text, last).map_err(Refusal::Time)?;
                values.push(time::in_unit(at, *unit).ok_or(Refusal::Range)?);
            }
            Cells::Float { single, values } => values.push(match text {
                b"NaN" => f64::NAN,
                b"Infinity" => f64::INFINITY,
                b"-Infinity" => f64::NEG_INFINITY,
                _ => float(text, *single)?,
            }),
            Cells::Flag(values) => match text {
                b"t" | b"true" => values.push(true),
                b"f" | b"false" => values.push(false),
                _ => return Err(Refusal::Type),
            },
            Cells::Decimal { precision, scale, values } if number::is_number(text) => {
                values.push(number::decimal(text, *precision, *scale)?);
            }
            Cells::Decimal { .. } => return Err(Refusal::Type),
            Cells::Date { values, .. } => {
                values.push(time::days(text).ok_or(Refusal::Time("is not a date such as 2026-11-23"))?);
            }
        }
        Ok(())
    }

    /// Adds a value of the column's kind, or nothing and says why. A value of another kind is refused.
    #[inline]
    pub(in crate::decode) fn put_typed(&mut self, value: Typed) -> Result<(), Refusal> {
        match (&mut self.cells, value) {
            (Cells::Text(views), Typed::Text(view)) => views.push(view),
            (Cells::Whole { least, most, values }, Typed::Whole(value)) => {
                if value < *least || u64::try_from(value).is_ok_and(|value| value > *most) {
                    return Err(Refusal::Range);
                }
                values.push(value);
            }
            // Where there are 64 bits without a sign they are kept as they are.
            (Cells::Whole { most, values, .. }, Typed::Natural(value)) if value <= *most => values.push(value as i64),
            (Cells::Whole { .. }, Typed::Natural(_)) => return Err(Refusal::Range),
            (Cells::Time { unit, values, .. }, Typed::Moment(seconds, nanos)) => {
                values.push(time::in_unit((seconds, nanos), *unit).ok_or(Refusal::Range)?);
            }
            (Cells::Time { unit, values, .. }, Typed::Instant(at, counted)) => {
                values.push(time::converted(at, counted, *unit).ok_or(Refusal::Range)?);
            }
            (Cells::Float { values, .. }, Typed::Float(value)) => values.push(value),
            (Cells::Flag(values), Typed::Flag(value)) => values.push(value),
            (Cells::Decimal { precision, values, .. }, Typed::Decimal(value)) => {
                if value.unsigned_abs() >= 10u128.pow(u32::from(*precision).min(38)) {
                    return Err(Refusal::Range);
                }
                values.push(value);
            }
            (Cells::Date { values, .. }, Typed::Days(days)) => values.push(days),
            _ => return Err(Refusal::Type),
        }
        Ok(())
    }

    /// Adds the view of a text (see [`text::view`]) to a column of texts.
    #[inline]
    pub(in crate::decode) fn put_view(&mut self, view: u128) -> Result<(), Refusal> {
        let Cells::Text(views) = &mut self.cells else { return Err(Refusal::Type) };
        views.push(view);
        Ok(())
    }

    /// Adds a number to a column of times, in its own unit, or of integers, of which the caller knows that they hold it.
    #[inline]
    pub(in crate::decode) fn put_own(&mut self, value: i64) -> Result<(), Refusal> {
        let (Cells::Whole { values, .. } | Cells::Time { values, .. }) = &mut self.cells else { return Err(Refusal::Type) };
        values.push(value);
        Ok(())
    }

    /// Adds a number to a column of 64-bit integers. Other columns are left as they are: they get a NULL.
    pub(in crate::decode) fn put_whole(&mut self, value: i64) {
        if let Cells::Whole { values, .. } = &mut self.cells {
            values.push(value);
        }
    }

    /// Adds an instant to a column of times, as [`Column::put_whole`]; one that the unit cannot hold is left out.
    pub(in crate::decode) fn put_instant(&mut self, seconds: i64, nanos: u32) {
        if let Cells::Time { unit, values, .. } = &mut self.cells
            && let Some(at) = time::in_unit((seconds, nanos), *unit)
        {
            values.push(at);
        }
    }

    /// Adds a NULL, if the column may hold one.
    pub(in crate::decode) fn put_null(&mut self) -> Result<(), Refusal> {
        if !self.field.is_nullable() {
            return Err(Refusal::Null);
        }
        self.nulls.push(self.len());
        each!(&mut self.cells, values => values.push(Default::default()));
        Ok(())
    }

    /// The views of a column of texts.
    pub(in crate::decode) fn views(&self) -> Option<&Vec<u128>> {
        if let Cells::Text(views) = &self.cells { Some(views) } else { None }
    }

    /// Takes all values out as an array; the column is empty afterwards. `texts` are what the views point into.
    pub(in crate::decode) fn finish(&mut self, texts: &Texts) -> Result<ArrayRef> {
        let nulls = bitmap(&std::mem::take(&mut self.nulls), self.len());
        let data_type = self.field.data_type();
        Ok(match &mut self.cells {
            Cells::Whole { values, .. } => wholes(data_type, std::mem::take(values), nulls),
            Cells::Float { single: true, values } => {
                primitive::<Float32Type>(std::mem::take(values).into_iter().map(|value| value as f32).collect(), nulls)
            }
            Cells::Float { values, .. } => primitive::<Float64Type>(std::mem::take(values).into(), nulls),
            Cells::Flag(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(std::mem::take(values)), nulls)),
            Cells::Decimal { precision, scale, values } => {
                let array = Decimal128Array::new(std::mem::take(values).into(), nulls);
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Cells::Date { values, .. } => primitive::<Date32Type>(std::mem::take(values).into(), nulls),
            Cells::Time { unit, values, .. } => times(*unit, data_type, std::mem::take(values).into(), nulls),
            Cells::Text(views) => texts.array(data_type, std::mem::take(views), nulls)?,
        })
    }
}

/// The nearest float; the grammar of JSON is a part of what the standard library reads.
fn float(text: &[u8], single: bool) -> Result<f64, Refusal> {
    let text = std::str::from_utf8(text).map_err(|_| Refusal::Type)?;
    let value = if single { text.parse::<f32>().map(f64::from) } else { text.parse::<f64>() }.map_err(|_| Refusal::Type)?;
    if value.is_finite() { Ok(value) } else { Err(Refusal::Range) }
}
