//! A secret in every place where one can stand, and then everything that falaj prints, serves and writes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use base64::Engine as _;
use serde_json::Value;

use crate::support::kafka::{self, Record};
use crate::support::project::{Project, wait_until};
use crate::support::receiver::Receiver;
use crate::support::s3::{BUCKET, Server};

/// The user of Redis, of the registry and of the receiver.
const USER: &str = "falajuser";

/// A variable for each place, and what is in it.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn new(s3: &Server) -> Self {
        let places = [
            "KAFKA_SECRET",
            "KEY_SECRET",
            "REDIS_SECRET",
            "POSTGRES_SECRET",
            "HEADER_SECRET",
            "RECEIVER_SECRET",
            "QUERY_SECRET",
        ];
        let more = ["REGISTRY_SECRET", "TOKEN_SECRET"];
        let made = |name: &&'static str| (*name, format!("kept{}", uuid::Uuid::new_v4().simple()));
        let mut all: Vec<_> = places.iter().chain(&more).map(made).collect();
        all.push(("S3_SECRET", s3.login.1.clone()));
        Self(all)
    }

    fn get(&self, name: &str) -> &str {
        &self.0.iter().find(|(of, _)| *of == name).unwrap().1
    }

    /// Which of them stand in `bytes`, as they are or as HTTP sends a user with his password.
    fn in_bytes(&self, bytes: &[u8]) -> Vec<&'static str> {
        let text = String::from_utf8_lossy(bytes);
        let basic = |secret: &str| base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{secret}"));
        let stands = |secret: &String| text.contains(secret.as_str()) || text.contains(&basic(secret));
        self.0.iter().filter(|(_, secret)| stands(secret)).map(|(name, _)| *name).collect()
    }
}

/// The shipped lanes but one, with secrets; one into a topic of Avro, and one from the WAL.
async fn project(s3: &Server, secrets: &Secrets) -> Project {
    let mut project = Project::new(1).await;
    project.fill_content(10, 1);
    project.remove(&["top_content_seconds"]);
    let name = project.name.clone();
    let registry = std::env::var("SCHEMA_REGISTRY_URL").unwrap();
    // Without SASL librdkafka only keeps these.
    let kafka = "'kafka.sasl.username' 'falajuser', 'kafka.sasl.password' '${env:KAFKA_SECRET}', \
                 'kafka.ssl.key.password' '${env:KEY_SECRET}', 'kafka.debug' 'all', 'format' 'json'";
    project.replace("sources", "'format' 'json'", kafka);
    project.replace("sinks", "'batch.rows' '500'", "'batch.rows' '500', 'header.x-api-key' '${env:HEADER_SECRET}'");
    project.replace("sinks", "'data/bigquery_output/'", &format!("'s3://{BUCKET}/files/'"));
    let aws = format!(
        "'aws.endpoint' 'http://127.0.0.1:{}', 'aws.access_key_id' '{}', 'aws.secret_access_key' '${{env:S3_SECRET}}', 'roll.size'",
        s3.port, s3.login.0
    );
    project.replace("sinks", "'roll.size'", &aws);
    project.replace("sinks", "'roll.interval' '30s'", "'roll.interval' '1s'");
    project.write(
        "more",
        &format!(
            "CREATE EXTERNAL TABLE copies (id BIGINT) STORED AS KAFKA LOCATION '{name}_copies' OPTIONS ('brokers' '${{env:KAFKA_BROKERS}}',
               'partitions' '1', 'format' 'avro', 'registry.url' '{registry}', 'registry.user' '{USER}', 'registry.password' '${{env:REGISTRY_SECRET}}');
             CREATE UNBOUNDED EXTERNAL TABLE changes (id VARCHAR) STORED AS POSTGRES LOCATION '{name}.content'
               OPTIONS ('url' '${{env:DATABASE_URL}}', 'slot' '{name}', 'publication' '{name}', 'snapshot' 'initial');
             CREATE EXTERNAL TABLE changed (id VARCHAR) STORED AS JSON LOCATION 'data/changed' OPTIONS ('roll.interval' '1s');"
        ),
    );
    project.write("copies", "INSERT INTO copies SELECT id FROM engagement_events;");
    project.write("changed", "INSERT INTO changed SELECT id FROM changes;");
    project.write("settings", "SET falaj.listen = '127.0.0.1:0'; SET falaj.token = '${env:TOKEN_SECRET}';");
    for id in 0..5 {
        let event = format!(
            r#"{{"id":{id},"content_id":"c000001","event_type":"play","event_ts":"2026-01-01T00:00:0{id}Z","duration_ms":1000}}"#
        );
        project.topic.produce(0, &[Record::of(event)]);
    }
    project.topic.produce(0, &[Record::of("no JSON")]);
    let user: redis::RedisResult<()> = redis::cmd("ACL")
        .arg(&["SETUSER", &name, "on", &format!(">{}", secrets.get("REDIS_SECRET")), "~*", "&*", "+@all"])
        .query_async(&mut project.redis().await)
        .await;
    user.unwrap();
    project.environment = secrets.0.clone();
    let with = |url: &str, user: &str, secret: &str| {
        let (scheme, rest) = url.split_once("://").unwrap();
        format!("{scheme}://{user}:{}@{}", secrets.get(secret), rest.rsplit('@').next().unwrap())
    };
    let user = project.database_url.split("://").nth(1).unwrap().split('@').next().unwrap().to_string();
    project.database_url = with(&project.database_url, &user, "POSTGRES_SECRET");
    project.redis_url = with(&project.redis_url, &name, "REDIS_SECRET");
    project
}

