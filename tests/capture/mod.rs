//! Changes of a Postgres table, from the WAL to Kafka, on real servers: against what Postgres' own `test_decoding` says, and against the
//! table itself.

mod debezium;
mod faults;
pub(crate) mod killed;
mod restarted;
mod snapshot;
mod values;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::support::falaj::{self, Falaj};
use crate::support::kafka;

/// Only a test that fails waits so long, or one beside a dozen other processes.
const WAIT: Duration = Duration::from_secs(180);

/// A table, a slot, a publication and a topic of a test's own, and a project whose lane copies the one into the other.
struct Capture {
    client: Client,
    url: String,
    brokers: String,
    /// The schema, the slot, the publication and the topic.
    name: String,
    folder: TempDir,
}

impl Capture {
    /// Makes the table; the columns are those of SQL, too. `options` are those of the source beside its place.
    async fn new(table: &str, columns: &str, options: &str) -> Option<Self> {
        let (Ok(url), Ok(brokers)) = (std::env::var("DATABASE_URL"), std::env::var("KAFKA_BROKERS")) else {
            eprintln!("skipped: DATABASE_URL and KAFKA_BROKERS are not set");
            return None;
        };
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let name = format!("falaj_test_{}", &uuid::Uuid::now_v7().simple().to_string()[8..]);
        client.batch_execute(&format!("CREATE SCHEMA {name}; SET search_path = {name}; {table}")).await.unwrap();
        let capture = Self { client, url, brokers, name, folder: tempfile::tempdir().unwrap() };
        capture.declare(columns, options);
        Some(capture)
    }

    fn declare(&self, columns: &str, options: &str) {
        let Self { url, brokers, name, .. } = self;
        let all_changes = options.contains("'all'");
        let meta = if all_changes { ", _op VARCHAR" } else { "" };
        let op = if all_changes { ", op VARCHAR" } else { "" };
        self.write(
            "tables",
            &format!(
                "SET falaj.records_kept = 0;
                 CREATE UNBOUNDED EXTERNAL TABLE changes ({columns}{meta}) STORED AS POSTGRES LOCATION '{name}.t'
                 OPTIONS ('url' '{url}', 'slot' '{name}', 'publication' '{name}'{options});
                 CREATE EXTERNAL TABLE topic ({columns}{op}) STORED AS KAFKA LOCATION '{name}'
                 OPTIONS ('brokers' '{brokers}', 'partitions' '1');"
            ),
        );
        self.write("capture", "INSERT INTO topic SELECT * FROM changes;");
    }

    /// Connects again, after the server was killed.
    async fn reconnect(&mut self) {
        let deadline = Instant::now() + WAIT;
        loop {
            if let Ok((client, connection)) = tokio_postgres::connect(&self.url, NoTls).await {
                tokio::spawn(connection);
                client.batch_execute(&format!("SET search_path = {}", self.name)).await.unwrap();
                self.client = client;
                return;
            }
            assert!(Instant::now() < deadline, "Postgres does not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn write(&self, file: &str, sql: &str) {
        let folder = self.folder.path().join("queries");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{file}.sql")), sql).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = falaj::command(self.folder.path(), &["run", "queries", "--no-web"]);
        command.args(args);
        command
    }

    fn start(&self) -> Falaj {
        Falaj::start(&mut self.command(&[]))
    }

    /// Runs until what is committed now is on the topic.
    fn run_until_latest(&self) -> String {
        let (status, said) = Falaj::start(&mut self.command(&["--until", "latest"])).end();
        assert!(status.success(), "{said}");
        said
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    /// Waits until somebody reads the slot.
    async fn is_read(&self) {
        let sql = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active";
        let deadline = Instant::now() + WAIT;
        while self.client.query_one(sql, &[&self.name]).await.unwrap().get::<_, i64>(0) == 0 {
            assert!(Instant::now() < deadline, "nobody reads the slot");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The rows of the topic, in order.
    fn found(&self) -> Vec<serde_json::Value> {
        let records = kafka::committed(&self.brokers, &self.name);
        records.iter().map(|record| serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap()).collect()
    }

    /// A slot whose plugin tells the changes from now on as well.
    async fn watch(&self) {
        let sql = format!("SELECT pg_create_logical_replication_slot('{}_truth', 'test_decoding')", self.name);
        self.run(&sql).await;
    }

    /// The changes since [`Self::watch`]: the letter of each, and the number in the column `id`.
    async fn truth(&self) -> Vec<(String, i64)> {
        let slot = format!("{}_truth", self.name);
        let sql = "SELECT data FROM pg_logical_slot_get_changes($1, NULL, NULL)";
        let rows = self.client.query(sql, &[&slot]).await.unwrap();
        let table = format!("table {}.t: ", self.name);
        let change = |row: &tokio_postgres::Row| {
            let (what, rest) = row.get::<_, &str>(0).strip_prefix(&table)?.split_once(": ")?;
            let id = rest.split("id[bigint]:").nth(1)?.split(' ').next()?.parse().unwrap();
            let letter = match what {
                "INSERT" => "c",
                "UPDATE" => "u",
                _ => "d",
            };
            Some((letter.to_string(), id))
        };
        rows.iter().filter_map(change).collect()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// Removes everything that outlives the test's folder.
    async fn gone(self) {
        let Self { name, .. } = &self;
        let slots = "SELECT slot_name::text FROM pg_replication_slots WHERE starts_with(slot_name, $1) AND NOT active";
        // A connection that was cut holds its slot for a moment.
        for _ in 0..100 {
            for row in self.client.query(slots, &[name]).await.unwrap() {
                self.run(&format!("SELECT pg_drop_replication_slot('{}')", row.get::<_, &str>(0))).await;
            }
            let left = "SELECT count(*) FROM pg_replication_slots WHERE starts_with(slot_name, $1)";
            if self.client.query_one(left, &[name]).await.unwrap().get::<_, i64>(0) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.run(&format!("DROP PUBLICATION IF EXISTS {name}; DROP SCHEMA {name} CASCADE")).await;
        kafka::remove(&self.brokers, name).await;
    }
}
