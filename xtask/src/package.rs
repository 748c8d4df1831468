//! Checks the packages as a registry would hold them: each builds from its package, and a program
//! outside of the workspace builds with them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::steps::CRATES;

/// Packages the crates. Then builds and runs a program that depends on all of them, which builds
/// each from its package. Returns whether all of this succeeded.
pub(crate) fn check(root: &Path) -> bool {
    let mut package = Command::new(env!("CARGO"));
    package.current_dir(root).args(["package", "--quiet", "--allow-dirty", "--no-verify"]);
    package.args(CRATES.map(|krate| format!("-p{krate}")));
    built("cargo package", &mut package)
        && outside(root).unwrap_or_else(|error| {
            println!("{error}");
            false
        })
}

/// Unpacks the packages. Cargo's own verification is not used: it takes packages for unchanging as
/// long as their version is the same, and would build what an earlier check has unpacked or
/// compiled.
fn unpack(packages: &Path) -> Result<(), String> {
    for krate in CRATES {
        let path = packages.join(format!("{krate}-{VERSION}"));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("{}: {error}", path.display()));
            }
            _ => {}
        }
        let mut tar = Command::new("tar");
        // With the time of unpacking, by which cargo sees that a file is another.
        tar.args(["--extract", "--gzip", "--touch", "--directory"]).arg(packages).arg("--file");
        if !built("tar", tar.arg(packages.join(format!("{krate}-{VERSION}.crate")))) {
            return Err(format!("the package of {krate} cannot be unpacked"));
        }
    }
    Ok(())
}

/// Builds and runs a program that depends on the unpacked packages. Returns whether it succeeded.
fn outside(root: &Path) -> Result<bool, String> {
    let packages = root.join("target/package");
    unpack(&packages)?;
    let folder = root.join("target/outside");
    fs::create_dir_all(folder.join("src"))
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut manifest = "[package]\nname = \"outside\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n".to_owned();
    let mut patches = "\n[patch.crates-io]\n".to_owned();
    for krate in CRATES {
        let path = format!("{krate}-{VERSION}");
        let unpacked = packages.join(&path);
        manifest += &format!("{krate} = {{ path = {:?} }}\n", unpacked.display().to_string());
        patches += &format!("{krate} = {{ path = {:?} }}\n", unpacked.display().to_string());
    }
    let program = "fn main() {\n    println!(\"{:?}\", lambda_core::Config::default());\n    println!(\"{:?}\", \
                   lambda_host::FunctionConfig::new(\"f\", \"provided\", \"x\"));\n}\n";
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).map_err(|error| format!("{name}: {error}"))
    };
    write("Cargo.toml", &(manifest + &patches))?;
    write("src/main.rs", program)?;
    let lock = root.join("Cargo.lock");
    fs::copy(&lock, folder.join("Cargo.lock"))
        .map_err(|error| format!("{}: {error}", lock.display()))?;
    let mut run = Command::new(env!("CARGO"));
    run.current_dir(&folder).env("CARGO_TARGET_DIR", root.join("target/outside/target"));
    Ok(built("a program outside of the workspace", run.args(["run", "--quiet"])))
}

fn built(name: &str, command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            println!("{name}: {error}");
            false
        }
    }
}

const VERSION: &str = "0.1.0";
