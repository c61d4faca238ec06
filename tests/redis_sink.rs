//! The Redis sink on a real Redis (`REDIS_URL`); without it these tests say so and pass. Each has keys of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use falaj::batch::{Output, RowIds};
use falaj::error::Kind;
use falaj::sink::redis::{RedisOptions, RedisSink};
use falaj::sink::{Sink, Writer};
use falaj::table::TableDef;
use redis::AsyncCommands;

type Items = Vec<(String, f64)>;

/// One table under a key of its own, and a connection that looks at it.
struct Redis {
    table: TableDef,
    key: String,
    connection: redis::aio::MultiplexedConnection,
}

impl Redis {
    async fn zset(name: &str) -> Option<Self> {
        Self::new(name, &[("member", "member"), ("score", "score")]).await
    }

    async fn new(name: &str, options: &[(&str, &str)]) -> Option<Self> {
        let Ok(url) = std::env::var("REDIS_URL") else {
            eprintln!("skipped: REDIS_URL is not set");
            return None;
        };
        let key = format!("falaj-test-{name}-{}", uuid::Uuid::now_v7());
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        let client = redis::Client::open(url.as_str()).unwrap();
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        let mut options: BTreeMap<_, _> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        options.insert("url".into(), url);
        let table = TableDef {
            name: "board".into(),
            stored_as: "REDIS".into(),
            unbounded: false,
            location: key.clone(),
            schema: schema(),
            partition_by: vec![],
            options,
            place: "sinks.sql:1:1".into(),
        };
        Some(Self { table, key, connection })
    }

    fn sink(&self) -> RedisSink {
        RedisSink::new(RedisOptions::from_table(&self.table).unwrap())
    }

    /// A sink that is open for incarnation `incarnation` of the test's lineage.
    async fn open(&self, incarnation: u64) -> RedisSink {
        let mut sink = self.sink();
        sink.open(&writer("1", "top", incarnation)).await.unwrap();
        sink
    }

    /// The board as a reader sees it.
    async fn board(&mut self) -> Items {
        self.connection.zrange_withscores(&self.key, 0, -1).await.unwrap()
    }

    fn beside(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.key)
    }

    async fn fence(&mut self, field: &str) -> String {
        self.connection.hget::<_, _, Option<String>>(self.beside("m"), field).await.unwrap().unwrap_or_default()
    }

    async fn command(&mut self, words: &[&str]) -> redis::Value {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.connection).await.unwrap()
    }
}

fn schema() -> Arc<Schema> {
    let column = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        column("member", DataType::Utf8),
        column("score", DataType::Float64),
        column("n", DataType::Int64),
    ]))
}

fn writer(lineage: &str, lane: &str, incarnation: u64) -> Writer {
    Writer { lineage: lineage.into(), lane: lane.into(), incarnation }
}

fn rows(items: &[(&str, Option<f64>)]) -> RecordBatch {
    let members = StringArray::from_iter_values(items.iter().map(|(member, _)| member));
    let scores = Float64Array::from_iter(items.iter().map(|(_, score)| *score));
    let numbers = Int64Array::from_iter(items.iter().map(|(_, score)| score.map(|score| score as i64)));
    RecordBatch::try_new(schema(), vec![Arc::new(members), Arc::new(scores), Arc::new(numbers)]).unwrap()
}

fn board(items: &[(&str, f64)]) -> Output {
    Output::Board(rows(&items.iter().map(|(member, score)| (*member, Some(*score))).collect::<Vec<_>>()))
}

/// A board of `count` members whose scores are `from`, `from + 1`, ….
fn many(count: usize, from: usize) -> Output {
    let names: Vec<String> = (0..count).map(|index| format!("member-{index}")).collect();
    Output::Board(rows(
        &names.iter().enumerate().map(|(index, name)| (name.as_str(), Some((from + index) as f64))).collect::<Vec<_>>(),
    ))
}

fn items(items: &[(&str, f64)]) -> Items {
    items.iter().map(|(member, score)| (member.to_string(), *score)).collect()
}

