//! The house rules that no compiler knows: every file says what it is, none is too long, changelogs have
//! one form.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Prints what breaks a rule; tells whether nothing does.
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
        // A file that is removed but not committed yet is no file.
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
