//! Rows as JSON objects, `_id` first where it is asked for: bytes straight from Arrow. The same rows make the same bytes.

use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};

use crate::batch::RowIds;
use crate::error::{Error, Kind, Result};

/// Calls `take` with the bytes of each row's object, in order. Times are RFC 3339 in UTC, NULLs are `null`; so are NaN and the
/// infinities, which JSON does not have.
/// `ids` are those to begin with as `_id`.
pub(crate) fn each_object(
    rows: &RecordBatch,
    ids: Option<&RowIds>,
    mut take: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let schema = rows.schema();
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Times));
    let mut columns = Vec::with_capacity(rows.num_columns());
    for (index, (field, column)) in schema.fields().iter().zip(rows.columns()).enumerate() {
        let mut name = if index == 0 && ids.is_none() { vec![] } else { vec![b','] };
        write_text(field.name(), &mut name)?;
        name.push(b':');
        columns.push((name, make_encoder(field, column.as_ref(), &options)?));
    }
    let (mut id, mut object) = (String::new(), Vec::new());
    for row in 0..rows.num_rows() {
        object.clear();
        object.push(b'{');
        if let Some(ids) = ids {
            id.clear();
            ids.write(row, &mut id);
            object.extend_from_slice(b"\"_id\":");
            write_text(&id, &mut object)?;
        }
        for (name, encoder) in &mut columns {
            object.extend_from_slice(name);
            if encoder.is_null(row) { object.extend_from_slice(b"null") } else { encoder.encode(row, &mut object) }
        }
        object.push(b'}');
        take(row, &object)?;
    }
    Ok(())
}

fn write_text(text: &str, out: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(out, text)
        .map_err(|cause| Error::new(Kind::Bug, "a text could not be written as JSON").because(cause))
}

/// Makes the encoders of timestamps, at any depth; Arrow's own leave out the `Z`, and are slow.
#[derive(Debug)]
struct Times;

impl EncoderFactory for Times {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> std::result::Result<Option<NullableEncoder<'a>>, ArrowError> {
        let DataType::Timestamp(unit, _) = array.data_type() else { return Ok(None) };
        let (values, per_second): (&[i64], i64) = match unit {
            TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().values(), 1),
            TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().values(), 1_000),
            TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().values(), 1_000_000),
            TimeUnit::Nanosecond => (array.as_primitive::<TimestampNanosecondType>().values(), 1_000_000_000),
        };
        Ok(Some(NullableEncoder::new(Box::new(TimeEncoder { values, per_second }), array.nulls().cloned())))
    }
}

struct TimeEncoder<'a> {
    values: &'a [i64],
    per_second: i64,
}

impl Encoder for TimeEncoder<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.values[row];
        let seconds = value.div_euclid(self.per_second);
        let nanos = value.rem_euclid(self.per_second) * (1_000_000_000 / self.per_second);
        write_time(seconds, nanos as u32, out);
    }
}

/// `"2026-01-31T12:00:00.5Z"` with 0, 3, 6 or 9 digits of fraction, as many as are needed.
fn write_time(seconds: i64, nanos: u32, out: &mut Vec<u8>) {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400) as u32;
    out.push(b'"');
    if (0..10_000).contains(&year) {
        digits(year as u32, 4, out);
    } else {
        // Beyond RFC 3339; a reader that knows ISO 8601 can still take it. Writing to a Vec cannot fail.
        let _ = write!(out, "{year:+}");
    }
    for (mark, number) in [(b'-', month), (b'-', day), (b'T', second / 3_600), (b':', second / 60 % 60), (b':', second % 60)] {
        out.push(mark);
        digits(number, 2, out);
    }
    if nanos > 0 {
        out.push(b'.');
        match nanos {
            _ if nanos.is_multiple_of(1_000_000) => digits(nanos / 1_000_000, 3, out),
            _ if nanos.is_multiple_of(1_000) => digits(nanos / 1_000, 6, out),
            _ => digits(nanos, 9, out),
        }
    }
    out.extend_from_slice(b"Z\"");
}

/// `number` with leading zeros.
fn digits(number: u32, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        out.push(b'0' + (number / 10u32.pow(place) % 10) as u8);
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Gregorian, by eras of 400 years that begin on 1 March).
fn civil(day: i64) -> (i64, u32, u32) {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray};

    use super::*;

    fn objects(columns: Vec<(&str, ArrayRef)>, ids: RowIds) -> Vec<String> {
        let mut all = Vec::new();
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
        each_object(&rows, Some(&ids), |_, object| {
            all.push(String::from_utf8(object.to_vec()).unwrap());
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn a_row_is_an_object_with_its_id_first_and_explicit_nulls() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a \"b\"\n\u{1}é"), None]));
        let number: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN)]));
        let time: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(1_500_000_000), None]));
        let zoned: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(0)]).with_timezone("+02:00"));
        let ids = RowIds::Offsets { topic: "t".into(), partition: 3, offsets: Int64Array::from(vec![7, 9]) };
        assert_eq!(
            objects(vec![("text", text), ("n\"", number), ("at", time), ("zoned", zoned)], ids),
            [
                r#"{"_id":"t/3/7","text":"a \"b\"\n\u0001é","n\"":0.1,"at":"1970-01-01T00:00:01.500Z","zoned":"1969-12-31T23:59:59.999999Z"}"#,
                r#"{"_id":"t/3/9","text":null,"n\"":null,"at":null,"zoned":"1970-01-01T00:00:00Z"}"#,
            ]
        );
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for days in (-719_000..800_000).step_by(13) {
            let expected = chrono::DateTime::from_timestamp(days * 86_400, 0).unwrap();
            let (year, month, day) = civil(days);
            assert_eq!(format!("{year:04}-{month:02}-{day:02}"), expected.format("%Y-%m-%d").to_string());
        }
    }
}