/// Writes and applies one epoch and says how many members changed.
async fn put(sink: &mut RedisSink, epoch: u64, output: Output) -> u64 {
    sink.write(epoch, output).await.unwrap();
    let staged = sink.seal(epoch).await.unwrap();
    let applied = sink.apply(epoch, &staged).await.unwrap();
    sink.committed(epoch, &staged).await.unwrap();
    applied.rows
}

#[tokio::test]
async fn a_board_is_written_whole_then_by_its_difference() {
    let Some(mut redis) = Redis::zset("difference").await else { return };
    let mut sink = redis.open(1).await;
    assert_eq!(put(&mut sink, 1, board(&[("a", 1.0), ("b", 2.0), ("c", 3.0)])).await, 3);
    assert_eq!(redis.board().await, items(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]));
    // Epoch 2 had no board; the difference is against epoch 1.
    assert_eq!(put(&mut sink, 3, board(&[("b", 2.0), ("a", 4.0), ("d", 5.0)])).await, 3);
    assert_eq!(redis.board().await, items(&[("b", 2.0), ("a", 4.0), ("d", 5.0)]));
    assert_eq!((redis.fence("epoch").await, redis.fence("cardinality").await), ("3".into(), "3".into()));
    // Nothing changed: the epoch and the time to live go on all the same.
    redis.command(&["PERSIST", &redis.key.clone()]).await;
    assert_eq!(put(&mut sink, 4, board(&[("b", 2.0), ("a", 4.0), ("d", 5.0)])).await, 0);
    assert_eq!(redis.fence("epoch").await, "4");
    for key in [redis.key.clone(), redis.beside("m")] {
        let ttl: i64 = redis.connection.pttl(key).await.unwrap();
        assert!(ttl > 290_000 && ttl <= 300_000, "{ttl}");
    }
    // An empty board goes, its fence stays; and it comes again.
    assert_eq!(put(&mut sink, 5, board(&[])).await, 3);
    assert_eq!((redis.board().await, redis.fence("epoch").await), (vec![], "5".into()));
    assert_eq!(put(&mut sink, 6, board(&[("a", 1.0)])).await, 1);
    assert_eq!(redis.board().await, items(&[("a", 1.0)]));
}

#[tokio::test]
async fn null_and_nan_scores_are_left_out_and_infinity_is_kept() {
    let Some(mut redis) = Redis::zset("scores").await else { return };
    let mut sink = redis.open(1).await;
    let scores = [
        ("null", None),
        ("nan", Some(f64::NAN)),
        ("low", Some(f64::NEG_INFINITY)),
        ("pi", Some(0.1 + 0.2)),
        ("high", Some(f64::INFINITY)),
    ];
    sink.write(1, Output::Board(rows(&scores))).await.unwrap();
    let applied = sink.apply(1, &[]).await.unwrap();
    assert_eq!((applied.rows, applied.left_out, applied.refused.len()), (3, 2, 0));
    assert_eq!(redis.board().await, items(&[("low", f64::NEG_INFINITY), ("pi", 0.1 + 0.2), ("high", f64::INFINITY)]));
}

