//! The outbox where the checkpoint is in a bucket: a machine that takes over finds there what the one before had promised to send.
//!
//! Every file is still written, and read, on this machine; a copy of it is in the bucket before the intent, until the epoch is committed.

use std::path::Path;

use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, copy};

use crate::error::{Error, Kind, Result};
use crate::s3::{Bucket, is_absent};
use crate::sink::Staged;

/// What a copy under way holds in memory.
const PART_BYTES: usize = 8 << 20;

/// The copies of all lanes. Names are those of the outbox's files.
#[derive(Clone)]
pub(super) struct Copies(pub(super) Bucket);

impl Copies {
    /// Puts a copy of `file` there; it is durable when this returns.
    pub(super) async fn put(&self, name: &str, file: &Path) -> Result<()> {
        let failed = |cause| self.0.failed("write", name, of_s3(cause));
        let mut file = File::open(file).await.map_err(|cause| unread(file, cause))?;
        let mut object = BufWriter::with_capacity(self.0.store.clone(), self.0.key(name), PART_BYTES).with_max_concurrency(1);
        copy(&mut file, &mut object).await.map_err(failed)?;
        object.shutdown().await.map_err(failed)
    }

    /// Gets what is staged to `file`, if it is not there with its size. Whether it is what the intent lists is for its reader to see.
    pub(super) async fn get(&self, staged: &Staged, file: &Path) -> Result<()> {
        if tokio::fs::metadata(file).await.is_ok_and(|there| there.len() == staged.size_bytes) {
            return Ok(());
        }
        let name = &staged.staged;
        let found = match self.0.store.get(&self.0.key(name)).await {
            Ok(found) => found,
            // The reader says what is missing here.
            Err(cause) if is_absent(&cause) => return Ok(()),
            Err(cause) => return Err(self.0.failed("read", name, cause)),
        };
        if let Some(folder) = file.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(|cause| unwritten(folder, cause))?;
        }
        let mut local = File::create(file).await.map_err(|cause| unwritten(file, cause))?;
        let mut bytes = found.into_stream();
        while let Some(part) = bytes.try_next().await.map_err(|cause| self.0.failed("read", name, cause))? {
            local.write_all(&part).await.map_err(|cause| unwritten(file, cause))?;
        }
        local.flush().await.map_err(|cause| unwritten(file, cause))
    }

    /// Deletes copies.
    pub(super) async fn delete(&self, names: impl Iterator<Item = &str>) -> Result<()> {
        for name in names {
            match self.0.store.delete(&self.0.key(name)).await {
                Err(cause) if !is_absent(&cause) => return Err(self.0.failed("delete", name, cause)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes those of a lane that are not in `keep`.
    pub(super) async fn discard(&self, lane: &str, keep: &[Staged]) -> Result<()> {
        let there = self.0.store.list(Some(&self.0.key(lane))).try_collect::<Vec<_>>().await;
        let there = there.map_err(|cause| self.0.failed("list", lane, cause))?;
        let names = there.iter().filter_map(|object| self.0.name(&object.location));
        self.delete(names.filter(|name| keep.iter().all(|kept| kept.staged != *name))).await
    }
}

/// What failed behind a writer that only knows `io::Error`.
fn of_s3(cause: std::io::Error) -> object_store::Error {
    let other = |cause: std::io::Error| object_store::Error::Generic { store: "S3", source: cause.into() };
    cause.downcast().unwrap_or_else(other)
}

fn unread(file: &Path, cause: std::io::Error) -> Error {
    Error::new(Kind::Unreachable, format!("could not read {} of the outbox", file.display())).because(cause)
}

fn unwritten(file: &Path, cause: std::io::Error) -> Error {
    Error::new(Kind::Unreachable, format!("could not write {} of the outbox", file.display())).because(cause)
}
