//! The disk: folders and files that survive a power cut, and what its errors mean for a lane.

use std::error::Error as StdError;
use std::ffi::CString;
use std::fs::{self, File};
use std::hash::Hasher;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use twox_hash::xxhash3_64::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

use crate::error::{Error, Kind, Result};

/// An error about `path`: full and denied stop the lane, what may pass is tried again.
/// The `io::Error` is looked for along the causes, since the encoders wrap it.
pub(super) fn disk_error(doing: &str, path: &Path, cause: impl StdError + Send + Sync + 'static) -> Error {
    let (kind, advice) = match find_io(&cause).map(io::Error::kind) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) => {
            (Kind::Full, "; make room there, then start the lane again: nothing is lost")
        }
        Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            (Kind::Denied, "; give this process the right to write there")
        }
        Some(ErrorKind::InvalidFilename) => {
            (Kind::Sql, "; the name is too long for the file system: partition by a column with shorter values")
        }
        Some(ErrorKind::NotADirectory | ErrorKind::IsADirectory) => {
            (Kind::Sql, "; a file stands where a folder must be: move it away, or change LOCATION")
        }
        Some(_) => (Kind::Unreachable, ""),
        None => (Kind::Bug, ""),
    };
    Error::new(kind, format!("could not {doing} {}{advice}", path.display())).because(cause)
}

fn find_io<'e>(cause: &'e (dyn StdError + 'static)) -> Option<&'e io::Error> {
    let mut next = Some(cause);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// Makes the entries of a folder durable: without it a new or renamed file may be gone after a power cut.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let folder = File::open(path).map_err(|cause| disk_error("open the folder", path, cause))?;
    sync_file(&folder, path)
}

/// Makes a file's bytes durable.
pub(super) fn sync_file(file: &File, path: &Path) -> Result<()> {
    #[cfg(test)]
    tests::SYNCED.with_borrow_mut(|synced| synced.push(path.to_path_buf()));
    file.sync_all().map_err(|cause| disk_error("fsync", path, cause))
}

/// Creates `path` with all missing folders above it, and makes each new one durable in the folder that holds it.
pub(super) fn create_folders(path: &Path) -> Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.is_dir() {
        missing.push(at.to_path_buf());
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    for folder in missing.iter().rev() {
        match fs::create_dir(folder) {
            Ok(()) => {}
            // Another lane may have made it meanwhile; a file of that name is a failure.
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {
                return Err(disk_error("create the folder", folder, io::Error::from(ErrorKind::NotADirectory)));
            }
            Err(cause) => return Err(disk_error("create the folder", folder, cause)),
        }
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

/// Exchanges two folders of one file system in one step, which a reader sees done or not at all.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
    let (one, other) = (name(one)?, name(other)?);
    // SAFETY: both are C strings that outlive the call, and the kernel only reads them.
    #[cfg(target_os = "linux")]
    let done = unsafe {
        let at = libc::AT_FDCWD;
        libc::syscall(libc::SYS_renameat2, at, one.as_ptr(), at, other.as_ptr(), libc::RENAME_EXCHANGE)
    };
    // SAFETY: as above.
    #[cfg(target_vendor = "apple")]
    let done = unsafe { libc::renamex_np(one.as_ptr(), other.as_ptr(), libc::RENAME_SWAP) };
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a folder lies on another file system than the one that holds it.
pub(super) fn is_mounted(folder: &Path) -> Result<bool> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(|cause| disk_error("look at", path, cause));
    Ok(folder.parent().map_or(Ok(0), device)? != device(folder)?)
}

/// The size of a file, or `None` when there is none.
pub(super) fn size_of(path: &Path) -> Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(disk_error("look at", path, cause)),
    }
}

/// The names in a folder with whether each is a folder itself; none when the folder is not there.
pub(super) fn entries(path: &Path) -> Result<Vec<(String, bool)>> {
    let list = match fs::read_dir(path) {
        Ok(list) => list,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(disk_error("list", path, cause)),
    };
    let mut found = Vec::new();
    for entry in list {
        let entry = entry.map_err(|cause| disk_error("list", path, cause))?;
        let kind = entry.file_type().map_err(|cause| disk_error("look at", &entry.path(), cause))?;
        // A name that is not UTF-8 is none of ours.
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, kind.is_dir()));
        }
    }
    Ok(found)
}

/// XXH3-64 of bytes as they pass.
pub(super) struct Hash(RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>);

impl Default for Hash {
    fn default() -> Hash {
        Hash(RawHasher::new(SecretBuffer::<&'static [u8; DEFAULT_SECRET_LENGTH]>::default()))
    }
}

impl Hash {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The hash so far in hex, as an intent holds it.
    pub(super) fn hex(&self) -> String {
        format!("{:016x}", self.0.finish())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        /// What this thread made durable, in order.
        pub(in super::super) static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    }

    #[test]
    fn each_new_folder_is_made_durable_in_the_one_that_holds_it() {
        let place = tempfile::tempdir().unwrap();
        SYNCED.take();
        create_folders(&place.path().join("a/b/c")).unwrap();
        assert_eq!(SYNCED.take(), [place.path().to_path_buf(), place.path().join("a"), place.path().join("a/b")]);
        create_folders(&place.path().join("a/b/c")).unwrap();
        assert!(SYNCED.take().is_empty());
    }

    #[test]
    fn an_error_of_the_disk_is_found_under_the_encoders_error() {
        for (kind, expected) in [
            (ErrorKind::StorageFull, Kind::Full),
            (ErrorKind::PermissionDenied, Kind::Denied),
            (ErrorKind::InvalidFilename, Kind::Sql),
            (ErrorKind::TimedOut, Kind::Unreachable),
        ] {
            let wrapped = parquet::errors::ParquetError::External(Box::new(io::Error::from(kind)));
            assert_eq!(disk_error("write", Path::new("x"), wrapped).kind(), expected, "{kind}");
        }
    }

    #[test]
    fn a_file_where_a_folder_must_be_is_named() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("a"), "").unwrap();
        let error = create_folders(&place.path().join("a")).unwrap_err();
        assert_eq!(error.kind(), Kind::Sql);
        assert!(error.to_string().contains("a file stands"), "{error}");
    }
}
