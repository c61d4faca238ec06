//! A project folder of a test's own: a copy of the shipped queries that points to a topic, a schema and boards of its own, so
//! that tests run beside each other, in any order, and twice.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::falaj::{Falaj, command, command_of};
use super::kafka::Topic;

const SHIPPED: [&str; 8] =
    ["sources", "lookups", "sinks", "enriched", "bigquery", "partner", "top_content", "top_content_seconds"];

/// The folder, and the servers that it works with.
pub(crate) struct Project {
    /// The name of the topic and the schema, and the beginning of each board's.
    pub(crate) name: String,
    pub(crate) topic: Topic,
    /// In the schema.
    pub(crate) database: tokio_postgres::Client,
    pub(crate) brokers: String,
    pub(crate) database_url: String,
    pub(crate) redis_url: String,
    /// More variables for `falaj`.
    pub(crate) environment: Vec<(&'static str, String)>,
    folder: tempfile::TempDir,
}

impl Project {
    /// A topic with `partitions`, an empty schema, and a copy of all shipped queries.
    pub(crate) async fn new(partitions: i32) -> Self {
        let (brokers, database_url, redis_url) = (needed("KAFKA_BROKERS"), needed("DATABASE_URL"), needed("REDIS_URL"));
        let name = format!("falaj_test_{}", uuid::Uuid::now_v7().simple());
        let topic = Topic::create(&brokers, &name, partitions).await;
        let (database, connection) = tokio_postgres::connect(&database_url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        database.batch_execute(&format!("CREATE SCHEMA {name}; SET search_path = {name}")).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("queries")).unwrap();
        let project = Self { name, topic, database, brokers, database_url, redis_url, environment: Vec::new(), folder };
        for file in SHIPPED {
            let shipped = format!("{}/queries/{file}.sql", env!("CARGO_MANIFEST_DIR"));
            project.write(file, &std::fs::read_to_string(shipped).unwrap());
        }
        let name = &project.name;
        project.replace("sources", "LOCATION 'engagement_events'", &format!("LOCATION '{name}'"));
        project.replace("lookups", "'public.content'", &format!("'{name}.content'"));
        project.replace("sinks", "LOCATION 'top_content", &format!("LOCATION '{name}_top_content"));
        project.write("settings", "SET falaj.listen = '127.0.0.1:0';");
        project
    }

    /// A path in the folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file of SQL, new or over another.
    pub(crate) fn write(&self, file: &str, sql: &str) {
        std::fs::write(self.path(&format!("queries/{file}.sql")), sql).unwrap();
    }

    /// Changes a text that must be in a file.
    pub(crate) fn replace(&self, file: &str, text: &str, by: &str) {
        let sql = std::fs::read_to_string(self.path(&format!("queries/{file}.sql"))).unwrap();
        assert!(sql.contains(text), "{file}.sql has no {text}");
        self.write(file, &sql.replace(text, by));
    }

    /// Takes files out.
    pub(crate) fn remove(&self, files: &[&str]) {
        files.iter().for_each(|file| std::fs::remove_file(self.path(&format!("queries/{file}.sql"))).unwrap());
    }

    /// `falaj` with these arguments, in the folder, with the addresses of the servers.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.with_servers(command(self.folder.path(), args))
    }

    /// The same of another build.
    pub(crate) fn command_of(&self, binary: &Path, args: &[&str]) -> Command {
        self.with_servers(command_of(binary, self.folder.path(), args))
    }

    fn with_servers(&self, mut command: Command) -> Command {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("KAFKA_BROKERS", &self.brokers).env("DATABASE_URL", &self.database_url).env("REDIS_URL", &self.redis_url);
        command
    }

    /// Makes the table `content` with `count` rows, by `falaj generate`.
    pub(crate) fn fill_content(&self, count: usize, seed: u64) {
        let mark = if self.database_url.contains('?') { '&' } else { '?' };
        let url = format!("{}{mark}options=-csearch_path%3D{}", self.database_url, self.name);
        let (count, seed) = (count.to_string(), seed.to_string());
        let args = ["generate", "--to", "postgres", "--events", "0", "--contents", &count, "--seed", &seed];
        let (status, said) = Falaj::start(self.command(&args).env("DATABASE_URL", url)).end();
        assert!(status.success(), "{said}");
    }

    /// Runs to the log's end; gives what was said.
    pub(crate) fn run_until_latest(&self, partner: &str) -> String {
        let mut command = self.command(&["run", "queries", "--until", "latest", "--no-web"]);
        let (status, said) = Falaj::start(command.env("PARTNER_URL", partner)).end();
        assert_eq!(status.code(), Some(0), "{said}");
        said
    }

    /// Starts a run; gives the address of its pages, too.
    pub(crate) fn run(&self, partner: &str, more: &[&str]) -> (Falaj, String) {
        Self::page(Falaj::start(self.command(&["run", "queries"]).args(more).env("PARTNER_URL", partner)))
    }

    /// The same of another build.
    pub(crate) fn run_by(&self, binary: &Path, partner: &str) -> (Falaj, String) {
        Self::page(Falaj::start(self.command_of(binary, &["run", "queries"]).env("PARTNER_URL", partner)))
    }

    fn page(mut falaj: Falaj) -> (Falaj, String) {
        let line = falaj.wait_for_line(&["the page is at http://"]);
        let page = line[line.find("http://").unwrap()..].trim_end().trim_end_matches('/').to_string();
        (falaj, page)
    }

    /// A connection to Redis.
    pub(crate) async fn redis(&self) -> redis::aio::MultiplexedConnection {
        redis::Client::open(self.redis_url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// The key of a shipped board.
    pub(crate) fn board_key(&self, board: &str) -> String {
        format!("{}_{board}", self.name)
    }

    /// A shipped board, the leader first.
    pub(crate) async fn board(&self, board: &str) -> Vec<(String, f64)> {
        let mut redis = self.redis().await;
        let mut query = redis::cmd("ZRANGE");
        let rows = query.arg(self.board_key(board)).arg(0).arg(-1).arg("REV").arg("WITHSCORES").query_async(&mut redis).await;
        rows.unwrap()
    }

    /// Removes what is outside of the folder. Only when all went well: what a failed test leaves is worth a look.
    pub(crate) async fn finish(self) {
        self.database.batch_execute(&format!("DROP SCHEMA {} CASCADE", self.name)).await.unwrap();
        self.topic.delete().await;
    }
}

/// The figures of everything, from the pages of a run.
async fn status(page: &str) -> Value {
    let answer = reqwest::get(format!("{page}/api/v1/status")).await.unwrap().text().await.unwrap();
    serde_json::from_str::<Value>(&answer).unwrap()["status"].take()
}

/// The figures of one lane; those of a lane that is not there are null.
pub(crate) async fn lane(page: &str, name: &str) -> Value {
    named(&status(page).await["lanes"], name)
}

/// The figures of one lookup table.
pub(crate) async fn lookup(page: &str, name: &str) -> Value {
    named(&status(page).await["lookups"], name)
}

/// What is held in memory, and by whom.
pub(crate) async fn memory(page: &str) -> Value {
    status(page).await["memory"].take()
}

fn named(figures: &Value, name: &str) -> Value {
    figures.as_array().unwrap().iter().find(|found| found["name"] == name).cloned().unwrap_or_default()
}

/// Looks again and again until `reached`; `what` is for the message when it takes too long.
pub(crate) async fn wait_until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !reached().await {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        tokio::task::yield_now().await;
    }
}

fn needed(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must say where a server is: see scripts/services env"))
}
