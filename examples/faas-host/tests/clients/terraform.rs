//! Terraform against a real host: applied, unchanged when planned again, changed, destroyed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{Served, archive, client_environment, ready};

#[test]
fn terraform_applies_changes_and_destroys() {
    if !ready("terraform") {
        return;
    }
    let projects = test_support::conformance_dir().join("lambda/clients/terraform");
    if !projects.exists() {
        return test_support::left_out("terraform", "its projects are not here");
    }
    let served = Served::start(&[]);
    // Each takes a minute: Terraform waits five seconds between its looks at a function.
    let names: &[&str] = if test_support::long() { &["minimal", "full"] } else { &["full"] };
    for name in names {
        let Some(project) = Project::open(&projects.join(name), &served) else { return };
        project.run("apply", &["-auto-approve"], 0);
        project.run("plan", &["-detailed-exitcode"], 0);
        project.run("apply", &["-auto-approve", "-var", "memory=256"], 0);
        project.run("plan", &["-detailed-exitcode", "-var", "memory=256"], 0);
        project.run("destroy", &["-auto-approve"], 0);
        assert_eq!(served.aws(&["list-functions"]).json()["Functions"], serde_json::json!([]));
    }
}

/// A project of the test's own.
struct Project {
    folder: tempfile::TempDir,
    endpoint: String,
}

impl Project {
    /// Copies a project; `None`, and said so, where Terraform or its provider is not on this
    /// machine.
    fn open(from: &Path, served: &Served) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(from.join("main.tf"), folder.path().join("main.tf")).unwrap();
        let zip = archive(&[("handler.py", b"def handler(event, context):\n    return event\n")]);
        for name in ["f.zip", "l.zip"] {
            std::fs::write(folder.path().join(name), &zip).unwrap();
        }
        let mirror = std::env::var_os("TERRAFORM_MIRROR");
        let mirror = mirror.map_or_else(|| PathBuf::from("/opt/tf-plugins"), PathBuf::from);
        let config = format!(
            "provider_installation {{\n  filesystem_mirror {{\n    path = {:?}\n  }}\n}}\n",
            mirror.display().to_string()
        );
        std::fs::write(folder.path().join("config"), config).unwrap();
        let project = Self { folder, endpoint: served.endpoint.clone() };
        let why = match project.command("init").output() {
            Ok(output) if output.status.success() => return Some(project),
            Ok(_) => "its AWS provider is not on this machine",
            Err(_) => "terraform is not on this machine",
        };
        test_support::left_out("terraform", why);
        None
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new("terraform");
        command.args([word, "-no-color"]).current_dir(self.folder.path());
        command
            .envs(client_environment())
            .env("TF_CLI_CONFIG_FILE", self.folder.path().join("config"));
        command
    }

    fn run(&self, word: &str, more: &[&str], expected: i32) -> Output {
        let endpoint = format!("endpoint={}", self.endpoint);
        let output = self.command(word).args(more).args(["-var", &endpoint]).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{word}: {output:?}");
        output
    }
}
