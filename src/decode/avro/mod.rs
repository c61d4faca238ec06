//! The format `avro`: a record in Avro's binary encoding, written by any version of a schema.
//!
//! Values go from the payload into columns, with nothing in between; fields that no query uses are passed over. Each version that writes is
//! planned once ([`plan`]: which field is which column); its records are then read step by step ([`read`]). Texts stay where they are in the
//! payloads' memory.
//!
//! | column | takes |
//! |---|---|
//! | integers | `int`, `long`; what the column cannot hold is refused value by value (`out_of_range`) |
//! | REAL; DOUBLE | `float`; `float`, `double`, `int`, `long` |
//! | DECIMAL | `decimal` of no finer scale, `int`, `long` (`out_of_range`) |
//! | BOOLEAN | `boolean` |
//! | DATE | `date` |
//! | TIMESTAMP | `timestamp-millis`, `-micros`, `-nanos`, and the local ones as they are; never a plain `long` |
//! | VARCHAR | `string`, `enum`, `bytes` that are UTF-8 |
//! | any | `null`, and unions of what it takes; a value of another branch is refused (`type_mismatch`) |
//!
//! Records, arrays and maps are no columns; they are passed over. Why not `arrow-avro`: it gives up a whole batch for some faults of one record
//! (UTF-8, symbols of an enum), and does not convert between logical types; here a fault costs its own record and no other.

mod fast;
mod plan;
mod read;
mod schema;
#[cfg(test)]
mod tests;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};

use self::plan::{Plan, Step};
use self::read::{Input, Wrong};
use self::schema::{Logical, Schema, Type, Wire};
use super::framed::Fault;
use super::rows::Rows;
use super::rows::value::Refusal;
use crate::registry::schemas::Known;

/// How the records of one writer's schema are read.
#[derive(Debug)]
pub(in crate::decode) struct AvroPlan(Plan);

impl AvroPlan {
    /// Plans the records of `writer` for `columns`; the error is a sentence.
    pub(in crate::decode) fn new(writer: &Known, newest: Option<&Known>, columns: &SchemaRef) -> Result<Self, String> {
        let schema = Schema::parse(&writer.schema.text, &writer.references)?;
        // One that cannot be read has nothing to say of defaults and aliases.
        let newest = newest.and_then(|newest| Schema::parse(&newest.schema.text, &newest.references).ok());
        Plan::new(schema, newest.as_ref(), columns).map(Self)
    }

    /// Adds the row of the record `bytes[from..to]`, or a part of it and says what is wrong.
    #[inline]
    pub(in crate::decode) fn read(&self, rows: &mut Rows, bytes: &[u8], from: usize, to: usize) -> Result<(), Fault> {
        let plan = &self.0;
        let (mut at, mut steps) = (from, 2 * (to - from) + 1024);
        for (index, way) in plan.ways.iter().enumerate() {
            at = match way.read(&mut rows.columns, bytes, at, to) {
                Some(next) => next,
                None => self
                    .read_slowly(index, rows, &bytes[..to], at, &mut steps)
                    .map_err(|(wrong, at)| self.fault(index, wrong, at - from))?,
            };
        }
        if at < to {
            return Err(Fault::decode("trailing", format!("{} bytes come after the record's last field", to - at)));
        }
        for (column, value) in &plan.missing {
            let column = &mut rows.columns[*column];
            if value.put(column, &mut rows.resolved).is_err() {
                let why = format!("the writer's schema has no field '{}', which may not be NULL", column.field().name());
                return Err(Fault::schema("null", why));
            }
        }
        Ok(())
    }

    /// Does the same as [`Way::read`](fast::Way::read) with any field, and gives where the next one begins; or what is wrong, and where.
    /// `steps` are those that the record may still take.
    fn read_slowly(
        &self,
        step: usize,
        rows: &mut Rows,
        bytes: &[u8],
        at: usize,
        steps: &mut usize,
    ) -> Result<usize, (Wrong, usize)> {
        let mut input = Input::new(bytes, at, *steps);
        let done = match &self.0.steps[step] {
            Step::Skip(id) => input.skip_field(&self.0.schema, *id),
            Step::Put(column, cell) => input.put(cell, &mut rows.columns[*column], &mut rows.resolved),
        };
        *steps = input.steps;
        done.map(|()| input.at).map_err(|wrong| (wrong, input.at))
    }

    #[cold]
    fn fault(&self, step: usize, wrong: Wrong, at: usize) -> Fault {
        let name = self.0.schema.fields().ok().and_then(|fields| fields.get(step)).map_or("", |field| &field.name);
        let (code, what) = match wrong {
            Wrong::Truncated => ("truncated", "the payload ends within it".to_string()),
            Wrong::Number => ("number", format!("the number at byte {at} is too large")),
            Wrong::Length => ("length", format!("its length, before byte {at}, is negative")),
            Wrong::Flag => ("flag", format!("a boolean before byte {at} is neither 0 nor 1")),
            Wrong::Utf8 => ("utf8", "the text is not UTF-8".to_string()),
            Wrong::Symbol(index) => ("symbol", format!("its enum has no symbol {index}")),
            Wrong::Branch(index) => ("branch", format!("its union has no branch {index}")),
            Wrong::Depth => ("depth", "its values are nested too deeply".to_string()),
            Wrong::Blocks => ("blocks", "it has more items than the payload has bytes".to_string()),
            Wrong::Refused(refusal) => {
                let (code, what) = match refusal {
                    Refusal::Null => ("null", "is NULL, which its column may not be"),
                    Refusal::Range => ("out_of_range", "is a value that its column cannot hold"),
                    Refusal::Type | Refusal::Time(_) => ("type_mismatch", "is of a type that its column cannot hold"),
                };
                return Fault::schema(code, format!("the field '{name}' {what}"));
            }
        };
        Fault::decode(code, format!("the field '{name}' cannot be read: {what}"))
    }
}

/// The columns that a schema's fields are by themselves, and the names of the fields that are none; the error is a sentence.
pub(in crate::decode) fn columns(known: &Known) -> Result<(ArrowSchema, Vec<String>), String> {
    let schema = Schema::parse(&known.schema.text, &known.references)?;
    let (mut columns, mut others) = (Vec::new(), Vec::new());
    for field in schema.fields()? {
        match column_type(&schema, field.is) {
            Some(data_type) => columns.push(Field::new(&field.name, data_type, true)),
            None => others.push(field.name.clone()),
        }
    }
    Ok((ArrowSchema::new(columns), others))
}

/// The SQL type of a field, as DataFusion has it.
fn column_type(schema: &Schema, id: usize) -> Option<DataType> {
    let Type { wire, logical } = schema.get(id);
    Some(match (wire, logical) {
        (Wire::Union(branches), _) => {
            let mut types = branches.iter().filter(|&&branch| schema.get(branch).wire != Wire::Null);
            let only = types.next().filter(|_| types.next().is_none())?;
            return column_type(schema, *only);
        }
        (Wire::Boolean, _) => DataType::Boolean,
        (Wire::Int, Logical::Date) => DataType::Date32,
        (Wire::Int, Logical::None) => DataType::Int32,
        (Wire::Long, Logical::None) => DataType::Int64,
        (Wire::Long, Logical::Millis | Logical::Micros | Logical::Nanos) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        (Wire::Float, _) => DataType::Float32,
        (Wire::Double, _) => DataType::Float64,
        (_, &Logical::Decimal(precision, scale)) => DataType::Decimal128(precision, scale),
        (Wire::String | Wire::Enum(_), _) => DataType::Utf8View,
        _ => return None,
    })
}
