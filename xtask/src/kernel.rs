//! Builds the guests' kernel from Debian's source package, with `lambda-guest/kernel.config`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::run;

/// Builds `target/kernel/vmlinux`. It takes some 10 minutes of a processor's time, and 2 GiB of disk.
///
/// # Errors
///
/// A package cannot be installed, a line of the configuration has no effect, or the kernel does not
/// build.
pub(crate) fn build(root: &Path) -> Result<bool, String> {
    install()?;
    let folder = root.join("target/kernel");
    let source = unpack(&folder)?;
    let wanted = root.join("lambda-guest/kernel.config");
    let mut all_no = Command::new("make");
    all_no.current_dir(&source).args(["--quiet", "ARCH=x86_64", "allnoconfig"]);
    run(all_no.env("KCONFIG_ALLCONFIG", &wanted))?;
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (wanted, got) = (read(&wanted)?, read(&source.join(".config"))?);
    let without = without_effect(&wanted, &got);
    if !without.is_empty() {
        return Err(format!("lambda-guest/kernel.config: without effect: {}", without.join(" ")));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new("nice");
    make.current_dir(&source).args(["-n", "15", "make", "--quiet", "ARCH=x86_64", "vmlinux"]);
    run(make.arg(format!("-j{processors}")))?;
    let (built, kernel) = (source.join("vmlinux"), folder.join("vmlinux"));
    run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&kernel).arg(built))?;
    println!("{}: give it to the tests as VM_KERNEL", kernel.display());
    Ok(true)
}

/// Installs the packages that the machine lacks.
fn install() -> Result<(), String> {
    let is_there = |file: &str| Path::new(file).exists() || crate::machine::on_path(file);
    let missing = PACKAGES.iter().filter(|(file, _)| !is_there(file)).map(|(_, package)| *package);
    let missing: Vec<&str> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut install = Command::new("apt-get");
    install.args(["-qq", "-y", "--no-install-recommends", "install"]).args(missing);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Unpacks the source, unless an earlier run did. Returns its folder.
fn unpack(folder: &Path) -> Result<PathBuf, String> {
    let source = folder.join(NAME);
    let is_whole = folder.join("unpacked");
    if !is_whole.exists() {
        drop(fs::remove_dir_all(&source));
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        run(Command::new("tar").arg("-xf").arg(ARCHIVE).arg("-C").arg(folder))?;
        fs::write(&is_whole, "").map_err(|error| format!("{}: {error}", is_whole.display()))?;
    }
    Ok(source)
}

/// Returns the lines of a configuration that another one does not have: a symbol whose dependencies
/// are off is left out without a word.
fn without_effect<'a>(wanted: &'a str, got: &str) -> Vec<&'a str> {
    let lines = wanted.lines().filter(|line| line.starts_with("CONFIG_"));
    lines.filter(|line| !got.lines().any(|other| other == *line)).collect()
}

const NAME: &str = "linux-source-6.1";
const ARCHIVE: &str = "/usr/src/linux-source-6.1.tar.xz";
/// Programs and files, with their packages.
const PACKAGES: [(&str, &str); 9] = [
    (ARCHIVE, NAME),
    ("bc", "bc"),
    ("bison", "bison"),
    ("flex", "flex"),
    ("gcc", "gcc"),
    ("/usr/include/libelf.h", "libelf-dev"),
    ("make", "make"),
    ("strip", "binutils"),
    ("xz", "xz-utils"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_effect_are_found() {
        let wanted = "# a comment\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_C=1\n";
        let got = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=2\nCONFIG_D=y\n";
        assert_eq!(without_effect(wanted, got), ["CONFIG_B=y", "CONFIG_C=1"]);
        assert!(without_effect(wanted, wanted).is_empty());
    }
}
