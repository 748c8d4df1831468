//! Compares the dependencies of `lambda-core` with a golden list, so that none is added unnoticed.

use std::path::Path;
use std::process::Command;

/// Compares `cargo tree` with `xtask/lambda-core-tree.txt`, and prints both when they differ.
/// Returns whether they agree.
pub(crate) fn check(root: &Path) -> bool {
    let golden = include_str!("../lambda-core-tree.txt");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["tree", "--package", "lambda-core", "--edges", "normal"]);
    let output = match cargo.args(["--prefix", "none", "--format", "{lib}"]).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("cargo tree: {error}");
            return false;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    found.sort_unstable();
    found.dedup();
    let wanted: Vec<&str> = golden.lines().collect();
    if found != wanted {
        println!("found {found:?}\nwanted {wanted:?}\nin xtask/lambda-core-tree.txt");
    }
    found == wanted
}
