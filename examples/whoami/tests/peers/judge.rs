//! A moto server, the `aws` command, and a home folder and environment that both programs share.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A moto server, killed on drop.
struct Moto {
    child: Child,
    url: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Moto {
    fn start(program: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, url: format!("http://127.0.0.1:{port}") };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "moto does not listen");
            std::thread::sleep(Duration::from_millis(100));
        }
        moto
    }
}

/// A home folder and environment, the same for `aws` and `whoami`.
pub(crate) struct Judge {
    aws: PathBuf,
    moto: Moto,
    pub(crate) home: tempfile::TempDir,
}

impl Judge {
    pub(crate) fn new() -> Option<Self> {
        let programs =
            [test_support::venv_program("aws"), test_support::venv_program("moto_server")];
        let [Some(aws), Some(moto)] = programs else {
            test_support::left_out(
                "whoami beside the aws command",
                "no aws and moto in target/venv",
            );
            return None;
        };
        Some(Self { aws, moto: Moto::start(&moto), home: tempfile::tempdir().unwrap() })
    }

    /// Returns the URL of the moto server.
    pub(crate) fn url(&self) -> &str {
        &self.moto.url
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs a program with this environment alone and `stdin`. Returns its output, or its errors if
    /// it fails.
    fn run(
        &self,
        program: &Path,
        arguments: &[&str],
        env: &[(&str, &str)],
        stdin: &str,
    ) -> Result<String, String> {
        // Without a terminal, programs read codes from standard input.
        let mut child = Command::new("setsid")
            .arg("-w")
            .arg(program)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("AWS_ENDPOINT_URL", &self.moto.url)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_PAGER", "")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The program may end before it has read its input.
        let _unread = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    pub(crate) fn aws(
        &self,
        arguments: &[&str],
        env: &[(&str, &str)],
        stdin: &str,
    ) -> Result<String, String> {
        self.run(&self.aws, arguments, env, stdin)
    }

    pub(crate) fn whoami(
        &self,
        arguments: &[&str],
        env: &[(&str, &str)],
        stdin: &str,
    ) -> Result<String, String> {
        self.run(Path::new(env!("CARGO_BIN_EXE_whoami")), arguments, env, stdin)
    }

    /// Asserts that both programs name the same identity and the same source. Returns the identity.
    pub(crate) fn same(&self, case: &str, profile: Option<&str>, env: &[(&str, &str)]) -> Value {
        let profile: Vec<&str> = profile.map(|name| vec!["--profile", name]).unwrap_or_default();
        let theirs = self.aws(
            &[&profile[..], &["sts", "get-caller-identity", "--output", "json"]].concat(),
            env,
            "",
        );
        let ours = self.whoami(&profile, env, "");
        let json = |text: Result<String, String>| -> Value {
            let text = text.unwrap_or_else(|error| panic!("{case}: {error}"));
            serde_json::from_str(&text).unwrap()
        };
        let (ours, theirs) = (json(ours), json(theirs));
        assert_eq!(ours["Arn"], theirs["Arn"], "{case}");
        assert_eq!(ours["Account"], theirs["Account"], "{case}");
        let theirs_list =
            self.aws(&[&profile[..], &["configure", "list"]].concat(), env, "").unwrap();
        let ours_list = self.whoami(&[&profile[..], &["--list"]].concat(), env, "").unwrap();
        let source = |text: &str| -> String {
            let line =
                text.lines().find(|line| line.trim_start().starts_with("access_key")).unwrap();
            line.replace(':', " ").split_whitespace().nth(2).unwrap().to_owned()
        };
        assert_eq!(source(&ours_list), source(&theirs_list), "{case}:\n{ours_list}\n{theirs_list}");
        ours
    }

    /// Creates a user with an access key, by the `aws` command. Returns the key's id and secret.
    pub(crate) fn user(&self, name: &str) -> (String, String) {
        let root = [("AWS_ACCESS_KEY_ID", "AKIAROOT"), ("AWS_SECRET_ACCESS_KEY", "root")];
        self.aws(&["iam", "create-user", "--user-name", name], &root, "").unwrap();
        let made = self
            .aws(&["iam", "create-access-key", "--user-name", name, "--output", "json"], &root, "")
            .unwrap();
        let made: Value = serde_json::from_str(&made).unwrap();
        let member = |key: &str| made["AccessKey"][key].as_str().unwrap().to_owned();
        (member("AccessKeyId"), member("SecretAccessKey"))
    }
}
