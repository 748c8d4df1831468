//! Compiles `init/init.rs`, the static program that is pid 1 of a Linux sandbox, for embedding it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=init");
    println!("cargo::rerun-if-changed=build.rs");
    let wanted = env::var_os("CARGO_FEATURE_LINUX").is_some()
        && env::var("CARGO_CFG_TARGET_OS")? == "linux"
        && env::var("CARGO_CFG_TARGET_ARCH")? == "x86_64";
    if !wanted {
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("init");
    let rustc = env::var_os("RUSTC").ok_or("RUSTC is not set")?;
    let mut command = Command::new(rustc);
    command
        .args(["--edition=2024", "--crate-type=bin", "--crate-name=init"])
        .args(["--target", &env::var("TARGET")?])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Cdebuginfo=0", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"])
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static"])
        .arg("-o")
        .arg(&out)
        .arg("init/init.rs");
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        command.arg("-C").arg(format!("linker={}", linker.display()));
    }
    let status = command.status()?;
    if !status.success() {
        return Err(format!("compiling init/init.rs: {status}").into());
    }
    Ok(())
}
