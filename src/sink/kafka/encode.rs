//! Rows as payloads: JSON objects, or what the formats of a schema registry are: a zero byte, the schema's id in four bytes, the high one
//! first, and the record (Confluent's framing).

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::Schema as ArrowSchema;
use arrow_avro::errors::AvroError;
use arrow_avro::schema::{FingerprintStrategy, SCHEMA_METADATA_KEY};
use arrow_avro::writer::format::AvroSoeFormat;
use arrow_avro::writer::{Encoder as AvroEncoder, WriterBuilder};
use parking_lot::Mutex;

use super::protobuf::encode::ProtobufEncoder;
use super::schema::RowSchema;
use crate::error::{Error, Kind, Result};
use crate::registry::SchemaType;
use crate::sink::json;

/// So many rows are encoded before they are handed on: what they take is held twice for a moment.
const ROWS_AT_ONCE: usize = 1024;

/// How rows become payloads.
pub(super) enum Encoding {
    /// An object each.
    Json,
    /// The same behind a frame.
    JsonSchema([u8; 5]),
    /// Avro's binary encoding behind a frame. One thread uses it at a time.
    Avro(Box<Mutex<AvroEncoder>>),
    /// Protobuf's wire format behind a frame.
    Protobuf(ProtobufEncoder),
}

impl Encoding {
    /// The encoding of rows whose schema is registered under `id`.
    pub(super) fn registered(rows: &RowSchema, id: u32) -> Result<Self> {
        match rows.schema.schema_type {
            SchemaType::Json => {
                let [a, b, c, d] = id.to_be_bytes();
                Ok(Encoding::JsonSchema([0, a, b, c, d]))
            }
            SchemaType::Protobuf => Ok(Encoding::Protobuf(ProtobufEncoder::new(id, &rows.columns, &rows.numbers))),
            SchemaType::Avro => Self::avro(rows, id),
        }
    }

    fn avro(rows: &RowSchema, id: u32) -> Result<Self> {
        let metadata = [(SCHEMA_METADATA_KEY.to_string(), rows.schema.text.clone())].into();
        let schema = ArrowSchema::new_with_metadata(rows.columns.fields().clone(), metadata);
        let encoder = WriterBuilder::new(schema).with_fingerprint_strategy(FingerprintStrategy::Id(id));
        let encoder = encoder.build_encoder::<AvroSoeFormat>().map_err(not_encoded)?;
        Ok(Encoding::Avro(Box::new(Mutex::new(encoder))))
    }

    /// Calls `take` with the payload of each row, in order.
    pub(super) fn each(&self, rows: &RecordBatch, mut take: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        match self {
            Encoding::Json => json::each_object(rows, None, take),
            Encoding::JsonSchema(frame) => {
                let mut payload = frame.to_vec();
                json::each_object(rows, None, |row, object| {
                    payload.truncate(frame.len());
                    payload.extend_from_slice(object);
                    take(row, &payload)
                })
            }
            Encoding::Protobuf(encoder) => encoder.each(rows, take),
            Encoding::Avro(encoder) => {
                let mut encoder = encoder.lock();
                for first in (0..rows.num_rows()).step_by(ROWS_AT_ONCE) {
                    let part = rows.slice(first, ROWS_AT_ONCE.min(rows.num_rows() - first));
                    let part = as_encoded(&encoder, &part)?;
                    encoder.encode(&part).map_err(not_encoded)?;
                    let encoded = encoder.flush();
                    let ends = encoded.offsets().windows(2);
                    for (row, end) in ends.enumerate() {
                        take(first + row, &encoded.bytes()[end[0]..end[1]])?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The same rows in the types that are encoded.
fn as_encoded(encoder: &AvroEncoder, rows: &RecordBatch) -> Result<RecordBatch> {
    let schema = encoder.schema();
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    let columns: Vec<ArrayRef> = columns.collect::<std::result::Result<_, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn not_encoded(cause: AvroError) -> Error {
    Error::new(Kind::Bug, "rows could not be written in Avro").because(cause)
}
