//! Window state as Arrow IPC: each batch is a part of one pane, with the pane's index as a first column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::error::{Error, Kind, Result};
use crate::window::panes::Panes;

/// The bytes of all panes; empty when there is none.
pub(super) fn encode(panes: &Panes) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some((_, first)) = panes.iter().find(|(_, parts)| !parts.is_empty()) else { return Ok(bytes) };
    let mut fields = vec![Arc::new(Field::new("_pane", DataType::Int64, false))];
    fields.extend(first[0].schema().fields().iter().cloned());
    let schema = Arc::new(Schema::new(fields));
    let mut writer = StreamWriter::try_new(&mut bytes, &schema)?;
    for (pane, parts) in panes.iter() {
        for part in parts {
            let index: ArrayRef = Arc::new(Int64Array::from_value(pane, part.num_rows()));
            let columns = std::iter::once(index).chain(part.columns().iter().cloned()).collect();
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        }
    }
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// The panes of a snapshot.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<(i64, RecordBatch)>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut panes = Vec::new();
    for batch in StreamReader::try_new(bytes, None)? {
        let batch = batch?;
        let index = batch.column(0).as_primitive_opt::<Int64Type>().filter(|index| !index.is_empty());
        let pane = index
            .map(|index| index.value(0))
            .ok_or_else(|| Error::new(Kind::Corrupt, "a snapshot has a part without a pane"))?;
        panes.push((pane, batch.project(&(1..batch.num_columns()).collect::<Vec<_>>())?));
    }
    Ok(panes)
}
