//! The pools behind shares: DataFusion's trait, with one set of books for all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool};
use parking_lot::Mutex;

use super::{Holder, Use, shown_bytes};

/// One part in so many of the limit is kept for lanes, the same for each.
const KEPT_PARTS: usize = 4;
/// How many holders a refusal names.
const NAMED: usize = 3;

type GivesUp = Box<dyn Fn() -> bool + Send + Sync>;

/// What all shares hold together.
pub(super) struct Books {
    limit: usize,
    table: Mutex<Table>,
    giving_up: Mutex<Vec<GivesUp>>,
}

#[derive(Default)]
struct Table {
    used: usize,
    shares: Vec<Entry>,
    last_id: u64,
}

struct Entry {
    id: u64,
    is_lane: bool,
    used: usize,
    pool: Weak<SharePool>,
}

impl Books {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, table: Mutex::default(), giving_up: Mutex::default() }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn used(&self) -> usize {
        self.table.lock().used
    }

    pub(super) fn on_shortage(&self, gives_up: GivesUp) {
        self.giving_up.lock().push(gives_up);
    }

    /// Lets everybody give up what they can do without.
    fn ask_all(&self) {
        self.giving_up.lock().retain(|gives_up| gives_up());
    }

    /// The shares with what they hold, the largest first.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let pools: Vec<Arc<SharePool>> = self.table.lock().shares.iter().filter_map(|entry| entry.pool.upgrade()).collect();
        let mut holders: Vec<Holder> = pools.iter().map(|pool| pool.holder()).collect();
        holders.sort_by(|left, right| right.bytes.cmp(&left.bytes).then_with(|| left.name.cmp(&right.name)));
        holders
    }

    fn refusal(&self, share: &str, of: &str, additional: usize) -> String {
        let holders = self.holders();
        let largest = holders.iter().take(NAMED).map(|holder| {
            let most = holder.of.iter().max_by_key(|(_, bytes)| **bytes);
            let most = most.map_or_else(String::new, |(of, bytes)| format!(" ({of} {})", shown_bytes(*bytes)));
            format!("{} {}{most}", holder.name, shown_bytes(holder.bytes))
        });
        format!(
            "out of memory: {share} needs {} more for its {of}, and falaj.memory_limit is {}, of which {} are held ({}), and a part \
             is kept for the other lanes; raise the limit, or let it hold less: a smaller window, fewer groups or columns, LIMIT",
            shown_bytes(additional as u64),
            shown_bytes(self.limit as u64),
            shown_bytes(self.used() as u64),
            largest.collect::<Vec<_>>().join(", "),
        )
    }
}

impl Table {
    fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.shares.iter_mut().find(|entry| entry.id == id)
    }

    fn grow(&mut self, id: u64, bytes: usize) {
        self.used += bytes;
        if let Some(entry) = self.entry(id) {
            entry.used += bytes;
        }
    }

    fn shrink(&mut self, id: u64, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        if let Some(entry) = self.entry(id) {
            entry.used = entry.used.saturating_sub(bytes);
        }
    }

    /// What is kept for each lane.
    fn kept_each(&self, limit: usize) -> usize {
        limit / KEPT_PARTS / self.shares.iter().filter(|entry| entry.is_lane).count().max(1)
    }

    /// What is kept for other lanes than `id` and not used by them yet.
    fn kept_from(&self, id: u64, limit: usize) -> usize {
        let kept = self.kept_each(limit);
        let others = self.shares.iter().filter(|entry| entry.is_lane && entry.id != id);
        others.map(|entry| kept.saturating_sub(entry.used)).sum()
    }

    /// Whether share `id` may hold so much more.
    fn fits(&self, id: u64, bytes: usize, limit: usize) -> bool {
        let entry = self.shares.iter().find(|entry| entry.id == id);
        let own = entry.filter(|entry| entry.is_lane).is_some_and(|entry| entry.used + bytes <= self.kept_each(limit));
        own || self.used.saturating_add(bytes).saturating_add(self.kept_from(id, limit)) <= limit
    }
}

/// The pool of one share: refuses with our sentence, after everybody has given up what they can.
pub(super) struct SharePool {
    name: String,
    tracked: TrackConsumersPool<Part>,
}

/// What the books know of a share. Only [`SharePool`] holds it.
#[derive(Debug)]
struct Part {
    id: u64,
    books: Arc<Books>,
}

impl SharePool {
    pub(super) fn register(books: &Arc<Books>, name: String, is_lane: bool) -> Arc<Self> {
        let mut table = books.table.lock();
        table.last_id += 1;
        let id = table.last_id;
        Arc::new_cyclic(|pool| {
            table.shares.push(Entry { id, is_lane, used: 0, pool: Weak::clone(pool) });
            drop(table);
            Self { name, tracked: TrackConsumersPool::new(Part { id, books: Arc::clone(books) }, NonZeroUsize::MIN) }
        })
    }

    pub(super) fn books(&self) -> &Arc<Books> {
        &self.tracked.inner().books
    }

    /// What would be free if this share did not hold `own` bytes.
    pub(super) fn free_without(&self, own: usize) -> usize {
        let Part { id, books } = self.tracked.inner();
        let table = books.table.lock();
        let others = table.used.saturating_sub(own) + table.kept_from(*id, books.limit);
        books.limit.saturating_sub(others)
    }

    fn holder(&self) -> Holder {
        let mut of = BTreeMap::new();
        for consumer in self.tracked.metrics() {
            if consumer.reserved > 0 {
                *of.entry(Use::shown(&consumer.name).to_string()).or_default() += consumer.reserved as u64;
            }
        }
        Holder { name: self.name.clone(), bytes: of.values().sum(), of }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.books.table.lock().shares.retain(|entry| entry.id != self.id);
    }
}

impl MemoryPool for Part {
    fn name(&self) -> &str {
        "falaj"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.books.table.lock().grow(self.id, additional);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.books.table.lock().shrink(self.id, shrink);
    }

    fn try_grow(&self, _: &MemoryReservation, additional: usize) -> Result<()> {
        let mut table = self.books.table.lock();
        if !table.fits(self.id, additional, self.books.limit) {
            return Err(DataFusionError::ResourcesExhausted(String::new()));
        }
        table.grow(self.id, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.books.used()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.books.limit)
    }
}

impl MemoryPool for SharePool {
    fn name(&self) -> &str {
        &self.name
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.tracked.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.tracked.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.tracked.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.tracked.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut granted = self.tracked.try_grow(reservation, additional);
        if matches!(granted, Err(DataFusionError::ResourcesExhausted(_))) {
            self.books().ask_all();
            granted = self.tracked.try_grow(reservation, additional);
        }
        granted.map_err(|error| match error {
            DataFusionError::ResourcesExhausted(_) => {
                let of = Use::shown(reservation.consumer().name());
                DataFusionError::ResourcesExhausted(self.books().refusal(&self.name, of, additional))
            }
            other => other,
        })
    }

    fn reserved(&self) -> usize {
        self.books().used()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.tracked.memory_limit()
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books").field("limit", &self.limit).field("used", &self.used()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SharePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharePool({})", self.name)
    }
}

impl fmt::Display for SharePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a share of {}", shown_bytes(self.books.limit as u64))
    }
}
