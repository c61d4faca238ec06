//! Which type of Postgres fits which declared one, and how its values are read. Nothing is lost on the way:
//!
//! | Postgres | declared |
//! |---|---|
//! | text, varchar, char, name, uuid, json, jsonb, an enum | VARCHAR |
//! | smallint, integer, bigint | an integer as wide or wider; DOUBLE up to integer |
//! | real, double precision | as wide or wider |
//! | numeric | DECIMAL(p, s) if the value fits exactly; DOUBLE on request: the nearest |
//! | boolean, date | BOOLEAN, DATE |
//! | timestamp, timestamptz | TIMESTAMP, in UTC |

use std::error::Error as StdError;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder, StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use tokio_postgres::types::{FromSql, Kind as PgKind, Type};

use crate::error::{Error, Kind, Result};

/// Days and microseconds from 1970 to 2000, where Postgres begins to count.
const DAYS_TO_2000: i32 = 10_957;
const MICROS_TO_2000: i64 = 946_684_800_000_000;

/// The bytes of a value, as Postgres sends them.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// How the bytes of a column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Text,
    Jsonb,
    Uuid,
    Int,
    Float,
    Numeric,
    Bool,
    Date,
    Micros,
}

impl Wire {
    /// How values of type `from` are read into a column declared `to`; or what to declare instead.
    pub(super) fn fitting(from: &Type, to: &DataType) -> Result<Self, String> {
        let (wire, declare) = Self::of(from).ok_or_else(|| {
            format!(
                "that type cannot be read; leave the column out, or let LOCATION name a view that casts it (declared: {to})"
            )
        })?;
        let width = match *from {
            Type::INT2 => 2,
            Type::INT4 | Type::FLOAT4 => 4,
            _ => 8,
        };
        let fits = match (wire, to) {
            (Wire::Text | Wire::Jsonb | Wire::Uuid, DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8) => true,
            (Wire::Int, DataType::Int16 | DataType::Int32 | DataType::Int64) => to.primitive_width() >= Some(width),
            (Wire::Int, DataType::Float64) => width < 8,
            (Wire::Float, DataType::Float32 | DataType::Float64) => to.primitive_width() >= Some(width),
            (Wire::Numeric, DataType::Decimal128(_, scale)) => *scale >= 0,
            (Wire::Numeric, DataType::Float64) => true,
            (Wire::Bool, DataType::Boolean) | (Wire::Date, DataType::Date32) => true,
            (Wire::Micros, DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _)) => true,
            _ => false,
        };
        if fits { Ok(wire) } else { Err(format!("it does not fit the declared {to}; declare it {declare}")) }
    }

    fn of(from: &Type) -> Option<(Self, &'static str)> {
        Some(match *from {
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON => (Wire::Text, "VARCHAR"),
            Type::JSONB => (Wire::Jsonb, "VARCHAR"),
            Type::UUID => (Wire::Uuid, "VARCHAR"),
            Type::INT2 => (Wire::Int, "SMALLINT, INT or BIGINT"),
            Type::INT4 => (Wire::Int, "INT or BIGINT"),
            Type::INT8 => (Wire::Int, "BIGINT"),
            Type::FLOAT4 => (Wire::Float, "REAL or DOUBLE"),
            Type::FLOAT8 => (Wire::Float, "DOUBLE"),
            Type::NUMERIC => (Wire::Numeric, "DECIMAL(p, s), or DOUBLE for the nearest"),
            Type::BOOL => (Wire::Bool, "BOOLEAN"),
            Type::DATE => (Wire::Date, "DATE"),
            Type::TIMESTAMP | Type::TIMESTAMPTZ => (Wire::Micros, "TIMESTAMP"),
            _ if matches!(from.kind(), PgKind::Enum(_)) => (Wire::Text, "VARCHAR"),
            _ => return None,
        })
    }
}

