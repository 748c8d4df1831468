//! Beside the real `aws` command, against moto: for the same environment and files both are the same
//! identity, read each other's cache of MFA sessions, and name the same source.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The moto server, ended with the test.
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

/// A home folder and an environment, the same for both programs.
struct Judge {
    aws: PathBuf,
    moto: Moto,
    home: tempfile::TempDir,
}

impl Judge {
    fn new() -> Option<Self> {
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

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs a program with nothing but this environment and `stdin`; gives its output or its errors.
    fn run(
        &self,
        program: &Path,
        arguments: &[&str],
        env: &[(&str, &str)],
        stdin: &str,
    ) -> Result<String, String> {
        // Without a terminal, so that codes are read from standard input.
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
        // The program may end without reading.
        let _unread = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn aws(&self, arguments: &[&str], env: &[(&str, &str)], stdin: &str) -> Result<String, String> {
        self.run(&self.aws, arguments, env, stdin)
    }

    fn whoami(
        &self,
        arguments: &[&str],
        env: &[(&str, &str)],
        stdin: &str,
    ) -> Result<String, String> {
        self.run(Path::new(env!("CARGO_BIN_EXE_whoami")), arguments, env, stdin)
    }

    /// Both must name the same identity, and the same source.
    fn same(&self, case: &str, profile: Option<&str>, env: &[(&str, &str)]) -> Value {
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

    /// Makes a user with keys, by the `aws` command itself.
    fn user(&self, name: &str) -> (String, String) {
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

#[test]
fn the_same_identity_and_source_as_the_aws_command() {
    let Some(judge) = Judge::new() else { return };
    let (env_id, env_secret) = judge.user("from-env");
    let (file_id, file_secret) = judge.user("from-file");
    let (process_id, process_secret) = judge.user("from-process");
    let token = judge.file("token", "eyJhbGciOiJub25lIn0.e30.");
    let output = judge.file(
        "credentials.json",
        &format!(r#"{{"Version": 1, "AccessKeyId": "{process_id}", "SecretAccessKey": "{process_secret}"}}"#),
    );
    judge.file(
        ".aws/credentials",
        &format!(
            "[default]\naws_access_key_id = {file_id}\naws_secret_access_key = {file_secret}\n"
        ),
    );
    let role = "arn:aws:iam::123456789012:role";
    let config = format!(
        "[default]\nregion = us-east-1\n\
         [profile inconfig]\naws_access_key_id = {file_id}\naws_secret_access_key = {file_secret}\n\
         [profile role]\nrole_arn = {role}/Reader\nsource_profile = default\nrole_session_name = judge\n\
         [profile chained]\nrole_arn = {role}/Writer\nsource_profile = role\nrole_session_name = judge\n\
         [profile process]\ncredential_process = cat \"{}\"\n\
         [profile fromenv]\nrole_arn = {role}/Env\ncredential_source = Environment\nrole_session_name = judge\n\
         [profile web]\nrole_arn = {role}/Web\nweb_identity_token_file = {}\nrole_session_name = judge\n",
        output.display(),
        token.display()
    );
    judge.file(".aws/config", &config);
    let keys =
        [("AWS_ACCESS_KEY_ID", env_id.as_str()), ("AWS_SECRET_ACCESS_KEY", env_secret.as_str())];

    let ends = |identity: Value, end: &str| {
        assert!(identity["Arn"].as_str().unwrap().ends_with(end), "{identity}, not {end}");
    };
    ends(judge.same("environment", None, &keys), "user/from-env");
    ends(judge.same("default profile", None, &[]), "user/from-file");
    ends(judge.same("a profile goes before the environment", Some("role"), &keys), "Reader/judge");
    ends(judge.same("config file", Some("inconfig"), &[]), "user/from-file");
    ends(judge.same("process", Some("process"), &[]), "user/from-process");
    ends(judge.same("chained roles", Some("chained"), &[]), "Writer/judge");
    ends(judge.same("web identity", Some("web"), &[]), "Web/judge");
    let env_profile = [keys[0], keys[1], ("AWS_PROFILE", "fromenv")];
    ends(
        judge.same("AWS_PROFILE with keys in the environment", None, &env_profile),
        "user/from-env",
    );
    let metadata = [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", judge.moto.url.as_str()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"),
        ("AWS_CONFIG_FILE", "/nowhere"),
    ];
    judge.same("metadata service", None, &metadata);
    // Both refuse a profile that is not there.
    assert!(judge.aws(&["--profile", "no", "sts", "get-caller-identity"], &[], "").is_err());
    assert!(
        judge.whoami(&["--profile", "no"], &[], "").unwrap_err().contains("could not be found")
    );
}

/// Asked on every run because caches are not shared: the complaint of many users of MFA.
#[test]
fn an_mfa_code_is_asked_for_once_between_the_two() {
    let Some(judge) = Judge::new() else { return };
    let (id, secret) = judge.user("with-mfa");
    let role = "arn:aws:iam::123456789012:role";
    let serial = "arn:aws:iam::123456789012:mfa/with-mfa";
    let profile = |name: &str| {
        format!(
            "[profile {name}]\nrole_arn = {role}/{name}\nsource_profile = base\nmfa_serial = {serial}\n\
             external_id = x-1\nduration_seconds = 3600\n"
        )
    };
    let config = format!(
        "[profile base]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n{}{}",
        profile("First"),
        profile("Second")
    );
    judge.file(".aws/config", &config);
    let arn = |text: Result<String, String>| {
        let value: Value = serde_json::from_str(&text.expect("an identity")).unwrap();
        value["Arn"].as_str().unwrap().to_owned()
    };
    let command =
        |profile| ["--profile", profile, "sts", "get-caller-identity", "--output", "json"];

    // Ours asks, theirs finds it.
    let asked = judge.whoami(&["--profile", "First"], &[], "").unwrap_err();
    assert!(
        asked.contains("Enter MFA code for arn:aws:iam::123456789012:mfa/with-mfa: "),
        "{asked}"
    );
    let ours = arn(judge.whoami(&["--profile", "First"], &[], "123456\n"));
    assert_eq!(arn(judge.aws(&command("First"), &[], "")), ours);
    assert_eq!(arn(judge.whoami(&["--profile", "First"], &[], "")), ours);
    let folder = judge.home.path().join(".aws/cli/cache");
    #[cfg(unix)]
    for entry in std::fs::read_dir(&folder).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    // Theirs asks, ours finds it.
    assert!(judge.whoami(&["--profile", "Second"], &[], "").is_err());
    let theirs = arn(judge.aws(&command("Second"), &[], "123456\n"));
    assert_eq!(arn(judge.whoami(&["--profile", "Second"], &[], "")), theirs);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
}
