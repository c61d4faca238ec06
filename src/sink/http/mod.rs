//! HTTP: rows as JSON, many in one request, to one address.
//!
//! An epoch's bodies are an outbox file, durable before the intent. `apply` sends each of them until it is answered, always the
//! same bytes under `Idempotency-Key: <lineage>/<lane>/<epoch>/<part>`: a receiver that honours the key, or upserts by `_id`, sees
//! each row once; any other sees it at least once, since an answer can be lost after the work was done.
//!
//! | answer | what happens |
//! |---|---|
//! | 2xx | done |
//! | 408, 425, 429, 5xx but 501, no answer | the same again, with growing waits or as `Retry-After` says |
//! | 409 after an attempt without an answer | the same: the first attempt may be under way |
//! | 401, 403, 407, 404, 405, 410, 415, 501, 3xx | the lane stops, with advice: it is the address, not the row |
//! | other 4xx | the body is halved, down to the row, and the refused row is a dead letter with the answer |
//!
//! Nothing can be asked of an HTTP receiver, so `open` says `None`.

mod copies;
mod gate;
mod options;
mod outbox;
mod send;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use self::copies::Copies;
pub use self::options::HttpOptions;
use self::send::Sender;
use crate::batch::Output;
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::memory::{Account, Use};
use crate::outage::Outage;
use crate::s3::Bucket;
use crate::sink::{Applied, Sink, Staged, Writer, json};

/// The sink of a `STORED AS HTTP` table.
pub struct HttpSink {
    options: HttpOptions,
    folder: PathBuf,
    /// Where the checkpoint is in a bucket.
    copies: Option<Copies>,
    outage: Outage,
    writer: Option<Writer>,
    sender: Option<Arc<Sender>>,
    /// The file of the epoch that is being taken.
    open: Option<(u64, outbox::Writer)>,
    /// The epoch that was sealed by this process: its file need not be checked.
    sealed: Option<u64>,
    /// The bodies under way, and the one that is being taken.
    account: Account,
}

impl HttpSink {
    /// A sink that keeps its outbox in `folder`, one folder below it for each lane. Touches nothing until it is opened.
    pub fn new(options: HttpOptions, folder: impl Into<PathBuf>) -> Self {
        Self {
            options,
            folder: folder.into(),
            copies: None,
            outage: Outage::default(),
            writer: None,
            sender: None,
            open: None,
            sealed: None,
            account: Account::unlimited(Use::Sink),
        }
    }

    /// The same, with a copy of each file in `bucket` until it was sent.
    pub fn copied_to(mut self, bucket: Option<Bucket>) -> Self {
        self.copies = bucket.map(Copies);
        self
    }

    /// The same, telling its troubles as those of `outage`.
    pub fn in_outage(mut self, outage: Outage) -> Self {
        self.outage = outage;
        self
    }

    /// The same, with its bodies on `account`: fewer are under way when memory is short.
    pub fn accounted(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    /// How many requests may be under way at present.
    pub fn concurrency(&self) -> usize {
        self.sender.as_ref().map_or(1, |sender| sender.gate.limit())
    }

    fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or_else(|| self.error(Kind::Bug, "the sink was used before it was opened"))
    }

    /// The name of an epoch's file. It names the claim, so that a process that was fenced cannot write into another's.
    fn name(&self, epoch: u64) -> Result<String> {
        let writer = self.writer()?;
        Ok(format!("{}/{epoch:012}-{}.outbox", writer.lane, writer.incarnation))
    }

    fn error(&self, kind: Kind, message: impl std::fmt::Display) -> Error {
        Error::new(kind, format!("table '{}': {message}", self.options.table))
    }

    /// Sends the bodies of one file, several at a time, at most `concurrency` of them in memory.
    async fn send_file(&mut self, sender: &Sender, staged: &Staged, resumed: bool, applied: &mut Applied) -> Result<()> {
        let (path, file) = (self.folder.join(&staged.staged), staged.clone());
        if let Some(copies) = self.copies.as_ref().filter(|_| resumed) {
            copies.get(staged, &path).await?;
        }
        let open = move || outbox::Reader::open(path, resumed.then_some((file.size_bytes, file.hash.as_str())));
        let mut reader = blocking(open).await?;
        let (mut part, mut at_end, mut rows, mut largest) = (0, false, 0, 0);
        let mut flights = FuturesUnordered::new();
        loop {
            // The gate decides how many are sent; one more is ready for when it grows.
            let most = (sender.gate.limit() + 1).min(self.options.concurrency_max);
            let bytes_max = self.account.fair();
            while !at_end && flights.len() < most && (flights.is_empty() || (flights.len() + 1) * largest <= bytes_max) {
                match reader.next()? {
                    Some(body) => {
                        rows += body.len() as u64;
                        largest = largest.max(body.memory_bytes());
                        flights.push(sender.deliver(format!("{}/{part}", staged.published), body, resumed));
                        part += 1;
                    }
                    None => at_end = true,
                }
            }
            self.account.set(flights.len() * largest);
            match flights.next().await {
                Some(refused) => {
                    applied.refused.extend(refused?);
                    failpoint::hit(&self.writer()?.lane, "http.sent");
                }
                None => break,
            }
        }
        applied.rows += rows;
        Ok(())
    }
}

