//! What this process keeps for itself from others on its machine: the memory that it dies with, and folders with what has passed through it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes `folder` for its owner alone, and what is missing above it as everyone else makes folders: below `data` there is also what others
/// are to read. One that is there stays as it is, so whoever wants to let a group in makes it first.
pub fn create_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), fs::create_dir_all)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        // Somebody else was faster.
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        done => done,
    }
}

/// Lets the kernel write no core dump of this process, and, on Linux, lets no other process of the same user look into its memory and its
/// variables: passwords are in both. A limit of 0 alone would not do: the kernel hands a dump to a program (`core_pattern` with `|`)
/// whatever the limit is. What falaj itself reads in `/proc` stays open to it.
pub fn close_memory() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both only set attributes of this process; nothing else runs yet. Neither can fail for it.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_for_its_owner_alone_and_those_above_it_are_not() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("data/run/checkpoint");
        create_folders(&folder).unwrap();
        create_folders(&folder).unwrap();
        let others = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
        assert_eq!(others(&folder), 0);
        let plain = root.path().join("plain");
        fs::create_dir(&plain).unwrap();
        assert_eq!(others(&root.path().join("data")), others(&plain));
        fs::write(root.path().join("file"), "").unwrap();
        assert!(create_folders(&root.path().join("file")).is_err());
    }
}
