//! The letters of a folder, for the commands that read and purge them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::{disk, publish};
use crate::dead::Kept;
use crate::dead::letter::{Letter, Mended, Original};
use crate::error::{Error, Kind, Result};

/// The dead letters of one source in a folder. Touches the disk when it is asked for something.
pub struct FolderKept {
    folder: PathBuf,
    topic: String,
    waiting: VecDeque<PathBuf>,
    open: Option<(PathBuf, BufReader<File>)>,
}

/// A line, read back.
#[derive(Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    offset: i64,
    lane: String,
    stage: String,
    code: String,
    message: String,
    timestamp_ms: i64,
    payload: Option<String>,
    payload_base64: Option<String>,
}

impl FolderKept {
    /// The letters of `topic` below `folder`.
    pub fn new(folder: impl Into<PathBuf>, topic: impl Into<String>) -> Self {
        let topic = topic.into();
        Self { folder: folder.into().join(&topic), topic, waiting: VecDeque::new(), open: None }
    }

    /// The files of all lanes, each lane's in the order in which they were written.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for lane in names(&self.folder)? {
            let of_lane = names(&lane)?.into_iter();
            files.extend(of_lane.filter(|file| file.extension().is_some_and(|extension| extension == "jsonl")));
        }
        Ok(files)
    }

    fn failed(&self, cause: io::Error) -> Error {
        disk(&self.folder, cause)
    }
}

/// What is in a folder, sorted, without what is hidden; nothing if it is not there.
fn names(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            names.push(entry.path());
        }
    }
    names.sort();
    Ok(names)
}

/// The letter of a line. `None`: the line is none of ours.
fn letter_of(line: &str) -> Option<Letter> {
    let line: Line = serde_json::from_str(line).ok()?;
    let payload = match (line.payload, line.payload_base64) {
        (Some(text), _) => Some(text.into_bytes()),
        (None, Some(text)) => Some(BASE64_STANDARD.decode(text).ok()?),
        (None, None) => None,
    };
    Some(Letter {
        topic: line.topic,
        partition: line.partition,
        offset: line.offset,
        lane: line.lane,
        stage: line.stage,
        code: line.code,
        message: line.message,
        // What lies in a folder comes from tables, not from topics.
        schema_id: None,
        failed_ms: line.timestamp_ms,
        attempts: 0,
        restricted_to: None,
        kept_in: 0,
        original: match (&payload, line.partition) {
            (Some(_), _) => Original::There,
            (None, ..0) => Original::None,
            (None, _) => Original::Gone,
        },
        timestamp_ms: None,
        key: None,
        payload,
        headers: Vec::new(),
    })
}

impl Kept for FolderKept {
    fn source(&self) -> &str {
        &self.topic
    }

