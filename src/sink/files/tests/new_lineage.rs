//! `'on_new_lineage' 'replace'`: what readers find at each moment, and after a crash at each.

use super::*;

const LATEST: &str = "01940000-0000-7000-8000-000000000003";
const REPLACE: &[(&str, &str)] = &[("on_new_lineage", "replace")];

/// A table that lineage 1 has written two epochs to.
async fn old_table(place: &Path) -> Vec<String> {
    let options = options(place, "PARQUET", &[]);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    for (epoch, dt) in [(1, "a"), (2, "b")] {
        let staged = sealed(&mut sink, epoch, rows(&[(epoch as i64, Some(dt))])).await;
        sink.apply(epoch, &staged).await.unwrap();
    }
    visible(place)
}

/// Writes and publishes one epoch with one row.
async fn publish(sink: &mut FilesSink, epoch: u64, dt: &str) {
    let staged = sealed(sink, epoch, rows(&[(epoch as i64, Some(dt))])).await;
    sink.apply(epoch, &staged).await.unwrap();
    sink.committed(epoch, &staged).await.unwrap();
}

/// What readers of the table find.
fn visible(place: &Path) -> Vec<String> {
    files(&place.join("out")).into_iter().filter(|name| name.starts_with("dt=")).collect()
}

fn names(lineage: &str, epochs: &[(u64, &str)]) -> Vec<String> {
    epochs.iter().map(|(epoch, dt)| format!("dt={dt}/enriched-{lineage}-{epoch:020}-00000.parquet")).collect()
}

fn beside(place: &Path) -> PathBuf {
    place.join(".out.replace")
}

fn shadow(place: &Path) -> PathBuf {
    beside(place).join(format!("enriched-{LATER}"))
}

fn exchange_by_hand(place: &Path) {
    disk::exchange(&shadow(place), &place.join("out")).unwrap();
}

fn rename_by_hand(place: &Path) {
    exchange_by_hand(place);
    fs::rename(shadow(place), shadow(place).with_extension("old")).unwrap();
}

async fn error_of(options: &FilesOptions, writer: &Writer) -> Error {
    FilesSink::new(options.clone()).open(writer).await.unwrap_err()
}

#[tokio::test]
async fn a_lane_that_goes_on_from_a_forked_checkpoint_replaces_nothing() {
    let place = TempDir::new().unwrap();
    let old = old_table(place.path()).await;
    for incarnation in 1..=2 {
        let mut sink = FilesSink::new(options(place.path(), "PARQUET", REPLACE));
        sink.goes_on();
        let error = sink.open(&writer(LATER, incarnation)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced);
        assert!(error.to_string().contains("its rows are not all that there should be"), "{error}");
    }
    assert_eq!(visible(place.path()), old);
    // One that began, and was stopped half-way, goes on with its shadow.
    FilesSink::new(options(place.path(), "PARQUET", REPLACE)).open(&writer(LATER, 3)).await.unwrap();
    let mut sink = FilesSink::new(options(place.path(), "PARQUET", REPLACE));
    sink.goes_on();
    sink.open(&writer(LATER, 4)).await.unwrap();
}

#[tokio::test]
async fn readers_find_the_old_result_until_the_new_one_is_whole_and_then_only_that() {
    let place = TempDir::new().unwrap();
    let old = old_table(place.path()).await;
    let options = options(place.path(), "PARQUET", REPLACE);
    let mut sink = FilesSink::new(options.clone());
    assert_eq!(sink.open(&writer(LATER, 1)).await.unwrap(), None);
    sink.discard(&[]).await.unwrap();
    publish(&mut sink, 1, "b").await;
    publish(&mut sink, 2, "c").await;
    assert_eq!(visible(place.path()), old);
    sink.caught_up().await.unwrap();
    assert_eq!(visible(place.path()), names(LATER, &[(1, "b"), (2, "c")]));
    assert_eq!(files(&options.folder), visible(place.path()), "nothing else is in the table's folder");
    assert!(!beside(place.path()).exists());
    // From here on it is a table like any other, in this process and the next.
    publish(&mut sink, 3, "c").await;
    sink.caught_up().await.unwrap();
    assert_eq!(FilesSink::new(options).open(&writer(LATER, 2)).await.unwrap(), Some(3));
    assert_eq!(visible(place.path()), names(LATER, &[(1, "b"), (2, "c"), (3, "c")]));
}

