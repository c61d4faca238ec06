//! The columns of a file: which Arrow type is written for a declared one, and which names and types BigQuery refuses.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMicrosecondType};

use crate::error::Result;

const NAME_LENGTH_MAX: usize = 300;
const FORBIDDEN_PREFIXES: [&str; 9] = [
    "_TABLE_",
    "_FILE_",
    "_PARTITION",
    "_ROW_TIMESTAMP",
    "__ROOT__",
    "_COLIDENTIFIER",
    "_CHANGE_SEQUENCE_NUMBER",
    "_CHANGE_TYPE",
    "_CHANGE_TIMESTAMP",
];

/// The type that is written for a declared one: times in microseconds UTC, list items named `element`, all nullable.
pub(super) fn file_type(declared: &DataType) -> DataType {
    match declared {
        DataType::Timestamp(..) => utc(),
        DataType::Date64 => DataType::Date32,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new("element", file_type(item.data_type()), true)))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| Field::new(field.name(), file_type(field.data_type()), true)).collect())
        }
        other => other.clone(),
    }
}

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// `values` in the type that is written. A time without a zone is in UTC.
pub(super) fn convert(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if values.data_type() == to {
        return Ok(values.clone());
    }
    // A value that does not fit is an error and never a silent NULL.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    if let (DataType::Timestamp(_, None), DataType::Timestamp(unit, Some(zone))) = (values.data_type(), to) {
        // A cast from no zone to UTC asks for the zone's offset row by row; here it is known to be nothing.
        let plain = cast_with_options(values, &DataType::Timestamp(*unit, None), &options)?;
        return Ok(Arc::new(plain.as_primitive::<TimestampMicrosecondType>().clone().with_timezone(zone.clone())));
    }
    Ok(cast_with_options(values, to, &options)?)
}

/// Whether BigQuery takes this column name.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.chars().count() > NAME_LENGTH_MAX {
        return Err(format!("BigQuery takes names of at most {NAME_LENGTH_MAX} characters"));
    }
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err("a name may have only letters, digits and _ in BigQuery".to_string());
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a name must begin with a letter or _ in BigQuery".to_string());
    }
    let upper = name.to_uppercase();
    match FORBIDDEN_PREFIXES.iter().find(|prefix| upper.starts_with(*prefix)) {
        Some(prefix) => Err(format!("BigQuery keeps names that begin with {prefix} for itself; rename it")),
        None => Ok(()),
    }
}

/// Whether BigQuery loads this type from Parquet; otherwise what to write instead.
pub(super) fn check_type(kind: &DataType) -> Result<(), String> {
    match kind {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_)
        | DataType::Date32
        | DataType::Date64
        | DataType::Timestamp(..) => Ok(()),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => check_decimal(*precision, *scale),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => match item.data_type() {
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                Err("a list of lists is not loaded by BigQuery; write its text (VARCHAR)".to_string())
            }
            other => check_type(other),
        },
        DataType::Struct(fields) if fields.is_empty() => Err("a STRUCT needs at least one field".to_string()),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| {
            check_name(field.name()).map_err(|problem| format!("field '{}': {problem}", field.name()))?;
            check_type(field.data_type()).map_err(|problem| format!("field '{}': {problem}", field.name()))
        }),
        DataType::UInt64 => {
            Err("an unsigned BIGINT is not loaded by BigQuery; write BIGINT, or DECIMAL(20, 0) for the whole range".to_string())
        }
        DataType::Map(..) => Err("a MAP is not loaded by BigQuery; write its JSON text (VARCHAR)".to_string()),
        DataType::Time32(_) | DataType::Time64(_) => {
            Err("a TIME is not loaded by BigQuery; write its text (VARCHAR), or a count of seconds (BIGINT)".to_string())
        }
        DataType::Interval(_) => {
            Err("an INTERVAL is not loaded by BigQuery; write its text (VARCHAR), or a count of seconds (BIGINT)".to_string())
        }
        DataType::Duration(_) => {
            Err("a duration is not loaded by BigQuery; write a count of milliseconds (BIGINT)".to_string())
        }
        other => Err(format!("the type {other} is not loaded by BigQuery; write it as text (VARCHAR)")),
    }
}

/// NUMERIC or BIGNUMERIC.
fn check_decimal(precision: u8, scale: i8) -> Result<(), String> {
    let whole = i16::from(precision) - i16::from(scale);
    if (0..=38).contains(&scale) && whole <= 38 {
        return Ok(());
    }
    Err(format!(
        "DECIMAL({precision}, {scale}) does not fit BigQuery's BIGNUMERIC (38 digits before and after the point); \
         write DECIMAL(38, 9), or text (VARCHAR)"
    ))
}

/// Whether values of this type can name a folder: what BigQuery takes for a partition key, and BOOLEAN.
pub(super) fn check_partition_type(kind: &DataType) -> Result<(), String> {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean => Ok(()),
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Ok(()),
        kind if kind.is_integer() => Ok(()),
        other => Err(format!("values of type {other} cannot name a folder; use DATE, BIGINT, VARCHAR or TIMESTAMP")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{TimestampMicrosecondArray, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn times_become_microseconds_utc_whatever_zone_they_are_in() {
        let plain: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(1_234_567_891), None]));
        let berlin: ArrayRef =
            Arc::new(TimestampNanosecondArray::from(vec![Some(1_234_567_891), None]).with_timezone("+02:00"));
        let expect = TimestampMicrosecondArray::from(vec![Some(1_234_567), None]).with_timezone("UTC");
        for values in [plain, berlin] {
            let converted = convert(&values, &file_type(values.data_type())).unwrap();
            assert_eq!(converted.as_primitive::<TimestampMicrosecondType>(), &expect);
        }
    }

    #[test]
    fn nested_types_are_written_with_bigquerys_names_and_nullable() {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let declared = DataType::LargeList(Arc::new(Field::new(
            "item",
            DataType::Struct(vec![Field::new("at", time, false)].into()),
            false,
        )));
        let DataType::List(element) = file_type(&declared) else { panic!("a list stays a list") };
        assert_eq!((element.name().as_str(), element.is_nullable()), ("element", true));
        let DataType::Struct(fields) = element.data_type() else { panic!("a struct stays a struct") };
        assert_eq!((fields[0].data_type(), fields[0].is_nullable()), (&utc(), true));
        assert!(check_type(&declared).is_ok());
        let nested = DataType::List(Arc::new(Field::new("item", declared, true)));
        assert!(check_type(&nested).unwrap_err().contains("list of lists"));
    }

    #[test]
    fn decimals_fit_or_are_refused_with_another() {
        for (precision, scale, fits) in [(38, 9, true), (38, 38, true), (76, 38, true), (76, 39, false), (10, -2, false)] {
            assert_eq!(check_type(&DataType::Decimal256(precision, scale)).is_ok(), fits, "({precision}, {scale})");
        }
    }
}
