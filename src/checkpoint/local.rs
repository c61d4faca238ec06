//! A checkpoint in a local folder.
//!
//! A file is written under another name, fsynced, and linked to its own name, which fails if that exists; then the folder is
//! fsynced. So a record is there whole or not at all, and two processes cannot both create it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::CheckpointStore;
use crate::error::{Error, Kind, Result};
use crate::failpoint;

/// A file under another name that is so old was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The folder.
#[derive(Debug)]
pub struct LocalStore {
    folder: PathBuf,
    temporary: AtomicU64,
}

impl LocalStore {
    /// A store in `folder`, which is made when something is first written.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), temporary: AtomicU64::new(0) }
    }
}

#[async_trait]
impl CheckpointStore for LocalStore {
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        let path = self.folder.join(name);
        let count = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{count}.temporary", std::process::id()));
        let lane = name.split('/').next().unwrap_or_default().to_string();
        blocking(move || create(&lane, &path, &temporary, &bytes).map_err(|cause| failed("written", &path, cause))).await
    }

    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        blocking(move || match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(failed("read", &path, cause)),
        })
        .await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.folder.join(folder);
        blocking(move || list(&path).map_err(|cause| failed("read", &path, cause))).await
    }

    async fn remove(&self, names: Vec<String>) -> Result<()> {
        let paths: Vec<PathBuf> = names.iter().map(|name| self.folder.join(name)).collect();
        blocking(move || {
            for path in paths {
                match fs::remove_file(&path) {
                    Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(failed("removed", &path, cause)),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|cause| Err(Error::new(Kind::Bug, "a checkpoint's file work was broken off").because(cause)))
}

fn create(lane: &str, path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.is_dir() {
        create_folders(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(temporary)?;
    let written = file.write_all(bytes).and_then(|()| {
        failpoint::hit(lane, "record.written");
        file.sync_all()
    });
    let linked = written.and_then(|()| match fs::hard_link(temporary, path) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(cause) => Err(cause),
    });
    let removed = fs::remove_file(temporary);
    let linked = linked?;
    removed?;
    failpoint::hit(lane, "record.linked");
    File::open(folder)?.sync_all()?;
    Ok(linked)
}

/// Makes a folder and makes its name durable in each folder above.
fn create_folders(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for above in folder.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).take(3) {
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

/// The names; what a process that died left half-written is cleared away.
fn list(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".temporary") {
            names.push(name);
        } else if entry.metadata().and_then(|file| file.modified())?.elapsed().is_ok_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
    names.sort();
    Ok(names)
}

fn failed(what: &str, path: &Path, cause: io::Error) -> Error {
    let (kind, advice) = match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Kind::Full, "make room on the disk, then start again"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            (Kind::Denied, "let this user write there, or SET falaj.checkpoint to another folder")
        }
        _ => (Kind::Full, "look after the disk, then start again"),
    };
    Error::new(kind, format!("the checkpoint {} could not be {what}; {advice}", path.display())).because(cause)
}
