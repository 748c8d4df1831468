//! Runs the demo and the sandbox's privileged tests in a QEMU guest with Debian's own kernel. The
//! guest has control groups of version 2 with all controllers. A machine that mounts version 1 has
//! none of these to test with. A second guest has a Debian userland that systemd runs.

pub(crate) mod network;
mod systemd;
pub(crate) mod vm;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Boots the guest and runs the demo and the tests in it. Returns whether all exited with 0, the
/// demo used control groups of version 2, and no sandbox's control group was left behind.
///
/// # Errors
///
/// A package, the kernel or a program cannot be installed, built or started.
pub(crate) fn check(root: &Path) -> Result<bool, String> {
    let folder = root.join("target/guest");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    install(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("bash-static", "bash-static"),
    ])?;
    let kernel = kernel(&folder)?;
    let image = image(root, &folder)?;
    // The unpacked image may take half of the memory.
    let guest = Guest {
        kernel: &kernel,
        image: &image,
        memory_mb: "2048",
        options: "",
        machine: &EMULATED,
    };
    let output = boot(&folder, &guest)?;
    println!("{output}");
    let by_systemd = systemd::check(root, &folder, &kernel)?;
    let left = output.lines().any(|line| line.starts_with("left behind: "));
    let passed = |name: &str| output.contains(&format!("{name}: exit 0"));
    let version_2 = output.contains("memory control group (v2)");
    let all = passed("demo") && TESTS.iter().all(|name| passed(name));
    Ok(version_2 && !left && all && by_systemd)
}

/// Installs the Debian package of each program that is not there.
fn install(programs: &[(&str, &str)]) -> Result<(), String> {
    for (program, package) in programs {
        if !crate::machine::on_path(program) {
            let mut install = Command::new("apt-get");
            install.args(["-qq", "-y", "--no-install-recommends", "install", package]);
            run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
        }
    }
    Ok(())
}

/// Downloads Debian's cloud kernel and unpacks it, unless an earlier run did. Returns its path.
fn kernel(folder: &Path) -> Result<PathBuf, String> {
    let find = || {
        let files = fs::read_dir(folder.join("kernel/boot")).ok()?;
        let mut paths = files.flatten().map(|entry| entry.path());
        paths.find(|path| {
            path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("vmlinuz"))
        })
    };
    if let Some(kernel) = find() {
        return Ok(kernel);
    }
    let mut depends = Command::new("apt-cache");
    let output = depends.args(["depends", "linux-image-cloud-amd64"]).output();
    let text = output.map_err(|error| format!("apt-cache: {error}"))?.stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    let package = text.split_whitespace().find(|word| word.starts_with("linux-image-"));
    let package =
        text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).next().or(package);
    let package = package.ok_or("apt-cache knows no linux-image-cloud-amd64")?;
    run(Command::new("apt-get").args(["-qq", "download", package]).current_dir(folder))?;
    let files = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut paths = files.flatten().map(|entry| entry.path());
    let archive = paths.find(|path| path.extension().is_some_and(|it| it == "deb"));
    let archive = archive.ok_or("the kernel's package was not downloaded")?;
    run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(folder.join("kernel")))?;
    find().ok_or_else(|| "the kernel's package holds no vmlinuz".to_owned())
}

