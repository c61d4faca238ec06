//! A checkpoint store in memory, for tests and the demo. Clones share it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{CheckpointStore, Stored};
use crate::error::Result;

/// Names and bytes in a map.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

#[async_trait]
impl CheckpointStore for MemoryStore {
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        let mut files = self.0.lock();
        if files.contains_key(name) {
            return Ok(false);
        }
        files.insert(name.to_string(), bytes);
        Ok(true)
    }

    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().get(name).cloned())
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let files = self.0.lock();
        let inside = files.keys().filter_map(|name| name.strip_prefix(&prefix));
        let mut names: Vec<String> = inside.filter_map(|rest| rest.split('/').next()).map(str::to_string).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn look(&self, folder: &str) -> Result<Vec<Stored>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let files = self.0.lock();
        let inside = files.iter().filter_map(|(name, bytes)| Some((name.strip_prefix(&prefix)?, bytes.len() as u64)));
        let inside = inside.filter(|(name, _)| !name.contains('/'));
        Ok(inside.map(|(name, size_bytes)| Stored { name: name.to_string(), size_bytes, created: None }).collect())
    }

    async fn remove(&self, names: Vec<String>) -> Result<()> {
        let mut files = self.0.lock();
        names.iter().for_each(|name| drop(files.remove(name)));
        Ok(())
    }
}
