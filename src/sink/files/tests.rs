//! The sink as a lane drives it, and what readers find.

mod backfill;
mod new_lineage;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

use super::disk::tests::SYNCED;
use super::*;
use crate::batch::RowIds;
use crate::table::TableDef;

const LINEAGE: &str = "01940000-0000-7000-8000-000000000001";
const LATER: &str = "01940000-0000-7000-8000-000000000002";

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("dt", DataType::Utf8View, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        Field::new("score", DataType::Float64, true),
    ]))
}

fn options(place: &Path, stored_as: &str, extra: &[(&str, &str)]) -> FilesOptions {
    let table = TableDef {
        name: "out".to_string(),
        stored_as: stored_as.to_string(),
        unbounded: false,
        location: place.join("out").display().to_string(),
        schema: schema(),
        partition_by: vec!["dt".to_string()],
        options: extra.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        place: "sinks.sql:1:1".to_string(),
    };
    FilesOptions::from_table(&table).unwrap()
}

fn writer(lineage: &str, incarnation: u64) -> Writer {
    Writer { lineage: lineage.to_string(), lane: "enriched".to_string(), incarnation }
}

/// Rows with these ids and partition values.
fn rows(rows: &[(i64, Option<&str>)]) -> Output {
    let ids: Vec<i64> = rows.iter().map(|(id, _)| *id).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.clone())),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|(_, dt)| *dt))),
        Arc::new(TimestampNanosecondArray::from_iter(ids.iter().map(|id| (id % 2 == 1).then_some(1_795_428_000_123_456_789)))),
        Arc::new(Float64Array::from_iter(ids.iter().map(|id| (id % 2 == 1).then_some(0.5)))),
    ];
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    Output::Rows { rows, ids: RowIds::Offsets { topic: "t".into(), partition: 0, offsets: Int64Array::from(ids) } }
}

async fn opened(options: &FilesOptions, writer: &Writer) -> FilesSink {
    let mut sink = FilesSink::new(options.clone());
    sink.open(writer).await.unwrap();
    sink
}

async fn sealed(sink: &mut FilesSink, epoch: u64, output: Output) -> Vec<Staged> {
    sink.write(epoch, output).await.unwrap();
    sink.seal(epoch).await.unwrap()
}

/// Every file below `folder`, relative to it, sorted.
fn files(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

#[tokio::test]
async fn an_epoch_is_invisible_until_it_is_applied_and_then_lies_in_hive_folders() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "PARQUET", &[]);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    assert!(sink.stages());
    sink.write(7, rows(&[(1, Some("a")), (2, None)])).await.unwrap();
    let staged = sealed(&mut sink, 7, rows(&[(3, Some("a")), (4, Some("x/y"))])).await;
    let visible = |names: Vec<String>| names.into_iter().filter(|name| !name.ends_with(".staged")).collect::<Vec<_>>();
    assert_eq!((staged.len(), visible(files(&options.folder))), (3, vec![]));
    assert!(files(&options.folder).iter().all(|name| name.starts_with("_staging/enriched/1-7-")));

    let applied = sink.apply(7, &staged).await.unwrap();
    sink.committed(7, &staged).await.unwrap();
    assert_eq!(applied.rows, 4);
    let name = |folder: &str, part: u32| format!("{folder}/enriched-{LINEAGE}-00000000000000000007-{part:05}.parquet");
    let expect = [name("dt=__HIVE_DEFAULT_PARTITION__", 1), name("dt=a", 0), name("dt=x%2Fy", 2)];
    assert_eq!(files(&options.folder), expect);
    let found = read(&options.folder.join(name("dt=a", 0)));
    assert_eq!(found.column(0).as_primitive::<Int64Type>().values().to_vec(), [1, 3]);
    assert_eq!(sink.written_bytes(), 0);
}

#[tokio::test]
async fn parquet_has_the_types_that_bigquery_loads() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "PARQUET", &[]);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    let staged = sealed(&mut sink, 0, rows(&[(1, Some("a")), (2, Some("a"))])).await;
    sink.apply(0, &staged).await.unwrap();
    let path = options.folder.join(&staged[0].published);
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
    let mut text = Vec::new();
    parquet::schema::printer::print_schema(&mut text, reader.metadata().file_metadata().schema());
    let text = String::from_utf8(text).unwrap();
    let expect = "message arrow_schema {\n  OPTIONAL INT64 id;\n  OPTIONAL INT64 ts (TIMESTAMP(MICROS,true));\n  OPTIONAL DOUBLE score;\n}\n";
    assert_eq!(text, expect);
    assert!(reader.metadata().row_group(0).columns().iter().all(|column| column.compression_codec().to_string() == "ZSTD"));
    let found = read(&path);
    let times = found.column(1).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!((times.value(0), times.is_null(1)), (1_795_428_000_123_456, true));
}

