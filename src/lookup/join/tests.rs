//! Every query runs twice, with lookup joins and with DataFusion's own hash joins, and gives the same.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;
use crate::clock::Clock;
use crate::error::{Error, Kind};
use crate::lookup::LookupStore;
use crate::lookup::index::LookupTable;
use crate::lookup::memory::MemoryLookup;
use crate::status::LookupStatus;
use crate::table::TableDef;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<_> = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect()).unwrap()
}

fn texts<const N: usize>(values: [Option<&str>; N]) -> ArrayRef {
    Arc::new(StringViewArray::from_iter(values))
}

fn longs<const N: usize>(values: [Option<i64>; N]) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values))
}

fn events() -> RecordBatch {
    batch(vec![
        ("id", longs([Some(1), Some(2), Some(3), Some(4), Some(5), Some(6)])),
        ("content_id", texts([Some("a"), Some("b"), None, Some("nowhere"), Some("a longer key than a view holds"), Some("a")])),
        ("kind_id", longs([Some(1), Some(2), Some(3), None, Some(1), Some(1 << 40)])),
        ("duration_ms", longs([Some(1_000), None, Some(3_000), Some(4_000), Some(5_000), Some(9_000)])),
    ])
}

fn content() -> RecordBatch {
    batch(vec![
        ("id", texts([Some("a"), Some("b"), Some("a longer key than a view holds"), None, Some("c")])),
        ("title", texts([Some("A"), None, Some("a title longer than a view holds"), Some("no key"), Some("C")])),
        ("content_type", texts([Some("film"), Some("clip"), Some("film"), Some("film"), None])),
        ("length_seconds", longs([Some(5), Some(0), None, Some(7), Some(8)])),
    ])
}

fn kinds() -> RecordBatch {
    batch(vec![("id", Arc::new(arrow::array::Int32Array::from(vec![1, 2]))), ("word", texts([Some("play"), Some("pause")]))])
}

fn def(name: &str, rows: &RecordBatch, options: &[(&str, &str)]) -> TableDef {
    let options = [("url", "memory"), ("key", "id")].iter().chain(options).map(|(k, v)| (k.to_string(), v.to_string()));
    TableDef {
        name: name.into(),
        stored_as: "POSTGRES".into(),
        unbounded: false,
        location: name.into(),
        schema: rows.schema(),
        partition_by: vec![],
        options: options.collect(),
        place: "lookups.sql:1:1".into(),
    }
}

fn lookup(name: &str, rows: RecordBatch) -> Arc<LookupTable> {
    let table = LookupTable::declared(&def(name, &rows, &[])).unwrap();
    table.replace(rows).unwrap();
    table
}

fn session() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
    config.options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
    let session = SessionContext::new_with_config(config);
    let halves = vec![events().slice(0, 4), events().slice(4, 2)];
    session.register_table("events", Arc::new(MemTable::try_new(events().schema(), vec![halves]).unwrap())).unwrap();
    session
}

async fn with_views(session: &SessionContext) {
    for view in [
        "CREATE VIEW enriched AS SELECT e.*, c.title, c.content_type, round(e.duration_ms / 1000.0 / nullif(c.length_seconds, 0), 2) \
         AS pct FROM events e LEFT JOIN content c ON e.content_id = c.id",
        "CREATE VIEW films AS SELECT id AS film, upper(coalesce(title, '?')) AS title FROM content WHERE content_type = 'film'",
    ] {
        session.sql(view).await.unwrap();
    }
}

/// A session over lookup tables.
async fn ours(content: Arc<LookupTable>) -> SessionContext {
    let session = session();
    session.register_table("content", Arc::new(LookupProvider::new(content))).unwrap();
    session.register_table("kinds", Arc::new(LookupProvider::new(lookup("kinds", kinds())))).unwrap();
    with_views(&session).await;
    session
}

/// The same with ordinary tables.
async fn theirs() -> SessionContext {
    let session = session();
    for (name, rows) in [("content", content()), ("kinds", kinds())] {
        session.register_table(name, Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap())).unwrap();
    }
    with_views(&session).await;
    session
}

