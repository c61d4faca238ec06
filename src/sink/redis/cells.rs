//! Cells of a batch as Redis takes them: text and doubles.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit};

use crate::error::Result;

/// The column as text; times as RFC 3339 in UTC, whatever their unit.
pub(super) fn texts(column: &ArrayRef) -> Result<StringArray> {
    let column = match column.data_type() {
        DataType::Timestamp(unit, None) => cast(column, &DataType::Timestamp(*unit, Some("+00:00".into())))?,
        DataType::Timestamp(unit, Some(_)) => cast(column, &DataType::Timestamp(TimeUnit::clone(unit), Some("+00:00".into())))?,
        _ => ArrayRef::clone(column),
    };
    Ok(cast(&column, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// The column as doubles; whole numbers beyond 2^53 are rounded, as Redis itself would.
pub(super) fn scores(column: &ArrayRef) -> Result<Float64Array> {
    Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

/// The text of a row, if it has one.
pub(super) fn text(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}
