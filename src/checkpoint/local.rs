//! A checkpoint in a local folder.
//!
//! A file is written under another name, fsynced, and linked to its own name, which fails if that exists; then the folder is
//! fsynced. So a record is there whole or not at all, and two processes cannot both create it.
//!
//! The folders are held open. A process whose checkpoint is moved away, or replaced by another, would write where nobody looks,
//! and nothing would fence it any more: it is refused.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::fork::Names;
use super::{CheckpointStore, Stored};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::private;

/// A file under another name that is so old was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The folder.
#[derive(Debug)]
pub struct LocalStore(Arc<Place>);

#[derive(Debug)]
struct Place {
    folder: PathBuf,
    /// In the name of every file that this store has not finished. Process ids would not do: in containers all are 1.
    id: String,
    unfinished: AtomicU64,
    /// The folders as they were when this store first wrote there.
    held: Mutex<BTreeMap<PathBuf, Arc<File>>>,
}

impl LocalStore {
    /// A store in `folder`, which is made when something is first written.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let id = uuid::Uuid::now_v7().simple().to_string();
        Self(Arc::new(Place { folder: folder.into(), id, unfinished: AtomicU64::new(0), held: Mutex::default() }))
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Place) -> Result<T> + Send + 'static) -> Result<T> {
        let place = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&place)).await;
        done.unwrap_or_else(|cause| Err(Error::new(Kind::Bug, "a checkpoint's file work was broken off").because(cause)))
    }
}

#[async_trait]
impl CheckpointStore for LocalStore {
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        let name = name.to_string();
        self.blocking(move |place| place.create(&name, &bytes)).await
    }

    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.0.folder.join(name);
        self.blocking(move |_| match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(cause) if is_absent(&cause) => Ok(None),
            Err(cause) => Err(failed("read", &path, cause)),
        })
        .await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.0.folder.join(folder);
        self.blocking(move |_| list(&path).map_err(|cause| failed("read", &path, cause))).await
    }

    async fn look(&self, folder: &str) -> Result<Vec<Stored>> {
        let path = self.0.folder.join(folder);
        self.blocking(move |_| look(&path).map_err(|cause| failed("read", &path, cause))).await
    }

    async fn remove(&self, names: Vec<String>) -> Result<()> {
        self.blocking(move |place| names.iter().try_for_each(|name| place.remove(name))).await
    }
}

impl Place {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let path = self.folder.join(name);
        let lane = name.split('/').next().unwrap_or_default();
        let above = self.hold(&self.folder)?;
        let folder = match path.parent() {
            Some(folder) if folder != self.folder => self.hold(folder)?,
            _ => above,
        };
        let count = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let unfinished = path.with_extension(format!("{}-{count}.temporary", self.id));
        create(lane, &path, &unfinished, &folder, bytes).map_err(|cause| failed("written", &path, cause))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        if let Some(folder) = path.parent()
            && let Some(open) = self.held.lock().get(folder)
            && !is_at(open, folder).map_err(|cause| failed("read", folder, cause))?
        {
            return Err(moved(folder));
        }
        match fs::remove_file(&path) {
            Err(cause) if !is_absent(&cause) => Err(failed("removed", &path, cause)),
            _ => Ok(()),
        }
    }

    /// The folder, made if it is not there. `Err(Fenced)` when another one is in its place by now.
    fn hold(&self, folder: &Path) -> Result<Arc<File>> {
        let mut held = self.held.lock();
        if let Some(open) = held.get(folder) {
            let still = is_at(open, folder).map_err(|cause| failed("read", folder, cause))?;
            return if still { Ok(Arc::clone(open)) } else { Err(moved(folder)) };
        }
        if !folder.is_dir() {
            if folder == self.folder {
                no_broken_fork(folder)?;
            }
            create_folders(folder).map_err(|cause| failed("written", folder, cause))?;
        }
        let open = Arc::new(File::open(folder).map_err(|cause| failed("read", folder, cause))?);
        held.insert(folder.to_path_buf(), Arc::clone(&open));
        Ok(open)
    }
}

fn create(lane: &str, path: &Path, unfinished: &Path, folder: &File, bytes: &[u8]) -> io::Result<bool> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(unfinished)?;
    let written = file.write_all(bytes).and_then(|()| {
        failpoint::hit(lane, "record.written");
        file.sync_all()
    });
    let linked = written.and_then(|()| match fs::hard_link(unfinished, path) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(cause) => Err(cause),
    });
    // If that fails, `list` clears it away later.
    let _ = fs::remove_file(unfinished);
    let linked = linked?;
    failpoint::hit(lane, "record.linked");
    folder.sync_all()?;
    Ok(linked)
}

/// Whether the open folder is the one at `path`.
fn is_at(open: &File, path: &Path) -> io::Result<bool> {
    let there = match fs::metadata(path) {
        Ok(there) => there,
        Err(cause) if is_absent(&cause) => return Ok(false),
        Err(cause) => return Err(cause),
    };
    let here = open.metadata()?;
    Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
}

fn is_absent(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Between its two renames a fork leaves no checkpoint, and to begin with nothing would be wrong.
fn no_broken_fork(folder: &Path) -> Result<()> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(beside) = list(above) else { return Ok(()) };
    match Names::between_renames(folder, &beside) {
        None => Ok(()),
        Some(_) => {
            let text = format!(
                "there is no checkpoint {}, but a fork of it that was broken off; 'falaj checkpoint fork' finishes it",
                folder.display()
            );
            Err(Error::new(Kind::Corrupt, text))
        }
    }
}

/// Makes a folder and makes its name durable in each folder above.
fn create_folders(folder: &Path) -> io::Result<()> {
    private::create_folders(folder)?;
    for above in folder.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).take(3) {
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

/// The names; what a process that died left half-written is cleared away.
fn list(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if is_absent(&cause) => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".temporary") {
            names.push(name);
            continue;
        }
        // Whoever writes it may have finished it by now: then it is gone.
        let modified = entry.metadata().and_then(|file| file.modified());
        if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    names.sort();
    Ok(names)
}

fn look(folder: &Path) -> io::Result<Vec<Stored>> {
    let mut found = Vec::new();
    for name in list(folder)? {
        // It may have been removed by now.
        let Ok(file) = fs::metadata(folder.join(&name)) else { continue };
        if file.is_file() {
            found.push(Stored { name, size_bytes: file.len(), created: file.modified().ok() });
        }
    }
    Ok(found)
}

fn moved(folder: &Path) -> Error {
    let text = format!(
        "the checkpoint's folder {} was moved away or replaced while this process ran; it stops, since it would not notice another \
         process any more",
        folder.display()
    );
    Error::new(Kind::Fenced, text)
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
