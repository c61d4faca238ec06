//! Golden tests: SQL and input in, rows out, as files.
//!
//! ```text
//! cases/<name>/query.sql       a sink and the INSERT of the lane <name>; without it, it is the shipped query of that name
//!              input.jsonl     one record a line, appended to the partition that its field `partition` names (else 0)
//!              script.jsonl    where epochs matter: {"at": clock, "rows": [line numbers, from 1]}, one epoch each, one partition each
//!              content.jsonl   the lookup table, where it is not golden/content.jsonl
//!              expected.jsonl  what the sink holds in the end
//!              letters.jsonl   the dead letters, where there are any
//! ```
//!
//! Each case runs whole, row by row, stopped and started half-way, and killed and started half-way; a script runs in one go, and
//! with a stop after each epoch. All of them must end alike. Shipped sources, lookups and `enriched` are there for every case.
//!
//! `expected.jsonl`: rows with their `_id` (and their `_epoch` in a script), in order if the query has an ORDER BY; a board in its
//! order; of `emit 'update'` what a keyed table holds, by key. `FALAJ_BLESS=1 scripts/test golden` rewrites what is expected:
//! work out by hand or by another engine that it is right. `FALAJ_GOLDEN=<name>` runs one case.

mod case;
mod run;

use std::path::{Path, PathBuf};

use case::Case;
use run::{Held, Way};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The names of all cases, or of the one that is asked for.
fn names() -> Vec<String> {
    let asked = std::env::var("FALAJ_GOLDEN").ok();
    let entries = std::fs::read_dir(folder().join("cases")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| asked.as_ref().is_none_or(|asked| asked == name));
    names.sort();
    names
}

/// Runs a case in every way. Gives what is not as it should be.
async fn problems_of(name: String) -> Vec<String> {
    let case = Case::read(&name).await;
    let bless = std::env::var("FALAJ_BLESS").is_ok();
    let mut problems = Vec::new();
    let mut first: Option<Held> = None;
    for &way in Way::of(&case) {
        let held = run::run(&case, way).await;
        let expected = match (&first, bless) {
            (None, true) => {
                case.bless(&held);
                held.clone()
            }
            (Some(first), true) => first.clone(),
            (_, false) => case.expected(),
        };
        for (file, held, expected) in [("expected", &held.rows, &expected.rows), ("letters", &held.letters, &expected.letters)]
        {
            if held != expected {
                problems.push(format!("{name}/{file}.jsonl, {way:?}:{}", difference(held, expected)));
            }
        }
        first.get_or_insert(held);
    }
    problems
}

/// The lines that only one of both has; or both, where only their order differs.
fn difference(held: &[String], expected: &[String]) -> String {
    let only = |sign: &str, left: &[String], right: &[String]| -> String {
        let lines = left.iter().filter(|line| !right.contains(line));
        lines.map(|line| format!("\n  {sign} {line}")).collect()
    };
    let lines = only("-", expected, held) + &only("+", held, expected);
    if lines.is_empty() { format!("\n  - {}\n  + {}", expected.join("\n    "), held.join("\n    ")) } else { lines }
}

#[test]
fn every_case_ends_as_expected_however_it_is_run() {
    let names = names();
    assert!(!names.is_empty());
    // Two threads: each case is a row of short waits.
    let half = |names: &[String]| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut problems = Vec::new();
            for name in names {
                // A task of its own, so that a case that panics does not hide the others.
                let found = tokio::spawn(problems_of(name.clone())).await;
                problems.extend(found.unwrap_or_else(|panic| vec![format!("{name}: {panic}")]));
            }
            problems
        })
    };
    let problems = std::thread::scope(|scope| {
        let (left, right) = names.split_at(names.len() / 2);
        let other = scope.spawn(|| half(left));
        let mut problems = half(right);
        problems.extend(other.join().unwrap());
        problems
    });
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_shipped_query_has_a_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(root.join("queries")).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_stem().filter(|_| path.is_file()).and_then(|name| name.to_str()) else { continue };
        // The rows of capture come from a WAL: tests/capture has them.
        let has_no_rows = ["sources", "lookups", "sinks", "settings", "capture"].contains(&name);
        assert!(
            has_no_rows || folder().join("cases").join(name).is_dir(),
            "queries/{name}.sql has no case in tests/golden/cases"
        );
    }
}
