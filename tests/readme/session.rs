//! One bash that runs blocks one after the other.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::steps::{Step, same};

/// How long all blocks together may take, in seconds: a block that waits for a service that never comes must end, too.
const SECONDS_MAX: u32 = 180;

/// Where and with which variables blocks are run.
pub(super) struct Session {
    folder: PathBuf,
    variables: Vec<(String, String)>,
}

impl Session {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), variables: Vec::new() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Runs one block; what it printed to stdout.
    pub(super) fn run(&self, code: &str) -> Result<String, String> {
        self.run_all(&[code]).pop().unwrap()
    }

    /// Runs the blocks of `steps` and compares the outputs; the problems, each with its line.
    pub(super) fn play(&self, steps: &[Step]) -> Vec<String> {
        let blocks: Vec<&str> = steps.iter().filter_map(Step::as_run).collect();
        let mut printed = self.run_all(&blocks).into_iter();
        let (mut last, mut problems) = (Ok(String::new()), Vec::new());
        for step in steps {
            match (step, &last) {
                (Step::Run { line, .. }, _) => {
                    last = printed.next().unwrap_or_else(|| Err("was not run".to_string()));
                    problems.extend(last.as_ref().err().map(|problem| format!("{line}: {problem}")));
                }
                (Step::Output { line, text, numbers_vary }, Ok(printed)) if !same(text, printed, *numbers_vary) => {
                    problems.push(format!("{line}: shown is\n{text}but printed was\n{printed}"));
                }
                _ => {}
            }
        }
        problems
    }

    /// Runs the blocks in one bash, up to the first that fails; one answer for each.
    fn run_all(&self, blocks: &[&str]) -> Vec<Result<String, String>> {
        let logs = tempfile::tempdir().unwrap();
        let log = |name: &str, block: usize| logs.path().join(format!("{block}.{name}"));
        let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_string();
        for (block, code) in blocks.iter().enumerate() {
            let [out, err, done] = ["out", "err", "done"].map(|name| log(name, block).display().to_string());
            script += &format!("{{\n{code}\n}} >'{out}' 2>'{err}'\n: >'{done}'\n");
        }
        let mut bash = Command::new("timeout");
        // In a process group of its own, so that the end of the time ends background jobs as well.
        bash.args([&format!("{SECONDS_MAX}s"), "bash", "-c", &script]).current_dir(&self.folder);
        let status = bash.envs(self.variables.iter().cloned()).status().unwrap();
        let read = |name, block| std::fs::read_to_string(log(name, block)).unwrap_or_default();
        let answer = |block: usize| match (log("done", block).exists(), log("err", block).exists()) {
            (true, _) => Ok(read("out", block)),
            (false, true) => Err(format!("the commands failed ({status}):\n{}{}", read("out", block), read("err", block))),
            (false, false) => Err("was not run, since a block before it failed".to_string()),
        };
        (0..blocks.len()).map(answer).collect()
    }
}

impl Step {
    fn as_run(&self) -> Option<&str> {
        match self {
            Step::Run { code, .. } => Some(code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readme::steps::read;

    fn play(markdown: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        Session::new(folder.path()).with("GREETING", "hello").play(&read(markdown).unwrap())
    }

    #[test]
    fn blocks_share_variables_and_files_and_print_what_is_shown() {
        let text = "<!-- test: run -->\n```sh\nname=world\necho $GREETING >file\nsleep 60 &\n```\n\
                    <!-- test: run -->\n```sh\ncat file\necho $name\n```\n<!-- test: output -->\n```text\nhello\nworld\n```\n";
        assert_eq!(play(text), [""; 0]);
    }

    #[test]
    fn what_differs_or_fails_is_named_with_its_line() {
        let text = "<!-- test: run -->\n```sh\necho 1 2\n```\n<!-- test: output -->\n```\n1 3\n```\n\
                    <!-- test: output, numbers vary -->\n```\n1 3\n```\n\
                    <!-- test: run -->\n```sh\necho so >&2\nfalse\necho on\n```\n<!-- test: run -->\n```sh\necho\n```\n";
        let problems = play(text);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert_eq!(problems[0], "5: shown is\n1 3\nbut printed was\n1 2\n");
        assert!(problems[1].starts_with("13: the commands failed (exit status: 1):\nso\n"), "{problems:?}");
        assert_eq!(problems[2], "19: was not run, since a block before it failed");
    }
}
