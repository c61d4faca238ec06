//! A real Chromium without a window, driven through the pipe that it offers for that (Chrome DevTools Protocol): messages of JSON, each
//! ended by a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(60);

/// The browser with one page.
pub(super) struct Chromium {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    id: u64,
    session: Option<String>,
    /// What the page complained of on its console.
    complaints: Vec<String>,
    /// All that it has said there, for a test that fails.
    said: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Chromium {
    pub(super) fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that takes any certificate.
    pub(super) fn start_trusting_all() -> Self {
        Self::start_with(&["--ignore-certificate-errors"])
    }

    fn start_with(more: &[&str]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-pipe",
        ];
        // It reads from its descriptor 3 and writes to 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null", "sh"])
            .args(flags)
            .args(more)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (send, from) = sync_channel(10_000);
        thread::spawn(move || {
            let messages = answers.split(0).map_while(Result::ok).filter_map(|message| serde_json::from_slice(&message).ok());
            messages.map(|message| send.send(message)).take_while(Result::is_ok).count()
        });
        let mut browser =
            Self { child, to, from, id: 0, session: None, complaints: Vec::new(), said: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].take();
        let session = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}))["sessionId"].take();
        browser.session = session.as_str().map(str::to_string);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Asks for something, and gives what is answered.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        let mut message = json!({"id": self.id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(&[message.to_string().as_bytes(), b"\0"].concat()).unwrap();
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut message = self.from.recv_timeout(left).unwrap_or_else(|_| panic!("{method} is not answered"));
            if message["id"] != self.id {
                self.note(&message);
                continue;
            }
            assert!(message["error"].is_null(), "{method}: {}", message["error"]);
            return message["result"].take();
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        self.said.extend((event["method"] == "Runtime.consoleAPICalled").then(|| params["args"].to_string()));
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => params["exceptionDetails"].to_string(),
            Some("Runtime.consoleAPICalled") if matches!(params["type"].as_str(), Some("error" | "warning" | "assert")) => {
                params["args"].to_string()
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => params["entry"].to_string(),
            _ => return,
        };
        self.complaints.push(complaint);
    }

    /// Goes to a page.
    pub(super) fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({"url": url}));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
    }

    /// What an expression of JavaScript gives, promises awaited.
    pub(super) fn get(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub(super) fn wait(&mut self, expression: &str) {
        let began = Instant::now();
        while self.get(&format!("Boolean({expression})")) != true {
            if began.elapsed() > WAIT {
                panic!("waited in vain for {expression} on a page with {}\n{:#?}", self.text(), self.said);
            }
            // Without a pause the page has no time for its own work.
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// All text that a reader sees.
    pub(super) fn text(&mut self) -> String {
        self.get("document.body.innerText").as_str().unwrap_or_default().to_string()
    }

    /// Presses a key, such as `Tab`, `Enter` or ` `.
    pub(super) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            _ => (32, " "),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let params = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// The size of the window, and the colours that its user likes.
    pub(super) fn look_like(&mut self, (width, height): (u32, u32), colours: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{"name": "prefers-color-scheme", "value": colours}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// A picture of the whole page, for people; tests look at nothing in it. Gives its file.
    pub(super) fn picture(&mut self, name: &str) -> PathBuf {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", params)["data"].take();
        let bytes = BASE64_STANDARD.decode(picture.as_str().unwrap()).unwrap();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.png"));
        std::fs::write(&file, bytes).unwrap();
        file
    }

    /// The page has complained of nothing since the last call.
    pub(super) fn has_no_complaint(&mut self) {
        self.get("0"); // What it said before this comes before its answer.
        assert_eq!(std::mem::take(&mut self.complaints), Vec::<String>::new());
    }

    /// Forgets complaints about a server that was away.
    pub(super) fn forget_complaints(&mut self) {
        self.get("0");
        self.complaints.clear();
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