/// Collects the values of one column.
#[derive(Debug)]
pub(super) enum Builder {
    Text(StringViewBuilder),
    /// All integers; narrowed at the end, which cannot fail.
    Int(Int64Builder),
    Float(Float64Builder),
    Decimal(Decimal128Builder, u8, u32),
    Bool(BooleanBuilder),
    Date(Date32Builder),
    /// Units in a microsecond; the value is counted in them.
    Time(Int64Builder, i64),
}

impl Builder {
    pub(super) fn new(to: &DataType) -> Result<Self> {
        Ok(match to {
            DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => Self::Text(StringViewBuilder::new()),
            DataType::Int16 | DataType::Int32 | DataType::Int64 => Self::Int(Int64Builder::new()),
            DataType::Float32 | DataType::Float64 => Self::Float(Float64Builder::new()),
            DataType::Decimal128(precision, scale) => {
                let builder = Decimal128Builder::new().with_data_type(to.clone());
                Self::Decimal(builder, *precision, u32::try_from(*scale).unwrap_or_default())
            }
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Self::Time(Int64Builder::new(), 1_000),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Time(Int64Builder::new(), 1),
            other => return Err(Error::new(Kind::Bug, format!("a column of type {other} was not refused"))),
        })
    }

    /// Adds a value. `Err` is a sentence that says why this value cannot be held.
    pub(super) fn push(&mut self, wire: Wire, raw: Option<&[u8]>) -> Result<(), String> {
        match self {
            Self::Text(texts) => texts.append_option(raw.map(|raw| text(wire, raw)).transpose()?),
            Self::Int(longs) => longs.append_option(raw.map(long).transpose()?),
            Self::Float(floats) => floats.append_option(raw.map(|raw| float(wire, raw)).transpose()?),
            Self::Decimal(decimals, precision, scale) => {
                let value = raw.map(|raw| Numeric::read(raw)?.scaled(*precision, *scale)).transpose()?;
                decimals.append_option(value);
            }
            Self::Bool(bools) => bools.append_option(raw.map(|raw| raw == [1])),
            Self::Date(dates) => dates.append_option(raw.map(date).transpose()?),
            Self::Time(times, units) => times.append_option(raw.map(|raw| time(raw, *units)).transpose()?),
        }
        Ok(())
    }

    pub(super) fn finish(self, to: &DataType) -> Result<ArrayRef> {
        let array: ArrayRef = match self {
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Int(mut builder) | Self::Time(mut builder, _) => Arc::new(builder.finish()),
            Self::Float(mut builder) => Arc::new(builder.finish()),
            Self::Decimal(mut builder, _, _) => Arc::new(builder.finish()),
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::Date(mut builder) => Arc::new(builder.finish()),
        };
        Ok(if array.data_type() == to { array } else { cast(&array, to)? })
    }
}

fn unreadable() -> String {
    "Postgres sent a value that is not of the column's type".to_string()
}

fn fixed<const N: usize>(raw: &[u8]) -> Result<[u8; N], String> {
    raw.try_into().map_err(|_| unreadable())
}

fn text(wire: Wire, raw: &[u8]) -> Result<std::borrow::Cow<'_, str>, String> {
    let utf8 = |raw| simdutf8::basic::from_utf8(raw).map(Into::into).map_err(|_| unreadable());
    match (wire, raw) {
        (Wire::Uuid, raw) => Ok(uuid::Uuid::from_bytes(fixed(raw)?).to_string().into()),
        // The first byte is the version of the format.
        (Wire::Jsonb, [1, raw @ ..]) => utf8(raw),
        (Wire::Jsonb, _) => Err(unreadable()),
        (_, raw) => utf8(raw),
    }
}

fn long(raw: &[u8]) -> Result<i64, String> {
    Ok(match raw.len() {
        2 => i16::from_be_bytes(fixed(raw)?).into(),
        4 => i32::from_be_bytes(fixed(raw)?).into(),
        _ => i64::from_be_bytes(fixed(raw)?),
    })
}

fn float(wire: Wire, raw: &[u8]) -> Result<f64, String> {
    Ok(match (wire, raw.len()) {
        (Wire::Numeric, _) => return Numeric::read(raw)?.nearest(),
        (Wire::Int, _) => long(raw)? as f64,
        (_, 4) => f32::from_be_bytes(fixed(raw)?).into(),
        _ => f64::from_be_bytes(fixed(raw)?),
    })
}

