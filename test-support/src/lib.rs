//! What this workspace's tests need of the machine: found, or reported by name as left out.
//!
//! A test that cannot run here calls [`left_out`] and returns. `cargo xtask test` lists what was left
//! out, and fails with `--all` when the list is not empty, so nothing is skipped in silence.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Reports that `what` could not be tested on this machine because of `why`.
///
/// Appends one line to the file that `TEST_LEFT_OUT` names (set by `cargo xtask test`) and prints it.
///
/// # Panics
///
/// When the file that `TEST_LEFT_OUT` names cannot be written.
#[expect(clippy::print_stderr, reason = "the person who runs one test by hand must see it")]
pub fn left_out(what: &str, why: &str) {
    eprintln!("left out: {what}: {why}");
    if let Some(file) = std::env::var_os("TEST_LEFT_OUT") {
        let line = format!("{what}: {why}\n");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("TEST_LEFT_OUT {}: {error}", file.display()));
    }
}

/// Returns the workspace's root folder.
///
/// # Panics
///
/// Never in a checkout: this crate lies one folder below the root.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Returns the third-party conformance data: `CONFORMANCE_DIR`, else `../shared/conformance`.
#[must_use]
pub fn conformance_dir() -> PathBuf {
    folder("CONFORMANCE_DIR", "../shared/conformance")
}

/// Returns the third-party traces: `TRACES_DIR`, else `../shared/traces`.
#[must_use]
pub fn traces_dir() -> PathBuf {
    folder("TRACES_DIR", "../shared/traces")
}

/// Tells whether the checks run at full length: `cargo xtask test --long`, which sets `TEST_LONG`.
#[must_use]
pub fn long() -> bool {
    std::env::var_os("TEST_LONG").is_some()
}

/// Returns the program `name` of the Python environment that `cargo xtask test` makes under
/// `target/venv`, or `None` where it is not there.
#[must_use]
pub fn venv_program(name: &str) -> Option<PathBuf> {
    Some(workspace().join("target/venv/bin").join(name)).filter(|path| path.exists())
}

fn folder(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| workspace().join(default), PathBuf::from)
}
