//! The promised number of crates, as `cargo tree` counts them.

use std::collections::BTreeSet;
use std::process::Command;

/// Counts the lines of `cargo tree -e normal --prefix none | sort -u`, this crate among them.
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
