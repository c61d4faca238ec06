//! Rows into folders: `dt=2026-11-23/hour=10`, as Hive writes and BigQuery reads them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{partition, take_record_batch};
use arrow::row::{Row, RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::Result;

/// What Hive writes for NULL, and for an empty text, which a path cannot hold.
const NULL_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";
const TIMESTAMP: &str = "%Y-%m-%d %H:%M:%S%.f";

/// Splits `rows` by the values of `keys` (name and values, as long as `rows`): each folder once, in order of appearance,
/// with its rows in their order. Without keys the folder is empty.
pub(super) fn split(rows: &RecordBatch, keys: &[(&str, ArrayRef)]) -> Result<Vec<(String, RecordBatch)>> {
    if keys.is_empty() {
        return Ok(vec![(String::new(), rows.clone())]);
    }
    let arrays: Vec<ArrayRef> = keys.iter().map(|(_, values)| values.clone()).collect();
    let formats = FormatOptions::default().with_timestamp_tz_format(Some(TIMESTAMP)).with_timestamp_format(Some(TIMESTAMP));
    let formatters = keys
        .iter()
        .map(|(name, values)| Ok((escape(name), values, ArrayFormatter::try_new(values.as_ref(), &formats)?)))
        .collect::<Result<Vec<_>>>()?;
    // Events come in the order of time, so a batch is a few long runs; only interleaved ones are gathered. A folder's name is
    // made once for each value and not for each run, which is what splitting interleaved rows would otherwise spend its time on.
    let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    let values_of = RowConverter::new(fields)?.convert_columns(&arrays)?;
    let mut runs: Vec<(String, Vec<Range<usize>>)> = Vec::new();
    let mut known: HashMap<Row<'_>, usize> = HashMap::new();
    let mut folders: HashMap<String, usize> = HashMap::new();
    for run in partition(&arrays)?.ranges() {
        let index = match known.entry(values_of.row(run.start)) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let folder = folder(&formatters, run.start)?;
                // NULL and the empty text share a folder.
                let index = *folders.entry(folder.clone()).or_insert(runs.len());
                if index == runs.len() {
                    runs.push((folder, Vec::new()));
                }
                *entry.insert(index)
            }
        };
        runs[index].1.push(run);
    }
    runs.into_iter().map(|(folder, ranges)| Ok((folder, gather(rows, ranges)?))).collect()
}

/// The folder of `row`.
fn folder(keys: &[(String, &ArrayRef, ArrayFormatter<'_>)], row: usize) -> Result<String> {
    let mut folder = String::new();
    for (name, values, formatter) in keys {
        let text = if values.is_null(row) { String::new() } else { formatter.value(row).try_to_string()? };
        let text = if text.is_empty() { NULL_VALUE.to_string() } else { escape(&text) };
        let slash = if folder.is_empty() { "" } else { "/" };
        folder.push_str(&format!("{slash}{name}={text}"));
    }
    Ok(folder)
}

fn gather(rows: &RecordBatch, mut ranges: Vec<Range<usize>>) -> Result<RecordBatch> {
    if ranges.len() == 1
        && let Some(range) = ranges.pop()
    {
        return Ok(rows.slice(range.start, range.len()));
    }
    let indexes = UInt32Array::from_iter_values(ranges.into_iter().flatten().map(|row| row as u32));
    Ok(take_record_batch(rows, &indexes)?)
}

/// Percent-encodes what Hive encodes in a name or value, so that every reader of Hive folders decodes it.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(c) {
            escaped.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Int64Array, StringViewArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn numbered(count: usize) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(0..count as i64))]).unwrap()
    }

    fn check(keys: &[(&str, ArrayRef)], expect: &[(&str, &[i64])]) {
        let parts = split(&numbered(keys[0].1.len()), keys).unwrap();
        let found: Vec<(String, Vec<i64>)> = parts
            .into_iter()
            .map(|(folder, rows)| {
                let column = rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
                (folder, column)
            })
            .collect();
        let expect: Vec<(String, Vec<i64>)> = expect.iter().map(|(folder, rows)| (folder.to_string(), rows.to_vec())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn runs_stay_together_and_interleaved_rows_are_gathered_in_their_order() {
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![20_780, 20_780, 20_781, 20_780]));
        let hours: ArrayRef = Arc::new(Int64Array::from(vec![10, 10, 0, 10]));
        check(&[("dt", dates), ("hour", hours)], &[("dt=2026-11-23/hour=10", &[0, 1, 3]), ("dt=2026-11-24/hour=0", &[2])]);
    }

    #[test]
    fn null_and_odd_values_are_written_as_hive_writes_them() {
        let values: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some("a/b=c"),
            None,
            Some(""),
            Some("50% off: 'x'?"),
            Some(".."),
            Some("\u{0}\n"),
            Some("größer 大"),
        ]));
        check(
            &[("k", values)],
            &[
                ("k=a%2Fb%3Dc", &[0]),
                ("k=__HIVE_DEFAULT_PARTITION__", &[1, 2]),
                ("k=50%25 off%3A %27x%27%3F", &[3]),
                ("k=..", &[4]),
                ("k=%00%0A", &[5]),
                ("k=größer 大", &[6]),
            ],
        );
    }

    #[test]
    fn times_are_written_with_a_blank_and_an_encoded_colon() {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 1_500_000]).with_timezone("UTC"));
        check(&[("at", times)], &[("at=1970-01-01 00%3A00%3A00", &[0]), ("at=1970-01-01 00%3A00%3A01.500", &[1])]);
    }
}