fn date(raw: &[u8]) -> Result<i32, String> {
    match i32::from_be_bytes(fixed(raw)?) {
        i32::MAX | i32::MIN => Err("it has an infinite date, which DATE cannot hold; use NULL instead".to_string()),
        days => days.checked_add(DAYS_TO_2000).ok_or_else(unreadable),
    }
}

fn time(raw: &[u8], units: i64) -> Result<i64, String> {
    let micros = match i64::from_be_bytes(fixed(raw)?) {
        i64::MAX | i64::MIN => return Err("it has an infinite time, which TIMESTAMP cannot hold; use NULL instead".to_string()),
        micros => micros.checked_add(MICROS_TO_2000).and_then(|micros| micros.checked_mul(units)),
    };
    micros.ok_or_else(|| {
        "it has a time outside of the years 1678 to 2262, which TIMESTAMP cannot hold; declare it TIMESTAMP(6)".to_string()
    })
}

/// A number as Postgres sends it: digits to the base of 10 000, the first of which counts `10 000 ^ weight`.
struct Numeric<'a> {
    digits: &'a [[u8; 2]],
    weight: i32,
    sign: u16,
}

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

impl<'a> Numeric<'a> {
    fn read(raw: &'a [u8]) -> Result<Self, String> {
        let (&[count, weight, sign, _], digits) = raw.as_chunks::<2>().0.split_first_chunk::<4>().ok_or_else(unreadable)?;
        if usize::from(u16::from_be_bytes(count)) != digits.len() {
            return Err(unreadable());
        }
        Ok(Self { digits, weight: i16::from_be_bytes(weight).into(), sign: u16::from_be_bytes(sign) })
    }

    /// The power of ten of the last digit.
    fn exponent(&self) -> i32 {
        (self.weight + 1 - self.digits.len() as i32) * 4
    }

    /// The number times `10 ^ scale`, if that is whole and has at most `precision` digits.
    fn scaled(&self, precision: u8, scale: u32) -> Result<i128, String> {
        if !matches!(self.sign, 0 | NEGATIVE) {
            return Err(format!("it has NaN or Infinity, which DECIMAL({precision}, {scale}) cannot hold; declare it DOUBLE"));
        }
        let whole = self
            .digits
            .iter()
            .try_fold(0i128, |sum, digit| sum.checked_mul(10_000)?.checked_add(i128::from(u16::from_be_bytes(*digit))));
        let shift = self.exponent() + scale as i32;
        let power = 10i128.checked_pow(shift.unsigned_abs());
        let value = match (whole, power) {
            (Some(0), _) => Some(0),
            (Some(whole), Some(power)) if shift >= 0 => whole.checked_mul(power),
            (Some(whole), Some(power)) if whole % power == 0 => Some(whole / power),
            _ => None,
        };
        let fits = |value: &i128| 10i128.checked_pow(precision.into()).is_none_or(|bound| *value < bound);
        let value = value.filter(fits).ok_or_else(|| {
            format!("it has a number that DECIMAL({precision}, {scale}) cannot hold exactly; declare more digits, or DOUBLE")
        })?;
        Ok(if self.sign == NEGATIVE { -value } else { value })
    }

    /// The nearest float.
    fn nearest(&self) -> Result<f64, String> {
        use std::fmt::Write as _;
        let sign = match self.sign {
            NAN => return Ok(f64::NAN),
            INFINITY => return Ok(f64::INFINITY),
            NEGATIVE_INFINITY => return Ok(f64::NEG_INFINITY),
            NEGATIVE => "-",
            _ => "",
        };
        let mut text = format!("{sign}0");
        for digit in self.digits {
            // Writing into a String cannot fail.
            let _ = write!(text, "{:04}", u16::from_be_bytes(*digit));
        }
        let _ = write!(text, "e{}", self.exponent());
        text.parse().map_err(|_| unreadable())
    }
}
