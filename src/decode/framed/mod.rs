//! The formats whose payloads begin with the id of a schema in a registry: `avro`, `json-schema` and `protobuf`.
//!
//! [`frame`] says where the id stands. Before a batch is decoded its ids are learnt ([`FramedDecoder::prepare`](super::Decoder::prepare)): a
//! registry that is away makes the log wait, and nothing becomes a dead letter for it. Beside the codes of [`super::avro`], [`super::json`] and
//! [`super::protobuf`] these are dead letters:
//!
//! | stage | code | the payload |
//! |---|---|---|
//! | decode | `empty`, `framing` | is empty; does not begin so |
//! | schema | `unknown_schema` | has an id that the registry does not have |
//! | schema | `incompatible_schema` | was written with a schema whose fields do not fit the columns; it is named with its version |

mod frame;
mod json_schema;
mod plans;
#[cfg(test)]
pub(in crate::decode) mod registered;

use std::sync::Arc;

use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use hashbrown::HashMap;

use self::frame::Frames;
use self::plans::Plans;
use super::avro::AvroPlan;
use super::json::JsonDecoder;
use super::protobuf::ProtobufPlan;
use super::{Decoded, Decoder, avro, protobuf};
use crate::batch::{DeadLetter, Payloads, Stage};
use crate::error::{Error, Kind, Result};
use crate::registry::SchemaType;
use crate::registry::id::SchemaId;
use crate::registry::schemas::{Known, Schemas};

/// Why a payload is a dead letter.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Fault {
    stage: Stage,
    code: &'static str,
    message: String,
    schema_id: Option<SchemaId>,
}

impl Fault {
    pub(in crate::decode) fn decode(code: &'static str, message: impl Into<String>) -> Self {
        Self { stage: Stage::Decode, code, message: message.into(), schema_id: None }
    }

    pub(in crate::decode) fn schema(code: &'static str, message: impl Into<String>) -> Self {
        Self { stage: Stage::Schema, code, message: message.into(), schema_id: None }
    }

    /// The same of a record that was written by this schema.
    fn of(self, id: SchemaId) -> Self {
        Self { schema_id: Some(id), ..self }
    }

    fn letter(self, partition: i32, offset: i64) -> DeadLetter {
        let Self { stage, code, message, schema_id } = self;
        DeadLetter { partition, offset, stage, code, message, schema_id }
    }
}

/// The columns of a schema of this type, for a table that declares none; the names of the fields that can be no columns come with them.
/// The error is a sentence.
pub fn columns(known: &Known) -> Result<(ArrowSchema, Vec<String>), String> {
    match known.schema.schema_type {
        SchemaType::Avro => avro::columns(known),
        SchemaType::Protobuf => protobuf::columns(known),
        SchemaType::Json => json_schema::columns(&known.schema.text).map(|columns| (columns, Vec::new())),
    }
}

/// Decodes payloads that begin with a schema's id. See the module's contract.
pub struct FramedDecoder {
    schema: SchemaRef,
    schemas: Arc<Schemas>,
    id_bytes: usize,
    /// The edition of the schemas that the plans were made from.
    edition: u64,
    body: Body,
}

/// What reads the records.
enum Body {
    Avro(Box<Plans<AvroPlan>>),
    Json(Box<JsonDecoder>),
    Protobuf(Box<Plans<ProtobufPlan>>),
}

impl FramedDecoder {
    /// A decoder for these columns. The registry's schemas must be of this type, and an id takes so many bytes, 4 or 8. Fails with
    /// [`Kind::Sql`] and the column's name if a type cannot be decoded or a name comes twice.
    pub fn new(schema: SchemaRef, schema_type: SchemaType, schemas: Arc<Schemas>, id_bytes: usize) -> Result<Self> {
        let body = match schema_type {
            SchemaType::Avro => Body::Avro(Box::new(Plans::new(&schema)?)),
            SchemaType::Json => Body::Json(Box::new(JsonDecoder::new(Arc::clone(&schema))?)),
            SchemaType::Protobuf => Body::Protobuf(Box::new(Plans::new(&schema)?)),
        };
        Ok(Self { schema, edition: schemas.edition(), schemas, id_bytes, body })
    }
}

impl Decoder for FramedDecoder {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn prepare(&mut self, payloads: &Payloads) -> Result<()> {
        let ids = frame::ids(payloads, self.id_bytes, IDS_OF_A_BATCH_MAX);
        self.schemas.learn(&ids)?;
        // Aliases, defaults and numbers come from the newest version: what was planned before the last id was learnt is forgotten.
        let edition = self.schemas.edition();
        if edition != std::mem::replace(&mut self.edition, edition) {
            match &mut self.body {
                Body::Avro(plans) => plans.forget(),
                Body::Protobuf(plans) => plans.forget(),
                Body::Json(_) => {}
            }
        }
        Ok(())
    }

