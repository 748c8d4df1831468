//! House rules that the compiler does not check: each file begins with a module doc, no file has
//! more than 600 lines, each changelog has the form of Keep a Changelog.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Prints each broken rule. Returns whether there is none.
pub(crate) fn check(root: &Path) -> bool {
    let files = match Command::new("git").arg("ls-files").current_dir(root).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            eprintln!("git ls-files: {error}");
            return false;
        }
    };
    let mut broken = Vec::new();
    for file in files.lines() {
        // A file that was deleted, but not yet in a commit, is skipped.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        if file.ends_with(".rs") {
            let lines = text.lines().count();
            if !text.starts_with("//!") && !text.starts_with("#![no_main]") {
                broken.push(format!("{file}: does not begin with what it is (`//!`)"));
            }
            if lines > LINES_MAX {
                broken.push(format!("{file}: {lines} lines, at the most {LINES_MAX}"));
            }
        }
        if file.ends_with("CHANGELOG.md")
            && !(text.starts_with("# Changelog\n") && text.contains("\n## [Unreleased]\n"))
        {
            broken.push(format!("{file}: not in the form of Keep a Changelog"));
        }
    }
    for line in &broken {
        println!("{line}");
    }
    broken.is_empty()
}

const LINES_MAX: usize = 600;
