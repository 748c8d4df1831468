//! Runs `lambda-network`'s tests of other implementations in a QEMU guest with Debian's own kernel,
//! which has WireGuard.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Guest, boot, install, kernel, pack, run};

/// Boots the guest and runs the tests. Returns whether all passed and none was left out.
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
        ("depmod", "kmod"),
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("wg", "wireguard-tools"),
    ])?;
    let kernel = kernel(&folder)?;
    let image = image(root, &folder)?;
    let guest = Guest {
        kernel: &kernel,
        image: &image,
        memory_mb: "2048",
        options: "",
        machine: &super::EMULATED,
    };
    let output = boot(&folder, &guest)?;
    println!("{output}");
    // The tests print this if the kernel has no WireGuard.
    let was_there = !output.contains("runs in the guest of the long run");
    Ok(output.contains("network: exit 0") && was_there)
}

/// Builds the initial file system: the test, the programs that it calls, busybox, and the kernel's
/// modules. Returns the path of the image.
fn image(root: &Path, folder: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["test", "--no-run", "-p", "lambda-network", "--all-features"]);
    let output = cargo.args(["--test", "network"]).output();
    let output = output.map_err(|error| format!("cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("tests/network/main.rs ("));
    let test = line.and_then(|line| line.split_once('(')?.1.strip_suffix(')'));
    let test = root.join(test.ok_or_else(|| format!("cargo test --no-run: {text}"))?);
    let outer = folder.join("network");
    let tree = outer.join("system");
    let make = || -> std::io::Result<()> {
        drop(fs::remove_dir_all(&outer));
        for path in ["bin", "new", "system/usr/bin", "system/usr/sbin", "system/sbin"] {
            fs::create_dir_all(outer.join(path))?;
        }
        for path in ["proc", "sys", "dev", "tmp", "run", "bin", "lib/modules"] {
            fs::create_dir_all(tree.join(path))?;
        }
        for path in [outer.join("bin/busybox"), tree.join("bin/busybox")] {
            fs::copy("/usr/bin/busybox", path)?;
        }
        for name in PROGRAMS {
            let path = crate::machine::find(name);
            let path = path.ok_or_else(|| std::io::Error::other(format!("no program {name}")))?;
            fs::copy(&path, tree.join("usr/sbin").join(name))?;
            libraries(&path, &tree)?;
        }
        symlink("../usr/sbin/kmod", tree.join("sbin/modprobe"))?;
        fs::copy(&test, tree.join("network"))?;
        libraries(&test, &tree)?;
        super::vm::script(&outer.join("init"), super::INIT)?;
        super::vm::script(&tree.join("init"), SYSTEM)
    };
    make().map_err(|error| format!("{}: {error}", tree.display()))?;
    let modules = folder.join("kernel/lib/modules");
    let versions = fs::read_dir(&modules).map_err(|error| error.to_string())?.flatten();
    let version = versions.map(|it| it.file_name()).next().ok_or("the kernel has no modules")?;
    let (from, to) = (modules.join(&version).join("kernel"), tree.join("lib/modules"));
    let to = to.join(&version);
    for part in MODULES {
        let into = to.join("kernel").join(part);
        let above = into.parent().unwrap_or(&into).to_path_buf();
        fs::create_dir_all(&above).map_err(|error| error.to_string())?;
        run(Command::new("cp").arg("-a").arg(from.join(part)).arg(above))?;
    }
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        let copied = fs::copy(modules.join(&version).join(name), to.join(name));
        copied.map_err(|error| format!("{name}: {error}"))?;
    }
    run(Command::new("depmod").arg("-b").arg(&tree).arg(&version))?;
    pack(&outer, folder.join("network.cpio"))
}

/// Copies the libraries of a program.
fn libraries(program: &Path, tree: &Path) -> std::io::Result<()> {
    let listed = Command::new("ldd").arg(program).output()?.stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = tree.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(tree))?;
        fs::copy(library, to)?;
    }
    Ok(())
}

/// What the tests and the kernel call.
const PROGRAMS: [&str; 5] = ["ip", "nft", "ss", "wg", "kmod"];
/// Folders of modules: of networks, and of their ciphers.
const MODULES: [&str; 5] = ["net", "drivers/net", "crypto", "lib", "arch/x86/crypto"];
const SYSTEM: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t tmpfs run /run
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/bin
ip link set lo up
modprobe tun
modprobe wireguard
/network --test-threads=1 --nocapture others::
echo \"network: exit $?\"
/bin/busybox poweroff -f
";
