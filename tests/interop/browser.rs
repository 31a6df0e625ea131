//! Chromium without a window, driven over its DevTools protocol.
//!
//! The protocol goes over the program's descriptors 3 and 4, JSON texts that end with a zero byte, so
//! there is no port to guess and no other process to end: a browser whose pipe closes ends by itself.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Longest time for an answer or an event: only a browser that hangs takes it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every run is told: no window, nothing of its own on the network, nothing kept.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-proxy-server",
    "--remote-debugging-pipe",
];

/// A browser with one tab.
pub struct Browser {
    child: Child,
    pipe: Option<ChildStdin>,
    messages: Receiver<Value>,
    /// Everything that was told without having been asked, in order.
    pub events: Vec<Value>,
    session: String,
    last: u64,
    folder: tempfile::TempDir,
}

impl Browser {
    /// Starts one with a new profile and these flags besides.
    pub fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new("sh");
        // The pipes of stdin and stdout become descriptors 3 and 4.
        command.args(["-c", "exec 3<&0 4>&1 </dev/null 1>&2; exec \"$@\"", "sh", "chromium"]);
        command.args(FLAGS).args(flags);
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        command.arg("about:blank").env("HOME", folder.path()).env_remove("DISPLAY");
        for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "CHROMIUM_FLAGS"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("chromium starts");
        let pipe = child.stdin.take();
        let out = BufReader::new(child.stdout.take().expect("a stdout"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for text in out.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&text).expect("JSON");
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            pipe,
            messages,
            events: Vec::new(),
            session: String::new(),
            last: 0,
            folder,
        };
        browser.attach();
        browser
    }

    /// Opens a tab of its own and hears what happens in it.
    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let wanted = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", wanted);
        self.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Calls a method; gives its result.
    ///
    /// # Panics
    /// If it fails.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        let pipe = self.pipe.as_mut().expect("a pipe");
        pipe.write_all(&text).and_then(|()| pipe.flush()).expect("the browser reads");
        let ends = Instant::now() + PATIENCE;
        loop {
            let answer = self.next(ends, method);
            if answer["id"] == self.last {
                assert_eq!(answer["error"], Value::Null, "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn next(&self, ends: Instant, what: &str) -> Value {
        let left = ends.saturating_duration_since(Instant::now());
        self.messages.recv_timeout(left).unwrap_or_else(|error| {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            panic!("{what}: {error}; the browser's log: {log}")
        })
    }

    /// Waits for an event that fits, among those that were not looked at before `from` and those to come.
    pub fn event(&mut self, from: usize, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let ends = Instant::now() + PATIENCE;
        let mut seen = from;
        loop {
            if let Some(found) = self.events[seen..].iter().find(|event| fits(event)) {
                return found.clone();
            }
            seen = self.events.len();
            let next = self.next(ends, what);
            self.events.push(next);
        }
    }

    /// Opens a page and waits until it has loaded.
    pub fn open(&mut self, url: &str) {
        let from = self.events.len();
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert_eq!(opened["errorText"], Value::Null, "{url}: {opened}");
        self.event(from, url, |event| event["method"] == "Page.loadEventFired");
    }

    /// The value of an expression of the page, awaited if it is a promise.
    ///
    /// # Panics
    /// If it throws.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", asked);
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression of the page is true.
    pub fn until(&mut self, expression: &str) {
        let ends = Instant::now() + PATIENCE;
        while self.value(&format!("Boolean({expression})")) != true {
            assert!(Instant::now() < ends, "waited in vain: {expression}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key and lets it go. `code` is its place in the table of Windows, `text` what it writes.
    pub fn press(&mut self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// A picture of the page as PNG, also written to `file`.
    pub fn picture(&mut self, file: &Path) -> Vec<u8> {
        let wanted = json!({"format": "png", "captureBeyondViewport": true});
        let answer = self.call("Page.captureScreenshot", wanted);
        let text = answer["data"].as_str().expect("data");
        let bytes = data_encoding::BASE64.decode(text.as_bytes()).expect("base64");
        std::fs::write(file, &bytes).expect("a file");
        bytes
    }

    /// What the page complained of: exceptions, errors and warnings of the console and the browser.
    pub fn complaints(&self) -> Vec<Value> {
        let bad = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                matches!(event["params"]["type"].as_str(), Some("error" | "warning" | "assert"))
            }
            Some("Log.entryAdded") => {
                matches!(event["params"]["entry"]["level"].as_str(), Some("error" | "warning"))
            }
            _ => false,
        };
        self.events.iter().filter(bad).cloned().collect()
    }

    /// Every address that was asked for.
    pub fn requested(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|e| e["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned))
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its pipe closes; then it ends, and its own processes before it.
        self.pipe = None;
        let ends = Instant::now() + Duration::from_secs(10);
        while Instant::now() < ends && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
