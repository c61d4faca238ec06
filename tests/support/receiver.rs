//! `falaj receive` as a process of its own, with every row that it took.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running receiver. It ends with the test.
pub(crate) struct Receiver {
    child: Child,
    printed: PathBuf,
    /// Where it takes rows.
    pub(crate) url: String,
}

impl Receiver {
    /// Starts it; `printed` is the file where it prints rows.
    pub(crate) fn start(printed: PathBuf) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_falaj"));
        command.args(["receive", "--bind", "127.0.0.1:0", "--print"]);
        let child = command.stdout(Stdio::from(File::create(&printed).unwrap())).spawn().unwrap();
        let mut receiver = Self { child, printed, url: String::new() };
        let began = Instant::now();
        while receiver.url.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "the receiver does not say where it listens");
            std::thread::yield_now();
            let text = receiver.text();
            if let Some((line, _)) = text.split_once('\n') {
                let address = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
                receiver.url = format!("{address}engagements");
            }
        }
        receiver
    }

    /// The rows that it took so far, as JSON; a row of a repeated request is there once.
    pub(crate) fn rows(&self) -> Vec<String> {
        let text = self.text();
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        whole.lines().filter(|line| line.starts_with('{')).map(str::to_string).collect()
    }

    /// What it counted, as its page says.
    pub(crate) async fn counts(&self) -> serde_json::Value {
        let url = self.url.replace("/engagements", "/stats");
        serde_json::from_str(&reqwest::get(url).await.unwrap().text().await.unwrap()).unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.printed).unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