#[tokio::test]
async fn after_a_crash_at_any_point_the_next_start_ends_right() {
    type Crash = fn(&Path);
    // What a crash leaves, and whether readers find the new result by then.
    let crashes: [(&str, Crash, bool); 8] = [
        ("while the shadow grows", |_| {}, false),
        ("before the table was marked", |place| fs::remove_file(place.join("out/_replaced_by")).unwrap(), false),
        ("while the table was marked", |place| fs::write(place.join("out/_replaced_by"), "enri").unwrap(), false),
        ("after the exchange", exchange_by_hand, true),
        ("after the old result was renamed", rename_by_hand, true),
        (
            "while the old result was deleted",
            |place| {
                rename_by_hand(place);
                fs::remove_dir_all(shadow(place).with_extension("old").join("dt=a")).unwrap();
            },
            true,
        ),
        (
            "before the last folder was deleted",
            |place| {
                rename_by_hand(place);
                fs::remove_dir_all(shadow(place).with_extension("old")).unwrap();
            },
            true,
        ),
        // An operator's deed.
        ("after the old result was moved away", |place| fs::rename(place.join("out"), place.join("away")).unwrap(), false),
    ];
    for (when, crash, is_swapped) in crashes {
        let place = TempDir::new().unwrap();
        let mut old = old_table(place.path()).await;
        let options = options(place.path(), "PARQUET", REPLACE);
        let mut sink = opened(&options, &writer(LATER, 1)).await;
        publish(&mut sink, 1, "b").await;
        publish(&mut sink, 2, "c").await;
        drop(sink);
        crash(place.path());
        if place.path().join("away").exists() {
            old.clear();
        }
        let new = names(LATER, &[(1, "b"), (2, "c")]);

        let mut sink = FilesSink::new(options.clone());
        assert_eq!(sink.open(&writer(LATER, 2)).await.unwrap(), Some(2), "{when}");
        sink.discard(&[]).await.unwrap();
        assert_eq!(visible(place.path()), if is_swapped { &new } else { &old }.clone(), "{when}");
        sink.caught_up().await.unwrap();
        assert_eq!(files(&options.folder), new, "{when}");
        assert!(!beside(place.path()).exists(), "{when}");
        publish(&mut sink, 3, "a").await;
        let mut all = [new, names(LATER, &[(3, "a")])].concat();
        all.sort();
        assert_eq!(visible(place.path()), all, "{when}");
    }
}

