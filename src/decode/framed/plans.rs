//! How records are read, by the schemas that wrote them: planned once, and kept.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use super::frame::{Frame, Frames};
use super::{Fault, of_another_type, unknown};
use crate::batch::Payloads;
use crate::decode::Decoded;
use crate::decode::avro::AvroPlan;
use crate::decode::protobuf::{ProtobufPlan, path_bytes};
use crate::decode::rows::Rows;
use crate::error::Result;
use crate::registry::SchemaType;
use crate::registry::id::SchemaId;
use crate::registry::schemas::{Known, Schemas};

/// Messages of one schema that are planned. A topic has a few; more are bytes that name none.
const PATHS_MAX: usize = 64;

/// A plan for each writer's schema in Avro; of those that cannot be read, why.
pub(super) struct AvroPlans {
    rows: Rows,
    of: HashMap<SchemaId, Planned<Arc<AvroPlan>>>,
}

type Planned<P> = std::result::Result<P, Fault>;

impl AvroPlans {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self> {
        Ok(Self { rows: Rows::new(schema)?, of: HashMap::new() })
    }

    pub(super) fn forget(&mut self) {
        self.of.clear();
    }

    pub(super) fn decode(
        &mut self,
        payloads: Payloads,
        schema: &SchemaRef,
        schemas: &Schemas,
        id_bytes: usize,
    ) -> Result<Decoded> {
        let Self { rows, of } = self;
        // Records of one schema mostly follow each other, and looking a plan up costs as much as reading a few fields.
        let mut last: Option<(SchemaId, Arc<AvroPlan>)> = None;
        let decoded = each(payloads, schema, rows, id_bytes, |rows, Frame { id, .. }, bytes, from, to| {
            if let Some((_, plan)) = last.as_ref().filter(|(last, _)| *last == id) {
                return plan.read(rows, bytes, from, to);
            }
            let plan = of.entry(id).or_insert_with(|| {
                let known = known(id, SchemaType::Avro, schemas)?;
                let plan = AvroPlan::new(&known, schemas.newest().as_deref(), schema);
                plan.map(Arc::new).map_err(|why| unfit(&known, &why))
            });
            let plan = plan.as_ref().map_err(Fault::clone)?;
            last = Some((id, Arc::clone(plan)));
            plan.read(rows, bytes, from, to)
        })?;
        of.retain(|_, plan| stays(plan));
        Ok(decoded)
    }
}

/// A plan for each message of a writer's schema in Protobuf, by the bytes that name it; of those that cannot be read, why.
pub(super) struct ProtobufPlans {
    rows: Rows,
    of: HashMap<SchemaId, Vec<Message>>,
}

/// The bytes that name a message, and its plan.
type Message = (Box<[u8]>, Planned<ProtobufPlan>);

impl ProtobufPlans {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self> {
        Ok(Self { rows: Rows::new(schema)?, of: HashMap::new() })
    }

    pub(super) fn forget(&mut self) {
        self.of.clear();
    }

    pub(super) fn decode(
        &mut self,
        payloads: Payloads,
        schema: &SchemaRef,
        schemas: &Schemas,
        id_bytes: usize,
    ) -> Result<Decoded> {
        let Self { rows, of } = self;
        let decoded = each(payloads, schema, rows, id_bytes, |rows, Frame { id, rest, .. }, bytes, from, to| {
            let bytes = &bytes[..to];
            let (path, record) = match rest {
                Some(rest) => (&rest[..path_bytes(rest)?], from),
                None => {
                    let record = from + path_bytes(&bytes[from..])?;
                    (&bytes[from..record], record)
                }
            };
            let plans = of.entry(id).or_default();
            let at = plans.iter().position(|(other, _)| **other == *path).unwrap_or_else(|| {
                let plan = known(id, SchemaType::Protobuf, schemas).and_then(|known| {
                    ProtobufPlan::new(&known, path, schemas.newest().as_deref(), schema).map_err(|why| unfit(&known, &why))
                });
                if plans.len() >= PATHS_MAX {
                    plans.clear();
                }
                plans.push((path.into(), plan));
                plans.len() - 1
            });
            plans[at].1.as_ref().map_err(Fault::clone)?.read(rows, bytes, record)
        })?;
        of.retain(|_, plans| plans.iter().all(|(_, plan)| stays(plan)));
        Ok(decoded)
    }
}

/// What the registry does not have now it may have later.
fn stays<P>(plan: &Planned<P>) -> bool {
    plan.as_ref().map_or_else(|fault| fault.code != "unknown_schema", |_| true)
}

fn known(id: SchemaId, schema_type: SchemaType, schemas: &Schemas) -> Planned<Arc<Known>> {
    let known = schemas.get(id).ok_or_else(|| unknown(id))?;
    if known.schema.schema_type == schema_type { Ok(known) } else { Err(of_another_type(&known, schema_type)) }
}

fn unfit(known: &Known, why: &str) -> Fault {
    Fault::schema("incompatible_schema", format!("{} does not fit the table: {why}", known.name()))
}

/// Reads each payload: `read` adds the row of the record that begins at a place, behind its frame, up to another.
fn each(
    payloads: Payloads,
    schema: &SchemaRef,
    rows: &mut Rows,
    id_bytes: usize,
    mut read: impl FnMut(&mut Rows, Frame<'_>, &[u8], usize, usize) -> std::result::Result<(), Fault>,
) -> Result<Decoded> {
    let Payloads { span, bytes, ends, offsets, tombstones, headers, appended_ms, lost } = payloads;
    let mut frames = Frames::new(&headers, id_bytes);
    let (mut good, mut dead) = (Vec::with_capacity(ends.len()), Vec::new());
    rows.reserve(ends.len());
    let mut skipped = tombstones.iter().copied().peekable();
    let mut from = 0;
    for (index, (&to, &offset)) in ends.iter().zip(&offsets).enumerate() {
        if skipped.next_if_eq(&index).is_none() {
            let read = frames
                .next(index, &bytes[from..to])
                .and_then(|frame| read(rows, frame, &bytes, from + frame.bytes, to).map_err(|fault| fault.of(frame.id)));
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
    let rows = rows.finish(schema, bytes)?;
    let tombstones = tombstones.iter().map(|&index| offsets[index]).collect();
    Ok(Decoded { span, rows, offsets: Int64Array::from(good), dead, tombstones, appended_ms, lost })
}
