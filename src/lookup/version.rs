//! One immutable state of a lookup table: rows with a hash index by key, and a few rows that were fetched since the last load.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringViewArray, UInt32Array, make_comparator, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{SortOptions, filter_record_batch, interleave, take};
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::error::{Error, Kind, Result};

/// Stands for "no row" while keys are looked up; no table has so many rows.
const NO_ROW: u32 = u32::MAX;

/// Runs `$body` with `$same(i, j)`: whether value `i` of `$left` equals value `j` of `$right`, neither being null.
/// One copy of the body for each common type of key, so that the comparison is compiled into the loop.
macro_rules! with_same {
    ($left:expr, $right:expr, $same:ident => $body:expr) => {{
        let (left, right): (&dyn Array, &dyn Array) = ($left, $right);
        macro_rules! native {
            ($native:ty) => {{
                let (left, right) = (left.as_primitive::<$native>().values(), right.as_primitive::<$native>().values());
                let $same = |i: usize, j: usize| left[i] == right[j];
                $body
            }};
        }
        match left.data_type() {
            DataType::Utf8View => {
                let (left, right) = (left.as_string_view(), right.as_string_view());
                let $same = |i: usize, j: usize| same_text(left, i, right, j);
                $body
            }
            DataType::Int16 => native!(Int16Type),
            DataType::Int32 => native!(Int32Type),
            DataType::Int64 => native!(Int64Type),
            _ => {
                let compare = make_comparator(left, right, SortOptions::default())?;
                let $same = |i: usize, j: usize| compare(i, j).is_eq();
                $body
            }
        }
    }};
}

/// The low half of a view is length and first bytes: most different texts differ there.
fn same_text(left: &StringViewArray, i: usize, right: &StringViewArray, j: usize) -> bool {
    let (a, b) = (left.views()[i], right.views()[j]);
    if a as u64 != b as u64 {
        return false;
    }
    if a as u32 <= 12 { a == b } else { left.value(i) == right.value(j) }
}

fn hashes(keys: &ArrayRef) -> Result<Vec<u64>> {
    let mut hashes = vec![0; keys.len()];
    create_hashes([keys], &RandomState::default(), &mut hashes)
        .map_err(|error| Error::new(Kind::Bug, "the keys could not be hashed").because(error))?;
    Ok(hashes)
}

/// The rows whose key is the first of its kind in `keys`, without nulls.
pub(super) fn distinct(keys: &ArrayRef) -> Result<ArrayRef> {
    let hashes = hashes(keys)?;
    let mut slots: HashTable<u32> = HashTable::new();
    let mut firsts = Vec::new();
    with_same!(keys, keys, same => {
        for row in (0..keys.len()).filter(|&row| keys.is_valid(row)) {
            let entry = slots.entry(hashes[row], |&at| same(row, at as usize), |&at| hashes[at as usize]);
            if let Entry::Vacant(slot) = entry {
                slot.insert(row as u32);
                firsts.push(row as u32);
            }
        }
    });
    Ok(take(keys, &UInt32Array::from(firsts), None)?)
}

/// Rows with an index by their key. No two of its rows have the same key; rows without a key are found by nobody.
pub(super) struct Part {
    rows: RecordBatch,
    key: usize,
    slots: HashTable<u32>,
}

impl Part {
    /// Builds the index. Of several rows with one key the last one stays; the second answer is how many went.
    pub(super) fn build(rows: RecordBatch, key: usize) -> Result<(Self, u64)> {
        let keys = rows.column(key);
        let hashes = hashes(keys)?;
        let mut slots: HashTable<u32> = HashTable::with_capacity(keys.len());
        let mut gone = Vec::new();
        with_same!(keys, keys, same => {
            for row in (0..keys.len()).filter(|&row| keys.is_valid(row)) {
                let entry = slots.entry(hashes[row], |&at| same(row, at as usize), |&at| hashes[at as usize]);
                match entry {
                    Entry::Vacant(slot) => {
                        slot.insert(row as u32);
                    }
                    Entry::Occupied(mut slot) => gone.push(std::mem::replace(slot.get_mut(), row as u32)),
                }
            }
        });
        if gone.is_empty() {
            return Ok((Self { rows, key, slots }, 0));
        }
        let mut stays = vec![true; rows.num_rows()];
        for &row in &gone {
            stays[row as usize] = false;
        }
        let rows = filter_record_batch(&rows, &BooleanArray::from(stays))?;
        let (part, _) = Self::build(rows, key)?;
        Ok((part, gone.len() as u64))
    }

    /// An index of nothing but keys.
    pub(super) fn of_keys(keys: ArrayRef) -> Result<Self> {
        let schema = Schema::new(vec![Field::new("key", keys.data_type().clone(), true)]);
        Ok(Self::build(RecordBatch::try_new(Arc::new(schema), vec![keys])?, 0)?.0)
    }

    pub(super) fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The keys of its rows.
    pub(super) fn keys(&self) -> &dyn Array {
        self.rows.column(self.key)
    }

    /// Its rows but for those whose key is in `others`.
    pub(super) fn without(&self, others: &Part) -> Result<RecordBatch> {
        let gone = others.holds(self.rows.column(self.key))?;
        Ok(filter_record_batch(&self.rows, &BooleanArray::from_iter(gone.into_iter().map(|gone| Some(!gone))))?)
    }

    /// Which of `keys` have a row.
    pub(super) fn holds(&self, keys: &ArrayRef) -> Result<Vec<bool>> {
        let mut found = vec![NO_ROW; keys.len()];
        self.find(keys, &hashes(keys)?, 0, &mut found)?;
        Ok(found.into_iter().map(|row| row != NO_ROW).collect())
    }

    fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.slots.allocation_size()
    }

    /// Writes the row of each key, plus `offset`, into `found` where nothing is found yet.
    fn find(&self, keys: &ArrayRef, hashes: &[u64], offset: u32, found: &mut [u32]) -> Result<()> {
        if self.slots.is_empty() {
            return Ok(());
        }
        let nulls = keys.logical_nulls();
        with_same!(keys, self.rows.column(self.key), same => {
            for (row, at) in found.iter_mut().enumerate() {
                if *at != NO_ROW || nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    continue;
                }
                if let Some(&hit) = self.slots.find(hashes[row], |&hit| same(row, hit as usize)) {
                    *at = hit + offset;
                }
            }
        });
        Ok(())
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} rows)", self.rows.num_rows())
    }
}

/// Where the rows of some keys are in one [`Version`].
#[derive(Debug)]
pub struct Found {
    /// For each key its row; null where there is none. Base first, then overlay.
    rows: UInt32Array,
    /// Whether a row of the overlay is among them.
    overlay: bool,
}

impl Found {
    fn new(rows: Vec<u32>, base_rows: usize) -> Self {
        let misses = rows.iter().filter(|&&row| row == NO_ROW).count();
        let overlay = rows.iter().any(|&row| row != NO_ROW && row as usize >= base_rows);
        if misses == 0 {
            return Self { rows: UInt32Array::from(rows), overlay };
        }
        let nulls = NullBuffer::from_iter(rows.iter().map(|&row| row != NO_ROW));
        let rows: Vec<u32> = rows.into_iter().map(|row| if row == NO_ROW { 0 } else { row }).collect();
        Self { rows: UInt32Array::new(rows.into(), Some(nulls)), overlay }
    }

    /// Which keys have a row; `None` when all have.
    pub fn hits(&self) -> Option<&NullBuffer> {
        self.rows.nulls()
    }

    /// How many keys were looked up.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no key was looked up.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many keys have none.
    pub fn misses(&self) -> usize {
        self.rows.null_count()
    }

    /// The same, but only where `truth` is set; elsewhere it is as if there were no row.
    pub fn keep(&self, truth: &BooleanBuffer) -> Self {
        let nulls = NullBuffer::union(self.rows.nulls(), Some(&NullBuffer::new(truth.clone())));
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        Self { rows: UInt32Array::new(self.rows.values().clone(), nulls), overlay: self.overlay }
    }

    /// The same with fewer keys: those of `places`, in that order; a null place is a key without a row.
    pub fn choose(&self, places: &UInt32Array) -> Result<Self> {
        let rows = take(&self.rows, places, None)?;
        Ok(Self { rows: rows.as_primitive().clone(), overlay: self.overlay })
    }
}

/// One state of a lookup table. Never changes; a batch is joined with one version from begin to end.
#[derive(Debug)]
pub struct Version {
    pub(super) number: u64,
    pub(super) base: Arc<Part>,
    pub(super) overlay: Arc<Part>,
    /// Keys whose rows in the base do not count any more.
    pub(super) changed: Arc<Part>,
}

impl Version {
    pub(super) fn empty(schema: &SchemaRef, key: usize) -> Self {
        let part = Arc::new(Part { rows: RecordBatch::new_empty(Arc::clone(schema)), key, slots: HashTable::new() });
        Self { number: 0, base: Arc::clone(&part), overlay: Arc::clone(&part), changed: part }
    }

    /// Counts the changes of the table.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many rows it has, counting those that have changed twice until they are put into place.
    pub fn num_rows(&self) -> usize {
        self.base.rows.num_rows() + self.overlay.rows.num_rows()
    }

    /// All rows, in at most two batches.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        let base = match self.changed.slots.is_empty() {
            true => self.base.rows.clone(),
            false => self.base.without(&self.changed)?,
        };
        Ok([base, self.overlay.rows.clone()].into_iter().filter(|rows| rows.num_rows() > 0).collect())
    }

    pub(super) fn bytes(&self) -> usize {
        self.base.bytes() + self.overlay.bytes() + self.changed.bytes()
    }

    /// The rows of `keys`, which have the key column's type. A null key has none.
    pub fn find(&self, keys: &ArrayRef) -> Result<Found> {
        let hashes = hashes(keys)?;
        let mut rows = vec![NO_ROW; keys.len()];
        let base_rows = self.base.rows.num_rows();
        self.base.find(keys, &hashes, 0, &mut rows)?;
        if !self.changed.slots.is_empty() {
            let mut changed = vec![NO_ROW; keys.len()];
            self.changed.find(keys, &hashes, 0, &mut changed)?;
            rows.iter_mut().zip(changed).filter(|(_, changed)| *changed != NO_ROW).for_each(|(row, _)| *row = NO_ROW);
        }
        self.overlay.find(keys, &hashes, base_rows as u32, &mut rows)?;
        Ok(Found::new(rows, base_rows))
    }

    /// A column at the rows that were found in this same version; null where there is none. Texts are taken as views.
    pub fn gather(&self, column: usize, found: &Found) -> Result<ArrayRef> {
        let base = self.base.rows.column(column);
        if found.misses() == found.rows.len() {
            return Ok(new_null_array(base.data_type(), found.rows.len()));
        }
        if !found.overlay {
            return Ok(take(base, &found.rows, None)?);
        }
        let none = new_null_array(base.data_type(), 1);
        let split = base.len();
        let places: Vec<(usize, usize)> = found
            .rows
            .iter()
            .map(|row| match row.map(|row| row as usize) {
                Some(row) if row < split => (0, row),
                Some(row) => (1, row - split),
                None => (2, 0),
            })
            .collect();
        Ok(interleave(&[base, self.overlay.rows.column(column), &none], &places)?)
    }
}
