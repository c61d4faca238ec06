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

/// A format whose records are read by a plan, one for each schema that writes.
pub(super) trait Format: Sized {
    /// What its schemas are.
    const TYPE: SchemaType;

    /// How many bytes at the beginning of these say which message of the schema it is.
    fn path_bytes(bytes: &[u8]) -> Planned<usize>;

    /// Plans the records of the message of `writer` that `path` names for `columns`; the error is a sentence.
    fn plan(writer: &Known, path: &[u8], newest: Option<&Known>, columns: &SchemaRef) -> std::result::Result<Self, String>;

    /// Adds the row of the record `bytes[from..to]`, or a part of it and says what is wrong.
    fn read(&self, rows: &mut Rows, bytes: &[u8], from: usize, to: usize) -> Planned<()>;
}

type Planned<P> = std::result::Result<P, Fault>;

impl Format for AvroPlan {
    const TYPE: SchemaType = SchemaType::Avro;

    #[inline]
    fn path_bytes(_: &[u8]) -> Planned<usize> {
        Ok(0)
    }

    fn plan(writer: &Known, _: &[u8], newest: Option<&Known>, columns: &SchemaRef) -> std::result::Result<Self, String> {
        AvroPlan::new(writer, newest, columns)
    }

    #[inline]
    fn read(&self, rows: &mut Rows, bytes: &[u8], from: usize, to: usize) -> Planned<()> {
        self.read(rows, bytes, from, to)
    }
}

impl Format for ProtobufPlan {
    const TYPE: SchemaType = SchemaType::Protobuf;

    #[inline]
    fn path_bytes(bytes: &[u8]) -> Planned<usize> {
        path_bytes(bytes)
    }

    fn plan(writer: &Known, path: &[u8], newest: Option<&Known>, columns: &SchemaRef) -> std::result::Result<Self, String> {
        ProtobufPlan::new(writer, path, newest, columns)
    }

    #[inline]
    fn read(&self, rows: &mut Rows, bytes: &[u8], from: usize, to: usize) -> Planned<()> {
        self.read(rows, bytes, from, to)
    }
}

/// A plan for each message of each schema, by the bytes that name it; of those that cannot be read, why.
pub(super) struct Plans<F> {
    rows: Rows,
    of: HashMap<SchemaId, Vec<Message<F>>>,
}

/// The bytes that name a message, and its plan.
type Message<F> = (Box<[u8]>, Planned<Arc<F>>);

impl<F: Format> Plans<F> {
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
        // Records of one message mostly follow each other, and looking its plan up costs as much as reading a few fields.
        let mut last: Option<(SchemaId, Box<[u8]>, Arc<F>)> = None;
        let decoded = each(payloads, schema, rows, id_bytes, |rows, Frame { id, rest, .. }, bytes, from, to| {
            let (path, record) = match rest {
                Some(rest) => (&rest[..F::path_bytes(rest)?], from),
                None => {
                    let record = from + F::path_bytes(&bytes[from..to])?;
                    (&bytes[from..record], record)
                }
            };
            if let Some((_, _, plan)) = last.as_ref().filter(|(of, named, _)| *of == id && **named == *path) {
                return plan.read(rows, bytes, record, to);
            }
            let plans = of.entry(id).or_default();
            let at = plans.iter().position(|(other, _)| **other == *path).unwrap_or_else(|| {
                if plans.len() >= PATHS_MAX {
                    plans.clear();
                }
                plans.push((path.into(), plan(id, path, schema, schemas)));
                plans.len() - 1
            });
            let plan = plans[at].1.as_ref().map_err(Fault::clone)?;
            last = Some((id, path.into(), Arc::clone(plan)));
            plan.read(rows, bytes, record, to)
        })?;
        // What the registry does not have now it may have later.
        let is_known = |(_, plan): &Message<F>| plan.as_ref().map_or_else(|fault| fault.code != "unknown_schema", |_| true);
        of.retain(|_, plans| plans.iter().all(is_known));
        Ok(decoded)
    }
}

fn plan<F: Format>(id: SchemaId, path: &[u8], schema: &SchemaRef, schemas: &Schemas) -> Planned<Arc<F>> {
    let known = schemas.get(id).ok_or_else(|| unknown(id))?;
    if known.schema.schema_type != F::TYPE {
        return Err(of_another_type(&known, F::TYPE));
    }
    F::plan(&known, path, schemas.newest().as_deref(), schema)
        .map(Arc::new)
        .map_err(|why| Fault::schema("incompatible_schema", format!("{} does not fit the table: {why}", known.name())))
}

/// Reads each payload: `read` adds the row of the record that begins at a place, behind its frame, up to another.
fn each(
    payloads: Payloads,
    schema: &SchemaRef,
    rows: &mut Rows,
    id_bytes: usize,
    mut read: impl FnMut(&mut Rows, Frame<'_>, &[u8], usize, usize) -> Planned<()>,
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
