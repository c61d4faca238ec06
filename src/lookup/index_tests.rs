//! The index, with loads, misses and fetched rows in every order.

use std::time::Duration;

use arrow::array::{Float64Array, Int16Array, Int32Array, Int64Array, StringArray, StringViewArray};
use arrow::datatypes::{Field, Int64Type, Schema};

use super::*;

fn rows(keys: ArrayRef) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..keys.len() as i64));
    let fields = vec![Field::new("id", keys.data_type().clone(), true), Field::new("n", DataType::Int64, true)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![keys, numbers]).unwrap()
}

fn texts(keys: &[&str]) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(keys))
}

fn table_of(rows: &RecordBatch, clock: &Clock, options: &[(&str, &str)]) -> (Arc<LookupTable>, Arc<LookupStatus>) {
    let options = [("url", "memory"), ("key", "id")].iter().chain(options).map(|(k, v)| (k.to_string(), v.to_string()));
    let def = TableDef {
        name: "content".into(),
        stored_as: "POSTGRES".into(),
        unbounded: false,
        location: "content".into(),
        schema: rows.schema(),
        partition_by: vec![],
        options: options.collect(),
        place: "lookups.sql:1:1".into(),
    };
    let status = Arc::new(LookupStatus::default());
    (LookupTable::new(&def, clock.clone(), Arc::clone(&status)).unwrap(), status)
}

fn table(rows: &RecordBatch) -> Arc<LookupTable> {
    table_of(rows, &Clock::held(0), &[]).0
}

/// The numbers of the rows with these keys.
fn found(table: &LookupTable, keys: ArrayRef) -> Vec<Option<i64>> {
    let version = table.version();
    let found = version.find(&keys).unwrap();
    version.gather(1, &found).unwrap().as_primitive::<Int64Type>().iter().collect()
}

#[test]
fn keys_of_any_type_are_found_and_nulls_are_not() {
    let text = |keys: [Option<&'static str>; 4]| Arc::new(StringViewArray::from_iter(keys)) as ArrayRef;
    let long = "a text longer than a view holds";
    let same_start = "a text longer than a view hides";
    let cases: Vec<(ArrayRef, ArrayRef)> = vec![
        (text([Some("a"), None, Some(long), Some("")]), text([Some(long), Some(""), None, Some(same_start)])),
        (
            Arc::new(Int64Array::from(vec![Some(7), None, Some(-1), Some(0)])),
            Arc::new(Int64Array::from(vec![Some(-1), Some(0), None, Some(8)])),
        ),
        (
            Arc::new(Int32Array::from(vec![Some(7), None, Some(-1), Some(0)])),
            Arc::new(Int32Array::from(vec![Some(-1), Some(0), None, Some(8)])),
        ),
        (
            Arc::new(Int16Array::from(vec![Some(7), None, Some(-1), Some(0)])),
            Arc::new(Int16Array::from(vec![Some(-1), Some(0), None, Some(8)])),
        ),
        (
            Arc::new(Float64Array::from(vec![Some(7.5), None, Some(-1.5), Some(0.5)])),
            Arc::new(Float64Array::from(vec![Some(-1.5), Some(0.5), None, Some(8.5)])),
        ),
        (
            Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("c")])),
            Arc::new(StringArray::from(vec![Some("b"), Some("c"), None, Some("d")])),
        ),
    ];
    for (keys, asked) in cases {
        let rows = rows(keys);
        let table = table(&rows);
        table.replace(rows).unwrap();
        assert_eq!(found(&table, Arc::clone(&asked)), [Some(2), Some(3), None, None], "{}", asked.data_type());
    }
}

#[test]
fn the_last_of_several_rows_with_one_key_stays_and_the_others_are_counted() {
    let rows = rows(texts(&["a", "b", "a", "c", "a"]));
    let table = table(&rows);
    table.replace(rows).unwrap();
    assert_eq!(found(&table, texts(&["a", "b", "c"])), [Some(4), Some(1), Some(3)]);
    assert_eq!((table.duplicates(), table.version().num_rows()), (2, 3));
}

#[test]
fn fetched_rows_join_the_table_and_a_load_replaces_all() {
    let all = rows(texts(&["a", "b", "c", "d"]));
    let (table, status) = table_of(&all, &Clock::held(7_000_000), &[]);
    assert!(!table.is_loaded());
    table.replace(all.slice(0, 1)).unwrap();
    assert!(table.is_loaded());
    let held = table.version();
    table.merge(&all.slice(1, 2)).unwrap();
    // Only what is not there yet: the rows with 'b' and 'c' stay as they are.
    table.merge(&rows(texts(&["c", "b", "d"]))).unwrap();
    assert_eq!(found(&table, texts(&["d", "c", "b", "a", "x"])), [Some(2), Some(2), Some(1), Some(0), None]);
    assert_eq!(held.num_rows(), 1, "a version never changes");
    table.replace(all.slice(3, 1)).unwrap();
    assert_eq!(found(&table, texts(&["a", "d"])), [None, Some(3)]);
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((get(&status.rows), get(&status.version), status.loaded_ms.load(Ordering::Relaxed)), (1, 4, 7));
    assert!(get(&status.bytes) > 0);
}

