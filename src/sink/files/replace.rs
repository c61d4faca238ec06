//! A table whose folder has the files of another lineage, with `'on_new_lineage' 'replace'`: the new result grows in a shadow
//! beside it, where no reader of the table looks, and takes its place in one step once the lane has caught up.
//!
//! ```text
//!  out/                              the table: until the swap, readers find the old result
//!    _replaced_by                    names the shadow that is to replace it
//!  .out.replace/
//!    <lane>-<lineage>/               the shadow: staged and published as in a table's folder
//!    <lane>-<lineage>.old/           what was replaced, or was begun by a lineage that is gone: to be deleted
//! ```
//! The swap exchanges the two folders (`RENAME_EXCHANGE`), and `_replaced_by` goes with the old result. So the disk alone says how
//! far a replacement has come, wherever a crash fell:
//!
//! | the shadow is | `_replaced_by` is in | so | and opening |
//! |---|---|---|---|
//! | there | the table, or nowhere | it is half-made | goes on in it; drops it when it is an older lineage's |
//! | there | the shadow | the swap is done | deletes what is in its place |
//! | not there | the table, and names us | somebody has deleted it | stops |
//! | not there | nowhere, or names another | nothing is under way | writes to the table, or begins a shadow |
//!
//! A reader that has listed the table before the swap finds that its files are gone, which is an error and never a mix.
//! What no lane wrote in the table's folder stops the replacement, since it would be gone with the old result.

use std::path::{Path, PathBuf};

use super::disk::create_folders;
use super::options::{FilesOptions, OnNewLineage};
use super::publish::{Found, lineage_of, prefix};
use super::shadow::Replacement;
use crate::error::{Error, Kind, Result};
use crate::sink::Writer;

/// Beside a table `out`: `.out.replace`, and `.out.backfill`.
const OF_LINEAGE: &str = "replace";
const OF_BACKFILL: &str = "backfill";

/// Where a lane writes.
#[derive(Debug)]
pub(super) struct Opened {
    /// The table's folder, or the shadow.
    pub(super) root: PathBuf,
    /// The replacement, while the root is a shadow.
    pub(super) replacement: Option<Replacement>,
    /// The greatest epoch of the lane that is published in the root.
    pub(super) epoch: Option<u64>,
}

/// Looks who has written to the table and how far a replacement has come, and decides where the lane writes.
/// `Fenced` when somebody else's files are there and may not stay, or not be replaced.
/// A lane that `goes_on` (from a forked checkpoint) writes a part of its result only, and begins no shadow.
pub(super) fn open(options: &FilesOptions, writer: &Writer, goes_on: bool) -> Result<Opened> {
    create_folders(&options.folder)?;
    let mut found = Found::new(&options.folder, options, prefix(writer))?;
    let Some(replacement) = Replacement::of(options, writer, OF_LINEAGE)? else {
        // A folder without a folder around it can neither be replaced nor have been.
        return match found.foreign {
            Some(file) if options.on_new_lineage != OnNewLineage::Append => Err(foreign(options, &file)),
            _ => Ok(Opened { root: options.folder.clone(), replacement: None, epoch: found.epoch }),
        };
    };
    let others = replacement.finish_swaps()?;
    let (mark, is_begun) = (replacement.mark()?, replacement.shadow().is_dir());
    let replaces = options.on_new_lineage == OnNewLineage::Replace;
    if is_begun && !replaces {
        return Err(replacement.half_way());
    }
    if !is_begun && mark.as_ref() == Some(&replacement.ours) {
        return Err(replacement.shadow_is_gone());
    }
    let newest = found.newest.iter().chain(&others).chain(&mark).filter_map(|prefix| lineage_of(prefix)).max();
    match &found.foreign {
        Some(file) if options.on_new_lineage == OnNewLineage::Stop => return Err(foreign(options, file)),
        _ if replaces && newest > Some(writer.lineage.as_str()) => return Err(replacement.is_older(newest)),
        Some(_) if replaces && !is_begun && found.epoch.is_some() => return Err(replacement.is_mixed()),
        _ => {}
    }
    for other in others.iter().filter(|other| lineage_of(other) <= Some(writer.lineage.as_str())) {
        tracing::info!("table '{}': the half-made result {other} of an older lineage is dropped", options.table);
        replacement.bury(other)?;
    }
    if is_begun || (replaces && found.foreign.is_some()) {
        if !is_begun && goes_on {
            return Err(replacement.is_a_part());
        }
        if !is_begun {
            replacement.begin()?;
        }
        replacement.set_mark()?;
        let root = replacement.shadow();
        found = Found::new(&root, options, prefix(writer))?;
        return Ok(Opened { root, replacement: Some(replacement), epoch: found.epoch });
    }
    if mark.is_some_and(|mark| lineage_of(&mark) <= Some(writer.lineage.as_str())) {
        replacement.remove_mark()?;
    }
    Ok(Opened { root: options.folder.clone(), replacement: None, epoch: found.epoch })
}

