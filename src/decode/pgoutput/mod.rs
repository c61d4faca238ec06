//! The changes of a Postgres table, as its WAL tells them: each is one row.
//!
//! A payload is a [`Change`]; [`Relations`] says what its values are. Columns are found by name. One that a change's relation does
//! not have yet (it was added later) is NULL. Values are texts as Postgres writes them, with times in ISO and UTC, and go into what
//! the table declares where nothing is lost; into VARCHAR goes everything.
//!
//! Beside the table's columns these may be declared:
//!
//! | column | type | is |
//! |---|---|---|
//! | `_op` | VARCHAR | `c` created, `u` updated, `d` deleted, `t` truncated, `r` read from the snapshot |
//! | `_lsn`, `_commit_lsn` | BIGINT | where the change, and its transaction's commit, stand in the WAL |
//! | `_commit_ts` | TIMESTAMP | when that was |
//! | `_xid` | BIGINT | the transaction's number |
//! | `_unchanged` | VARCHAR | the columns, with commas, that Postgres has not sent since they did not change (TOAST); they are NULL |
//! | `_debezium` | VARCHAR | the whole change as Debezium's records, for a topic of the format `debezium-json`: see [`debezium`] |
//!
//! Of a delete the row has the old values: those of the key, or all with `REPLICA IDENTITY FULL`. Of an update with that identity
//! what was not sent is taken from the old row. What is left out (see [`Changes`]) counts as skipped.

pub mod debezium;

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;

use self::debezium::{Envelopes, Origin, Shape};
use super::rows::Rows;
use super::rows::column::Column;
use super::rows::text::{PAYLOADS, RESOLVED};
use super::rows::value::Refusal;
use super::{Decoded, Decoder};
use crate::batch::{DeadLetter, Payloads, Stage};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::pgoutput::{Change, Malformed, Op, Relation, Relations, Tuple, Value};

/// The columns that a table of changes may declare beside those of the table.
pub const META: [&str; 7] = ["_op", "_lsn", "_commit_lsn", "_commit_ts", "_xid", "_unchanged", crate::debezium::COLUMN];

/// Which changes become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// New rows, and those of the snapshot.
    Inserts,
    /// Every change.
    All,
}

/// Decodes the changes of one table.
pub struct PgoutputDecoder {
    schema: SchemaRef,
    rows: Rows,
    changes: Changes,
    relations: Relations,
    /// `schema.table`, for messages.
    table: String,
    /// Of each generation met: for each of its columns, which of ours it is.
    targets: Vec<Option<Arc<[Option<usize>]>>>,
    meta: [Option<usize>; META.len()],
    /// For the column `_debezium`, if it is wanted; and each generation met.
    envelopes: Envelopes,
    shapes: Vec<Option<Arc<Shape>>>,
}

impl PgoutputDecoder {
    /// A decoder for these columns of the table (`schema.table`).
    pub fn new(
        schema: SchemaRef,
        changes: Changes,
        relations: Relations,
        table: &str,
        origin: &Origin,
        clock: Clock,
    ) -> Result<Self> {
        let rows = Rows::new(&schema)?;
        let meta = META.map(|name| rows.column(name.as_bytes()));
        Ok(Self {
            schema,
            rows,
            changes,
            relations,
            table: table.to_string(),
            targets: Vec::new(),
            meta,
            envelopes: Envelopes::new(origin, clock),
            shapes: Vec::new(),
        })
    }

    /// Adds the row of a change. `false`: it is left out.
    fn read(&mut self, bytes: &[u8], at: usize) -> Result<bool, Fault> {
        let change = Change::read(&bytes[at..])?;
        if self.changes == Changes::Inserts && !matches!(change.op, Op::Insert | Op::Read) {
            return Ok(false);
        }
        let targets = self.targets(change.generation)?;
        let rows = change.rows()?;
        let spare = rows.old.filter(|_| rows.old_is_whole && change.op == Op::Update);
        match (rows.new, change.op) {
            (Some(new), _) => self.put_row(new, spare, &targets, change.generation, bytes)?,
            (None, Op::Truncate) => {}
            (None, _) => {
                let old = change.rows()?.old.ok_or(Malformed("has no row"))?;
                self.put_row(old, None, &targets, change.generation, bytes)?;
            }
        }
        self.put_meta(&change);
        if let Some(target) = self.meta[6] {
            self.put_debezium(&change, target)?;
        }
        self.rows.fill().map_err(|(column, refusal)| self.refused(column, refusal, ""))?;
        self.rows.count += 1;
        Ok(true)
    }

