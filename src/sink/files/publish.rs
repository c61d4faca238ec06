//! Making files visible, once: their names, apply and discard.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::disk::{Hash, create_folders, disk_error, entries, size_of, sync_folder};
use super::options::{FilesOptions, Format};
use super::partition::escape;
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::sink::{Applied, Staged, Writer};

/// A UUID as text.
const LINEAGE_LENGTH: usize = 36;

/// Where a lane stages, relative to the table's folder. Readers of Hive folders pass over names that begin with `_`.
pub(super) fn staging(lane: &str) -> String {
    format!("_staging/{}", lane_name(lane))
}

/// The lane's name as a part of a file's name. A leading `_` or `.` would hide the file from readers.
fn lane_name(lane: &str) -> String {
    let name = escape(lane);
    match name.strip_prefix('_') {
        Some(rest) => format!("%5F{rest}"),
        None => name.strip_prefix('.').map_or(name.clone(), |rest| format!("%2E{rest}")),
    }
}

/// What is before the epoch in the name of a lane's files.
pub(super) fn prefix(writer: &Writer) -> String {
    format!("{}-{}", lane_name(&writer.lane), writer.lineage)
}

/// The name under which a part is visible. Epochs have 20 digits so that names sort by time.
pub(super) fn published_name(writer: &Writer, epoch: u64, part: u64, suffix: &str) -> String {
    format!("{}-{epoch:020}-{part:05}.{suffix}", prefix(writer))
}

/// Takes a published name apart: what is before the epoch, and the epoch. `None` for a file that no lane wrote.
fn parse_name<'n>(name: &'n str, suffix: &str) -> Option<(&'n str, u64)> {
    let (rest, part) = name.strip_suffix(suffix)?.strip_suffix('.')?.rsplit_once('-')?;
    let (prefix, epoch) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if epoch.len() != 20 || !digits(epoch) || part.len() < 5 || !digits(part) {
        return None;
    }
    Some((prefix, epoch.parse().ok()?))
}

/// Whether a lane gave a file this name, in whatever format.
pub(super) fn wrote(name: &str) -> bool {
    let of_format = |format: Format| parse_name(name, format.suffix()).is_some_and(|(prefix, _)| lineage_of(prefix).is_some());
    of_format(Format::Parquet) || of_format(Format::Json)
}

/// The lineage in what is before the epoch: a UUID after the lane's name.
pub(super) fn lineage_of(prefix: &str) -> Option<&str> {
    let (lane, lineage) = prefix.split_at_checked(prefix.len().checked_sub(LINEAGE_LENGTH)?)?;
    (lane.len() > 1 && lane.ends_with('-')).then_some(lineage)
}

/// What lanes have published in a folder.
pub(super) struct Found {
    ours: String,
    suffix: &'static str,
    /// The greatest epoch of our lane and lineage.
    pub(super) epoch: Option<u64>,
    /// A file of another lineage or lane.
    pub(super) foreign: Option<PathBuf>,
    /// What is before the epoch in the name of a file of the newest other lineage.
    pub(super) newest: Option<String>,
}

impl Found {
    /// Looks at all names in `root`; `ours` is what is before the epoch in our own.
    pub(super) fn new(root: &Path, options: &FilesOptions, ours: String) -> Result<Found> {
        let mut found = Found::none(options, ours);
        found.walk(root, options.keys.len())?;
        Ok(found)
    }

    /// Before any name was looked at.
    pub(super) fn none(options: &FilesOptions, ours: String) -> Found {
        Found { ours, suffix: options.format.suffix(), epoch: None, foreign: None, newest: None }
    }

    /// Looks at all names at most `depth` folders below: as deep as there are partition keys.
    fn walk(&mut self, folder: &Path, depth: usize) -> Result<()> {
        for (name, is_folder) in entries(folder)? {
            if is_folder && depth > 0 && !name.starts_with(['_', '.']) {
                self.walk(&folder.join(&name), depth - 1)?;
            }
            if !is_folder {
                self.note(&name, || folder.join(&name));
            }
        }
        Ok(())
    }