#[test]
fn many_fetched_rows_become_part_of_the_base() {
    let all = rows(Arc::new(Int64Array::from_iter_values(0..100_000)));
    let table = table(&all);
    table.replace(all.slice(0, 10)).unwrap();
    for from in (10..100_000).step_by(9_999) {
        table.merge(&all.slice(from, 9_999)).unwrap();
        assert!(table.version().overlay.rows().num_rows() <= OVERLAY_ROWS_MAX);
    }
    let asked: ArrayRef = Arc::new(Int64Array::from(vec![0, 10, 99_999, 50_000, 100_000]));
    assert_eq!(found(&table, asked), [Some(0), Some(10), Some(99_999), Some(50_000), None]);
    assert_eq!(table.version().num_rows(), 100_000);
}

#[test]
fn missing_keys_are_distinct_and_misses_are_remembered_for_their_time() {
    let all = rows(texts(&["a", "b"]));
    let clock = Clock::held(0);
    let (table, _) = table_of(&all, &clock, &[("miss_ttl", "5s")]);
    table.replace(all).unwrap();
    let asked = Arc::new(StringViewArray::from_iter([Some("x"), None, Some("a"), Some("y"), Some("x")])) as ArrayRef;
    let missing = || table.missing_keys(&asked).unwrap().as_string_view().iter().flatten().collect::<Vec<_>>().join(" ");
    assert_eq!(missing(), "x y");
    table.remember_misses(&texts(&["x", "a"])).unwrap();
    assert_eq!(missing(), "y");
    clock.set(4_999_999_999);
    assert_eq!(missing(), "y");
    clock.set(5_000_000_000);
    assert_eq!(missing(), "x y");
    table.ask_later();
    assert_eq!(missing(), "");
}

#[test]
fn a_load_beyond_the_bound_is_refused_and_the_version_before_stays() {
    let all = rows(texts(&["a", "b", "c"]));
    let (table, _) = table_of(&all, &Clock::held(0), &[("rows.max", "2")]);
    table.replace(all.slice(0, 2)).unwrap();
    for refused in [table.replace(all.clone()), table.merge(&all.slice(2, 1))] {
        let error = refused.unwrap_err();
        assert!(error.kind() == Kind::Full && error.to_string().contains("'rows.max'"), "{error}");
    }
    assert_eq!(found(&table, texts(&["a", "c"])), [Some(0), None]);
}

#[tokio::test]
async fn the_first_load_ends_the_wait() {
    let all = rows(texts(&["a"]));
    let table = table(&all);
    let waiting = tokio::spawn({
        let table = Arc::clone(&table);
        async move { table.wait_loaded().await }
    });
    table.replace(all).unwrap();
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    table.wait_loaded().await;
}

#[test]
fn changed_rows_are_found_in_place_of_those_that_were_loaded_and_gone_ones_are_not() {
    let load = rows(texts(&["a", "b", "c", "a text longer than a view holds"]));
    let table = table(&load);
    table.replace(load.clone()).unwrap();
    let row = |key: &str, n: i64| {
        let columns: Vec<ArrayRef> = vec![texts(&[key]), Arc::new(Int64Array::from(vec![n]))];
        RecordBatch::try_new(load.schema(), columns).unwrap()
    };
    let all = || texts(&["a", "b", "c", "d", "a text longer than a view holds"]);
    // b has another row, c is gone, d is new.
    table.apply(&texts(&["b", "c", "d"]), &concat_batches(&load.schema(), [&row("b", 20), &row("d", 40)]).unwrap()).unwrap();
    assert_eq!(found(&table, all()), [Some(0), Some(20), None, Some(40), Some(3)]);
    // A miss that was asked for before does not bring the old row back over the new one.
    table.merge(&row("b", 1)).unwrap();
    table.apply(&texts(&["b", "d"]), &row("b", 21)).unwrap();
    assert_eq!(found(&table, all()), [Some(0), Some(21), None, None, Some(3)]);
    table.apply(&texts(&["c"]), &row("c", 30)).unwrap();
    let shown: usize = table.version().batches().unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!((found(&table, all()), shown), (vec![Some(0), Some(21), Some(30), None, Some(3)], 4));
    // So many that all becomes a base of its own.
    let many: Vec<String> = (0..OVERLAY_ROWS_MAX + 1).map(|n| format!("k{n}")).collect();
    let keys: ArrayRef = Arc::new(StringViewArray::from_iter_values(&many));
    table.apply(&keys, &rows(Arc::clone(&keys))).unwrap();
    assert_eq!(found(&table, all()), [Some(0), Some(21), Some(30), None, Some(3)]);
    assert_eq!(found(&table, texts(&["k7", "k16384"])), [Some(7), Some(16_384)]);
    table.replace(load).unwrap();
    assert_eq!(found(&table, all()), [Some(0), Some(1), Some(2), None, Some(3)]);
}