    fn decode(&mut self, payloads: Payloads) -> Result<Decoded> {
        // Positions inside a batch are 32 bits wide in Arrow's strings.
        if i32::try_from(payloads.bytes.len()).is_err() {
            return Err(Error::new(Kind::Full, "a batch of payloads is larger than 2 GiB; lower the source's batch size"));
        }
        match &mut self.body {
            Body::Avro(plans) => plans.decode(payloads, &self.schema, &self.schemas, self.id_bytes),
            Body::Protobuf(plans) => plans.decode(payloads, &self.schema, &self.schemas, self.id_bytes),
            Body::Json(decoder) => decode_json(decoder, payloads, &self.schemas, self.id_bytes),
        }
    }
}

/// Ids that one batch may ask for. A topic has some ten; what comes beyond is bytes that are no ids, and is dead as an unknown one.
const IDS_OF_A_BATCH_MAX: usize = 256;

fn unknown(id: SchemaId) -> Fault {
    Fault::schema("unknown_schema", format!("the registry has no schema with the id {id}"))
}

fn of_another_type(known: &Known, wanted: SchemaType) -> Fault {
    let why = format!("{} is of type {}; the table's format needs {wanted}", known.name(), known.schema.schema_type);
    Fault::schema("incompatible_schema", why)
}

/// The frame becomes blanks, and what has no right one is passed over as if it were a tombstone.
fn decode_json(decoder: &mut JsonDecoder, mut payloads: Payloads, schemas: &Schemas, id_bytes: usize) -> Result<Decoded> {
    let mut faults: Vec<(usize, DeadLetter)> = Vec::new();
    let mut verdicts: HashMap<SchemaId, Option<Fault>> = HashMap::new();
    let partition = payloads.span.partition;
    let mut skipped = payloads.tombstones.iter().copied().peekable();
    let mut frames = Frames::new(&payloads.headers, id_bytes);
    // From which offset on records were written by which schema.
    let mut written: Vec<(i64, SchemaId)> = Vec::new();
    let mut from = 0;
    for (index, (&to, &offset)) in payloads.ends.iter().zip(&payloads.offsets).enumerate() {
        let payload = &mut payloads.bytes[std::mem::replace(&mut from, to)..to];
        if skipped.next_if_eq(&index).is_some() {
            continue;
        }
        let fault = frames.next(index, payload).and_then(|frame| {
            if written.last().is_none_or(|(_, last)| *last != frame.id) {
                written.push((offset, frame.id));
            }
            let verdict = verdicts.entry(frame.id).or_insert_with(|| json_fault(frame.id, schemas));
            verdict.clone().map_or(Ok(frame.bytes), |fault| Err(fault.of(frame.id)))
        });
        match fault {
            Ok(bytes) => payload[..bytes].fill(b' '),
            Err(fault) => faults.push((index, fault.letter(partition, offset))),
        }
    }
    let tombstones: Vec<i64> = payloads.tombstones.iter().map(|&index| payloads.offsets[index]).collect();
    payloads.tombstones.extend(faults.iter().map(|(index, _)| *index));
    payloads.tombstones.sort_unstable();
    let mut decoded = decoder.decode(payloads)?;
    for letter in &mut decoded.dead {
        let at = written.partition_point(|(offset, _)| *offset <= letter.offset);
        letter.schema_id = at.checked_sub(1).map(|at| written[at].1);
    }
    decoded.dead.extend(faults.into_iter().map(|(_, letter)| letter));
    decoded.dead.sort_by_key(|letter| letter.offset);
    decoded.tombstones = tombstones;
    Ok(decoded)
}

fn json_fault(id: SchemaId, schemas: &Schemas) -> Option<Fault> {
    match schemas.get(id) {
        None => Some(unknown(id)),
        Some(known) if known.schema.schema_type != SchemaType::Json => Some(of_another_type(&known, SchemaType::Json)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::decode::framed::registered::{self, Registered};

    #[test]
    fn a_letter_has_the_schema_of_its_record_where_that_says_one() {
        let registry =
            Registered { schema_type: SchemaType::Json, texts: vec!["{}".into(), "{}".into()], imported: Vec::new() };
        let framed = |id: u8, text: &str| [&[0, 0, 0, 0, id], text.as_bytes()].concat();
        let records = [
            framed(1, "{\"id\":1}"),
            framed(1, "{"),
            b"{}".to_vec(),
            framed(2, "{\"id\":\"x\"}"),
            framed(2, "{}"),
            framed(9, "{}"),
            framed(1, "["),
        ];
        let decoded = registered::decode(registry, &[Field::new("id", DataType::Int64, true)], &records);
        let letters: Vec<_> = decoded.dead.iter().map(|letter| (letter.offset, letter.code, letter.schema_id)).collect();
        let id = |id| Some(SchemaId::Id(id));
        let expected = [
            (1, "truncated", id(1)),
            (2, "framing", None),
            (3, "type_mismatch", id(2)),
            (5, "unknown_schema", id(9)),
            (6, "truncated", id(1)),
        ];
        assert_eq!(letters, expected);
        assert_eq!(decoded.rows.num_rows(), 2);
    }
}