    /// Puts the values of `row` into their columns, and of those that were not sent the old ones where they are known.
    fn put_row(
        &mut self,
        row: Tuple<'_>,
        mut spare: Option<Tuple<'_>>,
        targets: &[Option<usize>],
        generation: u32,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let mut unchanged = String::new();
        for (index, value) in row.enumerate() {
            let mut value = value?;
            let old = spare.as_mut().and_then(Iterator::next).transpose()?;
            if value == Value::Unchanged {
                value = old.unwrap_or(Value::Unchanged);
            }
            match (value, targets.get(index).copied().flatten()) {
                (Value::Text(text), Some(target)) => {
                    // A slice of `bytes`, so the difference of their addresses is its position.
                    let offset = text.as_ptr().addr() - bytes.as_ptr().addr();
                    let put = self.rows.columns[target].put_postgres(text, PAYLOADS, offset);
                    put.map_err(|refusal| self.refused(target, refusal, &String::from_utf8_lossy(text)))?;
                }
                (Value::Unchanged, _) if self.meta[5].is_some() => {
                    let relations = self.relations.read();
                    let column = relations.get(generation as usize).and_then(|relation| relation.columns.get(index));
                    if !unchanged.is_empty() {
                        unchanged.push(',');
                    }
                    unchanged.push_str(column.map_or("", |column| &column.name));
                }
                _ => {}
            }
        }
        if let (Some(target), false) = (self.meta[5], unchanged.is_empty()) {
            let from = self.rows.resolved.len();
            self.rows.resolved.extend_from_slice(unchanged.as_bytes());
            let put = self.rows.columns[target].put_postgres(unchanged.as_bytes(), RESOLVED, from);
            put.map_err(|refusal| self.refused(target, refusal, &unchanged))?;
        }
        Ok(())
    }

    fn put_debezium(&mut self, change: &Change<'_>, target: usize) -> Result<(), Fault> {
        let index = change.generation as usize;
        let shape = match self.shapes.get(index) {
            Some(Some(shape)) => Arc::clone(shape),
            _ => {
                let relations = self.relations.read();
                let relation = relations.get(index).ok_or(Malformed("is about a table that was not described"))?;
                let shape = Arc::new(Shape::of(relation));
                self.shapes.resize(self.shapes.len().max(index + 1), None);
                self.shapes[index] = Some(Arc::clone(&shape));
                shape
            }
        };
        let from = self.rows.resolved.len();
        self.envelopes.write(change, &shape, &mut self.rows.resolved)?;
        let put = self.rows.columns[target].put_postgres(&self.rows.resolved[from..], RESOLVED, from);
        put.map_err(|refusal| self.refused(target, refusal, ""))
    }

    fn put_meta(&mut self, change: &Change<'_>) {
        let [op, lsn, commit_lsn, commit_ts, xid, ..] = self.meta;
        let columns = &mut self.rows.columns;
        let mut put = |target: Option<usize>, put: &dyn Fn(&mut Column)| {
            if let Some(column) = target.and_then(|target| columns.get_mut(target)) {
                put(column);
            }
        };
        put(op, &|column| {
            // It is short, so it lies in the view itself.
            let _ = column.put_postgres(change.op.letter().as_bytes(), PAYLOADS, 0);
        });
        put(lsn, &|column| column.put_whole(change.lsn as i64));
        put(commit_lsn, &|column| column.put_whole(change.commit_lsn as i64));
        put(xid, &|column| column.put_whole(change.xid.into()));
        let (seconds, micros) = (change.commit_us.div_euclid(1_000_000), change.commit_us.rem_euclid(1_000_000));
        put(commit_ts, &|column| column.put_instant(seconds, micros as u32 * 1000));
    }

