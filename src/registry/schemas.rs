//! What decoders know of a registry: each id is fetched once, and kept for all of them.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::id::SchemaId;
use super::{Registry, Schema, Version};
use crate::error::{Error, Kind, Result};

/// How long an id stays unknown that the registry did not have: a writer registers before it writes, so it will hardly come.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// Ids that are kept, known and unknown. A topic has some ten; more are made by bytes that are no ids at all.
const IDS_MAX: usize = 4096;

/// Questions under way at once: ids that are none must not cost a round trip each, one after the other.
const ASKED_AT_ONCE: usize = 8;

/// Levels of references that are followed.
const REFERENCE_LEVELS_MAX: usize = 32;

/// Schemas that are fetched for the references of one.
const REFERENCES_MAX: usize = 256;

/// A schema with everything that it refers to.
#[derive(Debug)]
pub struct Known {
    /// What the records carry.
    pub id: SchemaId,
    /// The subjects and version numbers under which it is registered.
    pub names: Vec<(String, i32)>,
    /// The schema.
    pub schema: Schema,
    /// What it refers to, at any level, by the names in the references: first what others need.
    pub references: Vec<(String, Schema)>,
}

impl Known {
    /// How a message names it: with subject and version, where the registry says them.
    pub fn name(&self) -> String {
        match self.names.first() {
            Some((subject, version)) => format!("schema id {} (version {version} of subject '{subject}')", self.id),
            None => format!("schema id {}", self.id),
        }
    }
}

/// The schemas of one table's records, shared by its decoders.
pub struct Schemas {
    registry: Arc<dyn Registry>,
    runtime: Handle,
    subject: String,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    ids: HashMap<SchemaId, Entry>,
    newest: Option<Arc<Known>>,
    /// Whether an id was learnt after the newest version was asked for.
    stale: bool,
    /// Goes up with every id that is learnt: plans made before are made again.
    edition: u64,
}

enum Entry {
    Known(Arc<Known>),
    Unknown(Instant),
}

impl Schemas {
    /// No schemas yet. Questions run on `runtime`; `subject` is asked for its newest version.
    pub fn new(registry: Arc<dyn Registry>, runtime: Handle, subject: String) -> Self {
        Self { registry, runtime, subject, kept: Mutex::default() }
    }

    /// The schema of an id that was learnt; `None`: the registry has none.
    pub fn get(&self, id: SchemaId) -> Option<Arc<Known>> {
        match self.kept.lock().ids.get(&id) {
            Some(Entry::Known(known)) => Some(Arc::clone(known)),
            _ => None,
        }
    }

    /// The subject's newest version, as of when the last id was learnt; `None`: the subject is empty.
    pub fn newest(&self) -> Option<Arc<Known>> {
        self.kept.lock().newest.clone()
    }

    /// Goes up whenever something was learnt.
    pub fn edition(&self) -> u64 {
        self.kept.lock().edition
    }

    /// Makes sure that of each id it is known what it stands for, or that the registry does not know it. Blocks; call it from threads
    /// that may. `Err(Unreachable)`: ask again later; what was learnt until then is kept.
    pub fn learn(self: &Arc<Self>, ids: &[SchemaId]) -> Result<()> {
        let now = Instant::now();
        let (missing, stale): (Vec<SchemaId>, bool) = {
            let kept = self.kept.lock();
            let fresh = |id: &SchemaId| match kept.ids.get(id) {
                Some(Entry::Known(_)) => false,
                Some(Entry::Unknown(since)) => now.duration_since(*since) >= UNKNOWN_FOR,
                None => true,
            };
            (ids.iter().copied().filter(fresh).collect(), kept.stale)
        };
        if missing.is_empty() && !stale {
            return Ok(());
        }
        let (send, receive) = sync_channel(1);
        let asking = Arc::clone(self);
        self.runtime.spawn(async move {
            // Nobody waits any more only when the process ends.
            let _ = send.send(asking.ask(missing).await);
        });
        // The runtime drops the task when it ends.
        receive.recv().unwrap_or_else(|_| Err(Error::new(Kind::Unreachable, "the process ends")))
    }

    async fn ask(&self, ids: Vec<SchemaId>) -> Result<()> {
        let mut answers = stream::iter(ids)
            .map(|id| async move { fetch(self.registry.as_ref(), id).await.map(|known| (id, known)) })
            .buffer_unordered(ASKED_AT_ONCE);
        while let Some((id, known)) = answers.try_next().await? {
            let entry = known.map_or_else(|| Entry::Unknown(Instant::now()), |known| Entry::Known(Arc::new(known)));
            self.keep(id, entry);
        }
        drop(answers);
        if self.kept.lock().stale {
            let newest = newest(self.registry.as_ref(), &self.subject).await?.map(Arc::new);
            let mut kept = self.kept.lock();
            (kept.newest, kept.stale) = (newest, false);
            kept.edition += 1;
        }
        Ok(())
    }

    fn keep(&self, id: SchemaId, entry: Entry) {
        let mut kept = self.kept.lock();
        let Kept { ids, stale, .. } = &mut *kept;
        *stale |= matches!(entry, Entry::Known(_));
        if ids.len() >= IDS_MAX {
            // Those that are none go first; what is known again is fetched again.
            ids.retain(|_, entry| matches!(entry, Entry::Known(_)));
            if ids.len() >= IDS_MAX {
                ids.clear();
            }
        }
        ids.insert(id, entry);
    }
}

/// The newest version of a subject with what it refers to.
pub async fn newest(registry: &dyn Registry, subject: &str) -> Result<Option<Known>> {
    let Some(Version { subject, version, id, schema }) = registry.latest(subject).await? else { return Ok(None) };
    let references = references(registry, &schema).await?;
    Ok(Some(Known { id: SchemaId::Id(id.into()), names: vec![(subject, version)], schema, references }))
}

async fn fetch(registry: &dyn Registry, id: SchemaId) -> Result<Option<Known>> {
    let Some(schema) = registry.fetch(id).await? else { return Ok(None) };
    let names = registry.names(id).await?;
    let references = references(registry, &schema).await?;
    Ok(Some(Known { id, names, schema, references }))
}

/// What a schema refers to, what others need first. One that the registry does not have is left out: its absence is found when the schema is
/// read, and belongs to the records of that schema alone.
async fn references(registry: &dyn Registry, schema: &Schema) -> Result<Vec<(String, Schema)>> {
    let mut found: Vec<(String, Schema)> = Vec::new();
    let mut level = schema.references.clone();
    for _ in 0..REFERENCE_LEVELS_MAX {
        let mut next = Vec::new();
        for reference in level {
            if found.len() >= REFERENCES_MAX {
                break;
            }
            if let Some(version) = registry.version(&reference.subject, reference.version).await? {
                next.extend(version.schema.references.iter().cloned());
                // Found deeper, it must come before what was found above.
                found.retain(|(name, _)| *name != reference.name);
                found.push((reference.name, version.schema));
            }
        }
        level = next;
        if level.is_empty() {
            break;
        }
    }
    found.reverse();
    Ok(found)
}
