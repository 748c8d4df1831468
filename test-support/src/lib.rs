//! Finds what this workspace's tests need of the machine, or records that a test was left out.
//!
//! A test that cannot run on this machine calls [`left_out`] and returns. `cargo xtask test` lists
//! these tests, and fails with `--all` if there is one, so that no test is skipped in silence.

mod browser;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use browser::Browser;

/// Records that `what` could not be tested on this machine because of `why`.
///
/// Prints one line. Also appends it to the file that the variable `TEST_LEFT_OUT` names, which
/// `cargo xtask test` sets.
///
/// # Panics
///
/// If the file that `TEST_LEFT_OUT` names cannot be written.
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

/// Returns the folder of third-party conformance data: `CONFORMANCE_DIR`, or
/// `../shared/conformance` if that is not set.
#[must_use]
pub fn conformance_dir() -> PathBuf {
    folder("CONFORMANCE_DIR", "../shared/conformance")
}

/// Returns the folder of third-party traces: `TRACES_DIR`, or `../shared/traces` if that is not
/// set.
#[must_use]
pub fn traces_dir() -> PathBuf {
    folder("TRACES_DIR", "../shared/traces")
}

/// Returns whether the tests run at full length: `cargo xtask test --long` sets `TEST_LONG`.
#[must_use]
pub fn long() -> bool {
    std::env::var_os("TEST_LONG").is_some()
}

/// Returns the path of the program `name` in the Python environment `target/venv`, or `None` if it
/// is not there. `cargo xtask test` makes the environment.
#[must_use]
pub fn venv_program(name: &str) -> Option<PathBuf> {
    Some(workspace().join("target/venv/bin").join(name)).filter(|path| path.exists())
}

fn folder(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| workspace().join(default), PathBuf::from)
}

/// A small random number generator with a seed, so that a run can be repeated. Not for secrets.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Returns a generator. The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Returns the folders of this machine's control groups, sorted, so that two calls compare.
#[must_use]
pub fn control_groups() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut at = 0;
    while let Some(group) = found.get(at).cloned() {
        let entries = std::fs::read_dir(&group).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        at += 1;
    }
    found.sort();
    found
}
