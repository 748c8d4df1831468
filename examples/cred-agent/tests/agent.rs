//! Programs that know only the container credentials endpoint get the agent's credentials.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

fn agent(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cred-agent"));
    command.env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    // The `credential_process` appends a line to this file at each run.
    let count = home.path().join("count");
    let output = r#"{"Version": 1, "AccessKeyId": "ASIAAGENT", "SecretAccessKey": "s", "SessionToken": "t",
        "Expiration": "2099-01-01T00:00:00Z"}"#;
    std::fs::write(home.path().join("output"), output).unwrap();
    let script =
        format!("echo run >> {}\ncat {}\n", count.display(), home.path().join("output").display());
    std::fs::write(home.path().join("give"), script).unwrap();
    let config =
        format!("[profile p]\ncredential_process = sh {}\n", home.path().join("give").display());
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    home
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn botocore_takes_credentials_from_the_agent_and_the_source_is_asked_once() {
    let Some(python) = test_support::venv_program("python") else {
        return test_support::left_out("the agent's callers", "no Python in target/venv");
    };
    let home = home();
    let caller = "import botocore.session, threading\n\
                  def ask(): print(botocore.session.Session().get_credentials().access_key)\n\
                  all = [threading.Thread(target=ask) for _ in range(8)]\n\
                  [one.start() for one in all]; [one.join() for one in all]\n";
    let output = agent(home.path())
        .args(["--profile", "p"])
        .arg(python)
        .args(["-c", caller])
        // Without the agent, the caller has no other source: no default profile, and no metadata
        // service.
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap();
    assert_eq!(text(&output).matches("ASIAAGENT").count(), 8);
    let runs = std::fs::read_to_string(home.path().join("count")).unwrap();
    assert_eq!(runs.lines().count(), 1);
}

#[test]
fn who_has_no_token_gets_nothing() {
    let home = home();
    let caller = r#"
        url=${AWS_CONTAINER_CREDENTIALS_FULL_URI#http://}; host=${url%%/*}
        exec 3<>/dev/tcp/${host%:*}/${host#*:}
        printf 'GET /credentials HTTP/1.1\r\nauthorization: wrong\r\n\r\n' >&3
        cat <&3"#;
    let output =
        agent(home.path()).args(["--profile", "p", "bash", "-c", caller]).output().unwrap();
    let text = text(&output);
    assert!(text.starts_with("HTTP/1.1 401") && !text.contains("ASIA"), "{text}");
    assert!(!home.path().join("count").exists(), "the source was asked");
}

#[test]
fn the_programs_end_is_the_agents() {
    let home = home();
    let output = agent(home.path()).args(["sh", "-c", "exit 7"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
}