    /// Which of our columns each column of a generation is.
    fn targets(&mut self, generation: u32) -> Result<Arc<[Option<usize>]>, Fault> {
        let index = generation as usize;
        if let Some(Some(targets)) = self.targets.get(index) {
            return Ok(Arc::clone(targets));
        }
        let relations = self.relations.read();
        let relation = relations.get(index).ok_or(Malformed("is about a table that was not described"))?;
        self.check(relation, &relations[..index]).map_err(Fault::Stop)?;
        let target = |name: &str| self.rows.column(name.as_bytes()).filter(|target| !self.meta.contains(&Some(*target)));
        let targets: Arc<[_]> = relation.columns.iter().map(|column| target(&column.name)).collect();
        self.targets.resize(self.targets.len().max(index + 1), None);
        self.targets[index] = Some(Arc::clone(&targets));
        Ok(targets)
    }

    /// Whether a table that was altered still has what SQL uses.
    fn check(&self, relation: &Relation, before: &[Arc<Relation>]) -> Result<()> {
        let wrong = |text: String| Err(Error::new(Kind::Sql, format!("{} was altered: {text}", self.table)));
        for field in self.schema.fields().iter().filter(|field| !META.contains(&field.name().as_str())) {
            let of = |relation: &Relation| relation.columns.iter().find(|column| column.name == *field.name()).cloned();
            match of(relation) {
                Some(column) => {
                    if let Err(is) = column.fits(field.data_type()) {
                        let (name, declared) = (field.name(), field.data_type());
                        return wrong(format!("column '{name}' is {is} now, which does not fit the declared {declared}"));
                    }
                }
                None if before.iter().any(|relation| of(relation).is_some()) => {
                    let name = field.name();
                    return wrong(format!("column '{name}' was dropped, but SQL uses it; take it out of the declared columns"));
                }
                // It was added later than this change.
                None => {}
            }
        }
        Ok(())
    }

    fn refused(&self, column: usize, refusal: Refusal, text: &str) -> Fault {
        let field = self.rows.columns[column].field();
        let (name, data_type) = (field.name(), field.data_type());
        let shown: String = text.chars().take(40).collect();
        let (code, message) = match refusal {
            Refusal::Null => ("null", format!("column '{name}' is declared NOT NULL, but there is no value")),
            Refusal::Type => ("type_mismatch", format!("column '{name}': '{shown}' is no {data_type}; declare it VARCHAR")),
            Refusal::Range => ("out_of_range", format!("column '{name}': '{shown}' does not fit into {data_type}")),
            Refusal::Time(why) => ("time", format!("column '{name}': '{shown}' {why}; declare it VARCHAR")),
        };
        Fault::Dead { code, message }
    }
}

/// Why a change gives no row.
enum Fault {
    /// The change alone is at fault.
    Dead { code: &'static str, message: String },
    /// No change can be read any more.
    Stop(Error),
}

impl From<Malformed> for Fault {
    fn from(Malformed(why): Malformed) -> Self {
        Fault::Stop(Error::new(Kind::Corrupt, format!("a message of Postgres cannot be read: it {why}")))
    }
}

impl Decoder for PgoutputDecoder {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn prepare(&mut self, _: &Payloads) -> Result<()> {
        Ok(())
    }

    fn decode(&mut self, payloads: Payloads) -> Result<Decoded> {
        let Payloads { span, bytes, ends, offsets, appended_ms, lost, .. } = payloads;
        // Positions inside a batch are 32 bits wide in Arrow's strings.
        if i32::try_from(bytes.len()).is_err() {
            return Err(Error::new(Kind::Full, "a batch of changes is larger than 2 GiB"));
        }
        let mut good = Vec::with_capacity(ends.len());
        let (mut dead, mut left_out) = (Vec::new(), Vec::new());
        self.rows.reserve(ends.len());
        self.envelopes.begin();
        let mut from = 0;
        for (&to, &offset) in ends.iter().zip(&offsets) {
            match self.read(&bytes[..to], from) {
                Ok(true) => good.push(offset),
                Ok(false) => left_out.push(offset),
                Err(Fault::Stop(error)) => {
                    self.rows.undo();
                    return Err(error);
                }
                Err(Fault::Dead { code, message }) => {
                    self.rows.undo();
                    dead.push(DeadLetter {
                        partition: span.partition,
                        offset,
                        stage: Stage::Schema,
                        code,
                        message,
                        schema_id: None,
                    });
                }
            }
            from = to;
        }
        let rows = self.rows.finish(&self.schema, bytes)?;
        Ok(Decoded { span, rows, offsets: Int64Array::from(good), dead, tombstones: left_out, appended_ms, lost })
    }
}
