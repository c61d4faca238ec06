//! Files in a bucket: what is staged is a multipart upload whose parts are all there, and publishing completes it.
//!
//! ```text
//!  _staging/<lane>/<incarnation>-<epoch>-<part>.staged    a note: which upload it is, so that one that no intent lists can be aborted
//!  dt=…/hour=…/<lane>-<lineage>-<epoch>-<part>.parquet    there once the upload is completed, whole
//! ```
//! The note comes before the first part: an upload without a note has no parts, and costs nothing.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use futures::stream::{self, FuturesOrdered, StreamExt, TryStreamExt};
use object_store::multipart::{MultipartStore, PartId};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::disk::{Hash, disk_error};
use super::options::FilesOptions;
use super::publish::{Found, prefix, staging};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::s3::{Bucket, is_absent};
use crate::sink::{Applied, Staged, Upload, Writer};

/// S3 wants 5 MiB at least, and 10 000 parts at most.
const PART_BYTES: u64 = 8 << 20;
const PARTS_MAX: u64 = 10_000;
/// Parts under way at once: what a file's upload holds in memory.
const PARTS_AT_ONCE: usize = 2;
/// How many names are asked about at once.
const AT_ONCE: usize = 8;

/// Where a file is while it is written, for messages.
pub(super) const TEMPORARY: &str = "a temporary file (TMPDIR)";
/// What the upload of one file holds in memory.
pub(super) const UPLOAD_BYTES: usize = PART_BYTES as usize * PARTS_AT_ONCE;

/// What a note says.
#[derive(Serialize, Deserialize)]
struct Note {
    upload: String,
    published: String,
}

/// Looks who has written there. Gives the greatest epoch of our lane and lineage that is visible.
pub(super) async fn look(bucket: &Bucket, options: &FilesOptions, writer: &Writer) -> Result<Found> {
    let mut found = Found::none(options, prefix(writer));
    let place = bucket.key("");
    let mut objects = bucket.store.list(Some(&place));
    while let Some(object) = objects.try_next().await.map_err(|cause| bucket.failed("list", "", cause))? {
        let Some(name) = bucket.name(&object.location) else { continue };
        let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
        let depth = folders.split('/').filter(|folder| !folder.is_empty()).count();
        if depth <= options.keys.len() && !folders.split('/').any(|folder| folder.starts_with(['_', '.'])) {
            found.note(file, || PathBuf::from(bucket.url(name)));
        }
    }
    Ok(found)
}

/// Sends a file, without making it visible; everything is durable when it returns. It reads the file where it is polled: on a thread
/// that may block.
pub(super) async fn upload(bucket: &Bucket, lane: &str, mut file: File, part: &mut Staged) -> Result<()> {
    let key = bucket.key(&part.published);
    let failed = |cause| bucket.failed("write", &part.published, cause);
    let id = bucket.store.create_multipart(&key).await.map_err(failed)?;
    failpoint::hit(lane, "files.begun");
    let note = Note { upload: id.clone(), published: part.published.clone() };
    let note = serde_json::to_vec(&note).map_err(|cause| Error::new(Kind::Bug, "a note is no JSON").because(cause))?;
    let noted = bucket.store.put(&bucket.key(&part.staged), note.into()).await;
    noted.map_err(|cause| bucket.failed("write", &part.staged, cause))?;
    let unread = |cause| disk_error("read", Path::new(TEMPORARY), cause);
    file.rewind().map_err(unread)?;
    let part_bytes = PART_BYTES.max(part.size_bytes.div_ceil(PARTS_MAX));
    let (mut parts, mut under_way) = (Vec::new(), FuturesOrdered::new());
    for index in 0..part.size_bytes.div_ceil(part_bytes) as usize {
        let mut bytes = Vec::with_capacity(part_bytes.min(part.size_bytes) as usize);
        (&mut file).take(part_bytes).read_to_end(&mut bytes).map_err(unread)?;
        if under_way.len() == PARTS_AT_ONCE {
            parts.extend(under_way.try_next().await.map_err(failed)?);
        }
        under_way.push_back(bucket.store.put_part(&key, &id, index, bytes.into()));
    }
    while let Some(sent) = under_way.try_next().await.map_err(failed)? {
        parts.push(sent);
    }
    drop(under_way);
    failpoint::hit(lane, "files.uploaded");
    part.upload = Some(Upload { id, parts: parts.into_iter().map(|part| part.content_id).collect() });
    Ok(())
}

/// Aborts what this lane has staged and is not in `keep`.
pub(super) async fn discard(bucket: &Bucket, writer: &Writer, keep: &[Staged]) -> Result<()> {
    let folder = staging(&writer.lane);
    let notes: Vec<ObjectMeta> = bucket
        .store
        .list(Some(&bucket.key(&folder)))
        .try_collect()
        .await
        .map_err(|cause| bucket.failed("list", &folder, cause))?;
    for note in notes {
        let Some(name) = bucket.name(&note.location) else { continue };
        if !name.ends_with(".staged") || keep.iter().any(|kept| kept.staged == name) {
            continue;
        }
        let read = match bucket.store.get(&note.location).await {
            Ok(found) => found.bytes().await,
            Err(cause) => Err(cause),
        };
        match read {
            Ok(bytes) => abort(bucket, name, &bytes).await?,
            // A process that was fenced may be doing the same.
            Err(cause) if is_absent(&cause) => {}
            Err(cause) => return Err(bucket.failed("read", name, cause)),
        }
        delete(bucket, name).await?;
    }
    Ok(())
}

