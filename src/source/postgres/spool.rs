//! Changes on disk: what a snapshot found, until every lane is done with it, and what does not fit into memory.
//!
//! A file holds one piece and is named by its offsets. `XXH3-64` of all that stands before it ends the file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use super::buffer::PARTITION;
use crate::batch::Payloads;
use crate::error::{Error, Kind, Result};
use crate::position::Span;
use crate::private;

const MAGIC: &[u8; 8] = b"falajsp1";

/// The folder of one table.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    folder: PathBuf,
}

/// Why a piece is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there nowhere else: it must survive a power cut.
    Durably,
    /// Postgres still has it.
    Loosely,
}

impl Spool {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Writes a piece.
    pub(super) fn write(&self, piece: &Payloads, how: Written) -> Result<()> {
        let path = self.path(piece.span, how);
        let write = || -> io::Result<()> {
            private::create_folders(&self.folder)?;
            let mut file = File::create(&path)?;
            file.write_all(&encode(piece))?;
            if how == Written::Durably { file.sync_all() } else { Ok(()) }
        };
        write().map_err(|why| self.failed("written", &path, why))
    }

    /// Makes the names of what was written durable.
    pub(super) fn sync(&self) -> Result<()> {
        let sync = || -> io::Result<()> {
            private::create_folders(&self.folder)?;
            File::open(&self.folder)?.sync_all()?;
            self.folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
        };
        sync().map_err(|why| self.failed("written", &self.folder, why))
    }

    /// Reads a piece.
    pub(super) fn read(&self, span: Span, how: Written) -> Result<Payloads> {
        let path = self.path(span, how);
        let bytes = fs::read(&path).map_err(|why| self.failed("read", &path, why))?;
        let torn = || {
            let text = format!("{} is torn or changed; begin again with a new checkpoint", path.display());
            Error::new(Kind::Corrupt, text)
        };
        decode(&bytes, span).ok_or_else(torn)
    }

    /// Removes a piece.
    pub(super) fn remove(&self, span: Span, how: Written) {
        let path = self.path(span, how);
        if let Err(why) = fs::remove_file(&path) {
            tracing::debug!("{} could not be removed: {why}", path.display());
        }
    }

    /// The durable pieces within offsets `[from, to)` that lead to `to` without a gap.
    pub(super) fn spans(&self, from: i64, to: i64) -> Vec<Span> {
        let mut spans: Vec<Span> =
            self.names().iter().filter_map(|name| span_of(name)).filter(|span| span.from >= from).collect();
        spans.sort_by_key(|span| span.from);
        let mut found: Vec<Span> = Vec::new();
        for span in spans.into_iter().rev() {
            let next = found.last().map_or(to, |later| later.from);
            if span.to == next && span.from < span.to {
                found.push(span);
            }
        }
        found.reverse();
        found
    }

    /// Removes all files but the durable pieces that lead to the end of one of these ranges of offsets.
    pub(super) fn keep(&self, ranges: &[(i64, i64)]) {
        let kept: Vec<String> = ranges
            .iter()
            .flat_map(|&(from, to)| self.spans(from, to))
            .map(|span| name_of(span, Written::Durably))
            .chain([RELATIONS.to_string()])
            .collect();
        for name in self.names().iter().filter(|name| !kept.contains(name)) {
            // What is left behind is only in the way of the disk.
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    /// Removes the durable pieces from offset `from` on: of a copy that was broken off.
    pub(super) fn clear_from(&self, from: i64) {
        for span in self.names().iter().filter_map(|name| span_of(name)).filter(|span| span.from >= from) {
            self.remove(span, Written::Durably);
        }
    }

    /// Keeps what the rows of snapshots look like.
    pub(super) fn write_relations(&self, text: &[u8]) -> Result<()> {
        let path = self.folder.join(RELATIONS);
        let write = || -> io::Result<()> {
            private::create_folders(&self.folder)?;
            // Rows of an earlier snapshot may still need what stands there.
            let part = self.folder.join("relations.part");
            let mut file = File::create(&part)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&part, &path)
        };
        write().map_err(|why| self.failed("written", &path, why))
    }

    /// What was kept; nothing before the first snapshot.
    pub(super) fn read_relations(&self) -> Result<Option<Vec<u8>>> {
        let path = self.folder.join(RELATIONS);
        match fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(self.failed("read", &path, why)),
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn path(&self, span: Span, how: Written) -> PathBuf {
        self.folder.join(name_of(span, how))
    }

    fn failed(&self, what: &str, path: &Path, why: io::Error) -> Error {
        let kind = if why.kind() == io::ErrorKind::StorageFull { Kind::Full } else { Kind::Unreachable };
        Error::new(kind, format!("{} cannot be {what}", path.display())).because(why)
    }
}

const RELATIONS: &str = "relations.json";

fn name_of(span: Span, how: Written) -> String {
    let kind = if how == Written::Durably { "rows" } else { "spill" };
    format!("{:020}-{:020}.{kind}", span.from, span.to)
}

fn span_of(name: &str) -> Option<Span> {
    let (from, to) = name.strip_suffix(".rows")?.split_once('-')?;
    Some(Span { partition: PARTITION, from: from.parse().ok()?, to: to.parse().ok()? })
}

fn encode(piece: &Payloads) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(piece.bytes.len() + piece.len() * 8 + 64);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&piece.appended_ms.to_le_bytes());
    for end in &piece.ends {
        bytes.extend_from_slice(&(*end as u64).to_le_bytes());
    }
    bytes.extend_from_slice(&piece.bytes);
    bytes.extend_from_slice(&XxHash3_64::oneshot(&bytes).to_le_bytes());
    bytes
}

