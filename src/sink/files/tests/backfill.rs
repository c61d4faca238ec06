//! The shadow of a backfill, beside a table that another lineage goes on writing to.

use super::*;

/// A table to which lineage 1 has written, and the sinks of both.
async fn beside(place: &Path) -> (FilesOptions, FilesSink, FilesSink) {
    let options = options(place, "PARQUET", &[]);
    let mut live = opened(&options, &writer(LINEAGE, 1)).await;
    publish(&mut live, 1, "a").await;
    let mut backfill = FilesSink::new(options.clone()).of_backfill();
    assert_eq!(backfill.open(&writer(LATER, 1)).await.unwrap(), None);
    (options, live, backfill)
}

async fn publish(sink: &mut FilesSink, epoch: u64, dt: &str) {
    let staged = sealed(sink, epoch, rows(&[(epoch as i64, Some(dt))])).await;
    sink.apply(epoch, &staged).await.unwrap();
    sink.committed(epoch, &staged).await.unwrap();
}

fn visible(place: &Path) -> Vec<String> {
    files(&place.join("out")).into_iter().filter(|name| name.starts_with("dt=")).collect()
}

fn of(lineage: &str, epochs: &[(u64, &str)]) -> Vec<String> {
    epochs.iter().map(|(epoch, dt)| format!("dt={dt}/enriched-{lineage}-{epoch:020}-00000.parquet")).collect()
}

async fn again(options: &FilesOptions, incarnation: u64) -> Result<(FilesSink, Option<u64>)> {
    let mut backfill = FilesSink::new(options.clone()).of_backfill();
    backfill.goes_on();
    let epoch = backfill.open(&writer(LATER, incarnation)).await?;
    Ok((backfill, epoch))
}

#[tokio::test]
async fn both_write_and_are_opened_again_and_neither_sees_the_other_until_the_place_is_taken() {
    let place = TempDir::new().unwrap();
    let (options, mut live, mut backfill) = beside(place.path()).await;
    publish(&mut backfill, 1, "b").await;
    // It has caught up, but that is not enough.
    backfill.caught_up().await.unwrap();
    publish(&mut live, 2, "a").await;
    assert_eq!(visible(place.path()), of(LINEAGE, &[(1, "a"), (2, "a")]));
    for on_new_lineage in [&[][..], &[("on_new_lineage", "replace")], &[("on_new_lineage", "append")]] {
        let options = super::options(place.path(), "PARQUET", on_new_lineage);
        let mut live = FilesSink::new(options);
        assert_eq!(live.open(&writer(LINEAGE, 2)).await.unwrap(), Some(2), "{on_new_lineage:?}");
    }
    let (mut backfill, epoch) = again(&options, 2).await.unwrap();
    assert_eq!(epoch, Some(1));
    publish(&mut backfill, 2, "b").await;
    backfill.take_place().await.unwrap();
    assert_eq!(visible(place.path()), of(LATER, &[(1, "b"), (2, "b")]));
    // Whoever was reading the old result finds it whole, in another place.
    let old = place.path().join(format!(".out.backfill/enriched-{LATER}.old"));
    assert_eq!(files(&old).iter().filter(|name| name.starts_with("dt=")).count(), 2);
    FilesSink::clear_away(options.clone(), writer(LATER, 0)).await.unwrap();
    assert!(!place.path().join(".out.backfill").exists());
    // The lane goes on there, and an older one is a stranger.
    let mut live = FilesSink::new(options.clone());
    live.goes_on();
    assert_eq!(live.open(&writer(LATER, 3)).await.unwrap(), Some(2));
    assert_eq!(FilesSink::new(options).open(&writer(LINEAGE, 3)).await.unwrap_err().kind(), Kind::Fenced);
}

#[tokio::test]
async fn a_place_that_was_taken_is_not_taken_twice_whatever_a_crash_has_left() {
    for left in ["the old result", "the old result under its other name"] {
        let place = TempDir::new().unwrap();
        let (options, _, mut backfill) = beside(place.path()).await;
        publish(&mut backfill, 1, "b").await;
        let shadow = FilesSink::shadow_of(&options, &writer(LATER, 1)).unwrap();
        fs::write(place.path().join("out/_replaced_by"), format!("enriched-{LATER}\n")).unwrap();
        disk::exchange(&shadow, &place.path().join("out")).unwrap();
        if left.ends_with("name") {
            fs::rename(&shadow, shadow.with_extension("old")).unwrap();
        }
        let (mut backfill, epoch) = again(&options, 2).await.unwrap();
        assert_eq!(epoch, Some(1), "{left}");
        backfill.take_place().await.unwrap();
        FilesSink::clear_away(options, writer(LATER, 0)).await.unwrap();
        assert_eq!(visible(place.path()), of(LATER, &[(1, "b")]), "{left}");
        assert!(!place.path().join(".out.backfill").exists(), "{left}");
    }
}

#[tokio::test]
async fn a_shadow_that_is_gone_is_told_and_one_that_is_given_up_leaves_nothing() {
    let place = TempDir::new().unwrap();
    let (options, _, mut backfill) = beside(place.path()).await;
    publish(&mut backfill, 1, "b").await;
    FilesSink::drop_shadow(options.clone(), writer(LATER, 0)).await.unwrap();
    assert!(!place.path().join(".out.backfill").exists());
    assert_eq!(visible(place.path()), of(LINEAGE, &[(1, "a")]));
    assert_eq!(again(&options, 2).await.map(drop).unwrap_err().kind(), Kind::Lost);
}

#[tokio::test]
async fn a_table_that_is_being_replaced_is_not_backfilled() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "PARQUET", &[("on_new_lineage", "replace")]);
    let mut old = opened(&options, &writer(LINEAGE, 1)).await;
    publish(&mut old, 1, "a").await;
    opened(&options, &writer(LATER, 1)).await;
    let newest = "01940000-0000-7000-8000-000000000003";
    let error = FilesSink::new(options).of_backfill().open(&writer(newest, 1)).await.unwrap_err();
    assert!(error.to_string().contains("is being replaced already, by enriched-"), "{error}");
}
