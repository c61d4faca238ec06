//! The format `debezium-json`: a payload is the envelope of one change, as Debezium's connectors write it with the JSON converter, with
//! or without its schema (`{"schema": …, "payload": …}`, of which the schema is not looked at).
//!
//! The row is what stands in `after`, of a delete what stands in `before`, decoded as [`super::json`] does; but a TIMESTAMP may be a
//! number of the table's unit since 1970 (`time.precision.mode`), and a DATE a number of days. Beside the columns of the row these may be
//! declared:
//!
//! | column | type | is |
//! |---|---|---|
//! | `_op` | VARCHAR | `c` created, `u` updated, `d` deleted, `t` truncated, `r` read from the snapshot |
//! | `_lsn`, `_xid` | BIGINT | `source.lsn` and `source.txId`, where there are such |
//! | `_commit_ts` | TIMESTAMP | `source.ts_us`, or else `source.ts_ms` |
//! | `_unchanged` | VARCHAR | the columns, with commas, that the connector had not (`__debezium_unavailable_value`); they are NULL |
//!
//! What is left out (see [`Changes`]; messages of `pg_logical_emit_message`; tombstones) counts as skipped. A payload without `op` is a
//! dead letter, `not_an_envelope`; one whose row is missing is one, too, `no_row`.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef, TimeUnit};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::JsonDecoder;
use super::{Decoded, Decoder};
use crate::batch::{DeadLetter, Payloads, Stage};
use crate::debezium::{META, UNAVAILABLE};
use crate::error::{Error, Kind, Result};

pub use super::pgoutput::Changes;

/// Decodes envelopes.
pub struct DebeziumDecoder {
    schema: SchemaRef,
    rows: JsonDecoder,
    changes: Changes,
}

/// What is kept of a change beside its row.
struct Meta {
    offset: i64,
    op: &'static str,
    lsn: Option<i64>,
    xid: Option<i64>,
    commit_us: Option<i64>,
    unchanged: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    #[serde(borrow, default)]
    op: Option<Cow<'a, str>>,
    #[serde(default)]
    source: Option<Source>,
}

/// Of the connectors' many fields those that are asked for; another connector has other types for them.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Source {
    #[serde(default)]
    lsn: serde_json::Value,
    #[serde(default)]
    tx_id: serde_json::Value,
    #[serde(default, rename = "ts_us")]
    ts_us: serde_json::Value,
    #[serde(default, rename = "ts_ms")]
    ts_ms: serde_json::Value,
}

/// What a payload is.
enum Found<'a> {
    Row(Meta, Cow<'a, str>),
    LeftOut,
}

/// Why it is none: a code and a sentence.
type Fault = (&'static str, String);

impl DebeziumDecoder {
    /// A decoder for these columns; numbers that stand for times count `unit`s.
    pub fn new(schema: SchemaRef, changes: Changes, unit: TimeUnit) -> Result<Self> {
        let of_row = |field: &&Arc<Field>| META.iter().all(|(name, _)| name != field.name());
        let fields: Vec<_> = schema.fields().iter().filter(of_row).cloned().collect();
        let rows = JsonDecoder::new(Arc::new(Schema::new(fields)))?.with_numbers_as_times(unit);
        Ok(Self { schema, rows, changes })
    }

    fn read<'a>(&self, payload: &'a [u8], offset: i64) -> Result<Found<'a>, Fault> {
        let text = str::from_utf8(payload).map_err(|why| ("utf8", format!("the payload is not UTF-8: {why}")))?;
        let mut envelope = parse(text)?;
        if let (Some(inner), None) = (envelope.payload, &envelope.op) {
            envelope = parse(inner.get())?;
        }
        let all = self.changes == Changes::All;
        let (op, row) = match envelope.op.as_deref() {
            Some("c") => ("c", envelope.after),
            Some("r") => ("r", envelope.after),
            Some("u" | "d" | "t") if !all => return Ok(Found::LeftOut),
            Some("u") => ("u", envelope.after),
            Some("d") => ("d", envelope.before),
            Some("t") => ("t", None),
            Some("m") => return Ok(Found::LeftOut),
            Some(other) => {
                return Err(("not_an_envelope", format!("the envelope's op is '{other}'; it must be one of c, u, d, r, t, m")));
            }
            None => {
                let why = "the payload has no 'op': it is no envelope of Debezium's; a row alone is of the format json";
                return Err(("not_an_envelope", why.to_string()));
            }
        };
        let source = envelope.source.unwrap_or_default();
        let commit_us = source.ts_us.as_i64().or_else(|| source.ts_ms.as_i64()?.checked_mul(1000));
        let (lsn, xid) = (source.lsn.as_i64(), source.tx_id.as_i64());
        let mut meta = Meta { offset, op, lsn, xid, commit_us, unchanged: None };
        let row = match row.map(RawValue::get) {
            Some(row) if row != "null" => row,
            _ if op == "t" => "{}",
            _ => {
                let part = if op == "d" { "before" } else { "after" };
                return Err(("no_row", format!("the envelope's op is '{op}', but it has no '{part}'")));
            }
        };
        if !row.contains(UNAVAILABLE) {
            return Ok(Found::Row(meta, Cow::Borrowed(row)));
        }
        let (row, unchanged) = without_unavailable(row)?;
        meta.unchanged = unchanged;
        Ok(Found::Row(meta, Cow::Owned(row)))
    }

    /// The column `name` of rows whose meta is at hand.
    fn column(&self, field: &Field, rows: &RecordBatch, meta: &[Meta]) -> Result<ArrayRef> {
        let made: ArrayRef = match field.name().as_str() {
            "_op" => Arc::new(meta.iter().map(|meta| Some(meta.op)).collect::<StringArray>()),
            "_lsn" => Arc::new(meta.iter().map(|meta| meta.lsn).collect::<Int64Array>()),
            "_xid" => Arc::new(meta.iter().map(|meta| meta.xid).collect::<Int64Array>()),
            "_commit_ts" => Arc::new(meta.iter().map(|meta| meta.commit_us).collect::<TimestampMicrosecondArray>()),
            "_unchanged" => Arc::new(meta.iter().map(|meta| meta.unchanged.as_deref()).collect::<StringArray>()),
            name => {
                let missing = || Error::new(Kind::Bug, format!("column '{name}' was not decoded"));
                return rows.column_by_name(name).cloned().ok_or_else(missing);
            }
        };
        Ok(cast(&made, field.data_type())?)
    }
}

