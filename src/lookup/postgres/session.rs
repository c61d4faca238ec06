//! One connection with its one statement: all rows, or the rows of some keys.

use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::{StreamExt, pin_mut};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::Place;
use super::columns::{Builder, Raw, Wire};
use crate::error::{Error, Kind, Result};
use crate::memory::Account;
use crate::postgres::quoted;

/// How often what is read is accounted for, and what a value costs beside its bytes.
const ACCOUNTED_ROWS: u64 = 16_384;
const VALUE_BYTES: usize = 16;

/// A connection, open as long as this lives.
pub(super) struct Session {
    client: Client,
    load: Statement,
    wires: Vec<Wire>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?})", self.wires)
    }
}

impl Session {
    /// Connects and checks that the table has the declared columns. No statement of it runs longer than `statement`.
    pub(super) async fn open(place: &Place, statement: Duration) -> Result<Self> {
        let client = place.address.connect(|error| place.problem(error)).await?;
        let timeout = format!("SET statement_timeout = {}", statement.as_millis());
        client.batch_execute(&timeout).await.map_err(|error| place.problem(error))?;
        let load = client.prepare(&select(place)).await.map_err(|error| place.problem(error))?;
        let mut wires = Vec::new();
        let mut wrong = Vec::new();
        for (column, field) in load.columns().iter().zip(place.schema.fields()) {
            match Wire::fitting(column.type_(), field.data_type()) {
                Ok(wire) => wires.push(wire),
                Err(advice) => {
                    wrong.push(format!("column {} is {} in {}: {advice}", field.name(), column.type_(), place.table))
                }
            }
        }
        if wrong.is_empty() { Ok(Self { client, load, wires }) } else { Err(place.wrong(wrong.join("; "))) }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// All rows. They come through a bounded channel: beside the result, only some are in memory.
    pub(super) async fn load(&self, place: &Place, account: Account) -> Result<RecordBatch> {
        self.read(place, &self.load, &[], account).await
    }

    /// The rows of `keys`.
    pub(super) async fn fetch(&self, place: &Place, keys: &ArrayRef, account: Account) -> Result<RecordBatch> {
        let key_type = self.load.columns().get(place.key).map(|column| column.type_().clone());
        let name = quoted(place.schema.field(place.key).name());
        let texts = || -> Result<Vec<String>> {
            let keys = cast(keys, &DataType::Utf8View)?;
            Ok(keys.as_string_view().iter().flatten().map(str::to_string).collect())
        };
        let longs = || -> Result<Vec<i64>> {
            let keys = cast(keys, &DataType::Int64)?;
            Ok(keys.as_primitive::<Int64Type>().iter().flatten().collect())
        };
        // A key that does not fit into the column's type is in no row.
        let (keys, compared): (Box<dyn ToSql + Send + Sync>, _) = match key_type {
            Some(Type::INT2) => (Box::new(narrow::<i16>(longs()?)), name),
            Some(Type::INT4) => (Box::new(narrow::<i32>(longs()?)), name),
            Some(Type::INT8) => (Box::new(longs()?), name),
            Some(Type::UUID) => {
                let uuids: Vec<Uuid> = texts()?.iter().filter_map(|text| Uuid::parse_str(text).ok()).collect();
                (Box::new(uuids), name)
            }
            Some(Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME) => (Box::new(texts()?), name),
            _ if keys.data_type() == &DataType::Utf8View => (Box::new(texts()?), format!("{name}::text")),
            other => {
                let other = other.map(|other| other.to_string()).unwrap_or_default();
                return Err(place.wrong(format!("keys of type {other} cannot be fetched one by one: use 'on_miss' 'none'")));
            }
        };
        let sql = format!("{} WHERE {compared} = ANY($1)", select(place));
        let statement = self.client.prepare(&sql).await.map_err(|error| place.problem(error))?;
        self.read(place, &statement, &[keys.as_ref()], account).await
    }

    async fn read(
        &self,
        place: &Place,
        statement: &Statement,
        keys: &[&(dyn ToSql + Sync)],
        mut account: Account,
    ) -> Result<RecordBatch> {
        let problem = |error| place.problem(error);
        let rows = self.client.query_raw(statement, keys.iter().copied()).await.map_err(problem)?;
        pin_mut!(rows);
        let fields = place.schema.fields();
        let mut builders = fields.iter().map(|field| Builder::new(field.data_type())).collect::<Result<Vec<_>>>()?;
        let (mut read, mut bytes) = (0, 0);
        while let Some(row) = rows.next().await {
            let row = row.map_err(problem)?;
            read += 1;
            if read % ACCOUNTED_ROWS == 0 {
                account.try_set(bytes)?;
            }
            if read > place.rows_max {
                let text = format!(
                    "{} has more than {} rows: raise 'rows.max' of lookup '{}', or let LOCATION name a view with fewer",
                    place.table, place.rows_max, place.lookup
                );
                return Err(Error::new(Kind::Full, text));
            }
            for (at, (builder, wire)) in builders.iter_mut().zip(&self.wires).enumerate() {
                let raw: Option<Raw<'_>> = row.try_get(at).map_err(problem)?;
                bytes += VALUE_BYTES + raw.as_ref().map_or(0, |raw| raw.0.len());
                let pushed = builder.push(*wire, raw.map(|raw| raw.0));
                pushed.map_err(|text| place.wrong(format!("column {} of {}: {text}", fields[at].name(), place.table)))?;
            }
        }
        let columns = builders.into_iter().zip(fields).map(|(builder, field)| builder.finish(field.data_type()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(place.schema.clone(), columns)
            .map_err(|error| place.wrong(format!("{} has NULL in a column declared NOT NULL ({error})", place.table)))
    }
}

fn select(place: &Place) -> String {
    let columns: Vec<_> = place.schema.fields().iter().map(|field| quoted(field.name())).collect();
    format!("SELECT {} FROM {}", columns.join(", "), place.from)
}

fn narrow<T: TryFrom<i64>>(longs: Vec<i64>) -> Vec<T> {
    longs.into_iter().filter_map(|long| T::try_from(long).ok()).collect()
}
