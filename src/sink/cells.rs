//! Cells of a batch as keys, members and scores: text and doubles.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use crate::error::Result;

/// The column as text; times as RFC 3339 in UTC, whatever their unit.
pub(crate) fn texts(column: &ArrayRef) -> Result<StringArray> {
    let column = match column.data_type() {
        DataType::Timestamp(unit, _) => cast(column, &DataType::Timestamp(*unit, Some("+00:00".into())))?,
        _ => ArrayRef::clone(column),
    };
    Ok(cast(&column, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// The column as doubles; whole numbers beyond 2^53 are rounded, as Redis itself would.
pub(crate) fn scores(column: &ArrayRef) -> Result<Float64Array> {
    Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

/// The text of a row, if it has one.
pub(crate) fn text(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, StringViewArray, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn text_numbers_and_times_are_what_a_reader_expects() {
        let decimal = Decimal128Array::from(vec![1250]).with_precision_and_scale(10, 2).unwrap();
        let cases: Vec<(ArrayRef, &str)> = vec![
            (Arc::new(StringViewArray::from(vec!["a"])), "a"),
            (Arc::new(TimestampNanosecondArray::from(vec![1_500_000_000])), "1970-01-01T00:00:01.500Z"),
            (Arc::new(TimestampNanosecondArray::from(vec![0]).with_timezone("+02:00")), "1970-01-01T00:00:00Z"),
            (Arc::new(decimal.clone()), "12.50"),
        ];
        for (column, expected) in cases {
            assert_eq!(texts(&column).unwrap().value(0), expected);
        }
        assert_eq!(scores(&(Arc::new(decimal) as ArrayRef)).unwrap().value(0), 12.5);
    }
}