#[tokio::test]
async fn json_is_one_object_a_line_without_nulls_and_partition_columns() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "JSON", &[]);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    let staged = sealed(&mut sink, 0, rows(&[(1, Some("a")), (2, Some("a"))])).await;
    sink.apply(0, &staged).await.unwrap();
    let text = fs::read_to_string(options.folder.join(&staged[0].published)).unwrap();
    assert_eq!(text, "{\"id\":1,\"ts\":\"2026-11-23T10:00:00.123456Z\",\"score\":0.5}\n{\"id\":2}\n");
    assert_eq!(staged[0].size_bytes, text.len() as u64);
}

#[tokio::test]
async fn applying_again_changes_nothing_whole_or_half_done() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "PARQUET", &[]);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    let staged = sealed(&mut sink, 3, rows(&[(1, Some("a")), (2, Some("b")), (3, Some("c"))])).await;
    // The crash comes after the second rename of three.
    for part in &staged[..2] {
        let to = options.folder.join(&part.published);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(options.folder.join(&part.staged), to).unwrap();
    }
    let mut sink = FilesSink::new(options.clone());
    assert_eq!(sink.open(&writer(LINEAGE, 2)).await.unwrap(), Some(3));
    sink.discard(&staged).await.unwrap();
    for _ in 0..2 {
        assert_eq!(sink.apply(3, &staged).await.unwrap().rows, 3);
        let mut expect: Vec<String> = staged.iter().map(|part| part.published.clone()).collect();
        expect.sort();
        assert_eq!(files(&options.folder), expect);
    }
}

#[tokio::test]
async fn a_changed_or_missing_file_is_named() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "JSON", &[]);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    let staged = sealed(&mut sink, 0, rows(&[(1, Some("a"))])).await;
    let path = options.folder.join(&staged[0].staged);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    for (bytes, says) in [(&flipped, "other bytes"), (&good[..5].to_vec(), "has 5 bytes"), (&Vec::new(), "has 0 bytes")] {
        fs::write(&path, bytes).unwrap();
        let error = opened(&options, &writer(LINEAGE, 2)).await.apply(0, &staged).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains(says) && error.to_string().contains(&staged[0].staged), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(sink.apply(0, &staged).await.unwrap_err().kind(), Kind::Lost);
    let outside = Staged { staged: "../x".to_string(), ..staged[0].clone() };
    assert_eq!(sink.apply(0, &[outside]).await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn what_no_intent_lists_is_discarded_and_nothing_else() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "PARQUET", &[]);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    let listed = sealed(&mut sink, 0, rows(&[(1, Some("a"))])).await;
    let orphans = sealed(&mut sink, 1, rows(&[(2, Some("a"))])).await;
    let other = Writer { lane: "other".to_string(), ..writer(LINEAGE, 1) };
    let others = sealed(&mut opened(&options, &other).await, 0, rows(&[(3, Some("a"))])).await;
    let mut sink = opened(&options, &writer(LINEAGE, 2)).await;
    sink.discard(&listed).await.unwrap();
    let there = |part: &Staged| options.folder.join(&part.staged).exists();
    assert_eq!((there(&listed[0]), there(&orphans[0]), there(&others[0])), (true, false, true));
    // The epoch is staged again beside what a dropped sink may still write.
    assert_ne!(sealed(&mut sink, 1, rows(&[(2, Some("a"))])).await[0].staged, orphans[0].staged);
}

