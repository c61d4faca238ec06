//! Dead letters in a local folder, for where there is no broker: one file of JSON lines for each epoch.
//!
//! ```text
//! <folder>/<topic>/<lane>/<lineage>-<epoch, 20 digits>.jsonl
//! ```
//!
//! A file appears whole: it is written under a name that no reader lists, fsynced and renamed. Two processes that write to one
//! folder are kept apart by the checkpoint, which lies on the same machine; the folder itself fences nobody. [`kept`] reads them.

mod kept;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Serialize;

pub use kept::FolderKept;

use crate::batch::DeadLetter;
use crate::clock::Clock;
use crate::dead::DeadLetters;
use crate::error::{Error, Kind, Result};
use crate::private;
use crate::sink::Writer;

/// The most of a message that is written, as on a topic.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// The payload at a partition and offset; `None` when it is gone, or was a tombstone. May be called from any thread.
pub type Originals = Arc<dyn Fn(i32, i64) -> Option<Vec<u8>> + Send + Sync>;

/// The dead letters of one source, for one lane, in a folder. Touches the disk from `open` on.
pub struct FolderDeadLetters {
    folder: PathBuf,
    topic: String,
    originals: Originals,
    writer: Option<Writer>,
    held: Option<u64>,
}

/// One line of a file. Either payload is there, or neither when the original is gone.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    lane: &'a str,
    stage: &'a str,
    code: &'a str,
    message: &'a str,
    timestamp_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl FolderDeadLetters {
    /// A place under `folder` for the dead letters of `topic`.
    pub fn new(folder: impl Into<PathBuf>, topic: impl Into<String>, originals: Originals) -> Self {
        Self { folder: folder.into(), topic: topic.into(), originals, writer: None, held: None }
    }

    fn lane_folder(&self, lane: &str) -> PathBuf {
        self.folder.join(&self.topic).join(lane)
    }
}

#[async_trait]
impl DeadLetters for FolderDeadLetters {
    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>> {
        let folder = self.lane_folder(&writer.lane);
        let lineage = writer.lineage.clone();
        self.held = blocking(move || held(&folder, &lineage).map_err(|cause| disk(&folder, cause))).await?;
        self.writer = Some(writer.clone());
        Ok(self.held)
    }

    async fn write(&mut self, epoch: u64, letters: &[DeadLetter]) -> Result<()> {
        if self.held.is_some_and(|held| held >= epoch) {
            return Ok(());
        }
        let Some(writer) = self.writer.clone() else {
            return Err(Error::new(Kind::Bug, "dead letters were written before their place was opened"));
        };
        let folder = self.lane_folder(&writer.lane);
        let (topic, originals, letters) = (self.topic.clone(), self.originals.clone(), letters.to_vec());
        blocking(move || {
            let name = format!("{}-{epoch:020}.jsonl", writer.lineage);
            let lines = |out: &mut dyn Write| write_lines(out, &topic, &writer.lane, &letters, &originals);
            publish(&folder, &name, lines).map_err(|cause| disk(&folder, cause))
        })
        .await?;
        self.held = Some(epoch);
        Ok(())
    }
}

/// The greatest epoch of `lineage` in `folder`. Files of other lineages and unfinished ones are not ours.
fn held(folder: &Path, lineage: &str) -> io::Result<Option<u64>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(cause),
    };
    let mut greatest = None;
    for entry in entries {
        let name = entry?.file_name();
        let epoch = name.to_str().and_then(|name| name.strip_prefix(lineage)?.strip_prefix('-')?.strip_suffix(".jsonl"));
        greatest = greatest.max(epoch.and_then(|digits| digits.parse().ok()));
    }
    Ok(greatest)
}

/// Makes `name` in `folder` with what `lines` writes: durable and whole, or not at all.
fn publish(folder: &Path, name: &str, lines: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    create_folders(folder)?;
    let staged = folder.join(format!(".{name}.staged"));
    let mut out = BufWriter::new(File::create(&staged)?);
    lines(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&staged, folder.join(name))?;
    File::open(folder)?.sync_all()
}

