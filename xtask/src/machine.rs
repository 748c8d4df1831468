//! What the tests need of the machine, brought where it can be: real clients and servers from the Python
//! registry, peers from Debian.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Brings everything; returns what could not be had, a line each.
pub(crate) fn prepare(root: &Path) -> Vec<String> {
    let mut left_out = Vec::new();
    left_out.extend(debian_packages().err());
    left_out.extend(python_environment(root).err());
    left_out
}

/// Installs the Debian packages that the tests use and the machine lacks.
fn debian_packages() -> Result<(), String> {
    let missing: Vec<&str> = DEBIAN_PACKAGES
        .into_iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(_, package)| package)
        .collect();
    if missing.is_empty() {
        println!("Debian packages: all there");
        return Ok(());
    }
    println!("Debian packages: installing {}", missing.join(" "));
    let install = || -> Result<(), String> {
        run(Command::new("apt-get").args(["-qq", "update"]))?;
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-y", "--no-install-recommends", "install"]).args(&missing);
        run(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    install().map_err(|error| format!("Debian packages {}: {error}", missing.join(" ")))
}

/// Makes `target/venv` from `requirements.txt`; does nothing when it was made from the same text.
fn python_environment(root: &Path) -> Result<(), String> {
    let wanted = include_str!("../requirements.txt");
    let environment = root.join("target/venv");
    let stamp = environment.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        println!("Python environment: target/venv is there");
        return Ok(());
    }
    println!("Python environment: installing into target/venv");
    let make = || -> Result<(), String> {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let requirements = root.join("xtask/requirements.txt");
        let mut pip = Command::new(environment.join("bin/pip"));
        run(pip.args(["install", "--quiet", "--requirement"]).arg(requirements))?;
        fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
    };
    make().map_err(|error| format!("Python environment: {error}"))
}

pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .any(|folder| folder.join(program).exists())
}

/// A program that tests call, and the Debian package that has it.
const DEBIAN_PACKAGES: [(&str, &str); 3] =
    [("python3", "python3-venv"), ("mksquashfs", "squashfs-tools"), ("mkfs.erofs", "erofs-utils")];
