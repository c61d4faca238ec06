//! The commands of README.md, and of README.ar.md, run as they stand, and what they print compared with what it shows. A comment that nobody sees stands
//! right before a fenced block and says what to do with it:
//!
//! | comment | the block |
//! |---|---|
//! | `<!-- test: run -->` | is run by bash. All such blocks are one session, in a copy of the project's files: variables, background jobs and files stay |
//! | `<!-- test: output -->` | is what the last such block printed to stdout, spaces at the ends of lines aside; a line `…` stands for any lines |
//! | `<!-- test: output, numbers vary -->` | the same, with every number as good as every other, and columns as wide as they like |
//! | `<!-- test: script -->` | names scripts that cannot be run in here, since they build or test: each is there, and knows the flags |
//!
//! Other blocks are left alone. In the session `falaj`, `redis-cli` and `datafusion-cli` are on the path, and the variables of
//! `scripts/services env` are set, since `scripts/test` sets them.

mod session;
mod steps;

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tempfile::TempDir;

use session::Session;
use steps::Step;

/// What the shipped queries write and a test before may have left.
const TOPICS: [&str; 3] = ["engagement_events", "engagement_events.dlq", "shop.public.content"];
const SLOTS: [&str; 2] = ["falaj", "shop"];
const BOARDS: [&str; 2] = ["top_content", "top_content_seconds"];

#[tokio::test]
async fn the_commands_of_the_readme_do_what_it_says_in_both_languages() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    needed("FALAJ_SERVICES_DIR");
    let mut problems = Vec::new();
    // One after the other: they write the same topics and boards.
    for name in ["README.md", "README.ar.md"] {
        let readme = std::fs::read_to_string(project.join(name)).unwrap();
        let steps = steps::read(&readme).unwrap_or_else(|problem| panic!("{name}:{problem}"));
        assert!(steps.iter().any(|step| matches!(step, Step::Run { .. })), "{name} has no command that is run");
        clear_services().await;
        let copy = copy_of_project(project);
        let found = steps.iter().filter_map(|step| check_scripts(step).err());
        problems.extend(found.chain(session(copy.path()).play(&steps)).map(|problem| format!("{name}:{problem}\n")));
    }
    assert!(problems.is_empty(), "\n{}", problems.concat());
}

#[test]
fn whatever_is_to_be_typed_is_the_same_in_both_languages() {
    let blocks = |name: &str| {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        let parts: Vec<String> = text.split("```").skip(1).step_by(2).map(str::to_string).collect();
        parts
    };
    let (english, arabic) = (blocks("README.md"), blocks("README.ar.md"));
    assert!(arabic.len() > 10);
    for block in arabic {
        assert!(english.contains(&block), "README.ar.md alone has{block}");
    }
}

#[test]
fn the_demo_ends_by_itself_and_datafusion_cli_reads_what_it_left() {
    let copy = copy_of_project(Path::new(env!("CARGO_MANIFEST_DIR")));
    let session = session(copy.path());
    let summary = session.run("falaj demo --for 3s").unwrap();
    let (_, query) = summary.split_once("query the Parquet that it left:\n").unwrap_or_else(|| panic!("{summary}"));
    let table = session.run(query).unwrap();
    assert!(table.contains("| dt ") && table.contains("| hour "), "{table}");
}

/// A session in `folder`, which gets its programs in `bin`.
fn session(folder: &Path) -> Session {
    let bin = folder.join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_falaj"), bin.join("falaj")).unwrap();
    symlink(needed("FALAJ_DATAFUSION_CLI"), bin.join("datafusion-cli")).unwrap();
    // Other tests run at the same time: the receiver gets a port of its own, and pages are not served.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    Session::new(folder)
        .with("PATH", path)
        .with("FALAJ_NO_WEB", "true")
        .with("FALAJ_BIND", format!("127.0.0.1:{port}"))
        .with("PARTNER_URL", format!("http://127.0.0.1:{port}/engagements"))
}

/// The project's files as git knows them, new ones too, without what is built or written.
fn copy_of_project(project: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(project)
        .output()
        .unwrap();
    assert!(listed.status.success(), "the tests need a clone: git ls-files lists the project's files");
    for name in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let (from, to) = (project.join(name), copy.path().join(name));
        if from.is_file() {
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from, to).unwrap();
        }
    }
    copy
}

async fn clear_services() {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", needed("KAFKA_BROKERS")).create().unwrap();
    // A topic that is not there cannot be deleted, and that is all that is wanted.
    admin.delete_topics(&TOPICS, &AdminOptions::new()).await.unwrap();
    let (postgres, connection) = tokio_postgres::connect(&needed("DATABASE_URL"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    postgres.batch_execute("DROP TABLE IF EXISTS public.engagement_events, public.content").await.unwrap();
    for slot in SLOTS {
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
        postgres.execute(drop, &[&slot]).await.unwrap();
        postgres.batch_execute(&format!("DROP PUBLICATION IF EXISTS {slot}")).await.unwrap();
    }
    let client = redis::Client::open(needed("REDIS_URL")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys = BOARDS.iter().flat_map(|board| [board.to_string(), format!("{{{board}}}:m")]).collect::<Vec<_>>();
    redis::cmd("DEL").arg(keys).query_async::<()>(&mut connection).await.unwrap();
}

/// Each line of a script block names a script that can be run, and flags that it knows.
fn check_scripts(step: &Step) -> Result<(), String> {
    let Step::Script { line, code } = step else { return Ok(()) };
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    for command in code.lines().map(str::trim).filter(|command| !command.is_empty() && !command.starts_with('#')) {
        let mut words = command.split_whitespace();
        let script: PathBuf = project.join(words.next().unwrap_or_default());
        let text = std::fs::read_to_string(&script).map_err(|cause| format!("{line}: {command}: {cause}"))?;
        if script.metadata().unwrap().permissions().mode() & 0o111 == 0 {
            return Err(format!("{line}: {command}: the script cannot be executed"));
        }
        // scripts/demo hands its flags on.
        let known = if text.contains("falaj\" demo \"$@\"") { text + &demo_help() } else { text };
        if let Some(flag) = words.find(|word| word.starts_with("--") && !known.contains(word)) {
            return Err(format!("{line}: {command}: there is no {flag}"));
        }
    }
    Ok(())
}

fn demo_help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_falaj")).args(["demo", "--help"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn needed(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set; scripts/test sets it: scripts/test readme"))
}
