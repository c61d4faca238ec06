//! An outside system that is not there when `falaj run` starts: it says what it waits for, and goes on when it comes.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::falaj::{Falaj, command};
use crate::support::proxy::Proxy;

/// Three events of two contents, in a topic, a schema and a board of the test's own.
struct World {
    brokers: String,
    database: String,
    redis: String,
    /// The name of all three.
    name: String,
    folder: tempfile::TempDir,
    database_client: tokio_postgres::Client,
}

impl World {
    /// `None` when there are no servers to test with.
    async fn new() -> Option<Self> {
        let variable = |name: &str| {
            let value = std::env::var(name).ok();
            if value.is_none() {
                eprintln!("skipped: {name} is not set");
            }
            value
        };
        let (brokers, database, redis) = (variable("KAFKA_BROKERS")?, variable("DATABASE_URL")?, variable("REDIS_URL")?);
        let name = format!("falaj_test_{}", uuid::Uuid::now_v7().simple());
        produce(&brokers, &name).await;
        let (database_client, connection) = tokio_postgres::connect(&database, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let tables = format!(
            "CREATE SCHEMA {name}; CREATE TABLE {name}.content (id text PRIMARY KEY, title text);
             INSERT INTO {name}.content VALUES ('a', 'Anna'), ('b', 'Bert');"
        );
        database_client.batch_execute(&tables).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("queries")).unwrap();
        for (file, text) in
            [("tables.sql", TABLES.replace("{name}", &name)), ("board.sql", BOARD.to_string()), ("rows.sql", ROWS.to_string())]
        {
            std::fs::write(folder.path().join("queries").join(file), text).unwrap();
        }
        Some(Self { brokers, database, redis, name, folder, database_client })
    }

    fn start(&self, brokers: &str, database: &str, redis: &str) -> Falaj {
        let mut command = command(self.folder.path(), &["run", "--until", "latest", "--no-web"]);
        command.env("KAFKA_BROKERS", brokers).env("DATABASE_URL", database).env("REDIS_URL", redis);
        Falaj::start(&mut command)
    }

    /// Everything has come, and what the test made is gone.
    async fn finish(self, falaj: Falaj) {
        let (status, said) = falaj.end();
        assert_eq!(status.code(), Some(0), "{said}");
        let mut titles: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(self.folder.path().join("rows")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let text = std::fs::read_to_string(path).unwrap();
                titles.extend(
                    text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["title"].to_string()),
                );
            }
        }
        titles.sort();
        assert_eq!(titles, ["\"Anna\"", "\"Anna\"", "\"Bert\""], "{said}");
        let mut redis = redis::Client::open(self.redis.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
        let query = redis::cmd("ZRANGE").arg(&self.name).arg(0).arg(-1).arg("WITHSCORES").query_async(&mut redis).await;
        let board: Vec<(String, f64)> = query.unwrap();
        assert_eq!(board, [("b".to_string(), 1.0), ("a".to_string(), 2.0)], "{said}");

        self.database_client.batch_execute(&format!("DROP SCHEMA {} CASCADE", self.name)).await.unwrap();
        let _: Result<(), _> = redis::cmd("DEL").arg(&self.name).query_async(&mut redis).await;
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        admin.delete_topics(&[&self.name], &AdminOptions::new()).await.unwrap();
    }
}

const TABLES: &str = "
CREATE UNBOUNDED EXTERNAL TABLE events (id BIGINT, content_id VARCHAR, event_ts TIMESTAMP) STORED AS KAFKA LOCATION '{name}'
OPTIONS ('brokers' '${env:KAFKA_BROKERS}', 'format' 'json', 'watermark.column' 'event_ts');
CREATE EXTERNAL TABLE content (id VARCHAR, title VARCHAR) STORED AS POSTGRES LOCATION '{name}.content'
OPTIONS ('url' '${env:DATABASE_URL}', 'key' 'id');
CREATE EXTERNAL TABLE board (content_id VARCHAR, events BIGINT) STORED AS REDIS LOCATION '{name}'
OPTIONS ('url' '${env:REDIS_URL}', 'member' 'content_id', 'score' 'events');
CREATE EXTERNAL TABLE files (id BIGINT, title VARCHAR) STORED AS JSON LOCATION 'rows';
";
const BOARD: &str = "INSERT INTO board SELECT content_id, count(*) FROM tumble(events, event_ts, INTERVAL '1 day')
GROUP BY window_start, window_end, content_id;";
const ROWS: &str = "INSERT INTO files SELECT e.id, c.title FROM events e LEFT JOIN content c ON e.content_id = c.id;";

async fn produce(brokers: &str, topic: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let producer: BaseProducer = config.create().unwrap();
    for (id, content) in [(1, "a"), (2, "b"), (3, "a")] {
        let payload = format!(r#"{{"id":{id},"content_id":"{content}","event_ts":"2026-11-23T10:00:0{id}Z"}}"#);
        producer.send(BaseRecord::<(), _>::to(topic).payload(&payload)).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

/// `host:port` of a URL, and the URL with another one there.
fn elsewhere(url: &str) -> (Proxy, String) {
    let authority = url.split("://").nth(1).unwrap().split('/').next().unwrap();
    let host = authority.rsplit('@').next().unwrap();
    let proxy = Proxy::of(host);
    let moved = url.replace(host, &proxy.addr().to_string());
    (proxy, moved)
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_waited_for() {
    let Some(world) = World::new().await else { return };
    let proxy = Proxy::of(world.brokers.split(',').next().unwrap());
    let addr = proxy.addr().to_string();
    let mut falaj = world.start(&addr, &world.database, &world.redis);
    falaj.wait_for_line(&["WARN", "waiting", &addr]);
    proxy.open();
    world.finish(falaj).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_waited_for() {
    let Some(world) = World::new().await else { return };
    let (proxy, url) = elsewhere(&world.database);
    let mut falaj = world.start(&world.brokers, &url, &world.redis);
    falaj.wait_for_line(&["WARN", "cannot be loaded, nothing can be joined before it", &proxy.addr().to_string()]);
    proxy.open();
    world.finish(falaj).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_waited_for() {
    let Some(world) = World::new().await else { return };
    let (proxy, url) = elsewhere(&world.redis);
    let mut falaj = world.start(&world.brokers, &world.database, &url);
    falaj.wait_for_line(&["WARN", "lane 'board' waits", &proxy.addr().to_string()]);
    proxy.open();
    world.finish(falaj).await;
}
