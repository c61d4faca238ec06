//! Any bytes as a message of Postgres: nothing panics, runs on for ever or allocates more than the bytes call for, and a change is read
//! back as it was written.

#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use falaj_fuzz::pgoutput::{Change, Message, Op, Tuple};
use libfuzzer_sys::fuzz_target;

/// A column takes 10 bytes of a message and 48 of memory; a vector that grows has taken up to four times its length in all.
const BYTES_PER_BYTE: usize = 40;
/// For a vector's first few elements.
const BYTES_BESIDE: usize = 1024;

/// Counts what is asked for.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let before = ALLOCATED.load(Ordering::Relaxed);
    read(bytes);
    let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
    let most = bytes.len() * BYTES_PER_BYTE + BYTES_BESIDE;
    assert!(allocated <= most, "{allocated} bytes of memory for {} bytes", bytes.len());
});

fn read(bytes: &[u8]) {
    if let Ok(Message::Row { relation, op, body }) = Message::parse(bytes) {
        change(Change {
            op,
            generation: relation,
            lsn: 1,
            commit_lsn: u64::MAX,
            before_lsn: 0,
            commit_us: i64::MIN,
            xid: u32::MAX,
            body,
        });
    }
    // The same bytes as they may lie in memory, and as the rows of any change.
    if let Ok(found) = Change::read(bytes) {
        change(found);
    }
    for op in [Op::Read, Op::Insert, Op::Update, Op::Delete, Op::Truncate] {
        walk(&Change { op, generation: 0, lsn: 0, commit_lsn: 0, before_lsn: 0, commit_us: 0, xid: 0, body: bytes });
    }
}

fn change(change: Change<'_>) {
    let mut written = Vec::new();
    change.write(&mut written);
    let read = Change::read(&written);
    assert_eq!(read, Ok(change));
    walk(&change);
}

fn walk(change: &Change<'_>) {
    let Ok(rows) = change.rows() else { return };
    assert_eq!((rows.old.is_none() && rows.new.is_none()), change.op == Op::Truncate);
    assert!(rows.new.is_none() || change.op != Op::Delete);
    let count = |row: Option<Tuple<'_>>| row.into_iter().flatten().count();
    let values = count(rows.old) + count(rows.new);
    // Each takes a byte at least; the last of a row may be the one that is not there.
    assert!(values <= change.body.len() + 2);
}
