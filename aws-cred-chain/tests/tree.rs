//! Checks counts that the README promises: crates in `cargo tree`, lines of an example.

use std::collections::BTreeSet;
use std::process::Command;

/// Counts the lines of `cargo tree -e normal --prefix none | sort -u`, including this crate.
fn crates(features: &str) -> usize {
    let arguments =
        ["tree", "--offline", "-p", "aws-cred-chain", "-e", "normal", "--prefix", "none"];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--features", features])
        .current_dir(test_support::workspace())
        .output()
        .expect("cargo runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: BTreeSet<&str> = text.lines().collect();
    lines.len()
}

#[test]
fn at_most_20_crates_without_input_and_output_and_80_with() {
    assert!(crates("") <= 20);
    assert!(crates("tokio") <= 80);
    assert!(crates("tokio,tracing,query") <= 80);
}

/// The example in the test kit's documentation, which is a test that a role's session ends while
/// STS is down. `cargo test --doc` runs it.
#[test]
fn the_example_of_the_test_kit_has_at_most_20_lines() {
    let text = include_str!("../src/testing/mod.rs");
    let example = text.split("//! ```\n").nth(1).expect("the documentation has an example");
    let lines = example.lines().filter(|line| line.trim() != "//!").count();
    assert!((5..=20).contains(&lines), "{lines} lines");
    assert!(example.contains("Fault::Status(503)"), "{example}");
}
