//! A headless Chromium, driven over its debugging pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A page in a headless Chromium. The browser ends when it is dropped.
///
/// It speaks the Chrome DevTools protocol: JSON messages with a zero byte after each.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: String,
    last: u64,
    requests: Vec<String>,
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the browser with an empty page; `None` if the machine has no `chromium`.
    ///
    /// # Panics
    ///
    /// If the browser is there and does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        let program = Path::new("/usr/bin/chromium");
        if !program.exists() {
            return None;
        }
        let profile = tempfile::tempdir().expect("a folder for the profile");
        // The browser reads messages from descriptor 3 and writes them to descriptor 4.
        let script = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-dev-shm-usage"]);
        command.args(["--remote-debugging-pipe", "about:blank"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("chromium starts");
        let input = child.stdin.take().expect("a pipe to chromium");
        let output = BufReader::new(child.stdout.take().expect("a pipe from chromium"));
        let (session, requests, complaints) = (String::new(), Vec::new(), Vec::new());
        let mut browser = Self {
            child,
            input,
            output,
            session,
            last: 0,
            requests,
            complaints,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol, and returns its result.
    ///
    /// # Panics
    ///
    /// If the browser has ended, or answers with an error.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        write!(self.input, "{message}\0")
            .and_then(|()| self.input.flush())
            .expect("chromium reads");
        loop {
            let mut answer = Vec::new();
            self.output.read_until(0, &mut answer).expect("chromium writes");
            assert_eq!(answer.pop(), Some(0), "chromium has ended");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON from chromium");
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(url.to_owned());
            }
            Some("Log.entryAdded") => {
                let entry = &parameters["entry"];
                let text = format!("{}: {} {}", entry["level"], entry["text"], entry["url"]);
                self.complaints.push(text);
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters.to_string()),
            Some("Page.javascriptDialogOpening") => {
                self.complaints.push(format!("a dialog: {}", parameters["message"]));
            }
            _ => {}
        }
    }

    /// Opens an address, and waits until the page is loaded.
    ///
    /// # Panics
    ///
    /// As [`Browser::until`].
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.until("document.readyState === 'complete'");
    }

    /// Sets the size of the window, in CSS pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Returns the value of an expression in the page.
    ///
    /// # Panics
    ///
    /// If the expression throws.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    ///
    /// # Panics
    ///
    /// If it is not within 20 s.
    pub fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.value(&format!("Boolean({expression})")) != json!(true) {
            if Instant::now() > deadline {
                let text = self.value("document.body.innerText.slice(0, 1000)");
                panic!("{expression} never comes true: {text} {:?}", self.complaints);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key, such as `Tab` or `Enter`, in what has the focus.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            _ => (0, key),
        };
        let parameters = |kind: &str, text: &str| json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        self.call("Input.dispatchKeyEvent", parameters(down, text));
        self.call("Input.dispatchKeyEvent", parameters("keyUp", ""));
    }

    /// Types text into what has the focus.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Writes a picture of the page as PNG.
    ///
    /// # Panics
    ///
    /// If the picture cannot be written.
    pub fn picture(&mut self, file: &Path) {
        // The protocol has pictures in base64, which a program of the machine decodes.
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let text = shot["data"].as_str().expect("a picture");
        let mut decode = Command::new("base64");
        decode.arg("-d").stdin(Stdio::piped());
        decode.stdout(std::fs::File::create(file).expect("a file for the picture"));
        let mut child = decode.spawn().expect("base64 starts");
        let mut input = child.stdin.take().expect("a pipe to base64");
        input.write_all(text.as_bytes()).expect("base64 reads");
        drop(input);
        assert!(child.wait().expect("base64 ends").success());
    }

    /// Returns the addresses that were asked for since the start.
    #[must_use]
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    /// Returns what the browser complained of since the start: errors, exceptions, dialogs, and
    /// loads that a content security policy forbids.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