#[tokio::test]
async fn an_epoch_that_a_crash_left_open_in_the_shadow_is_published_there() {
    let place = TempDir::new().unwrap();
    let old = old_table(place.path()).await;
    let options = options(place.path(), "PARQUET", REPLACE);
    let mut sink = opened(&options, &writer(LATER, 1)).await;
    let staged = sealed(&mut sink, 1, rows(&[(1, Some("x")), (2, Some("y"))])).await;
    let orphans = sealed(&mut sink, 2, rows(&[(3, Some("x"))])).await;
    let mut sink = opened(&options, &writer(LATER, 2)).await;
    sink.discard(&staged).await.unwrap();
    assert!(!shadow(place.path()).join(&orphans[0].staged).exists());
    assert_eq!(sink.apply(1, &staged).await.unwrap().rows, 2);
    assert_eq!(visible(place.path()), old);
    sink.caught_up().await.unwrap();
    assert_eq!(visible(place.path()), staged.iter().map(|part| part.published.clone()).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_half_made_result_of_an_older_lineage_is_dropped_wherever_its_drop_was_broken_off() {
    for crashed in [false, true] {
        let place = TempDir::new().unwrap();
        let old = old_table(place.path()).await;
        let options = options(place.path(), "PARQUET", REPLACE);
        publish(&mut opened(&options, &writer(LATER, 1)).await, 1, "b").await;
        if crashed {
            fs::rename(shadow(place.path()), shadow(place.path()).with_extension("old")).unwrap();
        }
        let mut sink = FilesSink::new(options.clone());
        assert_eq!(sink.open(&writer(LATEST, 1)).await.unwrap(), None);
        assert!(!shadow(place.path()).exists() && !shadow(place.path()).with_extension("old").exists());
        assert_eq!(visible(place.path()), old);
        // The process of the older lineage, if it still lives, has lost the table.
        assert!(error_of(&options, &writer(LATER, 2)).await.to_string().contains("is newer than this checkpoint's"));
        publish(&mut sink, 1, "z").await;
        sink.caught_up().await.unwrap();
        assert_eq!(visible(place.path()), names(LATEST, &[(1, "z")]));
    }
}

#[tokio::test]
async fn a_checkpoint_that_was_deleted_after_the_exchange_replaces_what_it_had_swapped_in() {
    let place = TempDir::new().unwrap();
    old_table(place.path()).await;
    let options = options(place.path(), "PARQUET", REPLACE);
    publish(&mut opened(&options, &writer(LATER, 1)).await, 1, "b").await;
    exchange_by_hand(place.path());
    let mut sink = opened(&options, &writer(LATEST, 1)).await;
    assert_eq!(visible(place.path()), names(LATER, &[(1, "b")]));
    sink.caught_up().await.unwrap();
    assert_eq!(visible(place.path()), Vec::<String>::new(), "a new result without rows is empty");
    assert!(!beside(place.path()).exists());
}

#[tokio::test]
async fn a_file_that_no_lane_wrote_stops_the_replacement_at_its_begin_and_at_its_end() {
    for stranger in ["notes.txt", "dt=a/part-0.parquet", ".hidden", "sub/enriched-x.parquet", "dt=a/_SUCCESS"] {
        let place = TempDir::new().unwrap();
        let old = old_table(place.path()).await;
        let options = options(place.path(), "PARQUET", REPLACE);
        let path = options.folder.join(stranger);
        let put = || {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "mine").unwrap();
        };
        let take_away = || match stranger.strip_prefix("sub/") {
            Some(_) => fs::remove_dir_all(options.folder.join("sub")).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        };
        put();
        let error = error_of(&options, &writer(LATER, 1)).await;
        assert_eq!(error.kind(), Kind::Fenced);
        assert!(error.to_string().contains("was written by no lane") && error.to_string().contains("move it away"), "{error}");
        take_away();
        let mut sink = opened(&options, &writer(LATER, 2)).await;
        publish(&mut sink, 1, "b").await;
        put();
        assert!(sink.caught_up().await.unwrap_err().to_string().contains("was written by no lane"));
        let lanes = |place: &Path| visible(place).into_iter().filter(|name| name.contains("enriched-0")).collect::<Vec<_>>();
        assert_eq!((fs::read(&path).unwrap(), lanes(place.path())), (b"mine".to_vec(), old));
        take_away();
        let mut sink = opened(&options, &writer(LATER, 3)).await;
        sink.caught_up().await.unwrap();
        assert_eq!(visible(place.path()), names(LATER, &[(1, "b")]));
    }
}

#[tokio::test]
async fn what_came_to_the_old_result_too_late_to_be_seen_is_kept() {
    let place = TempDir::new().unwrap();
    old_table(place.path()).await;
    let options = options(place.path(), "PARQUET", REPLACE);
    publish(&mut opened(&options, &writer(LATER, 1)).await, 1, "b").await;
    fs::write(options.folder.join("late.txt"), "mine").unwrap();
    exchange_by_hand(place.path());
    for incarnation in [2, 3] {
        assert_eq!(FilesSink::new(options.clone()).open(&writer(LATER, incarnation)).await.unwrap(), Some(1));
        assert_eq!(fs::read(shadow(place.path()).with_extension("old").join("late.txt")).unwrap(), b"mine");
    }
    assert_eq!(visible(place.path()), names(LATER, &[(1, "b")]));
}

#[tokio::test]
async fn a_replacement_that_is_under_way_cannot_be_forgotten() {
    let place = TempDir::new().unwrap();
    old_table(place.path()).await;
    let replace = options(place.path(), "PARQUET", REPLACE);
    publish(&mut opened(&replace, &writer(LATER, 1)).await, 1, "b").await;
    for other in ["stop", "append"] {
        let options = options(place.path(), "PARQUET", &[("on_new_lineage", other)]);
        let error = error_of(&options, &writer(LATER, 2)).await;
        assert!(error.kind() == Kind::Fenced && error.to_string().contains("to 'replace' again"), "{error}");
    }
    fs::remove_dir_all(shadow(place.path())).unwrap();
    for other in ["stop", "append", "replace"] {
        let options = options(place.path(), "PARQUET", &[("on_new_lineage", other)]);
        let error = error_of(&options, &writer(LATER, 2)).await;
        let expected = if other == "replace" { Kind::Lost } else { error.kind() };
        assert_eq!(error.kind(), expected);
        assert!(error.to_string().contains("is gone; put it back, or delete the checkpoint"), "{error}");
    }
    // As the sentence says.
    let mut sink = opened(&replace, &writer(LATEST, 1)).await;
    publish(&mut sink, 1, "b").await;
    sink.caught_up().await.unwrap();
    assert_eq!(visible(place.path()), names(LATEST, &[(1, "b")]));
}

#[tokio::test]
async fn appending_instead_drops_what_an_older_lineage_had_begun() {
    let place = TempDir::new().unwrap();
    let mut all = old_table(place.path()).await;
    publish(&mut opened(&options(place.path(), "PARQUET", REPLACE), &writer(LATER, 1)).await, 1, "b").await;
    let append = options(place.path(), "PARQUET", &[("on_new_lineage", "append")]);
    let mut sink = opened(&append, &writer(LATEST, 1)).await;
    publish(&mut sink, 1, "c").await;
    sink.caught_up().await.unwrap();
    all.extend(names(LATEST, &[(1, "c")]));
    assert_eq!(files(&append.folder), all);
    assert!(!beside(place.path()).exists());
    // Both lineages are in the folder now: nobody can tell what is to be replaced.
    let error = error_of(&options(place.path(), "PARQUET", REPLACE), &writer(LATEST, 2)).await;
    assert!(error.kind() == Kind::Fenced && error.to_string().contains("beside those of others"), "{error}");
}

#[tokio::test]
async fn a_newer_lineage_is_never_replaced_and_another_lane_of_the_same_is() {
    let place = TempDir::new().unwrap();
    let old = old_table(place.path()).await;
    let options = options(place.path(), "PARQUET", REPLACE);
    let error = error_of(&options, &writer("01930000-0000-7000-8000-000000000001", 1)).await;
    assert!(error.kind() == Kind::Fenced && error.to_string().contains("is newer than this checkpoint's"), "{error}");
    assert_eq!(visible(place.path()), old);
    let renamed = Writer { lane: "renamed".to_string(), ..writer(LINEAGE, 1) };
    let mut sink = opened(&options, &renamed).await;
    publish(&mut sink, 1, "b").await;
    sink.caught_up().await.unwrap();
    assert_eq!(visible(place.path()), [format!("dt=b/renamed-{LINEAGE}-{:020}-00000.parquet", 1)]);
}

#[tokio::test]
async fn a_table_without_other_files_is_written_to_at_once() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "PARQUET", REPLACE);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    fs::write(options.folder.join("notes.txt"), "mine").unwrap();
    publish(&mut sink, 1, "a").await;
    assert_eq!(visible(place.path()), names(LINEAGE, &[(1, "a")]));
    sink.caught_up().await.unwrap();
    assert_eq!(FilesSink::new(options).open(&writer(LINEAGE, 2)).await.unwrap(), Some(1));
    assert!(!beside(place.path()).exists());
}