#[async_trait]
impl Sink for HttpSink {
    fn stages(&self) -> bool {
        true
    }

    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>> {
        self.sender = Some(Arc::new(Sender::new(self.options.clone(), self.outage.clone())?));
        self.writer = Some(writer.clone());
        Ok(None)
    }

    async fn discard(&mut self, kept: &[Staged]) -> Result<()> {
        let keep: Vec<PathBuf> = kept.iter().map(|staged| self.folder.join(&staged.staged)).collect();
        if let Some(copies) = &self.copies {
            copies.discard(&self.writer()?.lane, kept).await?;
        }
        let lane = self.folder.join(&self.writer()?.lane);
        blocking(move || {
            outbox::list(&lane)?.iter().filter(|path| !keep.contains(path)).try_for_each(|path| outbox::delete(path))
        })
        .await
    }

    async fn write(&mut self, epoch: u64, output: Output) -> Result<()> {
        let Output::Rows { rows, ids } = output else {
            return Err(
                self.error(Kind::Sql, "an HTTP sink takes rows that stay as they are; set the option 'emit' to 'final'")
            );
        };
        if rows.num_rows() == 0 {
            return Ok(()); // No file for nothing.
        }
        let mut file = match self.open.take() {
            Some((open, file)) if open == epoch => file,
            _ => outbox::Writer::create(self.folder.join(self.name(epoch)?), self.options.format)?,
        };
        let (rows_max, bytes_max) = (self.options.batch_rows, self.options.batch_bytes);
        json::each_object(&rows, Some(&ids), |row, object| {
            file.push(object, ids.origin(row).unwrap_or(outbox::NOWHERE), rows_max, bytes_max)
        })?;
        self.open = Some((epoch, file));
        Ok(())
    }

    fn written_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |(_, file)| file.size_bytes)
    }

    async fn seal(&mut self, epoch: u64) -> Result<Vec<Staged>> {
        let Some((_, file)) = self.open.take().filter(|(open, file)| *open == epoch && file.rows_total > 0) else {
            return Ok(Vec::new());
        };
        let writer = self.writer()?;
        let (staged, published) = (self.name(epoch)?, format!("{}/{}/{epoch}", writer.lineage, writer.lane));
        let rows = file.rows_total;
        let (size_bytes, hash) = blocking(move || file.finish()).await?;
        if let Some(copies) = &self.copies {
            copies.put(&staged, &self.folder.join(&staged)).await?;
        }
        self.sealed = Some(epoch);
        Ok(vec![Staged { staged, published, size_bytes, hash, rows, upload: None }])
    }

    async fn apply(&mut self, epoch: u64, staged: &[Staged]) -> Result<Applied> {
        let Some(sender) = self.sender.clone() else {
            return Err(self.error(Kind::Bug, "the sink was used before it was opened"));
        };
        // A second apply of what this process sealed is as one after a crash: its requests may have been sent.
        let resumed = self.sealed.take() != Some(epoch);
        let mut applied = Applied::default();
        for file in staged {
            self.send_file(&sender, file, resumed, &mut applied).await?;
        }
        applied.rows -= applied.refused.len() as u64;
        applied.refused.sort_by_key(|letter| (letter.partition, letter.offset));
        applied.retries = sender.take_retries();
        Ok(applied)
    }

    async fn committed(&mut self, _epoch: u64, staged: &[Staged]) -> Result<()> {
        if let Some(copies) = &self.copies {
            copies.delete(staged.iter().map(|staged| staged.staged.as_str())).await?;
        }
        let paths: Vec<PathBuf> = staged.iter().map(|staged| self.folder.join(&staged.staged)).collect();
        blocking(move || paths.iter().try_for_each(|path| outbox::delete(path))).await
    }
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(cause) => Err(Error::new(Kind::Bug, "work on the outbox was broken off").because(cause)),
    }
}
