//! What every store must do, whatever keeps its bytes. Nothing here asks for more than a conditional put promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;

use super::super::CheckpointStore;
use super::super::local::LocalStore;
use super::Place;
use crate::error::Kind;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_created_is_read_listed_and_removed() {
    for place in Place::all() {
        let store = place.open();
        assert_eq!(store.read("lane/1").await.unwrap(), None);
        assert_eq!(store.list("lane").await.unwrap(), [""; 0]);
        assert_eq!(store.list("").await.unwrap(), [""; 0]);
        store.remove(vec!["lane/1".into(), "nothing".into()]).await.unwrap();

        let large: Vec<u8> = (0..5_000_000_u32).map(|at| (at / 7) as u8).collect();
        for (name, bytes) in [("lane/10", &b"ten"[..]), ("lane/9", b""), ("top.json", b"top"), ("a.lane/large", &large)] {
            assert!(store.create(name, bytes.to_vec()).await.unwrap(), "{name}");
            assert!(!store.create(name, b"again".to_vec()).await.unwrap(), "{name}");
            assert_eq!(place.open().read(name).await.unwrap().unwrap(), bytes, "{name} by another handle");
        }
        assert_eq!(store.list("lane").await.unwrap(), ["10", "9"], "by text, not by number");
        assert_eq!(store.list("").await.unwrap(), ["a.lane", "lane", "top.json"]);
        assert_eq!(store.list("lan").await.unwrap(), [""; 0]);
        assert_eq!(store.list("top.json").await.unwrap(), [""; 0]);
        assert_eq!(store.read("top.json/inside").await.unwrap(), None);

        store.remove(vec!["lane/9".into(), "lane/8".into(), "top.json".into()]).await.unwrap();
        assert_eq!(place.open().list("lane").await.unwrap(), ["10"]);
        assert!(place.open().create("lane/9", b"new".to_vec()).await.unwrap(), "after a remove the name is free");
        assert_eq!(store.read("lane/9").await.unwrap().unwrap(), b"new");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_tasks_that_create_one_name_exactly_one_wins() {
    for place in Place::all() {
        let store = place.open();
        for round in 0..50 {
            let name = format!("lane/{round}");
            let tries = (0..16_u8).map(|who| {
                let (store, name) = (Arc::clone(&store), name.clone());
                tokio::spawn(async move { store.create(&name, vec![who; 1000]).await.unwrap() })
            });
            let won: Vec<bool> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "{}", place.kind);
            let winner = won.iter().position(|won| *won).unwrap() as u8;
            assert_eq!(store.read(&name).await.unwrap().unwrap(), vec![winner; 1000], "{}: the bytes of another", place.kind);
        }
        assert_eq!(store.list("lane").await.unwrap().len(), 50);
    }
}

/// As processes do: handles of their own, in runtimes of their own, over names that all of them want.
#[test]
fn of_many_handles_that_create_one_name_exactly_one_wins() {
    for place in Place::all() {
        let run = |who: u8| {
            let store = place.open();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let create = |name: u32| {
                    let name = format!("lane/{name:05}");
                    runtime.block_on(store.create(&name, vec![who; 700])).unwrap()
                };
                let won = (0..200).filter(|&name| create(name));
                won.collect::<Vec<u32>>()
            }
        };
        let won: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|who| scope.spawn(run(who))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut all: Vec<u32> = won.concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>(), "{}: each name once", place.kind);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = place.open();
        for (who, names) in won.iter().enumerate() {
            for name in names {
                let bytes = runtime.block_on(store.read(&format!("lane/{name:05}"))).unwrap().unwrap();
                assert_eq!(bytes, vec![who as u8; 700], "{}", place.kind);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sees_a_part_of_a_file_or_a_name_that_is_not_whole() {
    for place in Place::all() {
        let done = Arc::new(AtomicBool::new(false));
        let (reader, over) = (place.open(), Arc::clone(&done));
        let watch = tokio::spawn(async move {
            let mut seen = 0;
            while !over.load(Ordering::SeqCst) {
                for name in reader.list("lane").await.unwrap() {
                    assert!(name.parse::<u32>().is_ok(), "listed {name}");
                    let bytes = reader.read(&format!("lane/{name}")).await.unwrap().unwrap();
                    assert_eq!(bytes.len(), 300_000, "a part of {name}");
                    seen += 1;
                }
            }
            seen
        });
        let store = place.open();
        for name in 0..40 {
            assert!(store.create(&format!("lane/{name}"), vec![7; 300_000]).await.unwrap());
        }
        done.store(true, Ordering::SeqCst);
        let seen = watch.await.unwrap();
        eprintln!("{}: {seen} files read meanwhile", place.kind);
    }
}

#[tokio::test]
async fn what_a_process_left_half_written_is_never_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path());
    assert!(store.create("lane/1", b"one".to_vec()).await.unwrap());
    // Killed after the link and before the unlink: another name of the very record.
    let left = folder.path().join("lane/1.left.temporary");
    std::fs::hard_link(folder.path().join("lane/1"), &left).unwrap();
    assert!(!LocalStore::new(folder.path()).create("lane/1", b"other".to_vec()).await.unwrap());
    assert_eq!(store.read("lane/1").await.unwrap().unwrap(), b"one");
    assert_eq!(store.list("lane").await.unwrap(), ["1"]);
    assert!(left.exists(), "it may be somebody's who is at work");
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::options().write(true).open(&left).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(store.list("lane").await.unwrap(), ["1"]);
    assert!(!left.exists());
    assert_eq!(store.read("lane/1").await.unwrap().unwrap(), b"one");
}

#[tokio::test]
async fn a_process_whose_folder_was_moved_or_replaced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let store = LocalStore::new(at("checkpoint"));
    assert!(store.create("lane/1", b"one".to_vec()).await.unwrap());
    std::fs::rename(at("checkpoint"), at("away")).unwrap();
    for _ in 0..2 {
        for name in ["lane/2", "other/1", "top.json"] {
            let error = store.create(name, b"two".to_vec()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Fenced);
            assert!(error.to_string().contains("checkpoint was moved away or replaced"), "{error}");
        }
        // The second time there is another one.
        let other = LocalStore::new(at("checkpoint"));
        other.create("lane/1", b"other".to_vec()).await.unwrap();
        assert_eq!(store.remove(vec!["lane/1".into()]).await.unwrap_err().kind(), Kind::Fenced);
        assert_eq!(other.list("lane").await.unwrap(), ["1"]);
    }
    std::fs::remove_dir_all(at("checkpoint")).unwrap();
    std::fs::rename(at("away"), at("checkpoint")).unwrap();
    assert!(store.create("lane/2", b"two".to_vec()).await.unwrap(), "put back");
    std::fs::rename(at("checkpoint/lane"), at("lane")).unwrap();
    assert_eq!(store.create("lane/3", b"".to_vec()).await.unwrap_err().kind(), Kind::Fenced);
    assert!(!at("checkpoint/lane").exists());
}
