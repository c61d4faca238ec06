//! What another user of the machine finds: after a crash, and in the folders.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use crate::support::falaj::Falaj;
use crate::support::kafka::Record;
use crate::support::project::Project;
use crate::support::receiver::Receiver;

/// Lets a core dump be as large as it likes, where the machine lets us.
fn unlimited(command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", r#"ulimit -c "$(ulimit -H -c)"; exec "$0" "$@""#]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

#[tokio::test]
async fn a_crash_leaves_no_core_dump_unless_it_is_asked_for() {
    let project = Project::new(1).await;
    project.fill_content(1, 1);
    project.remove(&["bigquery", "partner", "top_content_seconds"]);
    for (flags, signal) in [(&[][..], "ABRT"), (&[], "QUIT"), (&["--core-dumps"], "KILL")] {
        let mut command = project.command(&["run", "queries"]);
        let mut falaj = Falaj::start(&mut unlimited(command.args(flags)));
        falaj.wait_for_line(&["the page is at"]);
        let limit = falaj.core_limit();
        falaj.signal(signal);
        let (status, said) = falaj.end();
        assert!(status.signal().is_some() && !status.core_dumped(), "{status}: {said}");
        match flags {
            [] => assert_eq!(limit, ["0", "0"]),
            _ => assert_eq!(limit[0], limit[1], "as it was before"),
        }
    }
    let cores = std::fs::read_dir(project.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!cores.into_iter().any(|name| name.to_string_lossy().starts_with("core")));
    project.finish().await;
}

#[tokio::test]
async fn what_has_passed_through_is_for_its_owner_alone_and_results_are_for_whom_the_umask_says() {
    let project = Project::new(1).await;
    project.fill_content(1, 1);
    let event = r#"{"id":1,"content_id":"a","event_type":"play","event_ts":"2026-01-01T00:00:01Z","duration_ms":1000}"#;
    project.topic.produce(0, &[Record::of(event), Record::of("no JSON")]);
    let receiver = Receiver::start(project.path("received"));
    project.run_until_latest(&receiver.url);
    let mut files = 0;
    each_leaf(&project.path("data/run"), &mut |leaf| {
        files += 1;
        let closed = leaf.ancestors().take_while(|path| path.starts_with(project.path("data/run"))).any(is_closed);
        assert!(closed, "others can read {}", leaf.display());
    });
    assert!(files > 5, "{files}");
    assert!(project.path("data/run/outbox/partner").is_dir());
    let open = std::fs::metadata(project.path("queries")).unwrap().permissions().mode();
    let made = std::fs::metadata(project.path("data/bigquery_output")).unwrap().permissions().mode();
    assert_eq!(made & 0o077, open & 0o077, "whoever loads the files may read them");
    project.finish().await;
}

/// Whether others can neither read it nor go through it.
fn is_closed(path: &Path) -> bool {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0
}

fn each_leaf(folder: &Path, look: &mut dyn FnMut(&Path)) {
    let mut is_empty = true;
    for entry in std::fs::read_dir(folder).unwrap() {
        is_empty = false;
        let path = entry.unwrap().path();
        if path.is_dir() { each_leaf(&path, look) } else { look(&path) }
    }
    if is_empty {
        look(folder);
    }
}
