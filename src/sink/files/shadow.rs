//! The folders beside a table's that is being replaced: begun, exchanged, marked and deleted. [`super::replace`] says what they mean.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::disk::{create_folders, disk_error, entries, exchange, is_mounted, sync_file, sync_folder};
use super::options::FilesOptions;
use super::publish::{lineage_of, prefix, wrote};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::sink::Writer;

/// In the table's folder while it is being replaced; it stays with the old result.
const MARK: &str = "_replaced_by";
/// What is only to be deleted.
const OLD: &str = ".old";

/// A table's folder and what lies beside it.
#[derive(Debug, Clone)]
pub(super) struct Replacement {
    /// Its name in SQL.
    pub(super) name: String,
    /// The table's folder, without links: a link cannot be exchanged for a folder.
    pub(super) table: PathBuf,
    beside: PathBuf,
    lane: String,
    /// `<lane>-<lineage>`.
    pub(super) ours: String,
}

impl Replacement {
    /// `None` when the folder has none around it. `beside` is the name of the folder for what lies beside the table, without the
    /// table's own.
    pub(super) fn of(options: &FilesOptions, writer: &Writer, beside: &str) -> Result<Option<Replacement>> {
        let folder = &options.folder;
        let table = fs::canonicalize(folder).map_err(|cause| disk_error("look at", folder, cause))?;
        Ok(Self::around(table, options, writer, beside))
    }

    pub(super) fn around(table: PathBuf, options: &FilesOptions, writer: &Writer, beside: &str) -> Option<Replacement> {
        let (parent, name) = table.parent().zip(table.file_name().and_then(|name| name.to_str()))?;
        let beside = parent.join(format!(".{name}.{beside}"));
        Some(Replacement { name: options.table.clone(), table, beside, lane: writer.lane.clone(), ours: prefix(writer) })
    }

    /// Where the new result grows.
    pub(super) fn shadow(&self) -> PathBuf {
        self.beside.join(&self.ours)
    }

    /// Deletes what swaps have left. Gives the names of other lineages' half-made shadows.
    pub(super) fn finish_swaps(&self) -> Result<Vec<String>> {
        let mut others = Vec::new();
        for (name, is_folder) in entries(&self.beside)? {
            if name.ends_with(OLD) {
                self.delete(&self.beside.join(name));
            } else if self.beside.join(&name).join(MARK).exists() {
                self.bury(&name)?;
            } else if is_folder && name != self.ours {
                others.push(name);
            }
        }
        self.leave();
        Ok(others)
    }

    /// What is in the shadow's place once the swap is done is only to be deleted.
    pub(super) fn put_aside_swapped(&self) -> Result<()> {
        if self.shadow().join(MARK).exists() { self.put_aside(&self.ours) } else { Ok(()) }
    }

    /// Makes an empty shadow, after looking whether it could be swapped in at all.
    pub(super) fn begin(&self) -> Result<()> {
        self.refuse_strangers()?;
        if is_mounted(&self.table)? {
            return Err(self.cannot_exchange("a file system is mounted there, so give LOCATION a folder below it"));
        }
        let (shadow, probe) = (self.shadow(), self.beside.join(format!("{}{OLD}", self.ours)));
        create_folders(&probe)?;
        create_folders(&shadow)?;
        self.exchange(&shadow, &probe)?;
        fs::remove_dir(&probe).map_err(|cause| disk_error("delete", &probe, cause))?;
        failpoint::hit(&self.lane, "replace.begun");
        tracing::info!(
            "table '{}': the new result grows in {} and takes the place of what is in {} when it is whole",
            self.name,
            shadow.display(),
            self.table.display()
        );
        Ok(())
    }

    /// Puts the new result in the place of the old one, and deletes that.
    pub(super) fn swap(&self) -> Result<()> {
        self.take_place()?;
        self.delete_put_aside(&self.ours);
        Ok(())
    }

    /// Puts the new result in the place of the old one, which stays under another name. Everything in the shadow is durable already.
    pub(super) fn take_place(&self) -> Result<()> {
        // Somebody may have moved the old result away.
        create_folders(&self.table)?;
        match self.mark()? {
            Some(mark) if mark != self.ours => return Err(self.is_older(lineage_of(&mark))),
            Some(_) => {}
            None => self.set_mark()?,
        }
        self.refuse_strangers()?;
        failpoint::hit(&self.lane, "replace.before");
        self.exchange(&self.shadow(), &self.table)?;
        failpoint::hit(&self.lane, "replace.exchanged");
        for folder in [self.table.parent(), Some(self.beside.as_path())].into_iter().flatten() {
            sync_folder(folder)?;
        }
        tracing::info!("table '{}': the new result has taken its place in {}", self.name, self.table.display());
        self.put_aside(&self.ours)
    }

