//! A checkpoint in a bucket.
//!
//! A record is created by a PUT that asks for nothing to be there (`If-None-Match: *`), which S3 decides for all processes alike. The
//! answer can be lost after the record is there, and then the client's next attempt finds it taken: so an id of the call stands beside
//! the bytes, and whoever finds the name taken looks whose it is.

use async_trait::async_trait;
use object_store::{
    Attribute, AttributeValue, Attributes, Error as S3Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};

use super::{CheckpointStore, Stored};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::s3::{Bucket, is_absent};

/// Where the id of an attempt stands.
const WRITTEN_BY: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("falaj-written-by"));
/// How often a name is tried that was taken and is free when looked at (two conflicting requests may both be refused), or whose answer did
/// not come: the client does not try such a request again by itself. An outage is for the lane to wait for.
const TRIES: usize = 3;

/// The place in the bucket.
#[derive(Debug)]
pub struct S3Store(Bucket);

impl S3Store {
    /// A store in `bucket`; nothing is asked yet.
    pub fn new(bucket: Bucket) -> Self {
        Self(bucket)
    }

    /// Who wrote what is under the name; `None` when nothing is.
    async fn written_by(&self, name: &str) -> Result<Option<String>> {
        let head = GetOptions { head: true, ..GetOptions::default() };
        match self.0.store.get_opts(&self.0.key(name), head).await {
            Ok(found) => Ok(Some(found.attributes.get(&WRITTEN_BY).map(|id| id.to_string()).unwrap_or_default())),
            Err(cause) if is_absent(&cause) => Ok(None),
            Err(cause) => Err(self.0.failed("read", name, cause)),
        }
    }
}

#[async_trait]
impl CheckpointStore for S3Store {
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        let lane = name.split('/').next().unwrap_or_default();
        let id = uuid::Uuid::now_v7().to_string();
        let attributes = Attributes::from_iter([(WRITTEN_BY, AttributeValue::from(id.clone()))]);
        let payload = PutPayload::from(bytes);
        failpoint::hit(lane, "record.written");
        for left in (0..TRIES).rev() {
            let options = PutOptions { mode: PutMode::Create, attributes: attributes.clone(), ..PutOptions::default() };
            match self.0.store.put_opts(&self.0.key(name), payload.clone(), options).await {
                Ok(_) => {
                    failpoint::hit(lane, "record.linked");
                    return Ok(true);
                }
                Err(S3Error::AlreadyExists { .. }) => {}
                Err(cause) => {
                    let error = self.0.failed("write", name, cause);
                    if left == 0 || error.kind() != Kind::Unreachable {
                        return Err(error);
                    }
                    continue;
                }
            }
            if let Some(other) = self.written_by(name).await? {
                return Ok(other == id);
            }
        }
        let text = format!("could not write {}: it is refused as taken, and then not there", self.0.url(name));
        Err(Error::new(Kind::Unreachable, text))
    }

    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let found = match self.0.store.get(&self.0.key(name)).await {
            Ok(found) => found.bytes().await,
            Err(cause) => Err(cause),
        };
        match found {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(cause) if is_absent(&cause) => Ok(None),
            Err(cause) => Err(self.0.failed("read", name, cause)),
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let place = self.0.key(folder);
        let listed =
            self.0.store.list_with_delimiter(Some(&place)).await.map_err(|cause| self.0.failed("list", folder, cause))?;
        let keys = listed.objects.iter().map(|object| &object.location).chain(&listed.common_prefixes);
        let mut names: Vec<String> = keys.filter_map(|key| key.filename()).map(str::to_string).collect();
        names.sort();
        Ok(names)
    }

    async fn look(&self, folder: &str) -> Result<Vec<Stored>> {
        let place = self.0.key(folder);
        let listed =
            self.0.store.list_with_delimiter(Some(&place)).await.map_err(|cause| self.0.failed("list", folder, cause))?;
        let stored = listed.objects.iter().filter_map(|object| {
            let name = object.location.filename()?.to_string();
            Some(Stored { name, size_bytes: object.size, created: Some(object.last_modified.into()) })
        });
        Ok(stored.collect())
    }

    /// One by one: of a request for many, some may be done before those that were to go first.
    async fn remove(&self, names: Vec<String>) -> Result<()> {
        for name in names {
            match self.0.store.delete(&self.0.key(&name)).await {
                Ok(()) => {}
                Err(cause) if is_absent(&cause) => {}
                Err(cause) => return Err(self.0.failed("remove", &name, cause)),
            }
        }
        Ok(())
    }
}
