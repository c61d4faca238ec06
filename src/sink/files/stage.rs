//! The open epoch: one file for each partition that it has rows of, under names that no reader lists.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::bucket::{self, TEMPORARY, UPLOAD_BYTES};
use super::columns::{convert, file_type};
use super::disk::{create_folders, disk_error, sync_file, sync_folder};
use super::encode::Encoder;
use super::options::FilesOptions;
use super::partition::split;
use super::publish::{published_name, staging};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::memory::Account;
use crate::s3::Bucket;
use crate::sink::{Staged, Writer};

/// Each open file has a descriptor and buffers of its own; beyond this the one that was used least recently is closed.
const OPEN_FILES_MAX: usize = 64;
/// Row groups under way, over all open files; a row group should have 16 MiB where there is that much. Less when memory is short.
const OPEN_BYTES_MAX: usize = 64 << 20;

/// Where a table's files are staged and published.
#[derive(Debug, Clone)]
pub(super) enum Root {
    /// The table's folder, or the shadow that is to replace it.
    Folder(PathBuf),
    /// A place in a bucket. What is being written is a file without a name, and sent when it is whole.
    Bucket(Bucket),
}

/// One epoch that takes rows.
pub(super) struct Stage {
    options: Arc<FilesOptions>,
    root: Root,
    writer: Writer,
    epoch: u64,
    open: HashMap<String, Part>,
    done: Vec<Staged>,
    done_bytes: u64,
    parts: u64,
    /// Counts the writes, to find the part that was used least recently.
    clock: u64,
    written_bytes: Arc<AtomicU64>,
    account: Arc<Mutex<Account>>,
}

