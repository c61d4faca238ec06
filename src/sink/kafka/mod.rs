//! Kafka: an epoch's rows as JSON, Avro or Protobuf on a topic, in one transaction that carries the epoch's number (see [`crate::kafka`]): each row
//! is there once for whoever reads committed records only.
//!
//! An epoch stays in memory as the lane made it, columns shared, until it is applied; the records are encoded on their way into the
//! producer's queue, which holds 20 000 of them or 64 MiB and makes the encoding wait. So an epoch of any size costs its columns and
//! that queue. A redone epoch is sent in a new transaction, if the group's offset does not say that it is held. A transaction is
//! open for 30 s at most: an epoch that takes longer is tried again, and smaller epochs (`falaj.epoch_bytes_max`) help.
//!
//! A new lineage knows nothing of an older one, and appends.
//!
//! A table with a schema registry registers its schema when it is opened; one that the registry refuses stops the lane.

mod encode;
mod options;
mod protobuf;
mod rows;
mod schema;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use async_trait::async_trait;

use self::encode::Encoding;
pub use self::options::{KafkaSinkOptions, written_otherwise};
use self::rows::Shape;
use crate::batch::{DeadLetter, Output};
use crate::error::{Error, Kind, Result};
use crate::kafka::{MadeTopic, Place, Session, Transactions, Words, blocking};
use crate::memory::{Account, Use};
use crate::registry::{Registry, SchemaType};
use crate::sink::{Applied, Sink, Staged, Writer};

const WORDS: Words = Words {
    many: "rows",
    one: "a row",
    too_large: "raise that topic's max.message.bytes (and the broker's message.max.bytes, if it is what binds), or select less",
    sent: "kafka.sent",
    committed: "kafka.committed",
};

/// The sink of a `STORED AS KAFKA` table. Connects when it is opened.
pub struct KafkaSink {
    options: KafkaSinkOptions,
    registry: Option<Arc<dyn Registry>>,
    shape: Arc<Shape>,
    transactions: Transactions,
    open: Taken,
    /// What the open epoch holds.
    account: Account,
}

/// What an epoch has taken.
#[derive(Default)]
struct Taken {
    epoch: u64,
    outputs: Vec<Output>,
    /// Known before it is sent, since an epoch that is held already must report them, too.
    refused: Vec<DeadLetter>,
    left_out: u64,
    bytes: usize,
}

impl Taken {
    fn rows(&self) -> u64 {
        self.outputs.iter().map(Output::num_rows).sum::<usize>().saturating_sub(self.refused.len() + self.left_out as usize)
            as u64
    }
}

impl KafkaSink {
    /// A sink over these options. Connects to nothing.
    pub fn new(options: KafkaSinkOptions) -> Self {
        Self {
            shape: Arc::new(shape(&options, Encoding::Json)),
            options,
            registry: None,
            transactions: Transactions::default(),
            open: Taken::default(),
            account: Account::unlimited(Use::Sink),
        }
    }

