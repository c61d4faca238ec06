//! A lookup table in memory: rows of another system, held with a hash index by their key.
//!
//! Readers take the present [`Version`] and keep it for a batch; a load puts a new one in its place, whole.
//! Rows that were fetched for missing keys go into the version's small overlay, so that a miss does not rebuild the index.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat, concat_batches, filter, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::LookupStore;
use super::misses::Misses;
pub use super::options::{LookupOptions, OnMiss, OnMissError, Refresh};
pub use super::version::{Found, Version};
use super::version::{Part, distinct};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::memory::{Account, Use};
use crate::status::LookupStatus;
use crate::table::TableDef;

/// An overlay of more rows becomes part of the base. Each miss copies the overlay (a millisecond at this size).
const OVERLAY_ROWS_MAX: usize = 16_384;
/// What a row costs in the index: a slot, and the hash while it is built.
const INDEX_BYTES: usize = 16;

/// A lookup table. Any number of lanes read it; one refresher and the misses of the lanes change it.
pub struct LookupTable {
    name: String,
    schema: SchemaRef,
    options: LookupOptions,
    version: RwLock<Arc<Version>>,
    /// Held while a version is made of the one before it; and what the versions hold.
    changing: Mutex<Account>,
    misses: Mutex<Misses>,
    loaded: watch::Sender<bool>,
    store: OnceLock<Arc<dyn LookupStore>>,
    /// Until then a miss is not asked for: the store was away a moment ago, and the table says `on_miss_error` `'null'`.
    away_until_ns: AtomicI64,
    duplicates: AtomicU64,
    clock: Clock,
    status: Arc<LookupStatus>,
}

impl LookupTable {
    /// An empty table as `def` declares it, with the machine's clock and figures that nobody sees.
    pub fn declared(def: &TableDef) -> Result<Arc<Self>> {
        Self::new(def, Clock::system(), Arc::default())
    }

    /// An empty table as `def` declares it, that writes its figures into `status`.
    pub fn new(def: &TableDef, clock: Clock, status: Arc<LookupStatus>) -> Result<Arc<Self>> {
        let options = LookupOptions::from_table(def)?;
        Ok(Arc::new(Self {
            name: def.name.clone(),
            schema: Arc::clone(&def.schema),
            version: RwLock::new(Arc::new(Version::empty(&def.schema, options.key))),
            options,
            changing: Mutex::new(Account::unlimited(Use::Rows)),
            misses: Mutex::default(),
            loaded: watch::Sender::new(false),
            store: OnceLock::new(),
            away_until_ns: AtomicI64::new(i64::MIN),
            duplicates: AtomicU64::new(0),
            clock,
            status,
        }))
    }

    /// The table's name in SQL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The declared columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The table's options.
    pub fn options(&self) -> &LookupOptions {
        &self.options
    }

    /// The type of the key column.
    pub fn key_type(&self) -> &DataType {
        self.schema.field(self.options.key).data_type()
    }

    /// The name of the key column.
    pub fn key_name(&self) -> &str {
        self.schema.field(self.options.key).name()
    }

    /// Says where the rows are accounted for. Call it before the first load.
    pub fn set_account(&self, account: Account) {
        *self.changing.lock() = account;
    }

    /// Says where missing keys are asked for. The first call counts.
    pub fn set_store(&self, store: Arc<dyn LookupStore>) {
        // A second store for one table would be a mistake of the caller's; the first goes on being asked.
        let _ = self.store.set(store);
    }

    /// The store, where misses are to be fetched and it is known.
    pub fn miss_store(&self) -> Option<&Arc<dyn LookupStore>> {
        self.store.get().filter(|_| self.options.on_miss == OnMiss::Fetch)
    }

    /// The present version.
    pub fn version(&self) -> Arc<Version> {
        Arc::clone(&self.version.read())
    }