async fn planned(session: &SessionContext, sql: &str) -> crate::error::Result<Arc<dyn ExecutionPlan>> {
    let plan = session.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    use_lookup_joins(plan)
}

fn shown(plan: &Arc<dyn ExecutionPlan>) -> String {
    displayable(plan.as_ref()).indent(false).to_string()
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        return Vec::new();
    }
    let mut lines: Vec<_> = pretty_format_batches(batches).unwrap().to_string().lines().map(str::to_string).collect();
    lines.sort();
    lines
}

const SAME: &[&str] = &[
    "SELECT * FROM events e LEFT JOIN content c ON e.content_id = c.id",
    "SELECT * FROM events e JOIN content c ON e.content_id = c.id",
    "SELECT * FROM content c JOIN events e ON e.content_id = c.id",
    "SELECT * FROM content c RIGHT JOIN events e ON c.id = e.content_id",
    "SELECT c.title, e.id FROM content c RIGHT JOIN events e ON c.id = e.content_id WHERE e.id > 1",
    "SELECT title, id, pct FROM enriched",
    "SELECT * FROM enriched",
    "SELECT * FROM enriched WHERE content_type = 'film'",
    "SELECT * FROM enriched WHERE content_type IS NULL",
    "SELECT id FROM enriched WHERE title IS NOT NULL AND duration_ms > 1000",
    "SELECT e.id, c.title FROM events e LEFT JOIN content c ON e.content_id = c.id AND c.content_type = 'film'",
    "SELECT e.id, c.title FROM events e JOIN content c ON e.content_id = c.id AND c.content_type <> 'film'",
    "SELECT e.id, c.title FROM events e LEFT JOIN content c ON e.content_id = c.id AND c.length_seconds > 6",
    "SELECT e.id, f.title FROM events e LEFT JOIN films f ON e.content_id = f.film",
    "SELECT e.id, f.title || '!' FROM events e JOIN films f ON e.content_id = f.film WHERE f.title <> '?'",
    "SELECT f.*, e.* FROM films f RIGHT JOIN events e ON e.content_id = f.film",
    "SELECT e.id, c.title FROM events e JOIN content c ON e.content_id = c.id WHERE e.duration_ms >= c.length_seconds * 1000",
    "SELECT c.title, e.id FROM content c JOIN events e ON e.content_id = c.id AND e.duration_ms > c.length_seconds",
    "SELECT e.id FROM events e JOIN content c ON e.content_id = c.id AND upper(e.content_id) = c.title",
    "SELECT e.id, c.title FROM events e LEFT JOIN content c ON lower(e.content_id) = c.id",
    "SELECT e.id, c.title FROM events e LEFT JOIN content c ON CAST(e.kind_id AS VARCHAR) = c.id",
    "SELECT e.id, k.word FROM events e LEFT JOIN kinds k ON e.kind_id = k.id",
    "SELECT e.id, k.* FROM events e JOIN kinds k ON k.id = e.kind_id",
    "SELECT e.id, c.title, k.word FROM events e LEFT JOIN content c ON e.content_id = c.id LEFT JOIN kinds k ON e.kind_id = k.id",
    "SELECT k.word, c.title, e.id FROM events e JOIN content c ON e.content_id = c.id JOIN kinds k ON e.kind_id = k.id",
    "SELECT c.title, d.title FROM events e LEFT JOIN content c ON e.content_id = c.id LEFT JOIN content d ON lower(c.title) = d.id",
    "SELECT content_type, count(*), sum(duration_ms) FROM enriched GROUP BY content_type",
    "SELECT count(*) FROM events e JOIN content c ON e.content_id = c.id",
    "SELECT e.id FROM events e LEFT JOIN content c ON e.content_id = c.id",
    "SELECT content_id, count(*) FROM enriched GROUP BY content_id",
    "SELECT c.title FROM events e JOIN content c ON e.content_id = c.id WHERE c.id = 'a'",
    "SELECT e.id FROM events e JOIN content c ON e.content_id = c.id WHERE c.content_type = 'no such type'",
    "SELECT e.content_id, c.id, c.title FROM (SELECT * FROM events WHERE false) e LEFT JOIN content c ON e.content_id = c.id",
    "SELECT id, title, content_type FROM content WHERE length_seconds > 5",
];