fn parse(text: &str) -> Result<Envelope<'_>, Fault> {
    match text.trim_ascii_start().chars().next() {
        Some('{') => {}
        None => return Err(("empty", "the payload is empty; it must be one envelope".to_string())),
        // An array would be taken for the fields in their order.
        Some(_) => return Err(("not_an_object", "the payload is not a JSON object; it must be one envelope".to_string())),
    }
    serde_json::from_str(text).map_err(|why| ("syntax", format!("the payload is no envelope of Debezium's: {why}")))
}

/// The row without the columns that the connector had not, and their names.
fn without_unavailable(row: &str) -> Result<(String, Option<String>), Fault> {
    let unread = |why: serde_json::Error| ("syntax", format!("the row of the envelope cannot be read: {why}"));
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(row).map_err(unread)?;
    let is_unavailable = |value: &serde_json::Value| {
        value == UNAVAILABLE || value.as_array().is_some_and(|values| values.len() == 1 && values[0] == UNAVAILABLE)
    };
    let names: Vec<String> = fields.iter().filter(|(_, value)| is_unavailable(value)).map(|(name, _)| name.clone()).collect();
    fields.retain(|name, _| !names.contains(name));
    let row = serde_json::to_string(&fields).map_err(unread)?;
    Ok((row, (!names.is_empty()).then(|| names.join(","))))
}

impl Decoder for DebeziumDecoder {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn prepare(&mut self, _: &Payloads) -> Result<()> {
        Ok(())
    }

    fn decode(&mut self, payloads: Payloads) -> Result<Decoded> {
        let Payloads { span, bytes, ends, offsets, tombstones, appended_ms, lost, .. } = payloads;
        let mut rows = Payloads { span, appended_ms, lost, ..Payloads::default() };
        let (mut metas, mut dead) = (Vec::with_capacity(ends.len()), Vec::new());
        let mut left_out: Vec<i64> = Vec::new();
        let mut skipped = tombstones.iter().copied().peekable();
        let mut from = 0;
        for (index, (&to, &offset)) in ends.iter().zip(&offsets).enumerate() {
            let payload = &bytes[std::mem::replace(&mut from, to)..to];
            if skipped.next_if_eq(&index).is_some() {
                left_out.push(offset);
                continue;
            }
            match self.read(payload, offset) {
                Ok(Found::Row(meta, row)) => {
                    rows.push(offset, Some(row.as_bytes()));
                    metas.push(meta);
                }
                Ok(Found::LeftOut) => left_out.push(offset),
                Err((code, message)) => {
                    dead.push(DeadLetter {
                        partition: span.partition,
                        offset,
                        stage: Stage::Decode,
                        code,
                        message,
                        schema_id: None,
                    });
                }
            }
        }
        rows.span = span;
        let mut decoded = self.rows.decode(rows)?;
        // Those whose row could not be decoded fall out; both lists rise.
        let mut good = decoded.offsets.values().iter().copied().peekable();
        metas.retain(|meta| good.next_if_eq(&meta.offset).is_some());
        let columns: Vec<ArrayRef> =
            self.schema.fields().iter().map(|field| self.column(field, &decoded.rows, &metas)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(decoded.offsets.len()));
        decoded.rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        decoded.dead.extend(dead);
        decoded.dead.sort_by_key(|letter| letter.offset);
        decoded.tombstones = left_out;
        Ok(decoded)
    }
}

#[cfg(test)]
#[path = "debezium_tests.rs"]
mod tests;
