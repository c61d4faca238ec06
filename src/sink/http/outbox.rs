//! The outbox: the bodies of one epoch in one file, durable before the intent, sent from there byte for byte.
//!
//! A file is a run of frames: `body length, row count` (u32), then for each row where its object ends in the body (u32), its
//! partition (i32) and its offset (i64; −1 when it is no row of one record), then the body. All little-endian. The whole file's
//! size and hash are in the intent.

use std::fs::{self, File};
use std::hash::Hasher as _;
use std::io::{BufReader, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use twox_hash::xxhash3_64::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

use super::options::Format;
use crate::error::{Error, Kind, Result};
use crate::private;

/// Bytes of a frame before its rows, and of each row before the body.
const HEAD: usize = 8;
const ROW: usize = 16;
/// A length beyond this is no frame of ours: the largest row that Kafka can bring, many times over.
const BODY_BYTES_MAX: u32 = 1 << 30;

/// XXH3-64 of bytes as they pass.
type Hash = RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>;

fn new_hash() -> Hash {
    Hash::new(SecretBuffer::<&'static [u8; DEFAULT_SECRET_LENGTH]>::default())
}

/// Where a row comes from.
pub(super) type Origin = (i32, i64);
/// The origin of a row that is not a row of one record.
pub(super) const NOWHERE: Origin = (-1, -1);

/// One body, with what is needed to split it and to name a refused row.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// What is sent.
    pub(super) bytes: Bytes,
    /// Where each row's object ends.
    ends: Vec<usize>,
    origins: Vec<Origin>,
}

impl Body {
    /// How many rows it has.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Memory held, the request's own buffers not counted.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.len() * (size_of::<usize>() + size_of::<Origin>())
    }

    /// Where row `row` comes from.
    pub(super) fn origin(&self, row: usize) -> Origin {
        self.origins.get(row).copied().unwrap_or(NOWHERE)
    }

    /// The body of some of its rows; all of them are the very bytes of the file.
    pub(super) fn part(&self, rows: Range<usize>, format: Format) -> Bytes {
        if rows == (0..self.len()) || rows.is_empty() {
            return self.bytes.clone();
        }
        let (before, between, after) = format.around();
        let from = if rows.start == 0 { before.len() } else { self.ends[rows.start - 1] + between.len() };
        [before, &self.bytes[from..self.ends[rows.end - 1]], after].concat().into()
    }
}

/// The file of the epoch that is being taken.
pub(super) struct Writer {
    file: File,
    path: PathBuf,
    hasher: Hash,
    format: Format,
    /// The open frame.
    body: Vec<u8>,
    rows: Vec<u8>,
    /// Of the whole file so far.
    pub(super) size_bytes: u64,
    pub(super) rows_total: u64,
}

impl Writer {
    /// Begins the file anew.
    pub(super) fn create(path: PathBuf, format: Format) -> Result<Self> {
        if let Some(folder) = path.parent() {
            private::create_folders(folder).map_err(|cause| failed(cause, "create the folder", folder))?;
        }
        let file = File::create(&path).map_err(|cause| failed(cause, "create", &path))?;
        let hasher = new_hash();
        Ok(Self { file, path, hasher, format, body: Vec::new(), rows: Vec::new(), size_bytes: 0, rows_total: 0 })
    }

    /// Adds a row; it ends the open body first when the row would take it over a bound.
    pub(super) fn push(&mut self, object: &[u8], origin: Origin, rows_max: usize, bytes_max: usize) -> Result<()> {
        let (before, between, after) = self.format.around();
        let rows = self.rows.len() / ROW;
        if rows > 0 && (rows >= rows_max || self.body.len() + between.len() + object.len() + after.len() > bytes_max) {
            self.end_body()?;
        }
        self.body.extend_from_slice(if self.rows.is_empty() { before } else { between });
        self.body.extend_from_slice(object);
        let end = u32::try_from(self.body.len()).ok().filter(|end| *end < BODY_BYTES_MAX);
        let end = end.ok_or_else(|| Error::new(Kind::Full, "one row is larger than 1 GiB as JSON"))?;
        self.rows.extend_from_slice(&end.to_le_bytes());
        self.rows.extend_from_slice(&origin.0.to_le_bytes());
        self.rows.extend_from_slice(&origin.1.to_le_bytes());
        self.rows_total += 1;
        Ok(())
    }

    fn end_body(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.body.extend_from_slice(self.format.around().2);
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&(self.body.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&((self.rows.len() / ROW) as u32).to_le_bytes());
        for bytes in [&head[..], &self.rows, &self.body] {
            self.file.write_all(bytes).map_err(|cause| failed(cause, "write", &self.path))?;
            self.hasher.write(bytes);
            self.size_bytes += bytes.len() as u64;
        }
        self.rows.clear();
        self.body.clear();
        Ok(())
    }

    /// Ends the file and waits until file and folder are durable. Says its size and hash. Blocks.
    pub(super) fn finish(mut self) -> Result<(u64, String)> {
        self.end_body()?;
        self.file.sync_all().map_err(|cause| failed(cause, "make durable", &self.path))?;
        for folder in self.path.ancestors().skip(1).take(2).filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| failed(cause, "make durable", folder))?;
        }
        Ok((self.size_bytes, format!("{:016x}", self.hasher.finish())))
    }
}

/// Reads a file's bodies one by one.
pub(super) struct Reader {
    file: BufReader<File>,
    path: PathBuf,
}

