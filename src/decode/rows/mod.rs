//! The rows of a batch in the making, column by column: for every format whose values are texts.

mod arrays;
pub(in crate::decode) mod column;
pub(in crate::decode) mod number;
pub(in crate::decode) mod text;
pub(in crate::decode) mod time;
pub(in crate::decode) mod value;

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use hashbrown::HashMap;

use self::column::Column;
use self::text::{RESOLVED, Texts, view};
use self::value::{Refusal, Typed};
use crate::error::{Error, Kind, Result};

/// Columns that are all `count` values long between two records.
#[derive(Debug)]
pub(in crate::decode) struct Rows {
    pub(in crate::decode) columns: Vec<Column>,
    /// How many rows are complete.
    pub(in crate::decode) count: usize,
    /// Strings whose escapes were resolved; views point into it.
    pub(in crate::decode) resolved: Vec<u8>,
    by_name: HashMap<Box<[u8]>, usize>,
}

impl Rows {
    /// No rows yet; the error names a column that cannot be decoded, or whose name another has.
    pub(in crate::decode) fn new(schema: &Schema) -> Result<Self> {
        let mut by_name = HashMap::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if by_name.insert(Box::from(field.name().as_bytes()), index).is_some() {
                return Err(Error::new(Kind::Sql, format!("there are two columns '{}'; rename one", field.name())));
            }
        }
        let columns = schema.fields().iter().map(Column::new).collect::<Result<_>>()?;
        Ok(Self { columns, count: 0, resolved: Vec::new(), by_name })
    }

    /// The column with this name.
    pub(in crate::decode) fn column(&self, name: &[u8]) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Makes room for `rows` rows.
    pub(in crate::decode) fn reserve(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.reserve(rows));
    }

    /// Makes NULL what the present row has no value for; on refusal, says which column.
    pub(in crate::decode) fn fill(&mut self) -> Result<(), (usize, Refusal)> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            if column.len() == self.count {
                column.put_null().map_err(|refusal| (index, refusal))?;
            }
        }
        Ok(())
    }

    /// Takes back what there is of an incomplete row.
    pub(in crate::decode) fn undo(&mut self) {
        self.columns.iter_mut().for_each(|column| column.truncate(self.count));
    }

    /// Takes all rows out; `payloads` is what their texts point into.
    pub(in crate::decode) fn finish(&mut self, schema: &SchemaRef, payloads: Vec<u8>) -> Result<RecordBatch> {
        let texts = Texts::new(payloads, std::mem::take(&mut self.resolved), self.columns.iter().filter_map(Column::views));
        let arrays = self.columns.iter_mut().map(|column| column.finish(&texts)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.count)));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
    }
}

/// Adds a text that stands in no payload.
pub(in crate::decode) fn put_text(text: &str, column: &mut Column, resolved: &mut Vec<u8>) -> std::result::Result<(), Refusal> {
    let at = resolved.len();
    // A short text is held by its view.
    if text.len() > 12 {
        resolved.extend_from_slice(text.as_bytes());
    }
    column.put_typed(Typed::Text(view(text.as_bytes(), RESOLVED, at)))
}