#[tokio::test]
async fn opening_says_the_greatest_epoch_and_stops_at_another_lineage_or_lane() {
    let place = TempDir::new().unwrap();
    let stop = options(place.path(), "PARQUET", &[]);
    let mut sink = FilesSink::new(stop.clone());
    assert_eq!(sink.open(&writer(LINEAGE, 1)).await.unwrap(), None);
    for epoch in [9, 10] {
        let staged = sealed(&mut sink, epoch, rows(&[(1, Some(&format!("d{epoch}")))])).await;
        sink.apply(epoch, &staged).await.unwrap();
    }
    fs::write(stop.folder.join("dt=d9/part-0.parquet"), "foreign").unwrap();
    assert_eq!(FilesSink::new(stop.clone()).open(&writer(LINEAGE, 2)).await.unwrap(), Some(10));
    let other_lane = Writer { lane: "enr".to_string(), ..writer(LINEAGE, 1) };
    for other in [writer(LATER, 1), other_lane] {
        let error = FilesSink::new(stop.clone()).open(&other).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced);
        assert!(error.to_string().contains("('on_new_lineage' 'append')"), "{error}");
        assert!(error.to_string().contains("('on_new_lineage' 'replace') on table 'out'"), "{error}");
        let append = options(place.path(), "PARQUET", &[("on_new_lineage", "append")]);
        assert_eq!(FilesSink::new(append).open(&other).await.unwrap(), None);
    }
}

#[tokio::test]
async fn more_partitions_than_open_files_become_further_parts() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "PARQUET", &[]);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    let names: Vec<String> = (0..200).map(|number| format!("p{number}")).collect();
    let spread: Vec<(i64, Option<&str>)> = (0..400).map(|id| (id, Some(names[id as usize % 200].as_str()))).collect();
    sink.write(0, rows(&spread)).await.unwrap();
    sink.write(0, rows(&spread[..10])).await.unwrap();
    assert_eq!(sink.seal(0).await.map(|staged| staged.len()).unwrap(), 210);
    let staged = sealed(&mut sink, 1, rows(&spread)).await;
    sink.apply(1, &staged).await.unwrap();
    assert_eq!((staged.len(), staged.iter().map(|part| part.rows).sum::<u64>()), (200, 400));
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for part in &staged {
        for id in read(&options.folder.join(&part.published)).column(0).as_primitive::<Int64Type>().values() {
            *counts.entry(*id).or_default() += 1;
        }
    }
    assert!(counts.len() == 400 && counts.values().all(|count| *count == 1));
}

#[tokio::test]
async fn what_cannot_be_appended_is_refused_and_nothing_written_seals_to_nothing() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "PARQUET", &[]);
    let mut sink = opened(&options, &writer(LINEAGE, 1)).await;
    assert!(sink.seal(0).await.unwrap().is_empty());
    assert_eq!(sink.apply(0, &[]).await.unwrap().rows, 0);
    let error = sink.write(1, Output::Board(RecordBatch::new_empty(schema()))).await.unwrap_err();
    assert!(error.kind() == Kind::Sql && error.to_string().contains("'emit' to 'final'"), "{error}");
    sink.write(1, rows(&[(1, None)])).await.unwrap();
    assert_eq!(sink.write(2, rows(&[(1, None)])).await.unwrap_err().kind(), Kind::Bug);
}

/// Calls the blocking functions directly, since the record of what was made durable belongs to the thread.
#[test]
fn a_file_is_durable_before_the_folder_that_names_it_and_the_new_place_after_the_rename() {
    let place = TempDir::new().unwrap();
    let options = options(place.path(), "PARQUET", &[]);
    let writer = writer(LINEAGE, 1);
    replace::open(&options, &writer, false).unwrap();
    publish::prepare(&options.folder, &writer).unwrap();
    let Output::Rows { rows, .. } = rows(&[(1, Some("a")), (2, Some("b"))]) else { panic!("these are rows") };
    let account = Arc::new(Mutex::new(Account::unlimited(Use::Sink)));
    let mut stage =
        Stage::new(Arc::new(options.clone()), Root::Folder(options.folder.clone()), writer, 0, Arc::default(), account);
    stage.write(&rows).unwrap();
    SYNCED.take();
    let staged = stage.seal().unwrap();
    let at = |name: &str| options.folder.join(name);
    assert_eq!(SYNCED.take(), [at(&staged[0].staged), at(&staged[1].staged), at("_staging/enriched")]);
    publish::apply(&options.folder, "lane", &staged, false).unwrap();
    // Both new folders in the table's folder, then the two that took a file.
    assert_eq!(SYNCED.take(), [at(""), at(""), at("dt=a"), at("dt=b")]);
    publish::apply(&options.folder, "lane", &staged, true).unwrap();
    assert_eq!(SYNCED.take(), [at("dt=a"), at("dt=b")]);
}
