//! Coverage-guided fuzzing: runs every target in the `fuzz` folder of every crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs every target for `seconds`. Returns whether no target failed.
///
/// # Errors
///
/// `cargo-fuzz` cannot be installed or started, or a `fuzz` folder has no target.
pub(crate) fn check(root: &Path, seconds: u32) -> Result<bool, String> {
    let fuzz = cargo_fuzz(root)?;
    let mut sound = true;
    for folder in folders(root) {
        let listed = command(&fuzz, &folder).arg("list").output();
        let listed = listed.map_err(|error| format!("cargo fuzz list: {error}"))?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        if listed.trim().is_empty() {
            return Err(format!("{} has no target", folder.display()));
        }
        for target in listed.split_whitespace() {
            println!("fuzz {target} for {seconds} s");
            let mut run = command(&fuzz, &folder);
            run.args(["run", target, "--"]);
            // A single input fails the target if it takes more than 10 s or 2 GiB of memory.
            run.arg(format!("-max_total_time={seconds}"));
            run.args(["-timeout=10", "-rss_limit_mb=2048", "-verbosity=0"]);
            let status = run.status().map_err(|error| format!("cargo fuzz run: {error}"))?;
            if !status.success() {
                println!("fuzz {target}: {status}");
                sound = false;
            }
        }
    }
    Ok(sound)
}

/// Returns the folders of crates that have fuzz targets, sorted.
fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let crates = entries.map(|entry| entry.path());
    let mut found: Vec<_> = crates.filter(|it| it.join("fuzz/Cargo.toml").exists()).collect();
    found.sort();
    found
}

/// Returns the program `cargo-fuzz`. If the machine has none, installs it below `target/tools`.
fn cargo_fuzz(root: &Path) -> Result<PathBuf, String> {
    if crate::machine::on_path("cargo-fuzz") {
        return Ok("cargo-fuzz".into());
    }
    let tools = root.join("target/tools");
    let program = tools.join("bin/cargo-fuzz");
    if !program.exists() {
        let mut install = Command::new(env!("CARGO"));
        install.args(["install", "--quiet", "--locked", "cargo-fuzz", "--root"]).arg(&tools);
        crate::machine::run(&mut install)?;
    }
    Ok(program)
}

fn command(fuzz: &Path, folder: &Path) -> Command {
    let mut command = Command::new(fuzz);
    // Sanitizers are unstable flags of the compiler. This variable permits them with a stable one.
    command.current_dir(folder).env("RUSTC_BOOTSTRAP", "1");
    command
}
