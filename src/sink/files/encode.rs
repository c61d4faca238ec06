//! One file being written: Parquet or JSON lines over a file whose bytes are counted and hashed as they pass.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::LineDelimited;
use arrow::json::{Writer as JsonWriter, WriterBuilder};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::disk::{Hash, disk_error};
use super::options::Format;
use crate::error::{Error, Kind, Result};

/// A row group ends after so many rows: readers work on one at a time, and memory stays bounded.
const ROW_GROUP_ROWS_MAX: usize = 1 << 20;

/// A file that knows the hash of what was written to it.
pub(super) struct HashedFile {
    file: File,
    hash: Hash,
    bytes: u64,
}

impl HashedFile {
    pub(super) fn new(file: File) -> HashedFile {
        HashedFile { file, hash: Hash::default(), bytes: 0 }
    }

    /// The file, how many bytes were written, and their XXH3-64 in hex.
    fn written(&self) -> io::Result<(File, u64, String)> {
        Ok((self.file.try_clone()?, self.bytes, self.hash.hex()))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The writer of one file.
pub(super) enum Encoder {
    Parquet(Box<ArrowWriter<HashedFile>>),
    Json(Box<JsonWriter<BufWriter<HashedFile>, LineDelimited>>),
}

impl Encoder {
    pub(super) fn new(format: Format, schema: SchemaRef, file: File, path: &Path) -> Result<Encoder> {
        let file = HashedFile::new(file);
        Ok(match format {
            Format::Parquet => {
                let options = parquet_options()?;
                let writer = ArrowWriter::try_new_with_options(file, schema, options)
                    .map_err(|cause| disk_error("begin", path, cause))?;
                Encoder::Parquet(Box::new(writer))
            }
            Format::Json => {
                let builder = WriterBuilder::new().with_explicit_nulls(false);
                Encoder::Json(Box::new(builder.build::<_, LineDelimited>(BufWriter::with_capacity(256 << 10, file))))
            }
        })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch, path: &Path) -> Result<()> {
        match self {
            Encoder::Parquet(writer) => writer.write(rows).map_err(|cause| disk_error("write", path, cause)),
            Encoder::Json(writer) => writer.write(rows).map_err(|cause| disk_error("write", path, cause)),
        }
    }

    /// Bytes written plus what is encoded in memory.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Encoder::Parquet(writer) => (writer.bytes_written() + writer.in_progress_size()) as u64,
            Encoder::Json(writer) => writer.get_ref().get_ref().bytes + writer.get_ref().buffer().len() as u64,
        }
    }

    /// Memory held by the open row group.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Encoder::Parquet(writer) => writer.memory_size(),
            Encoder::Json(writer) => writer.get_ref().capacity(),
        }
    }

    /// Ends the open row group and so frees its memory.
    pub(super) fn flush(&mut self, path: &Path) -> Result<()> {
        match self {
            Encoder::Parquet(writer) => writer.flush().map_err(|cause| disk_error("write", path, cause)),
            Encoder::Json(writer) => writer.get_mut().flush().map_err(|cause| disk_error("write", path, cause)),
        }
    }

    /// Writes the rest, such as Parquet's footer; gives the file, its size and its hash.
    pub(super) fn finish(self, path: &Path) -> Result<(File, u64, String)> {
        let written = match self {
            // Not `into_inner`: it makes a text of the disk's error, so that a full disk looks like a bug.
            Encoder::Parquet(mut writer) => {
                writer.finish().map_err(|cause| disk_error("finish", path, cause))?;
                writer.inner_mut().written()
            }
            Encoder::Json(mut writer) => {
                writer.finish().map_err(|cause| disk_error("finish", path, cause))?;
                writer.get_mut().flush().map_err(|cause| disk_error("finish", path, cause))?;
                writer.get_ref().get_ref().written()
            }
        };
        written.map_err(|cause| disk_error("finish", path, cause))
    }
}

/// Measured with enriched events: ZSTD 2 costs a sixth of the speed and 3 a third, and neither makes the files smaller. No
/// statistics would gain a seventh, but readers skip by them; other dictionary and page sizes differ by less than the noise.
fn parquet_options() -> Result<ArrowWriterOptions> {
    let level = ZstdLevel::try_new(1).map_err(|cause| Error::new(Kind::Bug, "ZSTD has no level 1").because(cause))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_created_by(concat!("falaj ", env!("CARGO_PKG_VERSION")).to_string())
        .build();
    // Arrow's own schema would say Utf8View to readers that do not know it; Parquet's says all that is needed.
    Ok(ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true))
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn a_disk_that_is_full_only_for_what_the_encoders_wrote_last_is_still_said_to_be_full() {
        for format in [Format::Parquet, Format::Json] {
            let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
            let path = Path::new("/dev/full");
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let mut encoder = Encoder::new(format, rows.schema(), file, path).unwrap();
            encoder.write(&rows, path).unwrap();
            assert_eq!(encoder.finish(path).map(|_| ()).unwrap_err().kind(), Kind::Full, "{format:?}");
        }
    }
}