#[tokio::test]
async fn a_link_to_the_folder_stays_a_link() {
    let place = TempDir::new().unwrap();
    let disk = place.path().join("disk");
    fs::create_dir_all(disk.join("real")).unwrap();
    std::os::unix::fs::symlink(disk.join("real"), place.path().join("out")).unwrap();
    old_table(place.path()).await;
    let mut sink = opened(&options(place.path(), "PARQUET", REPLACE), &writer(LATER, 1)).await;
    publish(&mut sink, 1, "b").await;
    assert!(disk.join(".real.replace").exists());
    sink.caught_up().await.unwrap();
    assert!(place.path().join("out").is_symlink());
    assert_eq!(visible(place.path()), names(LATER, &[(1, "b")]));
    assert_eq!(files(&disk), names(LATER, &[(1, "b")]).iter().map(|name| format!("real/{name}")).collect::<Vec<_>>());
}

/// Calls the blocking functions directly, since the record of what was made durable belongs to the thread.
#[test]
fn the_swap_is_durable_before_the_old_result_is_deleted() {
    let place = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(old_table(place.path()));
    let options = options(place.path(), "PARQUET", REPLACE);
    SYNCED.take();
    let begun = replace::open(&options, &writer(LATER, 1), false).unwrap().replacement.unwrap();
    let mark = options.folder.join("_replaced_by");
    let begun_with = SYNCED.take();
    assert_eq!(begun_with[begun_with.len() - 2..], [mark, options.folder.clone()], "marked at last");
    assert!(begun_with.contains(&place.path().to_path_buf()) && begun_with.contains(&beside(place.path())));
    begun.swap().unwrap();
    // After the exchange both folders that hold the names, then again when the old result has another name.
    assert_eq!(SYNCED.take(), [place.path().to_path_buf(), beside(place.path()), beside(place.path())]);
}