#[tokio::test]
async fn a_lookup_join_gives_what_a_hash_join_gives() {
    let merged = lookup("content", content().slice(0, 2));
    merged.merge(&content().slice(2, 1)).unwrap();
    for table in [lookup("content", content()), merged] {
        let (ours, theirs) = (ours(table).await, theirs().await);
        for sql in SAME {
            let plan = planned(&ours, sql).await.unwrap();
            assert!(!shown(&plan).contains("HashJoin"), "{sql}\n{}", shown(&plan));
            let expected = theirs.sql(sql).await.unwrap();
            let names =
                |plan: &Arc<dyn ExecutionPlan>| plan.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
            let hash_plan = expected.clone().create_physical_plan().await.unwrap();
            assert_eq!(names(&plan), names(&hash_plan), "{sql}");
            let expected = expected.collect().await.unwrap();
            // Twice, as a lane does it.
            for _ in 0..2 {
                let plan = reset_plan_states(Arc::clone(&plan)).unwrap();
                let rows = collect(plan, ours.task_ctx()).await.unwrap();
                if !sql.ends_with("length_seconds > 5") {
                    assert_eq!(lines(&rows), lines(&expected), "{sql}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_left_join_of_which_no_column_is_used_goes() {
    let session = ours(lookup("content", content())).await;
    for (sql, stays) in [
        ("SELECT e.id FROM events e LEFT JOIN content c ON e.content_id = c.id", false),
        ("SELECT e.* FROM events e LEFT JOIN content c ON e.content_id = c.id", false),
        ("SELECT id + 1 FROM enriched WHERE duration_ms > 5", false),
        ("SELECT content_id, count(*) FROM enriched GROUP BY content_id", false),
        ("SELECT count(*) FROM enriched", false),
        ("SELECT e.id FROM events e LEFT JOIN content c ON e.content_id = c.id AND c.content_type = 'film'", false),
        ("SELECT e.id, c.id FROM events e LEFT JOIN content c ON e.content_id = c.id", true),
        ("SELECT e.id FROM events e JOIN content c ON e.content_id = c.id", true),
    ] {
        let plan = shown(&planned(&session, sql).await.unwrap());
        assert_eq!(plan.contains("Lookup"), stays, "{sql}\n{plan}");
    }
}

#[tokio::test]
async fn the_plan_takes_only_the_columns_that_are_used() {
    let session = ours(lookup("content", content())).await;
    let sql = "SELECT e.id, c.title FROM events e LEFT JOIN content c ON e.content_id = c.id AND c.content_type = 'film'";
    let plan = shown(&planned(&session, sql).await.unwrap());
    let join = plan.lines().next().unwrap();
    assert_eq!(
        join, "LookupJoinExec: Left content on content_id@1 = id and content_type = film, columns=[id, title]",
        "{plan}"
    );
}

#[tokio::test]
async fn rows_keep_their_order_and_batches_stay_apart() {
    let session = ours(lookup("content", content())).await;
    let sql = "SELECT c.title, e.id FROM events e LEFT JOIN content c ON e.content_id = c.id";
    let rows = collect(planned(&session, sql).await.unwrap(), session.task_ctx()).await.unwrap();
    let ids: Vec<Vec<i64>> = rows.iter().map(|rows| rows.column(1).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(ids, [vec![1, 2, 3, 4], vec![5, 6]]);
}

#[tokio::test]
async fn what_a_lookup_cannot_do_is_refused_with_advice() {
    let session = ours(lookup("content", content())).await;
    for (sql, part) in [
        ("SELECT * FROM content c LEFT JOIN events e ON e.content_id = c.id", "write stream LEFT JOIN content"),
        ("SELECT * FROM events e RIGHT JOIN content c ON e.content_id = c.id", "write stream LEFT JOIN content"),
        ("SELECT * FROM events e FULL JOIN content c ON e.content_id = c.id", "a FULL join"),
        (
            "SELECT * FROM events e JOIN content c ON e.content_id = c.title",
            "join content on its key column 'id', … JOIN content ON content_id = content.id",
        ),
        ("SELECT * FROM events e JOIN content c ON e.content_id = lower(c.id)", "on its key column 'id'"),
        ("SELECT * FROM events e JOIN kinds k ON e.kind_id = k.id + 1", "on its key column 'id'"),
        (
            "SELECT * FROM events e LEFT JOIN content c ON e.content_id = c.id AND e.content_id = c.title",
            "CASE WHEN content_id = content.title",
        ),
        ("SELECT * FROM events e LEFT JOIN content c ON e.content_id = c.id AND e.duration_ms > c.length_seconds", "CASE WHEN"),
        ("SELECT * FROM events e WHERE e.content_id IN (SELECT id FROM content)", "IN and EXISTS"),
        (
            "SELECT * FROM events e WHERE NOT EXISTS (SELECT 1 FROM content c WHERE c.id = e.content_id)",
            "WHERE content.id IS NULL",
        ),
        ("SELECT * FROM events e CROSS JOIN content c", "a join without a condition"),
        ("SELECT * FROM events e JOIN content c ON e.content_id > c.id", "a join without '='"),
        ("SELECT * FROM events e JOIN content c ON e.content_id IS NOT DISTINCT FROM c.id", "IS NOT DISTINCT FROM"),
        (
            "SELECT * FROM content c JOIN kinds k ON c.length_seconds = k.id JOIN events e ON e.content_id = c.id",
            "cannot be joined with each other",
        ),
        (
            "SELECT * FROM events e JOIN (SELECT id, count(*) FROM content GROUP BY id) c ON e.content_id = c.id",
            "projections and filters",
        ),
        ("SELECT * FROM events e JOIN (SELECT * FROM content LIMIT 3) c ON e.content_id = c.id", "projections and filters"),
        ("SELECT id, (SELECT max(length_seconds) FROM content) FROM events", "joined by its key"),
        ("SELECT content_id FROM events UNION ALL SELECT id FROM content", "joined by its key"),
    ] {
        let error = planned(&session, sql).await.map(|plan| shown(&plan)).unwrap_err();
        assert!(error.kind() == Kind::Sql && error.to_string().contains(part), "{sql}\n{}", error.chain());
    }
}

#[tokio::test]
async fn a_new_version_is_joined_with_from_the_next_run_on() {
    let table = lookup("content", content());
    let session = ours(Arc::clone(&table)).await;
    let plan =
        planned(&session, "SELECT c.title FROM events e JOIN content c ON e.content_id = c.id WHERE e.id = 1").await.unwrap();
    let run = || async { collect(reset_plan_states(Arc::clone(&plan)).unwrap(), session.task_ctx()).await.unwrap() };
    assert_eq!(run().await[0].column(0).as_string_view().value(0), "A");
    let rows = batch(vec![
        ("id", texts([Some("a")])),
        ("title", texts([Some("anew")])),
        ("content_type", texts([None])),
        ("length_seconds", longs([None])),
    ]);
    table.replace(rows).unwrap();
    assert_eq!(run().await[0].column(0).as_string_view().value(0), "anew");
}

#[tokio::test]
async fn a_batch_waits_for_the_first_load() {
    let table = LookupTable::declared(&def("content", &content(), &[])).unwrap();
    let session = ours(Arc::clone(&table)).await;
    let plan =
        planned(&session, "SELECT e.id, c.title FROM events e LEFT JOIN content c ON e.content_id = c.id").await.unwrap();
    let mut running = tokio::spawn(collect(plan, session.task_ctx()));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut running).await.is_err());
    table.replace(content()).unwrap();
    assert_eq!(running.await.unwrap().unwrap()[0].column(1).as_string_view().value(0), "A");
}

/// A store that is away while `away` is set.
#[derive(Debug)]
struct Unsteady {
    rows: MemoryLookup,
    away: std::sync::atomic::AtomicBool,
    asked: tokio::sync::watch::Sender<u64>,
}

#[async_trait]
impl LookupStore for Unsteady {
    async fn load(&self) -> crate::error::Result<RecordBatch> {
        self.rows.load().await
    }

    async fn follow(&self) -> crate::error::Result<Box<dyn crate::lookup::Follower>> {
        self.rows.follow().await
    }

    async fn fetch(&self, keys: ArrayRef) -> crate::error::Result<RecordBatch> {
        self.asked.send_modify(|asked| *asked += 1);
        if self.away.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::new(Kind::Unreachable, "the store is away"));
        }
        self.rows.fetch(keys).await
    }
}

async fn fetching(
    options: &[(&str, &str)],
    away: bool,
) -> (Arc<LookupTable>, Arc<Unsteady>, SessionContext, Arc<LookupStatus>) {
    let options = [&[("on_miss", "fetch")], options].concat();
    let status = Arc::new(LookupStatus::default());
    let table = LookupTable::new(&def("content", &content(), &options), Clock::held(0), Arc::clone(&status)).unwrap();
    table.replace(content().slice(1, 1)).unwrap();
    let store = Arc::new(Unsteady {
        rows: MemoryLookup::new(content(), 0),
        away: away.into(),
        asked: tokio::sync::watch::Sender::new(0),
    });
    table.set_store(Arc::clone(&store) as Arc<dyn LookupStore>);
    let session = ours(Arc::clone(&table)).await;
    (table, store, session, status)
}

const TITLES: &str = "SELECT e.id, c.title FROM events e LEFT JOIN content c ON e.content_id = c.id";

async fn run(session: &SessionContext, sql: &str) -> Vec<String> {
    lines(&collect(planned(session, sql).await.unwrap(), session.task_ctx()).await.unwrap())
}

#[tokio::test]
async fn missing_keys_are_fetched_before_the_batch_goes_on_and_misses_are_remembered() {
    use std::sync::atomic::Ordering::SeqCst;
    let (table, store, session, status) = fetching(&[], false).await;
    let expected = lines(&theirs().await.sql(TITLES).await.unwrap().collect().await.unwrap());
    assert_eq!(run(&session, TITLES).await, expected);
    // One question for each of the two batches.
    assert_eq!((*store.asked.borrow(), status.misses.load(SeqCst), table.version().num_rows()), (2, 3, 3));
    assert_eq!(run(&session, TITLES).await, expected);
    assert_eq!(*store.asked.borrow(), 2, "'nowhere' is remembered");
}

#[tokio::test]
async fn a_key_that_only_a_filter_hides_is_not_missing() {
    let (table, store, session, _) = fetching(&[], false).await;
    table.replace(content()).unwrap();
    let sql = "SELECT c.title FROM events e JOIN content c ON e.content_id = c.id WHERE c.content_type = 'no such type' AND e.id <> 4";
    assert!(run(&session, sql).await.is_empty());
    assert_eq!(*store.asked.borrow(), 0);
}

#[tokio::test]
async fn a_miss_while_the_store_is_away_waits_until_it_is_back() {
    use std::sync::atomic::Ordering::SeqCst;
    let (_, store, session, status) = fetching(&[], true).await;
    let task = tokio::spawn({
        let session = session.clone();
        async move { run(&session, TITLES).await }
    });
    store.asked.subscribe().wait_for(|asked| *asked > 2).await.unwrap();
    assert!(!task.is_finished());
    store.away.store(false, SeqCst);
    assert_eq!(task.await.unwrap(), lines(&theirs().await.sql(TITLES).await.unwrap().collect().await.unwrap()));
    assert_eq!(status.unanswered.load(SeqCst), 0);
}

#[tokio::test]
async fn or_it_is_taken_as_null_and_counted_and_the_next_batch_does_not_wait() {
    use std::sync::atomic::Ordering::SeqCst;
    let (_, store, session, status) = fetching(&[("on_miss_error", "null"), ("miss_timeout", "100ms")], true).await;
    let begun = tokio::time::Instant::now();
    let rows = run(&session, TITLES).await;
    assert_eq!(rows.iter().filter(|line| line.contains("A |")).count(), 0, "{rows:?}");
    assert!(begun.elapsed().as_millis() >= 100);
    assert_eq!(status.unanswered.load(SeqCst), 2);
    let asked = *store.asked.borrow();
    run(&session, TITLES).await;
    assert_eq!(*store.asked.borrow(), asked);
}
