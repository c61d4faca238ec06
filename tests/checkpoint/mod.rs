//! `falaj checkpoint` on folders that tests made: what it prints, what it finds, and a fork that is broken off anywhere.
//!
//! `FALAJ_BLESS=1` writes the expected texts anew; read the difference.

mod made;

use std::path::Path;

use falaj::checkpoint::fork::Names;

use crate::support::falaj::command;
use made::{LINEAGE, made};

/// What is printed and said, with the exit code; the folder's own path is left out.
fn falaj(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = command(folder, args).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let real = folder.canonicalize().unwrap().display().to_string();
    (output.status.code().unwrap(), text.replace(&real, "FOLDER"))
}

/// Compares with a file beside this one. How long ago something was written is another thing each time.
fn assert_golden(name: &str, text: &str) {
    let text: String = text
        .lines()
        .map(|line| line.split(" UTC, ").take(if line.contains(" ago") { 1 } else { 9 }))
        .map(|parts| parts.collect::<Vec<_>>().join(" UTC, ") + "\n")
        .collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint").join(name);
    if std::env::var("FALAJ_BLESS").is_ok() {
        std::fs::write(path, text).unwrap();
        return;
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap());
}

#[tokio::test]
async fn show_says_where_each_lane_stands() {
    let folder = made().await;
    let (code, text) = falaj(folder.path(), &["checkpoint", "show", "--checkpoint", "checkpoint"]);
    assert_eq!(code, 0, "{text}");
    assert_golden("show.txt", &text);
    let (code, text) = falaj(folder.path(), &["checkpoint", "show", "--checkpoint", "checkpoint", "board", "--records", "9"]);
    assert_eq!(code, 0, "{text}");
    assert_golden("show_lane.txt", &text);
}

#[tokio::test]
async fn the_settings_of_a_project_name_the_checkpoint() {
    let folder = made().await;
    std::fs::create_dir(folder.path().join("queries")).unwrap();
    std::fs::create_dir(folder.path().join("sql")).unwrap();
    std::fs::write(folder.path().join("queries/settings.sql"), "SET falaj.checkpoint = 'checkpoint';").unwrap();
    std::fs::write(folder.path().join("sql/settings.sql"), "SET falaj.checkpoint = 'elsewhere';").unwrap();
    for args in [&["show"][..], &["show", "queries"], &["show", "board"], &["show", "queries", "board"], &["verify"]] {
        let (code, text) = falaj(folder.path(), &[&["checkpoint"], args].concat());
        assert_eq!(code, 0, "{args:?}: {text}");
    }
    let nowhere = "falaj: there is no checkpoint elsewhere; falaj run makes it, and --checkpoint PLACE names another\n";
    for what in ["show", "verify", "fork"] {
        assert_eq!(falaj(folder.path(), &["checkpoint", what, "sql"]), (2, nowhere.to_string()));
    }
    assert!(!folder.path().join("elsewhere").exists(), "and nothing is made");
    for (args, says) in [
        (&["show", "bord"][..], "falaj: the checkpoint checkpoint has no lane 'bord'; did you mean 'board'?\n"),
        (&["show", "queries", "x"], "falaj: the checkpoint checkpoint has no lane 'x'; there are board, fresh, rows\n"),
        (&["show", "sql", "board", "--checkpoint", "checkpoint"], "falaj: with --checkpoint only a lane can be named\n"),
        (&["verify", "no_sql"], "falaj: the folder of SQL files 'no_sql' (as in falaj run queries) cannot be read"),
        (&["forg"], "error: unrecognized subcommand 'forg'"),
        (&["show", "--records", "many"], "error: invalid value 'many' for '--records <COUNT>'"),
        (&[], "Show what a checkpoint holds, verify it, or begin a new lineage from it"),
    ] {
        let (code, text) = falaj(folder.path(), &[&["checkpoint"], args].concat());
        assert!(code == 2 && text.starts_with(says), "{args:?}: {code} {text}");
    }
}

