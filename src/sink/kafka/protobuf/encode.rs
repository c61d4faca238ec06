//! Rows in Protobuf's wire format, straight from Arrow.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Int64Array, PrimitiveArray, RecordBatch,
    StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema as ArrowSchema, TimeUnit, UInt32Type, UInt64Type,
};

use super::Numbers;
use crate::error::{Error, Kind, Result};

/// How a value follows its tag.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// Writes rows behind a frame.
pub(in crate::sink::kafka) struct ProtobufEncoder {
    /// A zero byte, the schema's id, and the message's place in it: the first one, which is a zero.
    frame: [u8; 6],
    columns: Vec<(Field, u32)>,
}

/// The values of a column, and how they are written.
enum Values<'a> {
    Bool(&'a BooleanArray),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a Int64Array),
    UInt32(&'a PrimitiveArray<UInt32Type>),
    UInt64(&'a PrimitiveArray<UInt64Type>),
    Float(&'a PrimitiveArray<Float32Type>),
    Double(&'a PrimitiveArray<Float64Type>),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    /// So many since 1970, of which so many are a second.
    Time(Int64Array, i64),
}

impl ProtobufEncoder {
    /// An encoder of these columns, whose schema is registered under `id` with these numbers.
    pub(in crate::sink::kafka) fn new(id: u32, columns: &ArrowSchema, numbers: &Numbers) -> Self {
        let [a, b, c, d] = id.to_be_bytes();
        let columns = columns.fields().iter().zip(&numbers.fields);
        Self {
            frame: [0, a, b, c, d, 0],
            columns: columns.map(|(field, (_, number))| (field.as_ref().clone(), *number)).collect(),
        }
    }

    /// Calls `take` with the payload of each row, in order.
    pub(in crate::sink::kafka) fn each(
        &self,
        rows: &RecordBatch,
        mut take: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let columns = rows.columns().iter().zip(&self.columns);
        let columns = columns.map(|(column, (field, _))| Ok(cast(column, field.data_type())?));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let mut written = Vec::with_capacity(columns.len());
        for (column, (_, number)) in columns.iter().zip(&self.columns) {
            let values = Values::of(column)?;
            let mut tag = Vec::new();
            varint(u64::from(*number) << 3 | u64::from(values.wire_type()), &mut tag);
            written.push((tag, column, values));
        }
        let mut payload = Vec::new();
        for row in 0..rows.num_rows() {
            payload.clear();
            payload.extend_from_slice(&self.frame);
            // A NULL is a field that is not there.
            for (tag, _, values) in written.iter().filter(|(_, column, _)| column.is_valid(row)) {
                payload.extend_from_slice(tag);
                values.write(row, &mut payload);
            }
            take(row, &payload)?;
        }
        Ok(())
    }
}

impl<'a> Values<'a> {
    fn of(column: &'a ArrayRef) -> Result<Self> {
        fn numbers<T: ArrowPrimitiveType>(column: &ArrayRef) -> &PrimitiveArray<T> {
            column.as_primitive::<T>()
        }
        Ok(match column.data_type() {
            DataType::Boolean => Values::Bool(column.as_boolean()),
            DataType::Int32 => Values::Int32(numbers(column)),
            DataType::Int64 => Values::Int64(numbers(column)),
            DataType::UInt32 => Values::UInt32(numbers(column)),
            DataType::UInt64 => Values::UInt64(numbers(column)),
            DataType::Float32 => Values::Float(numbers(column)),
            DataType::Float64 => Values::Double(numbers(column)),
            DataType::Utf8 => Values::Text(column.as_string()),
            DataType::Binary => Values::Bytes(column.as_binary()),
            DataType::Timestamp(unit, _) => {
                Values::Time(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone(), in_a_second(*unit))
            }
            other => return Err(Error::new(Kind::Bug, format!("no Protobuf for {other}"))),
        })
    }

    fn wire_type(&self) -> u8 {
        match self {
            Values::Float(_) => FIXED_32,
            Values::Double(_) => FIXED_64,
            Values::Text(_) | Values::Bytes(_) | Values::Time(..) => BYTES,
            _ => VARINT,
        }
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Values::Bool(values) => out.push(u8::from(values.value(row))),
            // Negative ones take ten bytes, as the format has it.
            Values::Int32(values) => varint(i64::from(values.value(row)) as u64, out),
            Values::Int64(values) => varint(values.value(row) as u64, out),
            Values::UInt32(values) => varint(u64::from(values.value(row)), out),
            Values::UInt64(values) => varint(values.value(row), out),
            Values::Float(values) => out.extend_from_slice(&values.value(row).to_le_bytes()),
            Values::Double(values) => out.extend_from_slice(&values.value(row).to_le_bytes()),
            Values::Text(values) => bytes(values.value(row).as_bytes(), out),
            Values::Bytes(values) => bytes(values.value(row), out),
            Values::Time(values, in_a_second) => time(values.value(row), *in_a_second, out),
        }
    }
}

/// A `google.protobuf.Timestamp`: the seconds are field 1, the nanoseconds, which always go forward, field 2.
fn time(value: i64, in_a_second: i64, out: &mut Vec<u8>) {
    let length = out.len();
    out.extend_from_slice(&[0, 1 << 3 | VARINT]);
    varint(value.div_euclid(in_a_second) as u64, out);
    out.push(2 << 3 | VARINT);
    varint((value.rem_euclid(in_a_second) * (1_000_000_000 / in_a_second)) as u64, out);
    // Two numbers take 17 bytes at most, so that one byte holds the length.
    out[length] = (out.len() - length - 1) as u8;
}

fn in_a_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn varint(mut rest: u64, out: &mut Vec<u8>) {
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_have_nanoseconds_that_go_forward() {
        let mut out = Vec::new();
        time(-1, 1_000, &mut out);
        // A length; field 1 is -1 in ten bytes, field 2 is 999 000 000.
        let expected = [17, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 16, 0xc0, 0x8f, 0xae, 0xdc, 0x03];
        assert_eq!(out, expected);
    }
}