#[tokio::test]
async fn the_next_incarnation_swaps_and_the_one_before_is_fenced() {
    let Some(mut redis) = Redis::zset("fence").await else { return };
    let mut old = redis.open(1).await;
    put(&mut old, 7, board(&[("a", 1.0), ("b", 2.0)])).await;

    let mut new = redis.sink();
    assert_eq!(new.open(&writer("1", "top", 2)).await.unwrap(), Some(7));
    assert_eq!(put(&mut new, 7, board(&[("a", 9.0)])).await, 1);
    assert_eq!(redis.board().await, items(&[("a", 9.0)]));

    // (lineage, lane, incarnation) against ("1", "top", 2): what the fence says
    for (lineage, lane, incarnation, says) in [
        ("1", "top", 1, "a later claim"),
        ("0", "top", 5, "a later claim"),
        ("1", "other", 3, "the lane 'top'"),
        ("2", "other", 1, "the lane 'top'"),
    ] {
        let error = redis.sink().open(&writer(lineage, lane, incarnation)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    // The old process wakes: it had nothing to open.
    old.write(8, board(&[("zombie", 1.0)])).await.unwrap();
    assert_eq!(old.apply(8, &[]).await.unwrap_err().kind(), Kind::Fenced);
    let Output::Board(large) = many(12_000, 0) else { return };
    old.write(9, Output::Board(large)).await.unwrap();
    assert_eq!(old.apply(9, &[]).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(redis.board().await, items(&[("a", 9.0)]));

    // A new lineage takes the board over, whatever the epoch.
    let mut fork = redis.sink();
    assert_eq!(fork.open(&writer("2", "top", 1)).await.unwrap(), None);
    put(&mut fork, 1, board(&[("f", 1.0)])).await;
    assert_eq!(redis.board().await, items(&[("f", 1.0)]));
}

#[tokio::test]
async fn an_epoch_that_is_applied_twice_changes_nothing_and_a_later_one_is_not_overwritten() {
    let Some(mut redis) = Redis::zset("twice").await else { return };
    let mut sink = redis.open(1).await;
    put(&mut sink, 1, board(&[("a", 1.0)])).await;
    let mut twin = redis.open(1).await;
    put(&mut twin, 1, board(&[("b", 1.0)])).await;
    assert_eq!(redis.board().await, items(&[("a", 1.0)]));
    put(&mut sink, 2, board(&[("a", 2.0)])).await;
    put(&mut sink, 3, board(&[("a", 3.0)])).await;
    twin.write(2, board(&[("late", 1.0)])).await.unwrap();
    assert_eq!(twin.apply(2, &[]).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(redis.board().await, items(&[("a", 3.0)]));
}

#[tokio::test]
async fn whatever_redis_forgets_comes_back_with_the_next_epoch() {
    let Some(mut redis) = Redis::zset("heals").await else { return };
    let mut sink = redis.open(1).await;
    let (key, fence) = (redis.key.clone(), redis.beside("m"));
    let mut epoch = 0;
    // As FLUSHALL, an expiry, a fail-over and a careless hand would leave it.
    for damage in [
        vec!["DEL", &key, &fence],
        vec!["DEL", &key],
        vec!["DEL", &fence],
        vec!["ZREM", &key, "a"],
        vec!["HSET", &fence, "epoch", "0"],
        vec!["SCRIPT", "FLUSH"],
    ] {
        put(&mut sink, epoch + 1, board(&[("a", 1.0), ("b", 2.0)])).await;
        redis.command(&damage).await;
        epoch += 2;
        put(&mut sink, epoch, board(&[("a", 1.0), ("b", epoch as f64 + 2.0)])).await;
        assert_eq!(redis.board().await, items(&[("a", 1.0), ("b", epoch as f64 + 2.0)]), "{damage:?}");
        assert_eq!(redis.fence("epoch").await, epoch.to_string());
    }
}

#[tokio::test]
async fn a_key_of_another_type_stops_the_lane_with_a_sentence() {
    let Some(mut redis) = Redis::zset("type").await else { return };
    let key = redis.key.clone();
    redis.command(&["SET", &key, "mine"]).await;
    let mut sink = redis.open(1).await;
    sink.write(1, board(&[("a", 1.0)])).await.unwrap();
    let error = sink.apply(1, &[]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(error.to_string().contains("another type of value"), "{error}");
    let fence = redis.beside("m");
    redis.command(&["SET", &fence, "mine"]).await;
    assert_eq!(redis.sink().open(&writer("1", "top", 2)).await.unwrap_err().kind(), Kind::Fenced);
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_a_dead_server_is_unreachable() {
    let Some(redis) = Redis::zset("denied").await else { return };
    let address = redis.table.options["url"].trim_start_matches("redis://").to_string();
    for (url, kind) in
        [(format!("redis://nobody:wrong@{address}"), Kind::Denied), ("redis://127.0.0.1:1".into(), Kind::Unreachable)]
    {
        let mut table = redis.table.clone();
        table.options.insert("url".into(), url);
        let mut sink = RedisSink::new(RedisOptions::from_table(&table).unwrap());
        let error = sink.open(&writer("1", "top", 1)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.chain());
        assert!(!error.chain().contains("wrong@"), "{}", error.chain());
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_again() {
    let Some(mut redis) = Redis::zset("cut").await else { return };
    // A database of its own tells this sink's connection from everybody else's.
    redis.table.options.entry("url".into()).and_modify(|url| url.push_str("/15"));
    redis.command(&["SELECT", "15"]).await;
    let mut sink = redis.open(1).await;
    for epoch in 1..20 {
        put(&mut sink, epoch, board(&[("a", epoch as f64)])).await;
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis.connection).await.unwrap();
        for id in list
            .lines()
            .filter(|line| line.contains(" db=15 ") && line.contains(" cmd=evalsha"))
            .filter_map(|line| line.split(['=', ' ']).nth(1))
        {
            let killed: u64 = redis::cmd("CLIENT").arg(&["KILL", "ID", id]).query_async(&mut redis.connection).await.unwrap();
            assert_eq!(killed, 1);
        }
    }
    put(&mut sink, 20, board(&[("a", 20.0)])).await;
    assert_eq!(redis.board().await, items(&[("a", 20.0)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polling_reader_never_sees_a_part_of_a_board() {
    let Some(mut redis) = Redis::zset("reader").await else { return };
    // Every member of a board has its epoch as score, and their number follows from it.
    let size = |epoch: u64| [1, 40, 7_000, 300, 5_001, 12_000][(epoch % 6) as usize];
    let done = Arc::new(AtomicBool::new(false));
    let (stop, key, mut reader) = (done.clone(), redis.key.clone(), redis.connection.clone());
    let reading = tokio::spawn(async move {
        let mut polls = 0;
        while !stop.load(Ordering::SeqCst) {
            let seen: Items = reader.zrange_withscores(&key, 0, -1).await.unwrap();
            if let Some((_, epoch)) = seen.first() {
                assert!(seen.iter().all(|(_, score)| score == epoch), "mixed at epoch {epoch}");
                assert_eq!(seen.len(), size(*epoch as u64), "partial at epoch {epoch}");
            } else {
                assert_eq!(polls, 0, "empty");
                continue;
            }
            polls += 1;
        }
        polls
    });
    let mut sink = redis.open(1).await;
    for epoch in 1..=200u64 {
        let names: Vec<String> = (0..size(epoch)).map(|index| format!("{}", index as u64 + epoch % 7)).collect();
        let batch = rows(&names.iter().map(|name| (name.as_str(), Some(epoch as f64))).collect::<Vec<_>>());
        put(&mut sink, epoch, Output::Board(batch)).await;
        if epoch % 50 == 0 {
            sink = redis.open(epoch).await;
        }
    }
    done.store(true, Ordering::SeqCst);
    let polls = reading.await.unwrap();
    assert!(polls > 100, "{polls}");
    assert_eq!(redis.board().await.len(), size(200));
}

#[tokio::test]
async fn changes_upsert_and_delete_in_place() {
    let Some(mut redis) = Redis::zset("changes").await else { return };
    let mut sink = redis.open(1).await;
    let changes = |upserts: &[(&str, f64)], deletes: &[&str]| Output::Changes {
        upserts: rows(&upserts.iter().map(|(member, score)| (*member, Some(*score))).collect::<Vec<_>>()),
        deletes: rows(&deletes.iter().map(|member| (*member, Some(0.0))).collect::<Vec<_>>()),
    };
    put(&mut sink, 1, changes(&[("a", 1.0), ("b", 2.0)], &[])).await;
    put(&mut sink, 2, changes(&[("b", 3.0)], &["a", "b"])).await;
    assert_eq!(redis.board().await, items(&[("b", 3.0)]));
    // The next incarnation goes on; more than one script's worth is swapped in.
    let mut sink = redis.open(2).await;
    let Output::Board(large) = many(11_000, 0) else { return };
    let deletes = rows(&[("b", None)]);
    assert_eq!(put(&mut sink, 2, Output::Changes { upserts: large, deletes }).await, 11_001);
    assert_eq!(redis.board().await.len(), 11_000);
    put(&mut sink, 3, changes(&[], &["member-0"])).await;
    assert_eq!(redis.board().await.len(), 10_999);
}

#[tokio::test]
async fn hashes_are_set_unset_and_deleted_under_the_fence() {
    let Some(mut redis) = Redis::new("hash", &[("type", "hash"), ("key", "member")]).await else { return };
    let mut sink = redis.open(1).await;
    let ids = |count| RowIds::Keys(StringArray::from_iter_values((0..count).map(|index| index.to_string())));
    let output = Output::Rows { rows: rows(&[("a", Some(1.5)), ("b", Some(2.0))]), ids: ids(2) };
    assert_eq!(put(&mut sink, 1, output).await, 2);
    let key = |row: &str| format!("{}:{row}", redis.key);
    let (a, b) = (key("a"), key("b"));
    let fields: BTreeMap<String, String> = redis.connection.hgetall(&a).await.unwrap();
    assert_eq!(fields, BTreeMap::from([("n".into(), "1".into()), ("score".into(), "1.5".into())]));
    assert_eq!(redis.connection.pttl::<_, i64>(&a).await.unwrap(), -1, "no time to live unless asked for");

    put(&mut sink, 2, Output::Changes { upserts: rows(&[("a", None)]), deletes: rows(&[("b", None)]) }).await;
    assert_eq!(redis.connection.exists::<_, u64>(&[a, b]).await.unwrap(), 0, "a row of NULLs has no field, so no key");
    let mut old = redis.open(1).await;
    put(&mut redis.open(2).await, 2, Output::Rows { rows: rows(&[("c", Some(1.0))]), ids: ids(1) }).await;
    old.write(3, Output::Rows { rows: rows(&[("c", Some(5.0))]), ids: ids(1) }).await.unwrap();
    assert_eq!(old.apply(3, &[]).await.unwrap_err().kind(), Kind::Fenced);
    let error = old.write(4, board(&[("a", 1.0)])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Sql);
}

#[tokio::test]
async fn rows_of_records_without_a_key_or_a_score_are_refused_and_those_of_windows_are_left_out() {
    for (name, options, refused) in [
        ("refused", &[("member", "member"), ("score", "score")][..], &[(6, "null_key"), (7, "no_score"), (8, "no_score")][..]),
        ("refused-hash", &[("type", "hash"), ("key", "member")], &[(6, "null_key")]),
    ] {
        let Some(redis) = Redis::new(name, options).await else { return };
        let mut sink = redis.open(1).await;
        let members = StringArray::from(vec![Some("a"), None, Some("c"), Some("d")]);
        let scores = Float64Array::from(vec![Some(1.0), Some(2.0), None, Some(f64::NAN)]);
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(members), Arc::new(scores), Arc::new(Int64Array::from(vec![0; 4]))];
        let rows = RecordBatch::try_new(schema(), columns).unwrap();
        let of_records = RowIds::Offsets { topic: "t".into(), partition: 2, offsets: vec![5, 6, 7, 8].into() };
        let of_windows = RowIds::Keys(StringArray::from(vec!["1", "2", "3", "4"]));
        for (epoch, ids, expected) in [(1, of_records, refused), (2, of_windows, &[][..])] {
            sink.write(epoch, Output::Rows { rows: rows.clone(), ids }).await.unwrap();
            let applied = sink.apply(epoch, &[]).await.unwrap();
            let found: Vec<_> = applied.refused.iter().map(|letter| (letter.offset, letter.code)).collect();
            assert_eq!(found, expected, "{name}");
            assert!(applied.refused.iter().all(|letter| letter.partition == 2));
        }
    }
}

#[tokio::test]
#[ignore = "measures; run with --ignored --nocapture"]
async fn how_long_boards_take() {
    static EPOCH: AtomicU64 = AtomicU64::new(0);
    let Some(redis) = Redis::zset("speed").await else { return };
    let mut sink = redis.open(1).await;
    // Whole boards: every score changes. Differences: 100 of 10 000.
    for (what, step) in [("10 000 members, all changed", 10_000), ("10 000 members, 100 changed", 100)] {
        let mut times = Vec::new();
        for round in 0..50 {
            let names: Vec<String> = (0..10_000).map(|index| format!("member-{index}")).collect();
            let scored: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(i, name)| (name.as_str(), Some(if i < step { round * 7 + 1 } else { 0 } as f64)))
                .collect();
            let output = Output::Board(rows(&scored));
            let began = Instant::now();
            put(&mut sink, EPOCH.fetch_add(1, Ordering::SeqCst) + 1, output).await;
            times.push(began.elapsed());
        }
        times.sort();
        println!("{what}: median {:?}, greatest {:?}", times[25], times[49]);
    }
}