    /// The same, with what it holds on `account`.
    pub fn accounted(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    /// The same, with the registry that [`KafkaSinkOptions::registry`] names.
    pub fn with_registry(mut self, registry: Arc<dyn Registry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Registers the schema of the rows, and encodes by it from here on.
    async fn register(&mut self) -> Result<()> {
        let (Some((rows, place)), Some(registry)) = (&self.options.registered, &self.registry) else { return Ok(()) };
        let rows = match rows.schema.schema_type {
            SchemaType::Protobuf => registry.latest(&place.subject).await?.map(|newest| rows.following(&newest)),
            _ => None,
        }
        .unwrap_or_else(|| rows.clone());
        let id = match registry.register(&place.subject, &rows.schema).await {
            Err(refused) if refused.kind() == Kind::Refused => {
                let Some(newest) = registry.latest(&place.subject).await? else {
                    return Err(Error::new(Kind::Sql, refused.to_string()));
                };
                // Its answer to the question alone says more.
                let why = registry.incompatible(&place.subject, &rows.schema).await?.unwrap_or_else(|| refused.to_string());
                let text = format!(
                    "the schema of its columns may not follow version {} of subject '{}' in the registry: {why}; change the columns, or \
                     what the registry allows",
                    newest.version, place.subject
                );
                return Err(Error::new(Kind::Sql, text));
            }
            answer => answer?,
        };
        self.shape = Arc::new(shape(&self.options, Encoding::registered(&rows, id)?));
        Ok(())
    }

    fn place(&self, writer: &Writer) -> Place {
        let KafkaSinkOptions { topic, brokers, upserts, partitions, replication, kafka, .. } = &self.options;
        Place {
            brokers: brokers.clone(),
            properties: kafka.clone(),
            topic: topic.clone(),
            made: MadeTopic {
                partitions: *partitions,
                replication: *replication,
                // The last row of each key must stay, however old it is.
                settings: if *upserts { vec![("cleanup.policy", "compact")] } else { vec![] },
                larger_than: None,
            },
            id: format!("falaj/{}/{}", writer.lineage, writer.lane),
            lane: writer.lane.clone(),
            incarnation: writer.incarnation,
            words: &WORDS,
        }
    }

    /// What `epoch` has for the topic; `None`: nothing.
    fn outputs(&self, epoch: u64) -> Option<Arc<[Output]>> {
        // Columns are shared, so that this copies some pointers.
        (epoch == self.open.epoch && self.open.rows() > 0).then(|| self.open.outputs.as_slice().into())
    }

    fn told(&self, error: Error) -> Error {
        error.at(format!("table '{}'", self.options.table))
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn stages(&self) -> bool {
        false
    }

    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>> {
        self.register().await.map_err(|error| self.told(error))?;
        let place = self.place(writer);
        self.transactions.open(place).await.map_err(|error| self.told(error))
    }

    async fn discard(&mut self, _keep: &[Staged]) -> Result<()> {
        Ok(()) // What was not committed was ended by `open`.
    }

    async fn write(&mut self, epoch: u64, output: Output) -> Result<()> {
        if matches!(output, Output::Board(_)) {
            return Err(self.told(Error::new(Kind::Sql, "a topic takes 'emit' 'final' or 'update', not a whole board")));
        }
        if epoch != self.open.epoch {
            self.open = Taken { epoch, ..Taken::default() };
        }
        let (refused, others) = self.shape.refused(&output)?;
        self.open.left_out += others;
        self.open.refused.extend(refused);
        self.open.bytes += bytes(&output);
        self.open.outputs.push(output);
        self.account.try_set(self.open.bytes)
    }

    fn written_bytes(&self) -> u64 {
        self.open.bytes as u64
    }

    /// Sends the records already, in a transaction that `apply` commits.
    async fn seal(&mut self, epoch: u64) -> Result<Vec<Staged>> {
        if let Some(outputs) = self.outputs(epoch) {
            let shape = Arc::clone(&self.shape);
            let attempt =
                |session| transaction(session, move |session| session.send_ahead(epoch, |to| shape.send_all(to, &outputs)));
            self.transactions.send_ahead(epoch, attempt).await.map_err(|error| self.told(error))?;
        }
        Ok(Vec::new())
    }

    async fn apply(&mut self, epoch: u64, _staged: &[Staged]) -> Result<Applied> {
        if epoch != self.open.epoch {
            return Ok(Applied::default()); // Nothing was written in this epoch.
        }
        let mut applied = Applied { refused: self.open.refused.clone(), left_out: self.open.left_out, ..Applied::default() };
        if let Some(outputs) = self.outputs(epoch) {
            let attempt = |session| {
                let (shape, outputs) = (Arc::clone(&self.shape), Arc::clone(&outputs));
                transaction(session, move |session| session.write(epoch, |to| shape.send_all(to, &outputs)))
            };
            let written = self.transactions.write(epoch, attempt).await;
            let written = written.map_err(|error| error.at(format!("table '{}'", self.options.table)))?;
            applied.rows = if written.held_before { 0 } else { self.open.rows() };
            applied.retries = written.retries;
        }
        self.open = Taken::default();
        self.account.try_set(0)?;
        Ok(applied)
    }

    async fn committed(&mut self, _epoch: u64, _staged: &[Staged]) -> Result<()> {
        Ok(())
    }
}

fn shape(options: &KafkaSinkOptions, encoding: Encoding) -> Shape {
    let KafkaSinkOptions { topic, key, upserts, debezium, .. } = options;
    Shape { topic: topic.clone(), key: *key, upserts: *upserts, debezium: *debezium, encoding }
}

/// Does `work` on a thread that may block, and gives the session back.
async fn transaction<F>(mut session: Box<Session>, work: F) -> Result<Box<Session>>
where
    F: FnOnce(&mut Session) -> Result<()> + Send + 'static,
{
    blocking(move || work(&mut session).map(|()| session)).await
}

/// What the columns of an output hold. Long texts are counted by their length: they lie in buffers that are shared.
fn bytes(output: &Output) -> usize {
    let of_batch = |rows: &RecordBatch| rows.columns().iter().map(of_column).sum::<usize>();
    match output {
        Output::Rows { rows, .. } | Output::Board(rows) => of_batch(rows),
        Output::Changes { upserts, deletes } => of_batch(upserts) + of_batch(deletes),
    }
}

fn of_column(column: &ArrayRef) -> usize {
    let texts = column.as_string_view_opt().map_or(0, |texts| texts.total_buffer_bytes_used());
    // It fails only for what has no slices; such a column is small.
    texts + column.to_data().get_slice_memory_size().unwrap_or(0)
}
