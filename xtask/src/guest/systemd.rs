//! A guest with a Debian userland whose pid 1 is systemd: a host's control groups lie in a scope
//! that it makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Guest, boot, pack, run, tests};

/// Boots the guest and runs the tests in it; tells whether all ended well.
pub(super) fn check(root: &Path, folder: &Path, kernel: &Path) -> Result<bool, String> {
    let tree = folder.join("systemd");
    let image = image(root, folder, &tree)?;
    let options = "systemd.unit=tests.service systemd.show_status=0";
    let guest =
        Guest { kernel, image: &image, memory_mb: "2048", options, machine: &super::EMULATED };
    let output = boot(folder, &guest)?;
    println!("{output}");
    let left = output.lines().any(|line| line.starts_with("left behind: "));
    let passed = |name: &&str| output.contains(&format!("{name}: exit 0"));
    Ok(!left && output.contains("pid 1 is systemd") && TESTS.iter().all(passed))
}

fn image(root: &Path, folder: &Path, tree: &Path) -> Result<PathBuf, String> {
    let tests = tests(root, folder, &TESTS)?;
    let system = tree.join("system");
    let userland = folder.join("userland");
    if !userland.join("lib/systemd/systemd").exists() {
        make_userland(&userland)?;
    }
    drop(fs::remove_dir_all(tree));
    fs::create_dir_all(tree.join("new")).map_err(|error| error.to_string())?;
    run(Command::new("cp").arg("-a").args([&userland, &system]))?;
    let make = || -> std::io::Result<()> {
        for part in
            ["usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache", "var/lib/apt"]
        {
            drop(fs::remove_dir_all(system.join(part)));
        }
        fs::create_dir_all(tree.join("bin"))?;
        fs::copy("/usr/bin/busybox", tree.join("bin/busybox"))?;
        fs::create_dir_all(system.join("tests"))?;
        for (name, program) in &tests {
            fs::copy(program, system.join("tests").join(name))?;
        }
        fs::write(system.join("etc/systemd/system/tests.service"), SERVICE)?;
        for (path, text) in [(tree.join("init"), INIT), (system.join("tests.sh"), SCRIPT)] {
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    };
    make().map_err(|error| format!("{}: {error}", tree.display()))?;
    pack(tree, folder.join("systemd.cpio"))
}

/// Makes a Debian of the least packages and systemd, from where this machine has its own packages,
/// once.
fn make_userland(userland: &Path) -> Result<(), String> {
    if !crate::machine::on_path("mmdebstrap") {
        let mut install = Command::new("apt-get");
        install.args(["-qq", "-y", "--no-install-recommends", "install", "mmdebstrap"]);
        run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    let sources = sources.into_iter().find(|path| Path::new(path).exists());
    let sources = sources.ok_or("apt has no list of sources here")?;
    let release = fs::read_to_string("/etc/os-release").map_err(|error| error.to_string())?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.ok_or("/etc/os-release names no suite")?;
    drop(fs::remove_dir_all(userland));
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", "--include=systemd-sysv,dbus", suite]);
    run(make.arg(userland).arg(sources))
}

/// Tests of `lambda-sandbox`, by name.
const TESTS: [&str; 2] = ["cgroups_rs", "systemd"];

/// Moves to a root of its own: the first one of a kernel cannot be pivoted away from.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t tmpfs -o size=90% none /new
/bin/busybox cp -a /system/. /new/
exec /bin/busybox switch_root /new /lib/systemd/systemd
";

const SCRIPT: &str = "\
#!/bin/sh
echo \"pid 1 is $(cat /proc/1/comm)\"
for name in $(ls /tests); do
    OWN_MACHINE=1 /tests/$name --test-threads=1
    echo \"$name: exit $?\"
done
systemctl list-units --no-legend --all 'lambda-sandbox*' | sed 's/^/left behind: /'
";

const SERVICE: &str = "\
[Unit]
Requires=basic.target dbus.service
After=basic.target dbus.service
[Service]
Type=oneshot
ExecStart=/tests.sh
ExecStopPost=/bin/systemctl poweroff --force --force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
";
