//! `--repair`: a scalar expression that makes the payload of a replayed record, planned once.
//!
//! | column | type | is |
//! |---|---|---|
//! | `payload` | VARCHAR | the payload; NULL where it is not UTF-8 |
//! | `payload_bytes` | BINARY | the payload |
//! | `key` | VARCHAR | the record's key; NULL where it has none, or none in UTF-8 |
//! | `topic`, `partition`, `offset` | VARCHAR, INT, BIGINT | where the record stands |
//! | `code`, `message` | VARCHAR | why it is a dead letter |
//!
//! It gives VARCHAR or BINARY: the new payload. NULL leaves the letter as it is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;

use super::project::Project;
use super::tables::TableFactory;
use super::time::EpochTime;
use super::wording::{Known, told, type_name};
use crate::error::{Error, Kind, Result};
use crate::memory::Share;

/// What the expression may look at.
#[derive(Debug, Clone, Copy)]
pub struct Broken<'a> {
    /// The payload.
    pub payload: Option<&'a [u8]>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The short word for the reason.
    pub code: &'a str,
    /// The reason.
    pub message: &'a str,
}

/// What the expression made of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repaired {
    /// The new payload.
    Payload(Vec<u8>),
    /// NULL.
    LeftAlone,
    /// It cannot be evaluated for this record, and why.
    Failed(String),
}

/// A planned expression.
#[derive(Debug)]
pub struct Repair {
    schema: SchemaRef,
    expression: Arc<dyn PhysicalExpr>,
}

impl Repair {
    /// Plans `sql` with the functions that the lanes of `project` have. `now_ns` is what `now()` answers. `Err(Sql)` says what is wrong
    /// with it, in one sentence.
    pub async fn plan(project: &Project, sql: &str, now_ns: i64) -> Result<Self> {
        let time = EpochTime::default();
        time.set(now_ns);
        let session = project.session(&time, &TableFactory::default(), &Share::unlimited()).await?;
        let wrong = |sentence: String| Error::new(Kind::Sql, format!("--repair: {}", sentence.replace(" of the file", "")));
        let refused = |error: &DataFusionError| wrong(told(error, &Known::of(&session)).sentence);
        let schema = schema();
        let columns = DFSchema::try_from(Arc::clone(&schema)).map_err(|error| refused(&error))?;
        let parsed = session.parse_sql_expr(sql, &columns).map_err(|error| refused(&error))?;
        // Some functions exist in the simplified form only.
        let context = SimplifyContext::builder().with_schema(Arc::new(columns.clone()));
        let context = context.with_config_options(Arc::clone(session.state().config_options()));
        let simplifier = ExprSimplifier::new(context.build());
        let simple = simplifier.coerce(parsed, &columns).and_then(|expression| simplifier.simplify(expression));
        let planned = simple.and_then(|simple| session.create_physical_expr(simple, &columns));
        let expression = planned.map_err(|error| refused(&error))?;
        match expression.data_type(&schema).map_err(|error| refused(&error))? {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {}
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Null => {}
            other => {
                let text = format!("it gives {}; the new payload must be VARCHAR or BINARY", type_name(&other));
                return Err(wrong(text));
            }
        }
        Ok(Self { schema, expression })
    }

    /// What it makes of each of `records`. One for which it fails costs no other.
    pub fn apply(&self, records: &[Broken<'_>]) -> Result<Vec<Repaired>> {
        let mut done = Vec::with_capacity(records.len());
        // Halves of what failed, in order.
        let mut waiting = vec![records];
        while let Some(part) = waiting.pop() {
            match self.evaluate(part) {
                Ok(made) => done.extend(made),
                Err(error) if part.len() <= 1 => done.push(Repaired::Failed(told(&error, &Known::default()).sentence)),
                Err(_) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    waiting.extend([second, first]);
                }
            }
        }
        Ok(done)
    }

    fn evaluate(&self, records: &[Broken<'_>]) -> Result<Vec<Repaired>, DataFusionError> {
        let made = self.expression.evaluate(&batch(&self.schema, records)?)?.into_array(records.len())?;
        let made = cast(&made, &DataType::Binary)?;
        let made = made.as_binary::<i32>();
        let of = |row| if made.is_null(row) { Repaired::LeftAlone } else { Repaired::Payload(made.value(row).to_vec()) };
        Ok((0..records.len()).map(of).collect())
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("payload", DataType::Utf8),
        field("payload_bytes", DataType::Binary),
        field("key", DataType::Utf8),
        field("topic", DataType::Utf8),
        field("partition", DataType::Int32),
        field("offset", DataType::Int64),
        field("code", DataType::Utf8),
        field("message", DataType::Utf8),
    ]))
}