/// A note that is torn is nobody's: then there is nothing that could be aborted.
async fn abort(bucket: &Bucket, name: &str, note: &[u8]) -> Result<()> {
    let Ok(note) = serde_json::from_slice::<Note>(note) else { return Ok(()) };
    match bucket.store.abort_multipart(&bucket.key(&note.published), &note.upload).await {
        // It was completed, or aborted before.
        Err(cause) if !is_absent(&cause) => Err(bucket.failed("discard", name, cause)),
        _ => Ok(()),
    }
}

async fn delete(bucket: &Bucket, name: &str) -> Result<()> {
    match bucket.store.delete(&bucket.key(name)).await {
        Err(cause) if !is_absent(&cause) => Err(bucket.failed("delete", name, cause)),
        _ => Ok(()),
    }
}

/// Completes what is staged; what is there already is left. With `redo`, which is after a crash, an object that is there is read: it must
/// be what the intent lists.
pub(super) async fn apply(bucket: &Bucket, lane: &str, staged: &[Staged], redo: bool) -> Result<Applied> {
    let publish = |part: Staged| async move {
        if !(redo && is_published(bucket, &part).await?) {
            complete(bucket, &part).await?;
            failpoint::hit(lane, "files.renamed");
        }
        Ok::<u64, Error>(part.rows)
    };
    let published = stream::iter(staged.to_vec()).map(publish).buffer_unordered(AT_ONCE);
    let rows = published.try_fold(0, |sum, rows| async move { Ok(sum + rows) }).await?;
    Ok(Applied { rows, ..Applied::default() })
}

async fn complete(bucket: &Bucket, part: &Staged) -> Result<()> {
    let Some(upload) = &part.upload else {
        let text =
            format!("the intent lists {} without its upload: was LOCATION a folder before?", bucket.url(&part.published));
        return Err(Error::new(Kind::Corrupt, text));
    };
    let parts = upload.parts.iter().map(|content_id| PartId { content_id: content_id.clone() }).collect();
    match bucket.store.complete_multipart(&bucket.key(&part.published), &upload.id, parts).await {
        Ok(_) => Ok(()),
        // The answer to an attempt before was lost, or somebody has aborted it.
        Err(cause) if is_absent(&cause) => {
            if is_published(bucket, part).await? {
                Ok(())
            } else {
                Err(gone(bucket, part))
            }
        }
        Err(cause) => Err(bucket.failed("publish", &part.published, cause)),
    }
}

/// Whether the object is there, with the bytes that the intent lists.
async fn is_published(bucket: &Bucket, part: &Staged) -> Result<bool> {
    let unread = |cause| bucket.failed("read", &part.published, cause);
    let mut object = match bucket.store.get(&bucket.key(&part.published)).await {
        Ok(found) => found.into_stream(),
        Err(cause) if is_absent(&cause) => return Ok(false),
        Err(cause) => return Err(unread(cause)),
    };
    let (mut hash, mut size_bytes) = (Hash::default(), 0);
    while let Some(bytes) = object.try_next().await.map_err(unread)? {
        hash.update(&bytes);
        size_bytes += bytes.len() as u64;
    }
    if (size_bytes, &hash.hex()) == (part.size_bytes, &part.hash) {
        return Ok(true);
    }
    let text = format!("{} has other bytes than the intent says (hash {})", bucket.url(&part.published), part.hash);
    Err(Error::new(Kind::Corrupt, text))
}

/// Deletes the notes of what was published.
pub(super) async fn forget(bucket: &Bucket, staged: &[Staged]) -> Result<()> {
    let names = stream::iter(staged.iter().map(|part| part.staged.clone()).collect::<Vec<_>>());
    names.map(|name| async move { delete(bucket, &name).await }).buffer_unordered(AT_ONCE).try_collect().await
}

fn gone(bucket: &Bucket, part: &Staged) -> Error {
    let text = format!(
        "neither {} nor the upload that was to become it is there, and the intent says that one was made; if the object was moved away,          put it back until the lane has gone on; a rule of the bucket that ends multipart uploads must leave them a day",
        bucket.url(&part.published)
    );
    Error::new(Kind::Lost, text)
}

/// Somebody else's files are there, and may not stay.
pub(super) fn foreign(bucket: &Bucket, options: &FilesOptions, file: &Path) -> Error {
    let text = format!(
        "{bucket:?} has files of another lineage or lane, such as {}, and rows that are read again would lie beside them; give table '{}'          another LOCATION, or move them away, or set OPTIONS ('on_new_lineage' 'append') to keep both",
        file.display(),
        options.table
    );
    Error::new(Kind::Fenced, text)
}