#[tokio::test]
async fn verify_names_everything_that_is_wrong() {
    let folder = made().await;
    let verify = || falaj(folder.path(), &["checkpoint", "verify", "--checkpoint", "checkpoint"]);
    let (code, text) = verify();
    assert_eq!(code, 0, "{text}");
    assert_golden("verify.txt", &text);
    made::break_everything(&folder.path().join("checkpoint")).await;
    let (code, text) = verify();
    assert_eq!(code, 1, "{text}");
    assert_golden("verify_broken.txt", &text);
}

#[tokio::test]
async fn a_fork_is_a_checkpoint_of_its_own_and_keeps_the_old_one() {
    let folder = made().await;
    let before = made::files(&folder.path().join("checkpoint"));
    let (code, text) = falaj(folder.path(), &["checkpoint", "fork", "--checkpoint", "checkpoint"]);
    assert_eq!(code, 0, "{text}");
    let lineage = text.split_whitespace().nth(1).unwrap();
    assert_golden("fork.txt", &text.replace(lineage, "NEW"));
    let kept = made::files(&folder.path().join(format!("checkpoint.before-fork-{lineage}")));
    assert!(before.iter().all(|(name, bytes)| kept.get(name) == Some(bytes)), "the old one has lost something");
    assert_eq!(kept.len(), before.len() + 3, "a claim for each lane");
    for what in ["verify", "show"] {
        let (code, text) = falaj(folder.path(), &["checkpoint", what, "--checkpoint", "checkpoint"]);
        assert_eq!(code, 0, "{text}");
        assert!(what == "verify" || text.contains(&format!(", forked from {LINEAGE}\n")), "{text}");
    }
    // And once more, by a link to it.
    std::os::unix::fs::symlink("checkpoint", folder.path().join("link")).unwrap();
    let (code, text) = falaj(folder.path(), &["checkpoint", "fork", "--checkpoint", "link"]);
    assert!(code == 0 && text.contains(&format!(" goes on from {lineage}\n")), "{text}");
    assert!(folder.path().join("link").is_symlink());
}

#[tokio::test]
async fn a_fork_that_was_broken_off_is_no_checkpoint_and_is_finished_or_begun_again() {
    let folder = made().await;
    let checkpoint = folder.path().join("checkpoint");
    let names = Names::of(&checkpoint, "0199f000-0000-7000-8000-000000000000");
    let fork = || falaj(folder.path(), &["checkpoint", "fork", "--checkpoint", "checkpoint"]);

    // Before the first rename.
    std::fs::create_dir_all(names.made.join("board")).unwrap();
    std::fs::write(names.made.join("board/00000000000000000000.json"), "half").unwrap();
    let (code, text) = fork();
    assert_eq!(code, 0, "{text}");
    assert!(!names.made.exists());

    // Between the renames.
    std::fs::rename(&checkpoint, &names.made).unwrap();
    std::fs::create_dir(&names.kept).unwrap();
    let (code, text) = falaj(folder.path(), &["checkpoint", "show", "--checkpoint", "checkpoint"]);
    assert_eq!(
        (code, text.as_str()),
        (2, "falaj: the fork of checkpoint was broken off; 'falaj checkpoint fork' finishes it\n")
    );
    let store = falaj::checkpoint::local::LocalStore::new(&checkpoint);
    let error = falaj::checkpoint::lane_log::LaneLog::lineage(&store).await.unwrap_err();
    assert!(error.to_string().ends_with("a fork of it that was broken off; 'falaj checkpoint fork' finishes it"), "{error}");
    assert!(!checkpoint.exists());
    let (code, text) = fork();
    assert!(code == 0 && text.starts_with("the fork that was broken off is finished; "), "{text}");
    assert!(checkpoint.exists() && names.kept.exists() && !names.made.exists());
    assert_eq!(falaj(folder.path(), &["checkpoint", "verify", "--checkpoint", "checkpoint"]).0, 0);
}

#[tokio::test]
async fn a_fork_that_cannot_be_made_leaves_everything_as_it_was() {
    let folder = made().await;
    let checkpoint = folder.path().join("checkpoint");
    std::fs::write(checkpoint.join("rows/00000000000000000002.json"), "torn").unwrap();
    let (code, text) = falaj(folder.path(), &["checkpoint", "fork", "--checkpoint", "checkpoint"]);
    assert!(code == 1 && text.starts_with("falaj: the checkpoint record rows/00000000000000000002.json is torn; "), "{text}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["checkpoint"]);
}