    /// Whether it was loaded at least once.
    pub fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Waits for the first load; returns at once after it.
    pub async fn wait_loaded(&self) {
        // The sender lives in `self`, so that the wait cannot fail.
        let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// How many rows of all loads had a key that a later row of the same load had too.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Its figures.
    pub fn status(&self) -> &Arc<LookupStatus> {
        &self.status
    }

    /// Puts a load in place of everything held. `rows` have the declared columns; of several with one key the last stays.
    /// `Err(Full)`: there are more than `rows.max`, or than memory for both versions, and the version before stays.
    pub fn replace(&self, rows: RecordBatch) -> Result<()> {
        self.check(&rows, rows.num_rows())?;
        let needed = self.version().bytes() + rows.get_array_memory_size() + rows.num_rows() * INDEX_BYTES;
        self.changing.lock().try_set(needed)?;
        let (base, duplicates) = Part::build(rows, self.options.key)?;
        if duplicates > 0 {
            self.duplicates.fetch_add(duplicates, Ordering::Relaxed);
            tracing::warn!(
                lookup = self.name,
                duplicates,
                "several rows have the same '{}'; the last one of each is used",
                self.key_name()
            );
        }
        let mut changing = self.changing.lock();
        let none = self.none()?;
        self.put(base.into(), Arc::clone(&none), none);
        changing.set(self.version().bytes());
        drop(changing);
        self.status.loaded_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        self.loaded.send_replace(true);
        Ok(())
    }

    /// Adds fetched rows whose keys are not held yet. A key that is held keeps its row: a load that ended meanwhile is newer.
    pub fn merge(&self, rows: &RecordBatch) -> Result<()> {
        let mut changing = self.changing.lock();
        let version = self.version();
        let found = version.find(rows.column(self.options.key))?;
        let Some(hits) = found.hits() else { return Ok(()) };
        let fresh = filter_record_batch(rows, &BooleanArray::new(!hits.inner(), None))?;
        self.check(&fresh, version.num_rows() + fresh.num_rows())?;
        let overlay = concat_batches(&self.schema, [version.overlay.rows(), &fresh])?;
        self.put_overlay(&version, overlay, Arc::clone(&version.changed))?;
        changing.try_set(self.version().bytes())
    }

    /// `rows` are now the rows of `keys` (distinct, not null): those that are not among them are gone.
    pub fn apply(&self, keys: &ArrayRef, rows: &RecordBatch) -> Result<()> {
        let mut changing = self.changing.lock();
        let version = self.version();
        self.check(rows, version.num_rows() + rows.num_rows())?;
        let changed = Part::of_keys(distinct(&concat(&[version.changed.keys(), keys])?)?)?;
        let applied = Part::of_keys(Arc::clone(keys))?;
        let overlay = concat_batches(&self.schema, [&version.overlay.without(&applied)?, rows])?;
        self.put_overlay(&version, overlay, changed.into())?;
        changing.try_set(self.version().bytes())
    }

    /// Puts `overlay` over the version's base, of which the rows of `changed` do not count; or all of it into a new base, when it has
    /// become large. Called with `changing` held.
    fn put_overlay(&self, version: &Version, overlay: RecordBatch, changed: Arc<Part>) -> Result<()> {
        let overlay = compact(&overlay)?;
        if overlay.num_rows() + changed.rows().num_rows() <= OVERLAY_ROWS_MAX {
            let (overlay, _) = Part::build(overlay, self.options.key)?;
            self.put(Arc::clone(&version.base), overlay.into(), changed);
        } else {
            let base = concat_batches(&self.schema, [&version.base.without(&changed)?, &overlay])?;
            let ((base, _), none) = (Part::build(base, self.options.key)?, self.none()?);
            self.put(base.into(), Arc::clone(&none), none);
        }
        Ok(())
    }

    /// No rows.
    fn none(&self) -> Result<Arc<Part>> {
        let (none, _) = Part::build(RecordBatch::new_empty(Arc::clone(&self.schema)), self.options.key)?;
        Ok(Arc::new(none))
    }

    /// Called with `changing` held.
    fn put(&self, base: Arc<Part>, overlay: Arc<Part>, changed: Arc<Part>) {
        let mut present = self.version.write();
        let version = Version { number: present.number() + 1, base, overlay, changed };
        self.status.rows.store(version.num_rows() as u64, Ordering::Relaxed);
        self.status.bytes.store(version.bytes() as u64, Ordering::Relaxed);
        self.status.version.store(version.number(), Ordering::Relaxed);
        *present = Arc::new(version);
    }

    fn check(&self, rows: &RecordBatch, total: usize) -> Result<()> {
        if total as u64 > self.options.rows_max {
            let text = format!(
                "lookup table '{}' has more than {} rows: raise its option 'rows.max', or let LOCATION name a view with fewer",
                self.name, self.options.rows_max
            );
            return Err(Error::new(Kind::Full, text));
        }
        let types = |schema: &SchemaRef| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        if types(&rows.schema()) != types(&self.schema) {
            return Err(Error::new(Kind::Bug, format!("the rows of lookup table '{}' do not have its columns", self.name)));
        }
        Ok(())
    }

    /// The distinct keys of `keys` (of the key column's type) that are neither held nor remembered as missing. Nulls are no keys.
    pub fn missing_keys(&self, keys: &ArrayRef) -> Result<ArrayRef> {
        let found = self.version().find(keys)?;
        self.missing_of(keys, &found)
    }

    /// [`missing_keys`](Self::missing_keys) of keys that were looked up already.
    pub fn missing_of(&self, keys: &ArrayRef, found: &Found) -> Result<ArrayRef> {
        let Some(hits) = found.hits() else { return Ok(keys.slice(0, 0)) };
        let missing = distinct(&filter(keys, &BooleanArray::new(!hits.inner(), None))?)?;
        let now_ns = self.clock.now_ns();
        if missing.is_empty() || now_ns < self.away_until_ns.load(Ordering::Relaxed) {
            return Ok(missing.slice(0, 0));
        }
        let mut misses = self.misses.lock();
        let asked = (0..missing.len())
            .map(|row| Ok(!misses.holds(&ScalarValue::try_from_array(&missing, row).map_err(bug)?, now_ns)))
            .collect::<Result<Vec<bool>>>()?;
        drop(misses);
        Ok(filter(&missing, &BooleanArray::from(asked))?)
    }

    /// Remembers for `miss_ttl` those of `keys` that are still not held.
    pub fn remember_misses(&self, keys: &ArrayRef) -> Result<()> {
        let found = self.version().find(keys)?;
        let Some(hits) = found.hits() else { return Ok(()) };
        let end_ns = self.in_miss_ttl();
        let mut misses = self.misses.lock();
        for row in (0..keys.len()).filter(|&row| hits.is_null(row)) {
            misses.remember(ScalarValue::try_from_array(keys, row).map_err(bug)?, end_ns);
        }
        Ok(())
    }

    /// Treats all misses as keys without a row for `miss_ttl`: the store is away, and no batch shall wait for it again so soon.
    pub(super) fn ask_later(&self) {
        self.away_until_ns.store(self.in_miss_ttl(), Ordering::Relaxed);
    }

    fn in_miss_ttl(&self) -> i64 {
        self.clock.now_ns().saturating_add(i64::try_from(self.options.miss_ttl.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl fmt::Debug for LookupTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookupTable({}, {:?})", self.name, self.version())
    }
}

fn bug(error: datafusion::error::DataFusionError) -> Error {
    Error::new(Kind::Bug, "a key could not be read").because(error)
}

/// Copies texts out of the many buffers of fetched batches, or each miss would leave one behind.
fn compact(rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(|column| match column.as_string_view_opt() {
        Some(texts) => Arc::new(texts.gc()) as ArrayRef,
        None => Arc::clone(column),
    });
    Ok(RecordBatch::try_new(rows.schema(), columns.collect())?)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