    fn begin(&mut self) -> Result<()> {
        self.open = None;
        self.waiting = self.files().map_err(|cause| self.failed(cause))?.into();
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Letter>> {
        loop {
            let Some((path, lines)) = &mut self.open else {
                let Some(path) = self.waiting.pop_front() else { return Ok(None) };
                let file = File::open(&path).map_err(|cause| self.failed(cause))?;
                self.open = Some((path, BufReader::new(file)));
                continue;
            };
            let mut line = String::new();
            match lines.read_line(&mut line) {
                Ok(0) => self.open = None,
                Ok(_) => match letter_of(&line) {
                    Some(letter) => return Ok(Some(letter)),
                    None => tracing::warn!("{} has a line that is no dead letter; it is left alone", path.display()),
                },
                Err(cause) => return Err(self.failed(cause)),
            }
        }
    }

    fn claim(&mut self) -> Result<()> {
        let text = format!(
            "dead letters of '{}' cannot be replayed: they are changes of a table in Postgres; mend the rows there, and the changes \
             come by themselves ('falaj dlq purge' takes the letters away)",
            self.topic
        );
        Err(Error::new(Kind::Usage, text))
    }

    fn replay(&mut self, _: &[Mended]) -> Result<()> {
        self.claim()
    }

    fn purge(&mut self, wanted: &mut dyn FnMut(&Letter) -> bool) -> Result<u64> {
        let files = self.files().map_err(|cause| self.failed(cause))?;
        let mut purged = 0;
        for (index, file) in files.iter().enumerate() {
            let is_last = files.get(index + 1).is_none_or(|next| lineage(next) != lineage(file));
            purged += purge_file(file, is_last, wanted).map_err(|cause| self.failed(cause))?;
        }
        Ok(purged)
    }
}

/// Folder and lineage of a file.
fn lineage(file: &Path) -> Option<(&Path, &str)> {
    let name = file.file_stem()?.to_str()?;
    Some((file.parent()?, name.rsplit_once('-')?.0))
}

/// Takes the wanted letters out of a file. The last of a lineage stays even if nothing is left in it: its name says which epoch was
/// written last.
fn purge_file(file: &Path, is_last: bool, wanted: &mut dyn FnMut(&Letter) -> bool) -> io::Result<u64> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else { return Ok(0) };
    let (mut purged, mut left) = (0, Vec::new());
    for line in BufReader::new(File::open(file)?).lines() {
        let line = line?;
        if letter_of(&line).is_some_and(|letter| wanted(&letter)) { purged += 1 } else { left.push(line) }
    }
    if purged == 0 {
        return Ok(0);
    }
    if left.is_empty() && !is_last {
        fs::remove_file(file)?;
        File::open(folder)?.sync_all()?;
        return Ok(purged);
    }
    publish(folder, name, |out| left.iter().try_for_each(|line| writeln!(out, "{line}")))?;
    Ok(purged)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch::{DeadLetter, Stage};
    use crate::dead::DeadLetters;
    use crate::dead::folder::FolderDeadLetters;
    use crate::sink::Writer;

    fn writer(lane: &str) -> Writer {
        Writer { lineage: "a-b".into(), lane: lane.into(), incarnation: 1 }
    }

    fn place(folder: &Path) -> FolderDeadLetters {
        let payload =
            |_: i32, offset: i64| (offset < 9).then(|| if offset == 1 { vec![0xff] } else { offset.to_string().into_bytes() });
        FolderDeadLetters::new(folder, "events", Arc::new(payload))
    }

    async fn write(folder: &Path, lane: &str, epoch: u64, offsets: &[i64]) {
        let mut place = place(folder);
        place.open(&writer(lane)).await.unwrap();
        let letter =
            |&offset| DeadLetter { partition: 0, offset, stage: Stage::Sql, code: "c", message: "m".into(), schema_id: None };
        place.write(epoch, &offsets.iter().map(letter).collect::<Vec<_>>()).await.unwrap();
    }

    fn read(kept: &mut FolderKept) -> Vec<(String, i64, Option<Vec<u8>>)> {
        kept.begin().unwrap();
        std::iter::from_fn(|| kept.next().unwrap()).map(|letter| (letter.lane, letter.offset, letter.payload)).collect()
    }

    #[tokio::test]
    async fn letters_are_read_back_and_those_that_are_purged_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = FolderKept::new(folder.path(), "events");
        assert_eq!(read(&mut kept), []);
        write(folder.path(), "top", 3, &[0, 1]).await;
        write(folder.path(), "top", 12, &[9]).await;
        write(folder.path(), "bottom", 1, &[5]).await;
        let text = |offset: i64| Some(offset.to_string().into_bytes());
        let all = [("bottom", 5, text(5)), ("top", 0, text(0)), ("top", 1, Some(vec![0xff])), ("top", 9, None)];
        assert_eq!(read(&mut kept), all.clone().map(|(lane, offset, payload)| (lane.to_string(), offset, payload)));

        assert_eq!(kept.purge(&mut |letter| letter.offset == 1).unwrap(), 1);
        assert_eq!(read(&mut kept).iter().map(|(_, offset, _)| *offset).collect::<Vec<_>>(), [5, 0, 9]);
        assert_eq!(kept.purge(&mut |_| true).unwrap(), 3);
        assert_eq!(read(&mut kept), []);
        assert!(!folder.path().join("events/top/a-b-00000000000000000003.jsonl").exists());
        // What an epoch wrote is not written again, though it is purged.
        assert_eq!(place(folder.path()).open(&writer("top")).await.unwrap(), Some(12));
        assert_eq!(kept.claim().unwrap_err().kind(), Kind::Usage);
    }
}
