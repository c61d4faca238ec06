//! Who is refused when, and what the sentence says.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::*;

const MIB: usize = 1 << 20;

fn memory(limit_mib: u64) -> Memory {
    Memory::new(Some(limit_mib << 20))
}

#[test]
fn what_does_not_fit_is_refused_with_a_sentence_and_changes_nothing() {
    let memory = memory(64);
    let log = memory.share("log of", "events");
    let mut tail = log.account(Use::Tail);
    tail.set(10 * MIB);
    let mut state = memory.lane("seen").account(Use::State);
    state.try_set(50 * MIB).unwrap();
    let refused = state.try_set(55 * MIB).unwrap_err();
    assert_eq!((refused.kind(), state.bytes()), (Kind::Full, 50 * MIB));
    let sentence = refused.to_string();
    let expected = "out of memory: lane 'seen' needs 5 MiB more for its window state, and falaj.memory_limit is 64 MiB, of which \
                    60 MiB are held (lane 'seen' 50 MiB (window state 50 MiB), log of 'events' 10 MiB (tail 10 MiB)), and a part \
                    is kept for the other lanes; raise the limit, or let it hold less: a smaller window, fewer groups or columns, \
                    LIMIT";
    assert_eq!(sentence, expected);
    state.try_set(54 * MIB).unwrap();
    drop(state);
    assert_eq!(memory.snapshot().used_bytes, 10 << 20);
}

#[test]
fn a_lane_that_takes_all_leaves_the_others_their_part() {
    let memory = memory(64);
    let (greedy, small) = (memory.lane("greedy"), memory.lane("small"));
    let (mut large, mut little) = (greedy.account(Use::State), small.account(Use::State));
    // A quarter of 64 MiB, parted in two, is kept for each.
    assert!(large.try_set(57 * MIB).is_err());
    large.try_set(56 * MIB).unwrap();
    little.try_set(8 * MIB).unwrap();
    assert!(little.try_set(9 * MIB).is_err());
    large.try_set(50 * MIB).unwrap();
    little.try_set(9 * MIB).unwrap();
}

#[test]
fn before_anybody_is_refused_others_give_up_what_they_can() {
    let memory = memory(64);
    let tail = Arc::new(Mutex::new(memory.share("log of", "events").account(Use::Tail)));
    tail.lock().set(40 * MIB);
    let asked = Arc::new(AtomicUsize::new(0));
    let (weak, count) = (Arc::downgrade(&tail), Arc::clone(&asked));
    memory.on_shortage(move || {
        count.fetch_add(1, Ordering::Relaxed);
        weak.upgrade().map(|tail| tail.lock().set(4 * MIB)).is_some()
    });
    let mut state = memory.lane("seen").account(Use::State);
    state.try_set(20 * MIB).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0, "there was room");
    state.try_set(60 * MIB).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    drop(tail);
    // Gone: asked once more, then forgotten.
    for _ in 0..2 {
        assert!(state.try_set(70 * MIB).is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn who_can_wait_keeps_to_a_part_of_what_is_free() {
    let memory = memory(128);
    let mut tail = memory.share("log of", "events").account(Use::Tail);
    assert_eq!(tail.fair(), 32 * MIB);
    tail.set(32 * MIB);
    assert_eq!(tail.fair(), 32 * MIB, "what it holds itself does not count");
    let mut state = memory.lane("seen").account(Use::State);
    assert_eq!(tail.fair(), 24 * MIB, "32 MiB are kept for the lane");
    state.try_set(72 * MIB).unwrap();
    assert_eq!(tail.fair(), 14 * MIB);
    state.set(200 * MIB);
    assert_eq!(tail.fair(), 0);
    assert_eq!(Account::unlimited(Use::Tail).fair(), usize::MAX / 4);
}

#[test]
fn the_status_names_who_holds_what_the_largest_first() {
    let memory = memory(128);
    let lane = memory.lane("a");
    let (mut state, mut sink) = (lane.account(Use::State), lane.account(Use::Sink));
    let mut rows = memory.share("lookup", "content").account(Use::Rows);
    let query = MemoryConsumer::new("GroupedHashAggregateStream[0]").register(&lane.pool());
    state.set(3);
    sink.set(2);
    query.grow(4);
    rows.set(10);
    let snapshot = memory.snapshot();
    assert_eq!((snapshot.limit_bytes, snapshot.used_bytes), (Some(128 << 20), 19));
    let names: Vec<&str> = snapshot.holders.iter().map(|holder| holder.name.as_str()).collect();
    assert_eq!(names, ["lookup 'content'", "lane 'a'"]);
    assert_eq!(
        snapshot.holders[1].of,
        BTreeMap::from([("window state", 3), ("sink", 2), ("query", 4)].map(|(of, bytes)| (of.to_string(), bytes)))
    );
    assert_eq!(Memory::unlimited().snapshot(), MemorySnapshot::default());
}

#[test]
fn threads_that_grow_and_shrink_leave_nothing_behind() {
    let memory = memory(64);
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let share = memory.lane(&format!("lane{number}"));
            std::thread::spawn(move || {
                let mut account = share.account(Use::State);
                for step in 0..2000 {
                    let _ = account.try_set(step % 40 * MIB);
                    account.set(step);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(memory.snapshot(), MemorySnapshot { limit_bytes: Some(64 << 20), ..MemorySnapshot::default() });
}

#[test]
fn sizes_are_written_for_people() {
    for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1 << 20, "1 MiB"), (3 << 29, "1.5 GiB")] {
        assert_eq!(shown_bytes(bytes), text);
    }
}
