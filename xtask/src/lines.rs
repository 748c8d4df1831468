//! Counts a crate's lines of code: those of its programs, without tests, comments and blank lines.

use std::fs;
use std::path::{Path, PathBuf};

/// Prints the lines of code of each file of a crate, and their sum.
///
/// Left out are comments, blank lines, the folder `testing`, whose files are built for tests and
/// fuzzing alone, and the module `tests` at the end of a file.
///
/// # Errors
///
/// The crate has no folder `src`, or a file cannot be read.
pub(crate) fn print(root: &Path, name: &str) -> Result<bool, String> {
    let mut files = Vec::new();
    collect(&root.join(name).join("src"), &mut files)?;
    files.sort();
    let mut sum = 0;
    for file in &files {
        let text = fs::read_to_string(file);
        let lines = count(&text.map_err(|error| format!("{}: {error}", file.display()))?);
        sum += lines;
        println!("{lines:6} {}", file.strip_prefix(root).unwrap_or(file).display());
    }
    println!("{sum:6} {name}");
    Ok(true)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("testing") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Counts the lines of code of a file. A line with code and a comment counts as code.
fn count(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let tests = lines.windows(2).position(|two| two == ["#[cfg(test)]", "mod tests {"]);
    let code = &lines[..tests.unwrap_or(lines.len())];
    code.iter().filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_tests_are_left_out() {
        let text =
            "//! A module.\n\nuse std::fmt;\n/// A type.\nstruct A;\n    // why\nfn a() {}\n\n";
        assert_eq!(count(text), 3);
        assert_eq!(count(&format!("{text}#[cfg(test)]\nmod tests {{\n    fn b() {{}}\n}}\n")), 3);
        assert_eq!(count(&format!("{text}#[cfg(test)]\nmod model;\n")), 5);
    }
}
