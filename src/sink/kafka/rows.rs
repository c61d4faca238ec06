//! Outputs into records.

use arrow::array::{Array, RecordBatch, StringArray};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::encode::Encoding;
use crate::batch::{DeadLetter, Output, RowIds, Stage};
use crate::debezium::{self, Record};
use crate::error::Result;
use crate::kafka::Session;
use crate::sink::cells;

/// The header with a row's `_id`.
const ID: &str = "falaj.id";
/// So many records are sent between two looks at what the producer has to say.
const SERVE_EVERY: usize = 1024;

/// How rows become records.
pub(super) struct Shape {
    pub(super) topic: String,
    pub(super) key: Option<usize>,
    /// Whether a row without a key cannot be written: nothing could ever replace it.
    pub(super) upserts: bool,
    /// The column with Debezium's records, where each row is what that says.
    pub(super) debezium: Option<usize>,
    /// What a row becomes otherwise.
    pub(super) encoding: Encoding,
}

impl Shape {
    /// Hands every row of `outputs`, in order, to the producer's queue.
    pub(super) fn send_all(&self, session: &Session, outputs: &[Output]) -> Result<()> {
        for output in outputs {
            match output {
                Output::Rows { rows, ids } => self.send_rows(session, rows, Some(ids))?,
                Output::Board(rows) => self.send_rows(session, rows, None)?,
                // First what left: a key that left one window and is new in another must stay.
                Output::Changes { upserts, deletes } => {
                    self.send_tombstones(session, deletes)?;
                    self.send_rows(session, upserts, None)?;
                }
            }
        }
        Ok(())
    }

    fn send_rows(&self, session: &Session, rows: &RecordBatch, ids: Option<&RowIds>) -> Result<()> {
        if let Some(column) = self.debezium {
            return self.send_debezium(session, &cells::texts(rows.column(column))?, ids);
        }
        let keys = self.keys(rows)?;
        let mut id = String::new();
        self.encoding.each(rows, |row, payload| {
            let key = keys.as_ref().and_then(|keys| cells::text(keys, row));
            if self.upserts && key.is_none() {
                return Ok(());
            }
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic).payload(payload);
            record.key = key.map(str::as_bytes);
            if let Some(ids) = ids {
                id.clear();
                ids.write(row, &mut id);
                record.headers = Some(OwnedHeaders::new_with_capacity(1).insert(Header { key: ID, value: Some(&id) }));
            }
            session.send(record).map_err(|error| session.error(error))?;
            if row % SERVE_EVERY == 0 {
                session.serve();
            }
            Ok(())
        })
    }

    fn send_debezium(&self, session: &Session, texts: &StringArray, ids: Option<&RowIds>) -> Result<()> {
        let mut id = String::new();
        for row in 0..texts.len() {
            for Record { key, value, header } in cells::text(texts, row).into_iter().flat_map(debezium::records) {
                let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic);
                (record.key, record.payload) = (key.map(str::as_bytes), value.map(str::as_bytes));
                let mut headers = OwnedHeaders::new_with_capacity(2);
                if let Some(ids) = ids {
                    id.clear();
                    ids.write(row, &mut id);
                    headers = headers.insert(Header { key: ID, value: Some(&id) });
                }
                if let Some((key, value)) = header {
                    headers = headers.insert(Header { key, value: Some(value) });
                }
                record.headers = Some(headers);
                session.send(record).map_err(|error| session.error(error))?;
            }
            if row % SERVE_EVERY == 0 {
                session.serve();
            }
        }
        Ok(())
    }

    fn send_tombstones(&self, session: &Session, rows: &RecordBatch) -> Result<()> {
        for key in self.keys(rows)?.iter().flatten().flatten() {
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic);
            record.key = Some(key.as_bytes());
            session.send(record).map_err(|error| session.error(error))?;
        }
        Ok(())
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Option<StringArray>> {
        self.key.map(|key| cells::texts(rows.column(key))).transpose()
    }

    /// The rows of `output` that cannot be written: those that come from a record become its letters; how many others there are.
    pub(super) fn refused(&self, output: &Output) -> Result<(Vec<DeadLetter>, u64)> {
        let (rows, ids) = match output {
            _ if !self.upserts => return Ok((Vec::new(), 0)),
            Output::Rows { rows, ids } => (rows, Some(ids)),
            Output::Board(rows) | Output::Changes { upserts: rows, .. } => (rows, None),
        };
        let (mut letters, mut others) = (Vec::new(), 0);
        let Some(keys) = self.keys(rows)?.filter(|keys| keys.null_count() > 0) else { return Ok((letters, others)) };
        for row in (0..rows.num_rows()).filter(|&row| keys.is_null(row)) {
            let Some((partition, offset)) = ids.and_then(|ids| ids.origin(row)) else {
                others += 1;
                continue;
            };
            let message =
                "the key is NULL, so that nothing could replace the row; leave it out, or use 'emit' 'final'".to_string();
            letters.push(DeadLetter { partition, offset, stage: Stage::Sink, code: "null_key", message, schema_id: None });
        }
        Ok((letters, others))
    }
}
