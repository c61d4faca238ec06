//! Parquet and JSON files in a local folder or a bucket: `STORED AS PARQUET` and `STORED AS JSON` (one object a line).
//!
//! ```text
//!  write ──▶ _staging/<lane>/<incarnation>-<epoch>-<part>.staged ──apply──▶ dt=…/hour=…/<lane>-<lineage>-<epoch>-<part>.parquet
//!            one open file a partition; seal fsyncs them                    a rename, which a reader sees whole or not at all
//! ```
//! An epoch's rows go to one file for each partition, or more when many partitions are open at once. The columns of
//! `PARTITIONED BY` are in the folders' names (as Hive writes them) and not in the files, in JSON too. Timestamps are
//! microseconds in UTC in both formats. What is staged ends in `.staged` inside a folder that begins with `_`, so neither
//! `**/*.parquet` nor the discovery of Hive, Spark, DataFusion, DuckDB or pyarrow lists it.
//!
//! | file | does |
//! |---|---|
//! | `options` | what the table's declaration says, checked |
//! | `columns` | which types go into the files, and what BigQuery refuses |
//! | `partition` | rows into folders |
//! | `encode` | batches into one Parquet or JSON file |
//! | `stage` | the open epoch |
//! | `publish` | apply and discard |
//! | `replace` | who else wrote there, and `'on_new_lineage' 'replace'`; `shadow` does it |
//! | `bucket` | the same in `s3://`: what is staged is a multipart upload |
//! | `disk` | fsync, and what an error of the disk means |

mod bucket;
mod columns;
mod disk;
mod encode;
mod options;
mod partition;
mod publish;
mod replace;
mod shadow;
mod stage;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::batch::Output;
use crate::error::{Error, Kind, Result};
use crate::memory::{Account, Use};
use crate::sink::{Applied, Sink, Staged, Writer};

pub use options::{FilesOptions, Format, OnNewLineage};
use shadow::Replacement;
use stage::{Root, Stage};

/// The sink for one folder of files. All encoding and all work of the disk happens on blocking threads, at most one at a
/// time: `write` returns as soon as the write before it is done, so that encoding runs beside the lane's SQL.
///
/// A new sink that is made after an error needs a newer claim (`Writer::incarnation`): a blocking thread of the dropped
/// one may still be at work, and the incarnation keeps their staged files apart.
#[derive(Debug)]
pub struct FilesSink {
    options: Arc<FilesOptions>,
    /// Where everything is staged and published; in a bucket once it was opened.
    root: Root,
    /// While the root is a shadow that is to replace the table's folder.
    replacement: Option<Replacement>,
    /// Whether it is a backfill's: it always writes to a shadow, of which the lane that drives the table knows nothing.
    is_backfill: bool,
    writer: Option<Writer>,
    /// Whether the lane does not begin, so that what it writes can replace nothing.
    goes_on: bool,
    /// The open epoch, while no write is under way.
    stage: Option<Stage>,
    /// The write that is under way: one at most, which bounds what waits to one batch.
    running: Option<JoinHandle<(Stage, Result<()>)>>,
    written_bytes: Arc<AtomicU64>,
    /// The epoch that this process sealed last: its files need not be read again to be trusted.
    sealed: Option<u64>,
    /// What the open epoch holds in memory, shared with the thread that writes.
    account: Arc<Mutex<Account>>,
}

impl FilesSink {
    /// A sink that has touched nothing yet.
    pub fn new(options: FilesOptions) -> FilesSink {
        FilesSink {
            root: Root::Folder(options.folder.clone()),
            replacement: None,
            is_backfill: false,
            options: Arc::new(options),
            writer: None,
            goes_on: false,
            stage: None,
            running: None,
            written_bytes: Arc::default(),
            sealed: None,
            account: Arc::new(Mutex::new(Account::unlimited(Use::Sink))),
        }
    }

    /// The same, with the row groups under way on `account`: they end sooner when memory is short.
    pub fn accounted(mut self, account: Account) -> FilesSink {
        self.account = Arc::new(Mutex::new(account));
        self
    }

    /// The same for a backfill: whatever `on_new_lineage` says it writes to a shadow, until [`FilesSink::take_place`].
    pub fn of_backfill(mut self) -> FilesSink {
        self.is_backfill = true;
        self
    }

    /// Puts the shadow of a backfill in the table's place; does nothing when that was done. To be called after `open`, between two
    /// epochs, when nobody else writes to the table. What was there stays beside it, until [`FilesSink::clear_away`].
    pub async fn take_place(&mut self) -> Result<()> {
        self.replace(Replacement::take_place).await
    }

    /// Deletes what the backfills of a table have replaced.
    pub async fn clear_away(options: FilesOptions, writer: Writer) -> Result<()> {
        blocking(move || replace::clear_away_backfills(&options, &writer)).await
    }

    async fn replace(&mut self, swap: fn(&Replacement) -> Result<()>) -> Result<()> {
        let Some(replacement) = self.replacement.clone() else { return Ok(()) };
        if self.running.is_some() || self.stage.is_some() {
            return Err(Error::new(Kind::Bug, "a table was to be replaced while an epoch was open"));
        }
        blocking(move || swap(&replacement)).await?;
        self.root = Root::Folder(self.options.folder.clone());
        self.replacement = None;
        Ok(())
    }

    /// Where the backfill of `writer` has its shadow.
    pub fn shadow_of(options: &FilesOptions, writer: &Writer) -> Result<PathBuf> {
        replace::shadow_of_backfill(options, writer)
    }

