//! Starts `faas-host serve` for one test, and runs the real `aws` command against it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running host. On drop it is asked to stop and waited for.
#[derive(Debug)]
pub(crate) struct Served {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    /// The test's folder. It holds the host's data folder.
    pub(crate) folder: tempfile::TempDir,
}

impl Served {
    /// Starts `faas-host serve` with a new data folder.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, arguments)
    }

    /// Starts `faas-host serve` in the folder of an earlier run.
    pub(crate) fn start_in(folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// Starts `faas-host serve` with additional environment variables.
    pub(crate) fn start_with(
        folder: tempfile::TempDir,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_faas-host"));
        Self::spawn(command, folder, arguments, environment)
    }

    /// Starts `faas-host serve` by another program, which gets the command line of the host after
    /// its own arguments and becomes the host.
    pub(crate) fn start_by(before: &[&str], folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        let mut command = Command::new(before[0]);
        command.args(&before[1..]).arg(env!("CARGO_BIN_EXE_faas-host"));
        Self::spawn(command, folder, arguments, &[])
    }

    fn spawn(
        mut command: Command,
        folder: tempfile::TempDir,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"))
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let endpoint = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                Some(line.strip_prefix("listening")?.split_whitespace().next()?.to_owned())
            })
            .expect("the host prints its endpoint");
        // Reads and drops the rest of the output, so that the host never blocks on a full pipe.
        drop(std::thread::spawn(move || lines.for_each(drop)));
        Self { child, endpoint, folder }
    }

    /// Returns the host's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks the host to stop and waits for it; returns its folder.
    pub(crate) fn stop(mut self) -> tempfile::TempDir {
        self.terminate();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Kills the host, so that it cannot clean up. Returns its folder.
    pub(crate) fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    fn terminate(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            return;
        }
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success() || std::thread::panicking(), "faas-host: {status}");
                return;
            }
            assert!(Instant::now() < deadline, "faas-host does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs the real `aws lambda ...` against the host.
    pub(crate) fn aws(&self, arguments: &[&str]) -> Output {
        let aws = test_support::venv_program("aws").expect("checked by `ready`");
        let output = Command::new(aws)
            .arg("lambda")
            .args(arguments)
            .args(["--endpoint-url", &self.endpoint, "--output", "json"])
            .current_dir(self.folder.path())
            .envs(client_environment())
            .output()
            .unwrap();
        Output {
            success: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Makes a URL of a function that everybody may invoke. Returns the URL.
    pub(crate) fn open_url(&self, name: &str, more: &[&str]) -> String {
        let make = ["create-function-url-config", "--function-name", name, "--auth-type", "NONE"];
        let made = self.aws(&[&make[..], more].concat());
        assert!(made.success, "{made:?}");
        let allow = [
            "add-permission",
            "--function-name",
            name,
            "--statement-id",
            "all",
            "--action",
            "lambda:InvokeFunctionUrl",
            "--principal",
            "*",
            "--function-url-auth-type",
            "NONE",
        ];
        assert!(self.aws(&allow).success);
        made.json()["FunctionUrl"].as_str().unwrap().to_owned()
    }

    /// Packs `files` into `NAME.zip` and creates a function of it.
    pub(crate) fn create(
        &self,
        name: &str,
        runtime: &str,
        handler: &str,
        files: &[(&str, &[u8])],
        more: &[&str],
    ) {
        let zip = format!("{name}.zip");
        std::fs::write(self.folder.path().join(&zip), archive(files)).unwrap();
        let zip = format!("fileb://{zip}");
        let arguments = [
            "create-function",
            "--function-name",
            name,
            "--runtime",
            runtime,
            "--handler",
            handler,
            "--role",
            "arn:aws:iam::123456789012:role/test",
            "--zip-file",
            &zip,
        ];
        let output = self.aws(&[&arguments[..], more].concat());
        assert!(output.success, "{output:?}");
        // As AWS answers it; the function can be invoked at once.
        assert_eq!(output.json()["State"], "Pending");
    }

    /// Invokes a function through `aws lambda invoke`. Returns the command's output and the
    /// payload.
    pub(crate) fn invoke(&self, name: &str, payload: &str, more: &[&str]) -> (Value, Value) {
        let out = format!("{name}-{}.json", unique());
        let arguments = ["invoke", "--function-name", name, "--payload", payload, &out];
        let output = self.aws(&[&arguments[..], more].concat());
        assert!(output.success, "{output:?}");
        let answer = std::fs::read(self.folder.path().join(&out)).unwrap();
        (output.json(), serde_json::from_slice(&answer).unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// The output of a command.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Returns whether the test can run: it needs root and the `aws` command. If not, records it as
/// left out.
pub(crate) fn ready(test: &str) -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "needs root"
    } else if test_support::venv_program("aws").is_none() {
        "needs the aws command (`cargo xtask prepare`)"
    } else {
        return true;
    };
    test_support::left_out(test, why);
    false
}

/// Returns the runtime identifier of this machine's Python, such as `python3.11`.
pub(crate) fn python() -> String {
    let output = Command::new("python3").arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    let mut parts = version.trim().trim_start_matches("Python ").split('.');
    format!("python{}.{}", parts.next().unwrap(), parts.next().unwrap())
}

/// Environment variables that keep AWS clients from the configuration of this machine.
pub(crate) fn client_environment() -> [(&'static str, &'static str); 6] {
    [
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "not-a-secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_MAX_ATTEMPTS", "1"),
    ]
}

/// Packs files into a zip archive, each with the mode 0755.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    for (name, content) in files {
        zip.start_file(*name, options).unwrap();
        std::io::Write::write_all(&mut zip, content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Returns the content of a file in this crate's folder `tests`.
pub(crate) fn file(name: &str) -> Vec<u8> {
    std::fs::read(source(name)).unwrap()
}

/// Returns the path of a file in this crate's folder `tests`.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
