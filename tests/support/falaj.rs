//! The `falaj` binary as a child of a test: what it says on stderr is read line by line, and it ends with the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a line or the end is waited for. Only a test that fails takes so long.
// With a dozen other processes on two cores a run of half a minute takes more than two.
const WAIT: Duration = Duration::from_secs(180);

/// A command without the variables that the shipped queries name.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_falaj")), folder, args)
}

/// The same of another build.
pub(crate) fn command_of(binary: &Path, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(args).current_dir(folder);
    for name in ["KAFKA_BROKERS", "DATABASE_URL", "REDIS_URL", "PARTNER_URL", "FALAJ_LOG", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    command
}

/// A running `falaj`.
pub(crate) struct Falaj {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Falaj {
    /// Starts `command`.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, lines) = sync_channel(100_000);
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for a line with all of `words`, and gives it.
    pub(crate) fn wait_for_line(&mut self, words: &[&str]) -> String {
        let deadline = Instant::now() + WAIT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if words.iter().all(|word| line.contains(word)) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {words:?} in:\n{}", self.said.join("\n")),
            }
        }
    }

    /// The most memory that it ever had (`VmHWM`). While it runs.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
    }

    /// How large a core dump of it may be: the soft and the hard limit. While it runs.
    pub(crate) fn core_limit(&self) -> [String; 2] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        let mut words = line.split_whitespace().map(str::to_string);
        [words.next().unwrap(), words.next().unwrap()]
    }

    /// How many files and sockets it has open. While it runs.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Asks it to stop, as an operator would.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
    }

    /// Whether it runs; it may be stopped.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it at once; gives everything that it has said.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.end().1
    }

    /// Waits for its end; gives everything that it has said.
    pub(crate) fn end(self) -> (ExitStatus, String) {
        self.end_within(WAIT).unwrap_or_else(|said| panic!("it does not end:\n{said}"))
    }

    /// The same, but not for ever; what it has said is the error.
    pub(crate) fn end_within(mut self, wait: Duration) -> Result<(ExitStatus, String), String> {
        let deadline = Instant::now() + wait;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(self.said.join("\n")),
            }
        }
        Ok((self.child.wait().unwrap(), self.said.join("\n")))
    }
}

impl Drop for Falaj {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
