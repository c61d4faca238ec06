//! What a new user does wrong, and what the real binary says: one line, where, what to write instead, and the right exit code.
//!
//! `cases.txt` is the table. `FALAJ_BLESS=1 scripts/test wrong_use` rewrites its sentences; read the difference.

mod waiting;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;

use crate::support::falaj::{Falaj, command};

/// One mistake of `cases.txt`.
#[derive(Debug)]
struct Case {
    wrong: String,
    changes: Vec<Change>,
    /// The message, without `falaj: queries/` in front of it.
    says: String,
}

#[derive(Debug)]
enum Change {
    /// The file with one text in place of another.
    Replace { file: String, from: String, to: String },
    /// The file with this text only.
    Whole { file: String, text: String },
}

impl Case {
    /// The table as it stands in the file, between empty lines.
    fn read(block: &str) -> Option<Self> {
        let mut lines = block.lines().filter(|line| !line.starts_with('#'));
        let mut case = Case { wrong: lines.next()?.to_string(), changes: Vec::new(), says: String::new() };
        for line in lines {
            let (word, rest) = line.trim_start().split_once(' ').unwrap();
            if word == "says" {
                case.says = rest.to_string();
                continue;
            }
            let (file, text) = rest.split_once(": ").unwrap();
            let (file, text) = (file.to_string(), text.replace("\\n", "\n"));
            case.changes.push(match text.split_once(" ⇒ ").filter(|_| word == "change") {
                Some((from, to)) => Change::Replace { file, from: from.into(), to: to.into() },
                None => Change::Whole { file, text },
            });
        }
        Some(case)
    }

    /// A folder with `queries`, changed.
    fn folder(&self) -> tempfile::TempDir {
        let folder = shipped_queries();
        for change in &self.changes {
            match change {
                Change::Replace { file, from, to } => {
                    let path = folder.path().join("queries").join(file);
                    let text = std::fs::read_to_string(&path).unwrap();
                    assert!(text.contains(from), "{}: {file} has no {from:?} any more", self.wrong);
                    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
                }
                Change::Whole { file, text } => std::fs::write(folder.path().join("queries").join(file), text).unwrap(),
            }
        }
        folder
    }

