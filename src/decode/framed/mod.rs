//! The formats whose payloads begin with the id of a schema in a registry: `avro` and `json-schema`.
//!
//! A payload is a zero byte, the id in four bytes, the high one first, and the record (Confluent's framing, which Apicurio's serializers write
//! too). Before a batch is decoded its ids are learnt ([`FramedDecoder::prepare`](super::Decoder::prepare)): a registry that is away makes the
//! log wait, and nothing becomes a dead letter for it. Beside the codes of [`super::avro`] and [`super::json`] these are dead letters:
//!
//! | stage | code | the payload |
//! |---|---|---|
//! | decode | `empty`, `framing` | is empty; does not begin so |
//! | schema | `unknown_schema` | has an id that the registry does not have |
//! | schema | `incompatible_schema` | was written with a schema whose fields do not fit the columns; it is named with its version |

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use hashbrown::HashMap;

use super::avro::{self, AvroPlan};
use super::json::JsonDecoder;
use super::rows::Rows;
use super::{Decoded, Decoder};
use crate::batch::{DeadLetter, Payloads, Stage};
use crate::error::{Error, Kind, Result};
use crate::registry::SchemaType;
use crate::registry::schemas::{Known, Schemas};

/// The zero byte and the id.
const FRAME_BYTES: usize = 5;

/// Why a payload is a dead letter.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Fault {
    stage: Stage,
    code: &'static str,
    message: String,
}

impl Fault {
    pub(in crate::decode) fn decode(code: &'static str, message: impl Into<String>) -> Self {
        Self { stage: Stage::Decode, code, message: message.into() }
    }

    pub(in crate::decode) fn schema(code: &'static str, message: impl Into<String>) -> Self {
        Self { stage: Stage::Schema, code, message: message.into() }
    }

    fn letter(self, partition: i32, offset: i64) -> DeadLetter {
        let Self { stage, code, message } = self;
        DeadLetter { partition, offset, stage, code, message }
    }
}

/// The columns of a schema of this type, for a table that declares none; the names of the fields that can be no columns come with them.
/// The error is a sentence.
pub fn columns(known: &Known) -> Result<(ArrowSchema, Vec<String>), String> {
    match known.schema.schema_type {
        SchemaType::Avro => avro::columns(known),
        other => Err(format!("columns cannot be left out where the schema is {other}: declare them")),
    }
}

/// Decodes payloads that begin with a schema's id. See the module's contract.
pub struct FramedDecoder {
    schema: SchemaRef,
    schemas: Arc<Schemas>,
    body: Body,
}

/// What reads the records.
enum Body {
    Avro(Box<Plans>),
    Json(Box<JsonDecoder>),
}

/// A plan for each writer's schema; of those that cannot be read, why.
struct Plans {
    rows: Rows,
    of: HashMap<u32, Result<AvroPlan, Fault>>,
    /// The edition of the schemas that they were made from.
    edition: u64,
}

impl FramedDecoder {
    /// A decoder for these columns. The registry's schemas must be of this type. Fails with [`Kind::Sql`] and the column's name if
    /// a type cannot be decoded or a name comes twice.
    pub fn new(schema: SchemaRef, schema_type: SchemaType, schemas: Arc<Schemas>) -> Result<Self> {
        let body = match schema_type {
            SchemaType::Avro => {
                Body::Avro(Box::new(Plans { rows: Rows::new(&schema)?, of: HashMap::new(), edition: schemas.edition() }))
            }
            SchemaType::Json => Body::Json(Box::new(JsonDecoder::new(Arc::clone(&schema))?)),
            SchemaType::Protobuf => return Err(Error::new(Kind::Bug, "there is no decoder for protobuf")),
        };
        Ok(Self { schema, schemas, body })
    }
}

impl Decoder for FramedDecoder {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn prepare(&mut self, payloads: &Payloads) -> Result<()> {
        let (mut ids, mut last, mut from) = (Vec::new(), None, 0);
        for &to in &payloads.ends {
            let id = frame(&payloads.bytes[std::mem::replace(&mut from, to)..to]).ok();
            if let (Some(id), true) = (id, id != last)
                && !ids.contains(&id)
                && ids.len() < IDS_OF_A_BATCH_MAX
            {
                ids.push(id);
            }
            last = id.or(last);
        }
        self.schemas.learn(&ids)?;
        if let Body::Avro(plans) = &mut self.body {
            plans.renew(&self.schemas);
        }
        Ok(())
    }

    fn decode(&mut self, payloads: Payloads) -> Result<Decoded> {
        // Positions inside a batch are 32 bits wide in Arrow's strings.
        if i32::try_from(payloads.bytes.len()).is_err() {
            return Err(Error::new(Kind::Full, "a batch of payloads is larger than 2 GiB; lower the source's batch size"));
        }
        match &mut self.body {
            Body::Avro(plans) => plans.decode(payloads, &self.schema, &self.schemas),
            Body::Json(decoder) => decode_json(decoder, payloads, &self.schemas),
        }
    }
}

/// Ids that one batch may ask for. A topic has some ten; what comes beyond is bytes that are no ids, and is dead as an unknown one.
const IDS_OF_A_BATCH_MAX: usize = 256;

