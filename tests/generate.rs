//! `falaj generate` into a real Kafka (`KAFKA_BROKERS`) and a real Postgres (`DATABASE_URL`); without them these tests say so
//! and pass. Each has a topic and a schema of its own.

use std::time::{Duration, Instant};

use clap::Parser;
use falaj::error::Kind;
use falaj::tool::generate::{Contents, Events, EventsSpec, GenerateArgs, Poison, run_until};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, Message};
use tokio_postgres::NoTls;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: GenerateArgs,
}

fn args(line: &[&str]) -> GenerateArgs {
    Line::try_parse_from(["generate"].iter().chain(line)).unwrap().args
}

fn server(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        eprintln!("skipped: {name} is not set");
    }
    value
}

async fn delete(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
}

/// All keys and payloads of `topic`, partition by partition, once there are `count`.
fn read(brokers: &str, topic: &str, partitions: i32, count: usize) -> Vec<(Vec<u8>, Vec<u8>, i32)> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "test").create().unwrap();
    let mut list = TopicPartitionList::new();
    (0..partitions).for_each(|p| list.add_partition_offset(topic, p, Offset::Beginning).unwrap());
    consumer.assign(&list).unwrap();
    let (mut records, until) = (Vec::new(), Instant::now() + Duration::from_secs(60));
    while records.len() < count && Instant::now() < until {
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            let record = record.unwrap();
            records.push((record.key().unwrap().into(), record.payload().unwrap_or_default().into(), record.partition()));
        }
    }
    assert!(consumer.poll(Duration::from_millis(200)).is_none(), "more than {count} records");
    records
}

#[tokio::test]
async fn kafka_gets_exactly_the_events_of_the_seed() {
    let Some(brokers) = server("KAFKA_BROKERS") else { return };
    let topic = format!("falaj-test-generate-{}", uuid::Uuid::now_v7());
    let line = [
        "--to",
        "kafka",
        "--events",
        "20000",
        "--contents",
        "500",
        "--from-time",
        "2026-11-23T10:00:00Z",
        "--seed",
        "7",
        "--topic",
    ];
    let rest = [&topic, "--partitions", "3", "--no-content", "--poison", "1", "--brokers", &brokers];
    let made = run_until(args(&[&line[..], &rest[..]].concat()), std::future::pending()).await.unwrap();
    assert_eq!(made.events, 20_000);

    let from_time_ns = 1_795_428_000_000_000_000;
    let spec = EventsSpec { seed: 7, contents: 500, from_time_ns, rate_per_second: 1000.0, jitter_ms: 2000 };
    let (mut events, mut poison) = (Events::new(spec).unwrap(), Poison::new(7, 1.0).unwrap());
    let mut expected: Vec<_> = (0..20_000)
        .map(|_| {
            let event = events.next();
            let mut payload = Vec::new();
            event.write_json(&mut payload);
            poison.spoil(&mut payload);
            (format!("c{:06}", event.content).into_bytes(), payload)
        })
        .collect();
    let records = read(&brokers, &topic, 3, 20_000);
    assert!((0..3).all(|partition| records.iter().any(|record| record.2 == partition)));
    let mut found: Vec<_> = records.into_iter().map(|(key, payload, _)| (key, payload)).collect();
    found.sort();
    expected.sort();
    assert!(found == expected);
    delete(&brokers, &topic).await;
}

#[tokio::test]
async fn a_rate_is_held_and_a_shutdown_ends_the_run() {
    let Some(brokers) = server("KAFKA_BROKERS") else { return };
    let topic = format!("falaj-test-generate-{}", uuid::Uuid::now_v7());
    let line = ["--to", "kafka", "--rate", "1000", "--topic", &topic, "--no-content", "--brokers", &brokers];
    let made = run_until(args(&line), tokio::time::sleep(Duration::from_millis(2500))).await.unwrap();
    let per_second = made.events as f64 / made.seconds;
    assert!((800.0..1100.0).contains(&per_second), "{made}");
    assert_eq!(read(&brokers, &topic, 4, made.events as usize).len(), made.events as usize);
    delete(&brokers, &topic).await;
}

#[tokio::test]
async fn an_impossible_topic_is_wrong_use() {
    let Some(brokers) = server("KAFKA_BROKERS") else { return };
    let wrong = args(&["--to", "kafka", "--events", "1", "--no-content", "--topic", "a b", "--brokers", &brokers]);
    let error = run_until(wrong, std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{}", error.chain());
    assert!(error.to_string().contains("'a b' cannot be a topic's name"), "{error}");
}

#[tokio::test]
async fn postgres_gets_the_tables_the_contents_and_the_events() {
    let Some(url) = server("DATABASE_URL") else { return };
    let schema = format!("test_generate_{}", uuid::Uuid::now_v7().simple());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}")).await.unwrap();
    let mark = if url.contains('?') { '&' } else { '?' };
    let own = format!("{url}{mark}options=-csearch_path%3D{schema}");
    let line = ["--to", "postgres", "--events", "3000", "--contents", "2500", "--database-url", &own];
    for run in 1..=2 {
        let made = run_until(args(&line), std::future::pending()).await.unwrap();
        assert_eq!(made.events, 3000, "run {run}");
    }
    let sql = "SELECT count(*), min(e.id), max(e.id), count(duration_ms), count(c.id), count(raw_payload->>'session')
               FROM engagement_events e LEFT JOIN content c ON c.id = e.content_id";
    let row = client.query_one(sql, &[]).await.unwrap();
    let counts: Vec<i64> = [0, 1, 2, 4, 5].iter().map(|&column| row.get::<_, i64>(column)).collect();
    assert_eq!(counts[0], 6000);
    assert_eq!(counts[3], 6000, "every event has its content");
    assert_eq!((row.get::<_, i64>(1), row.get::<_, i64>(2)), (1, 6000));
    assert!((5500..5900).contains(&row.get::<_, i64>(3)));

    let contents = Contents::new(2500, 42);
    let rows = client.query("SELECT title, length_seconds, publish_ts FROM content ORDER BY id", &[]).await.unwrap();
    assert_eq!(rows.len(), 2500);
    for (row, content) in rows.iter().zip(&contents.rows) {
        assert_eq!(row.get::<_, String>(0), content.title);
        assert_eq!(row.get::<_, Option<i64>>(1), content.length_seconds);
        assert_eq!(row.get::<_, chrono::DateTime<chrono::Utc>>(2).timestamp_millis(), content.publish_ts_ms);
    }
    client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
}

#[tokio::test]
async fn wrong_use_is_one_sentence() {
    let mut wrong = args(&["--events", "1"]);
    wrong.database_url = None;
    let error = run_until(wrong.clone(), std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("--no-content"), "{error}");

    wrong.database_url = Some("postgres://nobody:secret@127.0.0.1:1/none".into());
    let error = run_until(wrong.clone(), std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(!error.chain().contains("secret") && !format!("{wrong:?}").contains("secret"));

    let mut wrong = args(&["--to", "postgres", "--poison", "1"]);
    assert_eq!(run_until(wrong.clone(), std::future::pending()).await.unwrap_err().kind(), Kind::Usage);
    wrong.poison = 0.0;
    wrong.contents = 0;
    assert_eq!(run_until(wrong, std::future::pending()).await.unwrap_err().kind(), Kind::Usage);
}