fn batch(schema: &SchemaRef, records: &[Broken<'_>]) -> Result<RecordBatch, DataFusionError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(records.iter().map(|record| utf8(record.payload)).collect::<StringArray>()),
        Arc::new(records.iter().map(|record| record.payload).collect::<BinaryArray>()),
        Arc::new(records.iter().map(|record| utf8(record.key)).collect::<StringArray>()),
        Arc::new(records.iter().map(|record| Some(record.topic)).collect::<StringArray>()),
        Arc::new(records.iter().map(|record| Some(record.partition)).collect::<Int32Array>()),
        Arc::new(records.iter().map(|record| Some(record.offset)).collect::<Int64Array>()),
        Arc::new(records.iter().map(|record| Some(record.code)).collect::<StringArray>()),
        Arc::new(records.iter().map(|record| Some(record.message)).collect::<StringArray>()),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn utf8(bytes: Option<&[u8]>) -> Option<&str> {
    bytes.and_then(|bytes| str::from_utf8(bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::project::SqlFile;

    async fn plan(sql: &str) -> Result<Repair> {
        let file = SqlFile { path: "s.sql".into(), text: "SET falaj.linger_ms = 1;".into() };
        Repair::plan(&Project::read(vec![file]).await.unwrap(), sql, 86_400_000_000_000).await
    }

    fn broken(payload: &[u8]) -> Broken<'_> {
        let (topic, code, message) = ("t", "truncated", "the payload ends");
        Broken { payload: Some(payload), key: Some(b"k"), topic, partition: 1, offset: 7, code, message }
    }

    #[tokio::test]
    async fn an_expression_makes_payloads_or_leaves_them_alone() {
        let text = |text: &str| Repaired::Payload(text.into());
        for (sql, payload, made) in [
            ("payload || '}'", &b"{"[..], text("{}")),
            ("replace(payload, 'seven', '7')", b"seven", text("7")),
            ("CASE WHEN code = 'truncated' THEN payload || '}' END", b"{", text("{}")),
            ("CASE WHEN code = 'other' THEN payload END", b"{", Repaired::LeftAlone),
            ("payload || 'x'", b"\xff", Repaired::LeftAlone),
            ("coalesce(payload, 'not text')", b"\xff", text("not text")),
            ("payload_bytes", b"\xff", Repaired::Payload(vec![0xff])),
            ("key || topic || partition || \"offset\" || message", b"", text("kt17the payload ends")),
            ("offset || ''", b"", text("7")),
            ("NULL", b"x", Repaired::LeftAlone),
            ("date_part('year', now()) || ''", b"", text("1970")),
        ] {
            assert_eq!(plan(sql).await.unwrap().apply(&[broken(payload)]).unwrap(), [made], "{sql}");
        }
    }

    #[tokio::test]
    async fn a_record_for_which_it_fails_costs_no_other() {
        let repair = plan("CAST(CAST(payload AS BIGINT) + 1 AS VARCHAR)").await.unwrap();
        let made = repair.apply(&[b"1", b"x", b"3", b"4", b"y"].map(|payload| broken(&payload[..]))).unwrap();
        let text = |text: &str| Repaired::Payload(text.into());
        assert_eq!((&made[0], &made[2..4]), (&text("2"), &[text("4"), text("5")][..]));
        for failed in [&made[1], &made[4]] {
            assert!(matches!(failed, Repaired::Failed(why) if why.contains("Cannot cast")), "{failed:?}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_in_a_sentence() {
        for (sql, says) in [
            ("offset + 1", "--repair: it gives BIGINT; the new payload must be VARCHAR or BINARY"),
            ("payload + 1", "--repair: VARCHAR and BIGINT do not go together: CAST one of them"),
            ("payloda", "--repair: there is no column 'payloda'; did you mean 'payload'?"),
            ("replac(payload, 'a', 'b')", "--repair: there is no function 'replac'; did you mean 'replace'?"),
            ("length(payload)", "--repair: it gives INT; the new payload must be VARCHAR or BINARY"),
        ] {
            let error = plan(sql).await.unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Sql, says), "{sql}");
        }
        for sql in ["", "payload ||", "SELECT 1", "count(payload)", "(SELECT 1)"] {
            let error = plan(sql).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Sql, "{sql}: {error}");
        }
    }
}