struct Part {
    encoder: Encoder,
    path: PathBuf,
    staged: String,
    published: String,
    rows: u64,
    used: u64,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("epoch", &self.epoch).field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Stage {
    /// An epoch without rows; nothing is created before the first.
    pub(super) fn new(
        options: Arc<FilesOptions>,
        root: Root,
        writer: Writer,
        epoch: u64,
        written_bytes: Arc<AtomicU64>,
        account: Arc<Mutex<Account>>,
    ) -> Stage {
        written_bytes.store(0, Ordering::Relaxed);
        Stage {
            options,
            root,
            writer,
            epoch,
            open: HashMap::new(),
            done: Vec::new(),
            done_bytes: 0,
            parts: 0,
            clock: 0,
            written_bytes,
            account,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Encodes `rows`, which have the table's columns.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let options = self.options.clone();
        let columns = |index: usize| {
            rows.columns().get(index).ok_or_else(|| {
                let text = format!("table '{}' was given {} columns, too few", options.table, rows.num_columns());
                Error::new(Kind::Bug, text)
            })
        };
        let values = options.columns.iter().zip(options.schema.fields());
        let values = values.map(|(&index, field)| convert(columns(index)?, field.data_type())).collect::<Result<Vec<_>>>()?;
        let keys = options
            .keys
            .iter()
            .map(|(name, index)| {
                let values = columns(*index)?;
                Ok((name.as_str(), convert(values, &file_type(values.data_type()))?))
            })
            .collect::<Result<Vec<(&str, ArrayRef)>>>()?;
        for (folder, rows) in split(&RecordBatch::try_new(options.schema.clone(), values)?, &keys)? {
            self.write_part(folder, &rows)?;
        }
        let open: u64 = self.open.values().map(|part| part.encoder.bytes()).sum();
        self.written_bytes.store(self.done_bytes + open, Ordering::Relaxed);
        Ok(())
    }

    fn write_part(&mut self, folder: String, rows: &RecordBatch) -> Result<()> {
        self.clock += 1;
        if !self.open.contains_key(&folder) {
            if self.open.len() >= OPEN_FILES_MAX {
                self.close_oldest()?;
            }
            let part = self.begin(&folder)?;
            self.open.insert(folder.clone(), part);
        }
        if let Some(part) = self.open.get_mut(&folder) {
            part.encoder.write(rows, &part.path)?;
            part.rows += rows.num_rows() as u64;
            part.used = self.clock;
        }
        self.free_memory()
    }

    fn begin(&mut self, folder: &str) -> Result<Part> {
        let staging = staging(&self.writer.lane);
        let staged = format!("{staging}/{}-{}-{}.staged", self.writer.incarnation, self.epoch, self.parts);
        let name = published_name(&self.writer, self.epoch, self.parts, self.options.format.suffix());
        let published = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let (file, path) = match &self.root {
            Root::Folder(root) => create(root, &staging, &staged)?,
            Root::Bucket(_) => {
                let path = PathBuf::from(TEMPORARY);
                (tempfile::tempfile().map_err(|cause| disk_error("create", &path, cause))?, path)
            }
        };
        let encoder = Encoder::new(self.options.format, self.options.schema.clone(), file, &path)?;
        self.parts += 1;
        Ok(Part { encoder, path, staged, published, rows: 0, used: self.clock })
    }

    /// Ends row groups, the largest first, until the open ones are within their bound.
    fn free_memory(&mut self) -> Result<()> {
        let mut account = self.account.lock();
        let bytes_max = account.fair().min(OPEN_BYTES_MAX);
        loop {
            let held = |part: &Part| part.encoder.memory_bytes();
            let bytes = self.open.values().map(held).sum();
            if bytes <= bytes_max {
                account.set(bytes);
                return Ok(());
            }
            let Some(part) = self.open.values_mut().max_by_key(|part| held(part)) else { return Ok(()) };
            let before = held(part);
            part.encoder.flush(&part.path)?;
            if held(part) >= before {
                return account.try_set(bytes);
            }
        }
    }

    fn close_oldest(&mut self) -> Result<()> {
        let oldest = self.open.iter().min_by_key(|(_, part)| part.used).map(|(folder, _)| folder.clone());
        oldest.and_then(|folder| self.open.remove(&folder)).map_or(Ok(()), |part| self.close(part))
    }

    fn close(&mut self, part: Part) -> Result<()> {
        let (file, size_bytes, hash) = part.encoder.finish(&part.path)?;
        failpoint::hit(&self.writer.lane, "files.closed");
        let (staged, published, rows) = (part.staged, part.published, part.rows);
        let mut done = Staged { staged, published, size_bytes, hash, rows, upload: None };
        match &self.root {
            Root::Folder(_) => sync_file(&file, &part.path)?,
            Root::Bucket(bucket) => {
                // Rows that are encoded meanwhile would come on top.
                self.account.lock().set(self.held_bytes() + UPLOAD_BYTES.min(size_bytes as usize));
                Handle::current().block_on(bucket::upload(bucket, &self.writer.lane, file, &mut done))?;
            }
        }
        self.done_bytes += size_bytes;
        self.done.push(done);
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        self.open.values().map(|part| part.encoder.memory_bytes()).sum()
    }

    /// Closes all files and makes them durable: first each file, then the folder that names them.
    pub(super) fn seal(mut self) -> Result<Vec<Staged>> {
        let mut parts: Vec<Part> = self.open.drain().map(|(_, part)| part).collect();
        parts.sort_by(|left, right| left.published.cmp(&right.published));
        for part in parts {
            self.close(part)?;
        }
        if let Root::Folder(root) = &self.root
            && !self.done.is_empty()
        {
            sync_folder(&root.join(staging(&self.writer.lane)))?;
        }
        self.account.lock().set(0);
        Ok(self.done)
    }
}

/// Creates the file `staged` in the folder `staging`, with the path that it has. Never an existing one: a thread of a sink that was dropped
/// may still write to it.
fn create(root: &Path, staging: &str, staged: &str) -> Result<(File, PathBuf)> {
    create_folders(&root.join(staging))?;
    let path = root.join(staged);
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    Ok((file.map_err(|cause| disk_error("create", &path, cause))?, path))
}
