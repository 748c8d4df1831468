//! Compiles `functions/hello.rs` into a static program: a function that needs no file of its root.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=functions/hello.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let program = PathBuf::from(variable("OUT_DIR")).join("hello");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["functions/hello.rs", "--edition=2024", "--crate-name=hello", "-O"]);
    rustc.args(["-Cstrip=symbols", "-Cpanic=abort", "-Ctarget-feature=+crt-static"]);
    rustc.arg("--target").arg(variable("TARGET")).arg("-o").arg(&program);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status().unwrap_or_else(|error| panic!("rustc: {error}"));
    assert!(status.success(), "rustc functions/hello.rs: {status}");
}