    /// Looks at the name of one file; `path` is where it is, for messages.
    pub(super) fn note(&mut self, name: &str, path: impl FnOnce() -> PathBuf) {
        match parse_name(name, self.suffix) {
            Some((prefix, epoch)) if prefix == self.ours => self.epoch = self.epoch.max(Some(epoch)),
            Some((prefix, _)) => {
                if self.newest.as_deref().is_none_or(|newest| lineage_of(newest) < lineage_of(prefix)) {
                    self.newest = Some(prefix.to_string());
                }
                self.foreign = Some(path());
            }
            None => {}
        }
    }
}

/// Creates the lane's folder.
pub(super) fn prepare(root: &Path, writer: &Writer) -> Result<()> {
    create_folders(&root.join(staging(&writer.lane)))
}

/// Deletes what this lane has staged and is not in `keep`.
pub(super) fn discard(root: &Path, writer: &Writer, keep: &[Staged]) -> Result<()> {
    let staging = staging(&writer.lane);
    for (name, is_folder) in entries(&root.join(&staging))? {
        let staged = format!("{staging}/{name}");
        if is_folder || !name.ends_with(".staged") || keep.iter().any(|kept| kept.staged == staged) {
            continue;
        }
        let path = root.join(staged);
        fs::remove_file(&path).map_err(|cause| disk_error("delete", &path, cause))?;
    }
    Ok(())
}

/// Renames what is staged into place; what is there already is left. With `redo`, which is after a crash, the bytes are
/// hashed again: what a power cut left must be what the intent lists.
pub(super) fn apply(root: &Path, lane: &str, staged: &[Staged], redo: bool) -> Result<Applied> {
    let mut changed: BTreeSet<PathBuf> = BTreeSet::new();
    let mut applied = Applied::default();
    for part in staged {
        let (from, to) = (inside(root, &part.staged)?, inside(root, &part.published)?);
        match (size_of(&from)?, size_of(&to)?) {
            (Some(size), None) => {
                verify(&from, size, part, redo)?;
                if let Some(folder) = to.parent() {
                    create_folders(folder)?;
                }
                fs::rename(&from, &to).map_err(|cause| disk_error("publish", &to, cause))?;
                failpoint::hit(lane, "files.renamed");
            }
            (None, Some(size)) => verify(&to, size, part, redo)?,
            // Both: a file system that is not atomic over a crash, or somebody's copy. The same bytes are fine.
            (Some(_), Some(size)) => {
                verify(&to, size, part, true)?;
                fs::remove_file(&from).map_err(|cause| disk_error("delete", &from, cause))?;
            }
            (None, None) => return Err(gone(&from, &to)),
        }
        // Also when it was there: the crash may have come between the rename and the fsync.
        changed.extend(to.parent().map(Path::to_path_buf));
        applied.rows += part.rows;
    }
    changed.iter().try_for_each(|folder| sync_folder(folder))?;
    Ok(applied)
}

/// A path of an intent, which must stay inside the table's folder.
fn inside(root: &Path, relative: &str) -> Result<PathBuf> {
    if relative.is_empty() || !Path::new(relative).components().all(|part| matches!(part, Component::Normal(_))) {
        let text = format!("an intent lists the file '{relative}', which is not inside {}", root.display());
        return Err(Error::new(Kind::Corrupt, text));
    }
    Ok(root.join(relative))
}

fn verify(path: &Path, size_bytes: u64, part: &Staged, hash_too: bool) -> Result<()> {
    if size_bytes != part.size_bytes {
        let text = format!("{} has {size_bytes} bytes, and the intent says {}", path.display(), part.size_bytes);
        return Err(Error::new(Kind::Corrupt, text));
    }
    if hash_too && hash_of(path)? != part.hash {
        let text = format!("{} has other bytes than the intent says (hash {})", path.display(), part.hash);
        return Err(Error::new(Kind::Corrupt, text));
    }
    Ok(())
}

fn hash_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|cause| disk_error("open", path, cause))?;
    let mut hash = Hash::default();
    let mut bytes = vec![0; 256 << 10];
    loop {
        match file.read(&mut bytes).map_err(|cause| disk_error("read", path, cause))? {
            0 => return Ok(hash.hex()),
            count => hash.update(&bytes[..count]),
        }
    }
}

fn gone(from: &Path, to: &Path) -> Error {
    let text = format!(
        "neither {} nor {} is there, and the intent says that one was written; if it was loaded and moved away, put it back \
         until the lane has gone on",
        from.display(),
        to.display()
    );
    Error::new(Kind::Lost, text)
}
