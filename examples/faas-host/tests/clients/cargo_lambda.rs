//! `cargo lambda` against a real host with real sandboxes: a Rust function is deployed, deployed
//! anew under an alias with a URL, and invoked.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Served, client_environment, ready};

#[test]
fn cargo_lambda_deploys_and_invokes() {
    if !ready("cargo lambda") {
        return;
    }
    let program = test_support::workspace().join("target/cargo-lambda/bin/cargo-lambda");
    if !program.exists() {
        let why = "needs target/cargo-lambda (`cargo xtask prepare`)";
        return test_support::left_out("cargo lambda", why);
    }
    let served = Served::start(&[]);
    let project = tempfile::tempdir().unwrap();
    let manifest = "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    std::fs::write(project.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::create_dir(project.path().join("src")).unwrap();
    std::fs::write(project.path().join("src/main.rs"), "fn main() {}\n").unwrap();
    let run = |words: &[&str]| -> Output {
        let mut command = Command::new(&program);
        command.arg("lambda").args(words).args(["--endpoint-url", &served.endpoint]);
        command.current_dir(project.path()).envs(client_environment());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        output
    };
    let function = concat!(env!("OUT_DIR"), "/hello");
    let role = "arn:aws:iam::123456789012:role/any";
    let deploy =
        ["deploy", "--iam-role", role, "--binary-path", function, "--output-format", "json"];
    let with = |more: &[&str]| -> Value {
        let output = run(&[&deploy[..], more, &["hello"]].concat());
        // Lines about its progress come first.
        let start = output.stdout.iter().position(|byte| *byte == b'{').unwrap_or(0);
        let json = &output.stdout[start..];
        serde_json::from_slice(json).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    // The alias is there from the first time: `cargo lambda` asks by it whether a change is done.
    let made = with(&["--env-var", "KEY=value", "--tag", "team=a", "--alias", "live"]);
    assert!(made["function_arn"].as_str().unwrap().ends_with(":function:hello"), "{made}");
    let changed = with(&["--memory", "512", "--alias", "live", "--enable-function-url"]);
    assert_eq!((&made["version"], &changed["version"]), (&json!("1"), &json!("2")));
    assert_eq!(changed["alias"], "live", "{changed}");

    let config = served.aws(&["get-function", "--function-name", "hello:live"]).json();
    let (config, tags) = (&config["Configuration"], &config["Tags"]);
    assert_eq!(config["MemorySize"], 512);
    assert_eq!(
        (&config["Runtime"], &config["Handler"]),
        (&json!("provided.al2023"), &json!("bootstrap"))
    );
    assert_eq!(config["Environment"]["Variables"]["KEY"], "value");
    assert_eq!(tags["team"], "a");
    let url = ["get-function-url-config", "--function-name", "hello", "--qualifier", "live"];
    assert_eq!(served.aws(&url).json()["FunctionUrl"], changed["function_url"]);

    let answer = run(&["invoke", "--remote", "--alias", "live", "--data-ascii", "{}", "hello"]);
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["greeting"], "hello from a compiled function");
}