/// Returns the path of the kernel module `name` below `folder`.
fn module(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.into_iter().find_map(|path| {
        if path.is_dir() { module(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

/// Builds the initial file system: busybox, bash, `faas-host` and the tests as static programs,
/// kernel modules, and the scripts that start them. Returns the path of the image.
fn image(root: &Path, folder: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["build", "--release", "-p", "faas-host"]);
    cargo.args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"]).arg(folder.join("build"));
    run(cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static"))?;
    let tests = tests(root, folder, &TESTS)?;
    let tree = folder.join("root");
    let make = || -> std::io::Result<()> {
        drop(fs::remove_dir_all(&tree));
        for path in ["bin", "new", "system/proc", "system/sys", "system/dev", "system/tmp"] {
            fs::create_dir_all(tree.join(path))?;
        }
        for path in ["system/run", "system/usr/bin", "system/etc", "system/var"] {
            fs::create_dir_all(tree.join(path))?;
        }
        symlink("usr/bin", tree.join("system/bin"))?;
        for name in MODULES {
            let found = module(&folder.join("kernel"), name);
            let found = found.ok_or_else(|| std::io::Error::other(format!("no {name}")))?;
            fs::copy(found, tree.join("system").join(name))?;
        }
        for path in ["bin/busybox", "system/bin/busybox"] {
            fs::copy("/usr/bin/busybox", tree.join(path))?;
        }
        symlink("busybox", tree.join("system/bin/sh"))?;
        fs::copy("/bin/bash-static", tree.join("system/bin/bash"))?;
        let host = folder.join("build/x86_64-unknown-linux-gnu/release/faas-host");
        fs::copy(host, tree.join("system/faas-host"))?;
        fs::create_dir_all(tree.join("system/tests"))?;
        for (name, program) in &tests {
            fs::copy(program, tree.join("system/tests").join(name))?;
        }
        for (name, text) in [("init", INIT), ("system/init", SYSTEM)] {
            let path = tree.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    };
    make().map_err(|error| format!("{}: {error}", tree.display()))?;
    pack(&tree, folder.join("image.cpio"))
}

/// Makes an initial file system of a folder.
fn pack(tree: &Path, image: PathBuf) -> Result<PathBuf, String> {
    let pack =
        format!("busybox find . | busybox cpio -o -H newc > '{}' 2>/dev/null", image.display());
    run(Command::new("sh").args(["-c", &pack]).current_dir(tree))?;
    Ok(image)
}

/// Builds privileged tests of the sandbox as static programs. Returns their names and paths.
fn tests(
    root: &Path,
    folder: &Path,
    names: &[&'static str],
) -> Result<Vec<(&'static str, PathBuf)>, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["test", "--no-run", "-p", "lambda-sandbox"]);
    cargo.args(["--features", "systemd"]);
    cargo.args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"]).arg(folder.join("build"));
    for name in names {
        cargo.args(["--test", name]);
    }
    cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols");
    let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let program = |name: &&'static str| {
        let line = text.lines().find(|line| line.contains(&format!("tests/{name}.rs (")))?;
        let path = line.split_once('(')?.1.strip_suffix(')')?;
        Some((*name, root.join(path)))
    };
    let found: Option<Vec<_>> = names.iter().map(program).collect();
    found.ok_or_else(|| format!("cargo test --no-run: {text}"))
}

/// A machine that is thrown away.
struct Guest<'a> {
    kernel: &'a Path,
    image: &'a Path,
    memory_mb: &'a str,
    /// For the kernel, beside the usual ones.
    options: &'a str,
    /// Accelerator and processor, as options of QEMU.
    machine: &'a [&'a str],
}

/// Runs the guest to its end; returns what it wrote to its console.
fn boot(folder: &Path, guest: &Guest<'_>) -> Result<String, String> {
    let console = folder.join("console.txt");
    let output = fs::File::create(&console).map_err(|error| error.to_string())?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-smp", "1", "-m", guest.memory_mb, "-nodefaults"]).args(guest.machine);
    qemu.args(["-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio", "-kernel"]);
    qemu.arg(guest.kernel).arg("-initrd").arg(guest.image);
    qemu.arg("-append").arg(format!("{KERNEL_OPTIONS} {}", guest.options));
    let mut guest = qemu
        .stdin(Stdio::null())
        .stdout(output)
        .spawn()
        .map_err(|error| format!("qemu-system-x86_64: {error}"))?;
    let deadline = Instant::now() + BOOT_TIME_MAX;
    while guest.try_wait().map_err(|error| error.to_string())?.is_none() {
        if Instant::now() > deadline {
            guest.kill().and_then(|()| guest.wait()).map_err(|error| error.to_string())?;
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let bytes = fs::read(&console).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn run(command: &mut Command) -> Result<(), String> {
    crate::machine::run(command)
}

/// The guest's first script. It moves to a second root, because `pivot_root` cannot leave the
/// kernel's first one.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t tmpfs none /new
/bin/busybox cp -a /system/. /new/
exec /bin/busybox switch_root /new /init
";

const SYSTEM: &str = "\
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs tmp /tmp
busybox mount -t tmpfs run /run
busybox mount -t cgroup2 cgroup /sys/fs/cgroup
busybox ifconfig lo 127.0.0.1 up
busybox --install -s /bin
insmod /overlay.ko
insmod /loop.ko
/faas-host demo
echo \"demo: exit $?\"
for name in $(ls /tests); do
    OWN_MACHINE=1 PATH=/bin /tests/$name --test-threads=1
    echo \"$name: exit $?\"
done
find /sys/fs/cgroup -mindepth 2 -type d | sed 's/^/left behind: /'
busybox poweroff -f
";

/// `tsc_early_khz` sets the frequency of the clock. Without it, an emulated machine can wait for
/// its clock for ever.
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet reboot=t panic=-1 tsc_early_khz=2300000";
const EMULATED: [&str; 4] = ["-accel", "tcg", "-cpu", "max"];
const BOOT_TIME_MAX: Duration = Duration::from_secs(1500);
/// Kernel modules for roots of layers (overlay) and of images (loop).
const MODULES: [&str; 2] = ["overlay.ko", "loop.ko"];
/// Integration tests of `lambda-sandbox` by name. Tests that need Python are left out in the guest.
const TESTS: [&str; 18] = [
    "attacks",
    "bounds",
    "cgroups_rs",
    "conformance",
    "crash",
    "extras",
    "kernel_memory",
    "leaks",
    "limits",
    "linux",
    "living",
    "loopback",
    "own_machine",
    "paths",
    "refusals",
    "run",
    "soak",
    "spawn_path",
];
