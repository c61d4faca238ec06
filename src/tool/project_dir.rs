//! The folder of SQL files, read from the disk.

use std::path::Path;

use tokio::sync::watch;

use crate::app::columns::{self, Ask};
use crate::error::{Error, Kind, Result};
use crate::query::project::{Project, SqlFile};

// A file of SQL that a person wrote is some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads `*.sql` of a folder (not of the folders below it, which hold fixtures). Asks no schema registry.
pub async fn read(folder: &Path) -> Result<Project> {
    columns::read(files(folder)?, Ask::Nobody).await
}

/// The same; columns that a table leaves out come from its schema registry, which is waited for until `stop` is true.
pub async fn read_asking(folder: &Path, stop: watch::Receiver<bool>) -> Result<Project> {
    columns::read(files(folder)?, Ask::Registry(stop)).await
}

fn files(folder: &Path) -> Result<Vec<SqlFile>> {
    let mut files = Vec::new();
    let wrong = |cause| {
        let text = format!("the folder of SQL files '{}' (as in falaj run queries) cannot be read", folder.display());
        Error::new(Kind::Usage, text).because(cause)
    };
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let size = path.metadata().map_or(0, |metadata| metadata.len());
        if size > FILE_BYTES_MAX {
            return Err(Error::new(Kind::Sql, format!("{}: is larger than 1 MiB; is it SQL?", path.display())));
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|cause| Error::new(Kind::Sql, format!("{}: cannot be read as text", path.display())).because(cause))?;
        files.push(SqlFile { path: path.display().to_string(), text });
    }
    if files.is_empty() {
        return Err(Error::new(Kind::Usage, format!("there is no .sql file in the folder '{}'", folder.display())));
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}