/// The same for a backfill, beside a table that another process may be writing to: a shadow of its own, or the table once that is
/// swapped in. One that `goes_on` must find what it has written.
pub(super) fn open_backfill(options: &FilesOptions, writer: &Writer, goes_on: bool) -> Result<Opened> {
    create_folders(&options.folder)?;
    let replacement = of_backfill(options, writer)?;
    replacement.put_aside_swapped()?;
    let is_begun = replacement.shadow().is_dir();
    let shown = Found::new(&options.folder, options, prefix(writer))?;
    if !is_begun && shown.epoch.is_some() {
        return Ok(Opened { root: options.folder.clone(), replacement: None, epoch: shown.epoch });
    }
    if let Some(mark) = replacement.mark()?.filter(|mark| *mark != replacement.ours) {
        return Err(replacement.is_replaced_already(&mark));
    }
    if !is_begun && goes_on {
        return Err(replacement.shadow_is_gone());
    }
    if !is_begun {
        replacement.begin()?;
    }
    let root = replacement.shadow();
    let found = Found::new(&root, options, prefix(writer))?;
    Ok(Opened { root, replacement: Some(replacement), epoch: found.epoch })
}

/// Where a backfill has its shadow, or will have it. Touches nothing.
pub(super) fn shadow_of_backfill(options: &FilesOptions, writer: &Writer) -> Result<PathBuf> {
    let folder = &options.folder;
    let table = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
    Replacement::around(table, options, writer, OF_BACKFILL).map(|of| of.shadow()).ok_or_else(|| stands_alone(options))
}

/// Deletes what backfills have replaced.
pub(super) fn clear_away_backfills(options: &FilesOptions, writer: &Writer) -> Result<()> {
    of_backfill(options, writer)?.finish_swaps().map(drop)
}

/// Deletes the shadow of a backfill that was given up before its swap.
pub(super) fn drop_backfill(options: &FilesOptions, writer: &Writer) -> Result<()> {
    create_folders(&options.folder)?;
    let replacement = of_backfill(options, writer)?;
    replacement.bury(&replacement.ours)
}

fn of_backfill(options: &FilesOptions, writer: &Writer) -> Result<Replacement> {
    Replacement::of(options, writer, OF_BACKFILL)?.ok_or_else(|| stands_alone(options))
}

fn stands_alone(options: &FilesOptions) -> Error {
    let folder = options.folder.display();
    let text = format!(
        "table '{}': {folder} has no folder around it in which a new result could grow; change LOCATION",
        options.table
    );
    Error::new(Kind::Sql, text)
}

fn foreign(options: &FilesOptions, file: &Path) -> Error {
    let text = format!(
        "{} has files of another lineage or lane, such as {}, and rows that are read again would lie beside them; set OPTIONS \
         ('on_new_lineage' 'replace') on table '{}' to put the new result in their place once it is whole, or \
         ('on_new_lineage' 'append') to keep both, or move the folder away",
        options.folder.display(),
        file.display(),
        options.table
    );
    Error::new(Kind::Fenced, text)
}

impl Replacement {
    fn half_way(&self) -> Error {
        let text = format!(
            "table '{}' is being replaced, and what this lineage has written so far lies in {}; set 'on_new_lineage' to 'replace' \
             again until it has taken its place",
            self.name,
            self.shadow().display()
        );
        Error::new(Kind::Fenced, text)
    }

    fn shadow_is_gone(&self) -> Error {
        let text = format!(
            "table '{}' is being replaced, and {}, where this lineage has written so far, is gone; put it back, or delete the \
             checkpoint to begin again",
            self.name,
            self.shadow().display()
        );
        Error::new(Kind::Lost, text)
    }

    fn is_replaced_already(&self, mark: &str) -> Error {
        let text = format!(
            "table '{}' is being replaced already, by {mark}; begin when 'falaj run' has caught up and that has taken its place",
            self.name
        );
        Error::new(Kind::Fenced, text)
    }

    fn is_a_part(&self) -> Error {
        let text = format!(
            "{} has files of another lineage, and this lane goes on from a checkpoint, so that its rows are not all that there should \
             be; set 'on_new_lineage' 'append' on table '{}' to keep both, or delete the checkpoint to write everything anew",
            self.table.display(),
            self.name
        );
        Error::new(Kind::Fenced, text)
    }

    fn is_mixed(&self) -> Error {
        let text = format!(
            "{} has files of this lineage beside those of others, so they cannot be replaced any more; set 'on_new_lineage' \
             'append' on table '{}' to keep all, or move those of other lineages away",
            self.table.display(),
            self.name
        );
        Error::new(Kind::Fenced, text)
    }
}