    /// What is not as it should be; and what it says.
    fn tried(&self) -> (Option<String>, String) {
        let output = falaj(self.folder().path(), &["check", "queries"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = stderr.strip_prefix("falaj: queries/").unwrap_or(&stderr).trim_end().to_string();
        let fine = output.status.code() == Some(78) && said == self.says && !said.contains('\n');
        let found = || format!("{}: code {:?}\n  says     {said}\n  expected {}", self.wrong, output.status.code(), self.says);
        ((!fine).then(found), said)
    }
}

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong_use/cases.txt")
}

/// A folder with a copy of `queries`, but for the lane that writes the topic: the mistakes are those of files that read it.
fn shipped_queries() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("queries")).unwrap();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("queries")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("capture.sql") {
            std::fs::copy(&path, folder.path().join("queries").join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

fn falaj(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

#[test]
fn each_mistake_gets_one_sentence_with_its_place_and_what_to_write_instead() {
    let text = std::fs::read_to_string(table()).unwrap();
    let cases: Vec<Case> = text.split("\n\n").filter_map(Case::read).collect();
    assert!(cases.len() > 90, "the table was not read");
    // Each is a process of its own: two at once on two cores.
    let tried: Vec<(Option<String>, String)> = thread::scope(|scope| {
        let (left, right) = cases.split_at(cases.len() / 2);
        let half = scope.spawn(|| left.iter().map(Case::tried).collect::<Vec<_>>());
        let right: Vec<_> = right.iter().map(Case::tried).collect();
        half.join().unwrap().into_iter().chain(right).collect()
    });
    if std::env::var("FALAJ_BLESS").is_ok() {
        let mut blessed = text.clone();
        for (case, (_, said)) in cases.iter().zip(&tried) {
            let block = |says: &str| format!("  says {says}");
            let at = blessed.find(&format!("\n\n{}\n", case.wrong)).unwrap();
            let rest = blessed[at..].replacen(&block(&case.says), &block(said), 1);
            blessed.replace_range(at.., &rest);
        }
        std::fs::write(table(), blessed).unwrap();
        return;
    }
    let wrong: Vec<String> = tried.into_iter().filter_map(|(wrong, _)| wrong).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn what_is_right_is_fine_without_a_network_and_without_variables() {
    for (file, from, to) in [("top_content.sql", "LIMIT 100;", "LIMIT 100"), ("top_content.sql", "FROM", "from")] {
        let change = Change::Replace { file: file.into(), from: from.into(), to: to.into() };
        let case = Case { wrong: "nothing".into(), changes: vec![change], says: String::new() };
        let output = falaj(case.folder().path(), &["check"]);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        assert!(
            stdout.ends_with("queries: fine\n") && stdout.contains("top_content: engagement_events → top_content"),
            "{stdout}"
        );
    }
}

#[test]
fn a_wrong_command_line_is_code_2() {
    let folder = shipped_queries();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for (args, says) in [
        (vec!["check", "--colour"], "error: unexpected argument '--colour' found"),
        (vec!["chek"], "error: unrecognized subcommand 'chek'"),
        (vec!["run", "--until", "tomorrow"], "falaj: --until 'tomorrow': only 'latest' is known yet"),
        (vec!["check", "nowhere"], "falaj: the folder of SQL files 'nowhere' (as in falaj run queries) cannot be read"),
        (vec!["check", "empty"], "falaj: there is no .sql file in the folder 'empty'"),
        (
            vec!["dlq", "replay"],
            "falaj: say which letters are to be replayed: by --lane, --stage, --code or another filter, or --all",
        ),
        (
            vec!["dlq", "purge", "queries"],
            "falaj: say which letters are to be purged: by --lane, --stage, --code or another filter",
        ),
        (
            vec!["dlq", "list", "--source", "engagement_event"],
            "falaj: --source: there is no source table 'engagement_event'; did you mean 'engagement_events'?",
        ),
        (vec!["dlq", "list", "--stage", "sqll"], "invalid value 'sqll' for '--stage <STAGE>'"),
        (vec!["dlq", "list", "--offset", "7"], "write partition and offset as 0:43271"),
        (vec!["dlq", "list", "--since", "tomorrow"], "write a time as 2026-11-26T18:00:00Z, or as 2h for so long ago"),
        (vec![], "Usage: falaj [OPTIONS] <COMMAND>"),
    ] {
        let output = falaj(folder.path(), &args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}

#[test]
fn a_wrong_repair_is_code_78_before_anything_is_asked() {
    let folder = shipped_queries();
    for (repair, says) in [
        ("payloda || '}'", "falaj: --repair: there is no column 'payloda'; did you mean 'payload'?\n"),
        ("length(payload)", "falaj: --repair: it gives INT; the new payload must be VARCHAR or BINARY\n"),
        ("payload ||", "falaj: --repair: expected an expression, found the end\n"),
    ] {
        let output = falaj(folder.path(), &["dlq", "replay", "--all", "--repair", repair]);
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(78), says));
    }
}

#[test]
fn a_folder_without_a_lane_is_wrong_sql() {
    let folder = shipped_queries();
    std::fs::create_dir(folder.path().join("sinks")).unwrap();
    std::fs::copy(folder.path().join("queries/sinks.sql"), folder.path().join("sinks/sinks.sql")).unwrap();
    let output = falaj(folder.path(), &["check", "sinks"]);
    let says = "falaj: there is no lane: a file with INSERT INTO sink SELECT … is one\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(78), says));
}

#[test]
fn run_needs_every_variable_and_says_so_before_it_opens_anything() {
    let folder = shipped_queries();
    let output = falaj(folder.path(), &["run"]);
    let says = "falaj: queries/lookups.sql:2:1: table 'content': option 'url' needs the environment variable DATABASE_URL, which \
                is not set: export DATABASE_URL=…\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(78), says));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["queries"], "nothing was made");
}

#[test]
fn a_password_is_never_told() {
    let secret = "Tr0ub4dor";
    let folder = shipped_queries();
    let at = |scheme: &str, rest: &str| format!("{scheme}://falaj:{secret}@127.0.0.1:1{rest}");
    let (postgres, redis) = (at("postgres", "/x"), at("redis", ""));
    let told = |postgres: &str, redis: &str| {
        let mut run = command(folder.path(), &["run", "--no-web"]);
        let output = run.env("DATABASE_URL", postgres).env("REDIS_URL", redis).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8(output.stderr).unwrap()
    };
    let wrong_postgres = told(&at("mysql", "/x"), &redis);
    assert!(wrong_postgres.contains("option 'url' is no Postgres url") && !wrong_postgres.contains(secret), "{wrong_postgres}");
    let wrong_redis = told(&postgres, &at("http", ""));
    assert!(wrong_redis.contains("option 'url' must be like 'redis://") && !wrong_redis.contains(secret), "{wrong_redis}");

    // With nothing there it waits, and says for what.
    let mut run = command(folder.path(), &["run", "--no-web"]);
    let mut run = Falaj::start(run.env("DATABASE_URL", &postgres).env("REDIS_URL", &redis).env("KAFKA_BROKERS", "127.0.0.1:1"));
    run.wait_for_line(&["cannot be loaded", "nothing can be joined before it"]);
    run.wait_for_line(&["waits", "127.0.0.1:1"]);
    run.terminate();
    let (status, said) = run.end();
    assert!(!said.contains(secret), "{said}");
    assert_eq!(status.code(), Some(0), "{said}");
}