/// A command of falaj that prints into a file, since there is much.
struct Printed {
    child: Child,
    file: PathBuf,
}

impl Printed {
    fn start(mut command: Command, file: &Path) -> Self {
        let out = File::create(file).unwrap();
        let child = command.env("FALAJ_LOG", "trace").stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        Self { child, file: file.to_path_buf() }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.file).unwrap()).into_owned()
    }

    /// Asks it to end, and waits; gives what it printed.
    fn stop(&mut self) -> String {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        self.text()
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn no_secret_is_in_anything_that_is_printed_served_or_written() {
    let s3 = Server::start_with(&["--login"]);
    let secrets = Secrets::new(&s3);
    let project = project(&s3, &secrets).await;
    let printed = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(project.path("received"));
    let partner = receiver.url.replacen("http://", &format!("http://{USER}:{}@", secrets.get("RECEIVER_SECRET")), 1);
    let partner = format!("{partner}?token={}", secrets.get("QUERY_SECRET"));
    let falaj = |args: &[&str], file: &str| {
        let mut command = project.command(args);
        command.env("PARTNER_URL", &partner);
        Printed::start(command, &printed.path().join(file))
    };

    let mut run = falaj(&["run", "queries"], "run");
    let served = served(&run, secrets.get("TOKEN_SECRET")).await;
    let page = page_of(&run.text()).unwrap();
    std::fs::write(printed.path().join("token"), secrets.get("TOKEN_SECRET")).unwrap();
    let token = printed.path().join("token").display().to_string();
    let mut said = vec![("served", served)];
    let mut ask = |args: &[&str], code: i32| {
        let mut asked = falaj(args, "asked");
        assert_eq!(asked.child.wait().unwrap().code(), Some(code), "{args:?}: {}", asked.text());
        said.push(("asked", asked.text()));
    };
    ask(&["status", "--url", &page, "--token-file", &token], 0);
    let run = run.stop();
    // That there is something to be found: at this level the libraries talk, too.
    for words in [" TRACE ", "librdkafka", "sasl.password"] {
        assert!(run.contains(words), "no {words}");
    }
    for args in [
        &["check"][..],
        &["checkpoint", "show"],
        &["checkpoint", "verify"],
        &["checkpoint", "show", "partner"],
        &["capture", "show"],
        &["dlq", "list"],
        &["dlq", "show"],
        &["backfill", "--lane", "top_content", "--dry-run", "--no-web"],
        &["capture", "drop"],
    ] {
        ask(args, 0);
    }
    said.push(("run", run));
    for (what, text) in &said {
        assert_eq!(secrets.in_bytes(text.as_bytes()), [""; 0], "{what}: {}", lines_with(text, &secrets));
    }
    for topic in [format!("{}.dlq", project.name), format!("{}_copies", project.name)] {
        let records = kafka::committed(&project.brokers, &topic);
        assert!(!records.is_empty(), "{topic}");
        for part in records.iter().flat_map(|record| [&record.payload, &record.key].into_iter().flatten()) {
            assert_eq!(secrets.in_bytes(part), [""; 0], "{topic}");
        }
        for (name, value) in records.iter().flat_map(|record| &record.headers) {
            assert_eq!(secrets.in_bytes(value.as_deref().unwrap_or_default()), [""; 0], "{topic}: {name}");
        }
        kafka::remove(&project.brokers, &topic).await;
    }
    let mut files = 0;
    each_file(&project.path(""), &mut |path| {
        files += 1;
        assert_eq!(secrets.in_bytes(&std::fs::read(path).unwrap()), [""; 0], "{}", path.display());
    });
    assert!(files > 20, "{files} files: queries, a checkpoint, what was written");
    let gone: redis::RedisResult<()> =
        redis::cmd("ACL").arg(&["DELUSER", &project.name]).query_async(&mut plain_redis(&project).await).await;
    gone.unwrap();
    project.finish().await;
}

#[tokio::test]
async fn no_secret_is_in_what_is_said_while_nobody_answers() {
    let s3 = Server::start_with(&["--login"]);
    let secrets = Secrets::new(&s3);
    let mut project = project(&s3, &secrets).await;
    drop(s3);
    let (redis, database) = (project.redis_url.clone(), project.database_url.clone());
    // Nobody listens at port 1.
    let away = |url: &str| {
        let (front, path) = url.rsplit_once(':').unwrap();
        let rest = path.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{front}:1{rest}")
    };
    project.redis_url = away(&redis);
    project.database_url = away(&database);
    let brokers = std::mem::replace(&mut project.brokers, "127.0.0.1:1".to_string());
    let printed = tempfile::tempdir().unwrap();
    let partner = format!("http://{USER}:{}@127.0.0.1:1/", secrets.get("RECEIVER_SECRET"));
    let mut command = project.command(&["run", "queries"]);
    command.env("PARTNER_URL", partner);
    let mut run = Printed::start(command, &printed.path().join("run"));
    wait_until("all is said to be away", async || {
        let text = run.text();
        ["cannot be loaded", "127.0.0.1:1"].iter().all(|words| text.contains(words)) && text.contains("Redis")
    })
    .await;
    let text = run.stop();
    assert_eq!(secrets.in_bytes(text.as_bytes()), [""; 0], "{}", lines_with(&text, &secrets));
    (project.redis_url, project.database_url, project.brokers) = (redis, database, brokers);
    let gone: redis::RedisResult<()> =
        redis::cmd("ACL").arg(&["DELUSER", &project.name]).query_async(&mut plain_redis(&project).await).await;
    gone.unwrap();
    project.finish().await;
}

/// Redis, as everybody else reaches it.
async fn plain_redis(_: &Project) -> redis::aio::MultiplexedConnection {
    let url = std::env::var("REDIS_URL").unwrap();
    redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Waits until every lane has written, and asks for all that is served.
async fn served(run: &Printed, token: &str) -> String {
    wait_until("the page is there", async || page_of(&run.text()).is_some()).await;
    let page = page_of(&run.text()).unwrap();
    let client = reqwest::Client::new();
    let get = async |path: &str| client.get(format!("{page}{path}")).bearer_auth(token).send().await.unwrap();
    wait_until("every lane has written", async || {
        let status: Value = serde_json::from_str(&get("/api/v1/status").await.text().await.unwrap()).unwrap();
        let lanes = status["status"]["lanes"].as_array().unwrap();
        let writes = |lane: &&Value| lane["emitted"].as_u64().is_some_and(|rows| rows > 0);
        let lanes: Vec<&Value> = lanes.iter().filter(writes).collect();
        ["bigquery", "partner", "top_content", "copies", "changed", "engagement_events.dlq"]
            .iter()
            .all(|name| lanes.iter().any(|lane| lane["name"] == *name))
    })
    .await;
    let mut all = String::new();
    for path in ["/", "/api/v1/status", "/metrics", "/version", "/readyz", "/livez", "/nothing"] {
        all.push_str(&get(path).await.text().await.unwrap());
    }
    let mut events = get("/api/v1/events").await;
    for _ in 0..3 {
        all.push_str(&String::from_utf8_lossy(&events.chunk().await.unwrap().unwrap()));
    }
    all
}

fn page_of(text: &str) -> Option<String> {
    let url = text.split_once("the page is at ")?.1.lines().next()?;
    Some(url.trim_end().trim_end_matches('/').to_string())
}

fn lines_with(text: &str, secrets: &Secrets) -> String {
    let lines = text.lines().filter(|line| !secrets.in_bytes(line.as_bytes()).is_empty());
    lines.take(5).map(|line| line.chars().take(600).collect::<String>()).collect::<Vec<_>>().join("\n")
}

fn each_file(folder: &Path, look: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { each_file(&path, look) } else { look(&path) }
    }
}