    fn exchange(&self, shadow: &Path, with: &Path) -> Result<()> {
        exchange(shadow, with).map_err(|cause| match cause.raw_os_error() {
            Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => {
                self.cannot_exchange("its file system cannot do that").because(cause)
            }
            Some(libc::EXDEV | libc::EBUSY) => {
                self.cannot_exchange("something is mounted there, so give LOCATION a folder below it").because(cause)
            }
            _ => disk_error("replace", with, cause),
        })
    }

    /// Deletes a folder beside the table.
    pub(super) fn bury(&self, name: &str) -> Result<()> {
        self.put_aside(name)?;
        self.delete_put_aside(name);
        Ok(())
    }

    fn delete_put_aside(&self, name: &str) {
        self.delete(&self.beside.join(format!("{name}{OLD}")));
        self.leave();
    }

    /// Gives a folder beside the table the name of what is only to be deleted: a process that still believes in it finds nothing.
    fn put_aside(&self, name: &str) -> Result<()> {
        let (from, to) = (self.beside.join(name), self.beside.join(format!("{name}{OLD}")));
        match fs::rename(&from, &to) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(disk_error("rename", &from, cause)),
            _ => sync_folder(&self.beside)?,
        }
        failpoint::hit(&self.lane, "replace.renamed");
        Ok(())
    }

    /// Takes the folder beside the table away, if nothing is in it.
    fn leave(&self) {
        let _ = fs::remove_dir(&self.beside);
    }

    /// Deletes what was replaced. What cannot be deleted does no harm, so it stops nobody; the next start tries again.
    fn delete(&self, old: &Path) {
        let deleted = match stranger(old, true) {
            Ok(Some(file)) => {
                tracing::warn!("table '{}': {} is no lane's, so {} stays", self.name, file.display(), old.display());
                return;
            }
            Ok(None) => fs::remove_dir_all(old).or_else(|cause| match cause.kind() {
                ErrorKind::NotFound => Ok(()),
                _ => Err(disk_error("delete", old, cause)),
            }),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::warn!("table '{}': what was replaced stays: {}", self.name, error.chain());
        }
    }

    /// Who is to replace the table, as its mark says.
    pub(super) fn mark(&self) -> Result<Option<String>> {
        let path = self.table.join(MARK);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_string())),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(disk_error("read", &path, cause)),
        }
    }

    /// Says durably that we are to replace the table.
    pub(super) fn set_mark(&self) -> Result<()> {
        let path = self.table.join(MARK);
        let mut file = File::create(&path).map_err(|cause| disk_error("create", &path, cause))?;
        writeln!(file, "{}", self.ours).map_err(|cause| disk_error("write", &path, cause))?;
        sync_file(&file, &path)?;
        sync_folder(&self.table)
    }

    /// Takes the mark of a lineage that is gone away.
    pub(super) fn remove_mark(&self) -> Result<()> {
        let path = self.table.join(MARK);
        fs::remove_file(&path).map_err(|cause| disk_error("delete", &path, cause))?;
        sync_folder(&self.table)
    }

    fn refuse_strangers(&self) -> Result<()> {
        let Some(file) = stranger(&self.table, true)? else { return Ok(()) };
        let text = format!(
            "{} was written by no lane and would be gone with the old result of table '{}'; move it away",
            file.display(),
            self.name
        );
        Err(Error::new(Kind::Fenced, text))
    }

    fn cannot_exchange(&self, why: &str) -> Error {
        let text = format!(
            "table '{}': the new result is to take the place of {} in one step, and {why}; or move the folder away",
            self.name,
            self.table.display()
        );
        Error::new(Kind::Sql, text)
    }

    /// Somebody newer has the table.
    pub(super) fn is_older(&self, newest: Option<&str>) -> Error {
        let text = format!(
            "{} belongs to lineage {}, which is newer than this checkpoint's, so it is not replaced; start with the newer \
             checkpoint, or move the folder away",
            self.table.display(),
            newest.unwrap_or_default()
        );
        Error::new(Kind::Fenced, text)
    }
}

/// Something in a table's folder that no lane wrote.
fn stranger(folder: &Path, is_root: bool) -> Result<Option<PathBuf>> {
    let failed = |cause| disk_error("list", folder, cause);
    let list = match fs::read_dir(folder) {
        Ok(list) => list,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(failed(cause)),
    };
    for entry in list {
        let entry = entry.map_err(failed)?;
        let (kind, path) = (entry.file_type().map_err(failed)?, entry.path());
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Ok(Some(path)) };
        let is_ours = if kind.is_dir() {
            (is_root && name == "_staging") || name.contains('=')
        } else {
            kind.is_file() && ((is_root && name == MARK) || wrote(name))
        };
        if !is_ours {
            return Ok(Some(path));
        }
        if kind.is_dir() && name.contains('=') {
            let below = stranger(&path, false)?;
            if below.is_some() {
                return Ok(below);
            }
        }
    }
    Ok(None)
}