impl Reader {
    /// Opens a file; with `check` its size and hash must be these, or it is corrupt. Blocks.
    pub(super) fn open(path: PathBuf, check: Option<(u64, &str)>) -> Result<Self> {
        if let Some((size_bytes, hash)) = check {
            let mut file = File::open(&path).map_err(|cause| failed(cause, "open", &path))?;
            let (mut hasher, mut size, mut buffer) = (new_hash(), 0, vec![0; 1 << 18]);
            loop {
                let length = file.read(&mut buffer).map_err(|cause| failed(cause, "read", &path))?;
                if length == 0 {
                    break;
                }
                hasher.write(&buffer[..length]);
                size += length as u64;
            }
            if size != size_bytes || format!("{:016x}", hasher.finish()) != hash {
                return Err(corrupt(&path, "is not what its intent says (size or hash)"));
            }
        }
        let file = File::open(&path).map_err(|cause| failed(cause, "open", &path))?;
        Ok(Self { file: BufReader::with_capacity(1 << 18, file), path })
    }

    /// The next body, or `None` at the end. Blocks, for as long as reading some MiB takes.
    pub(super) fn next(&mut self) -> Result<Option<Body>> {
        let mut head = [0; HEAD];
        match self.file.read(&mut head[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => self.fill(&mut head[1..])?,
            Err(cause) => return Err(failed(cause, "read", &self.path)),
        }
        let [length, rows] = [number(&head[..4]), number(&head[4..])];
        if length >= BODY_BYTES_MAX + 8 || rows > length {
            return Err(corrupt(&self.path, "holds a frame that falaj did not write"));
        }
        let (mut table, mut bytes) = (vec![0; rows as usize * ROW], vec![0; length as usize]);
        self.fill(&mut table)?;
        self.fill(&mut bytes)?;
        let mut body = Body { bytes: bytes.into(), ..Body::default() };
        for row in table.chunks_exact(ROW) {
            let end = number(&row[..4]) as usize;
            if end > body.bytes.len() || body.ends.last().is_some_and(|last| *last >= end) {
                return Err(corrupt(&self.path, "holds a frame that falaj did not write"));
            }
            body.ends.push(end);
            let mut offset = [0; 8];
            offset.copy_from_slice(&row[8..]);
            body.origins.push((number(&row[4..8]) as i32, i64::from_le_bytes(offset)));
        }
        Ok(Some(body))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact(bytes).map_err(|_| corrupt(&self.path, "ends in the middle of a frame"))
    }
}

fn number(bytes: &[u8]) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(bytes);
    u32::from_le_bytes(four)
}

/// Deletes a file; that it is gone already is fine.
pub(super) fn delete(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(failed(cause, "delete", path)),
        _ => Ok(()),
    }
}

/// The files of a lane's folder.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(failed(cause, "list", folder)),
    }
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::new(
        Kind::Corrupt,
        format!(
            "the outbox file {} {what}; restore the checkpoint's folder, or read the span again from another place",
            path.display()
        ),
    )
}

fn failed(cause: std::io::Error, what: &str, path: &Path) -> Error {
    use std::io::ErrorKind as Io;
    let kind = match cause.kind() {
        Io::StorageFull | Io::QuotaExceeded => Kind::Full,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
        Io::NotFound => Kind::Corrupt,
        _ => Kind::Unreachable,
    };
    Error::new(kind, format!("could not {what} {} of the outbox", path.display())).because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, objects: &[&str], rows_max: usize, bytes_max: usize, format: Format) -> (u64, String) {
        let mut writer = Writer::create(path.into(), format).unwrap();
        for (index, object) in objects.iter().enumerate() {
            writer.push(object.as_bytes(), (2, index as i64), rows_max, bytes_max).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn bodies_come_back_as_they_were_written_and_split_at_their_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lane/1.outbox");
        for (format, whole, parts) in
            [(Format::Array, "[1,22,3]", ["[1]", "[22,3]"]), (Format::Lines, "1\n22\n3\n", ["1\n", "22\n3\n"])]
        {
            let (size, hash) = write(&path, &["1", "22", "3", "4444"], 3, 100, format);
            let mut reader = Reader::open(path.clone(), Some((size, &hash))).unwrap();
            let body = reader.next().unwrap().unwrap();
            assert_eq!((body.bytes.as_ref(), body.len(), body.origin(2)), (whole.as_bytes(), 3, (2, 2)));
            assert_eq!([body.part(0..1, format), body.part(1..3, format)], parts);
            let last = reader.next().unwrap().unwrap();
            assert_eq!((last.part(0..1, format), last.origin(0)), (last.bytes.clone(), (2, 3)));
            assert!(reader.next().unwrap().is_none());
        }
    }

    #[test]
    fn a_body_ends_at_either_bound_and_a_large_row_goes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.outbox");
        write(&path, &["1", "22", "333333333", "4", "5", "6"], 2, 8, Format::Array);
        let mut reader = Reader::open(path, None).unwrap();
        let bodies: Vec<_> = std::iter::from_fn(|| reader.next().unwrap()).map(|body| body.bytes).collect();
        assert_eq!(bodies, ["[1,22]", "[333333333]", "[4,5]", "[6]"]);
    }

    #[test]
    fn a_torn_or_flipped_file_is_corrupt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.outbox");
        let (size, hash) = write(&path, &["1", "2"], 9, 99, Format::Array);
        let good = fs::read(&path).unwrap();
        for length in 1..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(Reader::open(path.clone(), Some((size, &hash))).err().unwrap().kind(), Kind::Corrupt);
            let mut reader = Reader::open(path.clone(), None).unwrap();
            assert!(reader.next().is_err(), "{length}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, &bad).unwrap();
            assert_eq!(Reader::open(path.clone(), Some((size, &hash))).err().unwrap().kind(), Kind::Corrupt);
        }
    }
}