/// The id at the beginning of a payload.
#[inline]
fn frame(payload: &[u8]) -> Result<u32, Fault> {
    match payload {
        [0, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        [] => Err(Fault::decode("empty", "the payload is empty; it must begin with a zero byte and a schema's id")),
        [first, ..] if *first != 0 => {
            let why = format!(
                "the payload begins with byte {first}, not with a zero byte and a schema's id: it was written without the registry"
            );
            Err(Fault::decode("framing", why))
        }
        _ => Err(Fault::decode("framing", "the payload ends within its schema's id")),
    }
}

fn unknown(id: u32) -> Fault {
    Fault::schema("unknown_schema", format!("the registry has no schema with the id {id}"))
}

fn of_another_type(known: &Known, wanted: SchemaType) -> Fault {
    let why = format!("{} is of type {}; the table's format needs {wanted}", known.name(), known.schema.schema_type);
    Fault::schema("incompatible_schema", why)
}

impl Plans {
    /// Forgets what was planned before the last id was learnt: aliases and defaults come from the newest version.
    fn renew(&mut self, schemas: &Schemas) {
        let edition = schemas.edition();
        if edition != std::mem::replace(&mut self.edition, edition) {
            self.of.clear();
        }
    }

    fn plan(id: u32, schema: &SchemaRef, schemas: &Schemas) -> Result<AvroPlan, Fault> {
        let known = schemas.get(id).ok_or_else(|| unknown(id))?;
        if known.schema.schema_type != SchemaType::Avro {
            return Err(of_another_type(&known, SchemaType::Avro));
        }
        AvroPlan::new(&known, schemas.newest().as_deref(), schema)
            .map_err(|why| Fault::schema("incompatible_schema", format!("{} does not fit the table: {why}", known.name())))
    }

    fn decode(&mut self, payloads: Payloads, schema: &SchemaRef, schemas: &Schemas) -> Result<Decoded> {
        let Payloads { span, bytes, ends, offsets, tombstones, appended_ms, lost, .. } = payloads;
        let (mut good, mut dead) = (Vec::with_capacity(ends.len()), Vec::new());
        let Self { rows, of, .. } = self;
        rows.reserve(ends.len());
        let mut skipped = tombstones.iter().copied().peekable();
        let mut from = 0;
        for (index, (&to, &offset)) in ends.iter().zip(&offsets).enumerate() {
            let payload = &bytes[from..to];
            if skipped.next_if_eq(&index).is_none() {
                let read = frame(payload).and_then(|id| {
                    let plan = of.entry(id).or_insert_with(|| Self::plan(id, schema, schemas));
                    plan.as_ref().map_err(Fault::clone)?.read(rows, &bytes[..to], from + FRAME_BYTES)
                });
                match read {
                    Ok(()) => {
                        rows.count += 1;
                        good.push(offset);
                    }
                    Err(fault) => {
                        rows.undo();
                        dead.push(fault.letter(span.partition, offset));
                    }
                }
            }
            from = to;
        }
        // What the registry does not have now it may have later.
        of.retain(|_, plan| plan.as_ref().map_or_else(|fault| fault.code != "unknown_schema", |_| true));
        let rows = rows.finish(schema, bytes)?;
        let tombstones = tombstones.iter().map(|&index| offsets[index]).collect();
        Ok(Decoded { span, rows, offsets: Int64Array::from(good), dead, tombstones, appended_ms, lost })
    }
}

/// The frame becomes blanks, and what has no right one is passed over as if it were a tombstone.
fn decode_json(decoder: &mut JsonDecoder, mut payloads: Payloads, schemas: &Schemas) -> Result<Decoded> {
    let mut faults: Vec<(usize, DeadLetter)> = Vec::new();
    let mut verdicts: HashMap<u32, Option<Fault>> = HashMap::new();
    let partition = payloads.span.partition;
    let mut skipped = payloads.tombstones.iter().copied().peekable();
    let mut from = 0;
    for (index, (&to, &offset)) in payloads.ends.iter().zip(&payloads.offsets).enumerate() {
        let payload = &mut payloads.bytes[std::mem::replace(&mut from, to)..to];
        if skipped.next_if_eq(&index).is_some() {
            continue;
        }
        let fault =
            frame(payload).map_or_else(Some, |id| verdicts.entry(id).or_insert_with(|| json_fault(id, schemas)).clone());
        match fault {
            None => payload[..FRAME_BYTES].fill(b' '),
            Some(fault) => faults.push((index, fault.letter(partition, offset))),
        }
    }
    if faults.is_empty() {
        return decoder.decode(payloads);
    }
    let tombstones: Vec<i64> = payloads.tombstones.iter().map(|&index| payloads.offsets[index]).collect();
    payloads.tombstones.extend(faults.iter().map(|(index, _)| *index));
    payloads.tombstones.sort_unstable();
    let mut decoded = decoder.decode(payloads)?;
    decoded.dead.extend(faults.into_iter().map(|(_, letter)| letter));
    decoded.dead.sort_by_key(|letter| letter.offset);
    decoded.tombstones = tombstones;
    Ok(decoded)
}

fn json_fault(id: u32, schemas: &Schemas) -> Option<Fault> {
    match schemas.get(id) {
        None => Some(unknown(id)),
        Some(known) if known.schema.schema_type != SchemaType::Json => Some(of_another_type(&known, SchemaType::Json)),
        Some(_) => None,
    }
}