/// Makes `folder` and what is missing above it; each new name is durable.
fn create_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir()).collect();
    private::create_folders(folder)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn write_lines(out: &mut dyn Write, topic: &str, lane: &str, letters: &[DeadLetter], originals: &Originals) -> io::Result<()> {
    let timestamp_ms = Clock::system().now_ms();
    for letter in letters {
        let original = originals(letter.partition, letter.offset);
        let text = original.as_deref().map(std::str::from_utf8);
        let line = Line {
            topic,
            partition: letter.partition,
            offset: letter.offset,
            lane,
            stage: letter.stage.as_str(),
            code: letter.code,
            message: &letter.message[..letter.message.floor_char_boundary(MESSAGE_BYTES_MAX)],
            timestamp_ms,
            payload: text.and_then(|text| text.ok()),
            payload_base64: original
                .as_deref()
                .filter(|_| text.is_some_and(|text| text.is_err()))
                .map(|bytes| BASE64_STANDARD.encode(bytes)),
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn disk(folder: &Path, cause: io::Error) -> Error {
    let sentence = format!("dead letters cannot be written to {}", folder.display());
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::new(Kind::Full, format!("{sentence}: the disk is full; make room and start again"))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::new(Kind::Denied, format!("{sentence}; let this user write there"))
        }
        _ => Error::new(Kind::Unreachable, sentence),
    }
    .because(cause)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(cause) => Err(Error::new(Kind::Bug, "writing dead letters was cut off").because(cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Stage;

    fn writer(lineage: &str) -> Writer {
        Writer { lineage: lineage.into(), lane: "top".into(), incarnation: 1 }
    }

    fn letter(offset: i64) -> DeadLetter {
        DeadLetter { partition: 1, offset, stage: Stage::Decode, code: "truncated", message: "cut off".into(), schema_id: None }
    }

    fn place(folder: &Path) -> FolderDeadLetters {
        let originals = |_: i32, offset: i64| match offset {
            0 => Some(b"{\"a\":".to_vec()),
            1 => Some(vec![0xff, 0xfe, 0x00, 0x01]),
            _ => None,
        };
        FolderDeadLetters::new(folder, "events", Arc::new(originals))
    }

    #[tokio::test]
    async fn letters_of_an_epoch_are_one_file_and_are_held_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = place(folder.path());
        assert_eq!(first.open(&writer("a")).await.unwrap(), None);
        first.write(3, &[letter(0), letter(1), letter(2)]).await.unwrap();
        first.write(3, &[letter(0)]).await.unwrap();

        let lane = folder.path().join("events/top");
        let text = fs::read_to_string(lane.join("a-00000000000000000003.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["payload"], "{\"a\":");
        assert_eq!(lines[1]["payload_base64"], "//4AAQ==");
        assert!(lines[2].get("payload").is_none() && lines[2].get("payload_base64").is_none());
        assert_eq!(
            (&lines[1]["stage"], &lines[1]["code"], &lines[1]["offset"]),
            (&"decode".into(), &"truncated".into(), &1.into())
        );
        assert_eq!(fs::read_dir(&lane).unwrap().count(), 1, "nothing staged is left");
    }

    #[tokio::test]
    async fn opening_says_the_greatest_epoch_of_this_lineage() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = place(folder.path());
        first.open(&writer("a")).await.unwrap();
        first.write(9, &[letter(0)]).await.unwrap();
        first.write(10, &[letter(0)]).await.unwrap();
        fs::write(folder.path().join("events/top/.a-00000000000000000011.jsonl.staged"), "torn").unwrap();

        assert_eq!(place(folder.path()).open(&writer("a")).await.unwrap(), Some(10));
        assert_eq!(place(folder.path()).open(&writer("b")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_said() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("events"), "a file").unwrap();
        let mut first = place(folder.path());
        let error = match first.open(&writer("a")).await {
            Ok(_) => first.write(1, &[letter(0)]).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains("events/top"), "{error}");
    }
}