/// Reads what [`encode`] wrote of the records `span`, which have consecutive offsets.
fn decode(bytes: &[u8], span: Span) -> Option<Payloads> {
    let (bytes, hash) = bytes.split_last_chunk::<8>()?;
    if XxHash3_64::oneshot(bytes) != u64::from_le_bytes(*hash) {
        return None;
    }
    let bytes = bytes.strip_prefix(MAGIC)?;
    let (appended, bytes) = bytes.split_first_chunk::<8>()?;
    let count = usize::try_from(span.to.checked_sub(span.from)?).ok()?;
    let (ends, bytes) = bytes.split_at_checked(count.checked_mul(8)?)?;
    let ends: Vec<usize> =
        ends.as_chunks::<8>().0.iter().map(|end| usize::try_from(u64::from_le_bytes(*end)).ok()).collect::<Option<_>>()?;
    let whole = ends.last().copied().unwrap_or(0) == bytes.len() && ends.is_sorted();
    whole.then(|| Payloads {
        span,
        bytes: bytes.to_vec(),
        ends,
        offsets: (span.from..span.to).collect(),
        appended_ms: i64::from_le_bytes(*appended),
        ..Payloads::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(from: i64, to: i64) -> Payloads {
        let mut piece = Payloads { span: Span { partition: PARTITION, from, to }, appended_ms: 9, ..Payloads::default() };
        (from..to).for_each(|offset| piece.push(offset, Some(format!("row {offset}").as_bytes())));
        piece
    }

    #[test]
    fn a_piece_is_read_as_it_was_written_and_one_that_was_changed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().join("t"));
        let whole = piece(7, 20);
        spool.write(&whole, Written::Durably).unwrap();
        let read = spool.read(whole.span, Written::Durably).unwrap();
        assert_eq!((&read.bytes, &read.ends, &read.offsets), (&whole.bytes, &whole.ends, &whole.offsets));
        let path = spool.path(whole.span, Written::Durably);
        let bytes = fs::read(&path).unwrap();
        for cut in [0, 7, 8, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(spool.read(whole.span, Written::Durably).unwrap_err().kind(), Kind::Corrupt, "{cut} bytes");
        }
        let mut changed = bytes.clone();
        changed[20] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert_eq!(spool.read(whole.span, Written::Durably).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn after_a_restart_the_durable_pieces_that_lead_to_the_end_are_left_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().join("t"));
        spool.keep(&[(0, 3)]);
        assert!(spool.spans(0, 3).is_empty());
        for (from, to) in [(0, 2), (4, 6), (6, 9)] {
            spool.write(&piece(from, to), Written::Durably).unwrap();
        }
        spool.write(&piece(9, 12), Written::Loosely).unwrap();
        spool.keep(&[(0, 9)]);
        let of = |from, to| spool.spans(from, to).iter().map(|span| (span.from, span.to)).collect::<Vec<_>>();
        assert_eq!(of(0, 9), [(4, 6), (6, 9)]);
        assert_eq!(spool.names().len(), 2);
        spool.write(&piece(20, 22), Written::Durably).unwrap();
        spool.write(&piece(30, 32), Written::Durably).unwrap();
        assert_eq!((of(20, 22), of(5, 9)), (vec![(20, 22)], vec![(6, 9)]));
        spool.clear_from(30);
        spool.keep(&[(0, 9), (20, 22)]);
        assert_eq!(spool.names().len(), 3);
    }
}