    /// Deletes the shadow of a backfill that was given up.
    pub async fn drop_shadow(options: FilesOptions, writer: Writer) -> Result<()> {
        blocking(move || replace::drop_backfill(&options, &writer)).await
    }

    fn writer(&self) -> Result<Writer> {
        self.writer.clone().ok_or_else(|| Error::new(Kind::Bug, "the file sink was used before it was opened"))
    }

    /// Waits for the write that is under way. Dropping the future loses nothing.
    async fn rest(&mut self) -> Result<()> {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        let ended = running.await;
        self.running = None;
        let (stage, result) = ended.map_err(blocking_failed)?;
        self.stage = Some(stage);
        result
    }

    fn stage_of(&mut self, epoch: u64) -> Result<Stage> {
        match self.stage.take() {
            Some(stage) if stage.epoch() == epoch => Ok(stage),
            Some(stage) => {
                let text = format!("epoch {epoch} was written to the file sink while epoch {} was open", stage.epoch());
                Err(Error::new(Kind::Bug, text))
            }
            None => {
                let (written_bytes, account) = (self.written_bytes.clone(), self.account.clone());
                Ok(Stage::new(self.options.clone(), self.root.clone(), self.writer()?, epoch, written_bytes, account))
            }
        }
    }
}

#[async_trait]
impl Sink for FilesSink {
    fn stages(&self) -> bool {
        true
    }

    fn goes_on(&mut self) {
        self.goes_on = true;
    }

    /// Makes the folders, so that missing rights show at the start, and walks the published names once.
    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>> {
        self.writer = Some(writer.clone());
        if let Some((location, files)) = &self.options.bucket {
            let wrong = |text| Error::new(Kind::Sql, format!("table '{}': {text}", self.options.table));
            let bucket = location.open(files.authority(&self.options.table)?).map_err(wrong)?;
            let found = bucket::look(&bucket, &self.options, writer).await?;
            self.root = Root::Bucket(bucket.clone());
            return match found.foreign {
                Some(file) if self.options.on_new_lineage != OnNewLineage::Append => {
                    Err(bucket::foreign(&bucket, &self.options, &file))
                }
                _ => Ok(found.epoch),
            };
        }
        let (options, writer, goes_on) = (self.options.clone(), writer.clone(), self.goes_on);
        let open = if self.is_backfill { replace::open_backfill } else { replace::open };
        let opened = blocking(move || {
            let opened = open(&options, &writer, goes_on)?;
            publish::prepare(&opened.root, &writer)?;
            Ok(opened)
        });
        let opened = opened.await?;
        (self.root, self.replacement) = (Root::Folder(opened.root), opened.replacement);
        Ok(opened.epoch)
    }

    async fn discard(&mut self, keep: &[Staged]) -> Result<()> {
        let (writer, keep) = (self.writer()?, keep.to_vec());
        match self.root.clone() {
            Root::Folder(root) => blocking(move || publish::discard(&root, &writer, &keep)).await,
            Root::Bucket(bucket) => bucket::discard(&bucket, &writer, &keep).await,
        }
    }

    async fn write(&mut self, epoch: u64, output: Output) -> Result<()> {
        self.rest().await?;
        let Output::Rows { rows, .. } = output else {
            let text = "files can only be appended to, and this query gives a result that replaces the one before; \
                        set the sink table's option 'emit' to 'final'";
            return Err(Error::new(Kind::Sql, format!("table '{}': {text}", self.options.table)));
        };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut stage = self.stage_of(epoch)?;
        self.running = Some(spawn_blocking(move || {
            let result = stage.write(&rows);
            (stage, result)
        }));
        Ok(())
    }

    /// Compressed bytes of the finished row groups plus an estimate of the open ones, as of the last write that is done.
    fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    async fn seal(&mut self, epoch: u64) -> Result<Vec<Staged>> {
        self.rest().await?;
        let stage = self.stage_of(epoch)?;
        let staged = blocking(move || stage.seal()).await?;
        self.written_bytes.store(0, Ordering::Relaxed);
        self.sealed = Some(epoch);
        Ok(staged)
    }

    async fn apply(&mut self, epoch: u64, staged: &[Staged]) -> Result<Applied> {
        let redo = self.sealed != Some(epoch);
        let (lane, staged) = (self.writer()?.lane.clone(), staged.to_vec());
        match self.root.clone() {
            Root::Folder(root) => blocking(move || publish::apply(&root, &lane, &staged, redo)).await,
            Root::Bucket(bucket) => bucket::apply(&bucket, &lane, &staged, redo).await,
        }
    }

    /// A rename leaves nothing behind, and an upload its note.
    async fn committed(&mut self, _epoch: u64, staged: &[Staged]) -> Result<()> {
        match &self.root {
            Root::Folder(_) => Ok(()),
            Root::Bucket(bucket) => bucket::forget(bucket, staged).await,
        }
    }

    /// Puts a shadow in the table's place. A backfill's waits for the lane that writes to the table.
    async fn caught_up(&mut self) -> Result<()> {
        if self.is_backfill { Ok(()) } else { self.replace(Replacement::swap).await }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(blocking_failed)?
}

fn blocking_failed(cause: tokio::task::JoinError) -> Error {
    Error::new(Kind::Bug, "a thread that writes files ended early").because(cause)
}

#[cfg(test)]
mod tests;
