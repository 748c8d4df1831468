//! Runs `lambda-vmm`'s tests with kernels, and `lambda-sandbox`'s and `lambda-host`'s with
//! machines, in a QEMU guest that emulates the virtualization of AMD's processors. QEMU counts
//! instructions: one "icount millisecond" is a million instructions plus waits, whatever else the
//! machine does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Guest, boot, kernel, module, pack, run};

/// Boots the guest and runs the tests whose name contains `name`. Returns whether all passed.
///
/// `VM_PARTS` names the test programs that are built and run (all without it): `kernels`,
/// `sandboxes`, `host`, `attacks`. `VM_CLONES` is the number of clones that tests make, and
/// `VM_KERNEL` the machines' kernel.
///
/// # Errors
///
/// A package, a kernel or a program cannot be installed, found, built or started.
pub(crate) fn check(root: &Path, name: &str) -> Result<bool, String> {
    run_tests(root, name, name.is_empty())
}

/// Runs a part of the tests that takes minutes, with the same gates: a cold start, clones of a
/// snapshot and of a function, machines that are made ahead, three functions of one customer in a
/// machine, cold, warm and frozen, and hosts with machines of both generations.
///
/// # Errors
///
/// As [`check`].
pub(crate) fn check_short(root: &Path) -> Result<bool, String> {
    run_tests(root, SHORT, true)
}

/// Returns whether the machine has what the tests need, so that nothing must be installed.
pub(crate) fn is_ready() -> bool {
    PROGRAMS.iter().all(|(program, _)| crate::machine::on_path(program))
}

fn run_tests(root: &Path, name: &str, has_gates: bool) -> Result<bool, String> {
    let folder = root.join("target/guest");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    super::install(&PROGRAMS)?;
    let kernel = kernel(&folder)?;
    let image = image(root, &folder, name)?;
    let guest = Guest {
        kernel: &kernel,
        image: &image,
        memory_mb: "2048",
        options: OPTIONS,
        machine: &COUNTED,
    };
    let output = boot(&folder, &guest)?;
    println!("{output}");
    let within = has_gates.then(|| GATES.iter().all(|gate| is_within(&output, *gate)));
    let demos: &[&str] = if has_demo(name) { &DEMOS } else { &[] };
    let mut parts = PARTS.iter().filter(|part| is_wanted(part)).chain(demos);
    let passed = parts.all(|part| output.contains(&format!("{part}: exit 0")));
    Ok(passed && within != Some(false))
}

/// Returns whether a test program is built and must pass: `VM_PARTS` names some, separated by
/// blanks.
fn is_wanted(part: &str) -> bool {
    std::env::var("VM_PARTS").map_or(true, |parts| parts.split(' ').any(|it| it == part))
}

/// Returns whether the demo of a host with machines runs, too: it takes long to build.
fn has_demo(name: &str) -> bool {
    name.is_empty() || name == "demo"
}

/// Returns whether the tests printed a figure of this name that is at most 2 % above the recorded
/// one. Prints what is wrong otherwise.
fn is_within(output: &str, (name, recorded): (&str, f64)) -> bool {
    let line = output.lines().find_map(|line| line.split_once(&format!("measured: {name} = ")));
    let figure = line.and_then(|(_, rest)| rest.split(' ').next()?.trim().parse::<f64>().ok());
    match figure {
        Some(figure) if figure <= recorded * 1.02 => true,
        Some(figure) => {
            println!("{name}: {figure}, and {recorded} was recorded");
            false
        }
        None => {
            println!("{name}: not measured");
            false
        }
    }
}

/// Recorded figures: exits, and milliseconds of a million instructions each. They hold for the
/// kernel in `../shared/vm`.
const GATES: [(&str, f64); 4] = [
    ("exits to the first process", 243.0),
    ("cold start", 178.0),
    ("restore of a prepared machine", 8.0),
    ("ping", 0.15),
];

/// Builds the initial file system: busybox, KVM's modules, the machine monitor and its tests as
/// static programs, and the kernel and root of the machines. Returns its path.
fn image(root: &Path, folder: &Path, name: &str) -> Result<PathBuf, String> {
    let build = folder.join("build");
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root).args(arguments).args(["--release", "--target", TARGET]);
        cargo.arg("--target-dir").arg(&build);
        cargo.env("VM_BED", "1").env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols");
        cargo
    };
    let monitor = ["build", "-p", "lambda-vmm", "--bin", "lambda-vmm", "--example", "init"];
    run(&mut cargo(&monitor))?;
    run(&mut cargo(&["build", "-p", "lambda-guest"]))?;
    run(&mut cargo(&["build", "-p", "lambda-sandbox", "--features", "vm", "--example", "hooks"]))?;
    if has_demo(name) {
        run(&mut cargo(&["build", "-p", "faas-host"]))?;
    }
    let tests = test_programs(root, cargo)?;
    let programs = build.join(TARGET).join("release");

    let outer = folder.join("vm-root");
    let tree = outer.join("system");
    let make = || -> std::io::Result<()> {
        drop(fs::remove_dir_all(&outer));
        for path in ["bin", "new"] {
            fs::create_dir_all(outer.join(path))?;
        }
        fs::copy("/usr/bin/busybox", outer.join("bin/busybox"))?;
        script(&outer.join("init"), super::INIT)?;
        for path in ["bin", "proc", "sys/fs/cgroup", "dev", "tmp", "run"] {
            fs::create_dir_all(tree.join(path))?;
        }
        for file in with_libraries("mkfs.erofs")? {
            let to = tree.join(file.strip_prefix("/").unwrap_or(&file));
            fs::create_dir_all(to.parent().unwrap_or(&tree))?;
            fs::copy(&file, to)?;
        }
        for name in MODULES {
            let found = module(&folder.join("kernel"), name);
            let found = found.ok_or_else(|| std::io::Error::other(format!("no {name}")))?;
            fs::copy(found, tree.join(name))?;
        }
        fs::copy("/usr/bin/busybox", tree.join("bin/busybox"))?;
        fs::copy(programs.join("lambda-vmm"), tree.join("lambda-vmm"))?;
        for (name, program) in &tests {
            fs::copy(program, tree.join(name))?;
        }
        if has_demo(name) {
            fs::copy(programs.join("faas-host"), tree.join("faas-host"))?;
        }
        programs_root(&tree.join("programs"), &programs.join("examples/hooks"))?;
        script(&tree.join("init"), &system(name))
    };
    make().map_err(|error| format!("{}: {error}", tree.display()))?;
    guest_kernel(root, &tree.join("vmlinux"))?;
    let test_guest = Some(("data", (0..=250).cycle().take(4_000_000).collect()));
    guest_root(folder, &programs.join("examples/init"), &tree.join("root.erofs"), test_guest)?;
    guest_root(folder, &programs.join("lambda-guest"), &tree.join("guest.erofs"), None)?;
    pack(&outer, folder.join("vm.cpio"))
}

/// Builds the test programs that are wanted. Returns their names in the guest, and their paths.
fn test_programs(
    root: &Path,
    cargo: impl Fn(&[&str]) -> Command,
) -> Result<Vec<(&'static str, PathBuf)>, String> {
    let sandbox = ["-p", "lambda-sandbox", "--features", "vm"];
    let sources: [(&str, &[&str], &str); 4] = [
        ("kernels", &["-p", "lambda-vmm"], "kernels"),
        ("sandboxes", &sandbox, "vm"),
        ("attacks", &sandbox, "attacks"),
        ("host", &["-p", "lambda-host"], "machines"),
    ];
    let mut tests = Vec::new();
    for (part, package, name) in sources.into_iter().filter(|(part, ..)| is_wanted(part)) {
        let output = cargo(&[&["test", "--no-run", "--test", name], package].concat()).output();
        let output = output.map_err(|error| format!("cargo: {error}"))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.contains(&format!("tests/{name}.rs (")));
        let test = line.and_then(|line| line.split_once('(')?.1.strip_suffix(')'));
        let test = test.map(|path| root.join(path));
        tests.push((part, test.ok_or_else(|| format!("cargo test --no-run: {text}"))?));
    }
    Ok(tests)
}

/// Returns the second script, which runs the tests whose name contains `name`.
fn system(name: &str) -> String {
    let clones = std::env::var("VM_CLONES").unwrap_or_else(|_| CLONES.to_owned());
    let plain = std::env::var_os("VM_PLAIN").map_or("", |_| "VM_PLAIN=1");
    let demo = if has_demo(name) { DEMO } else { "" };
    let script = SYSTEM.replace("NAME", name).replace("CLONES", &clones);
    script.replace("DEMO\n", demo).replace("PLAIN", plain)
}

pub(super) fn script(path: &Path, text: &str) -> std::io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Copies the machines' kernel: `VM_KERNEL`, or the one in `../shared/vm`.
fn guest_kernel(root: &Path, to: &Path) -> Result<(), String> {
    if let Some(path) = std::env::var_os("VM_KERNEL") {
        let copied = fs::copy(&path, to);
        return copied.map(drop).map_err(|error| format!("VM_KERNEL: {error}"));
    }
    let packed = root.join("../shared/vm/vmlinux-6.12.xz");
    let file = fs::File::create(to).map_err(|error| format!("{}: {error}", to.display()))?;
    run(Command::new("xz").args(["--decompress", "--stdout"]).arg(packed).stdout(file))
}

/// Makes a root image for machines, whose first process is `init`, with one more file.
fn guest_root(
    folder: &Path,
    init: &Path,
    to: &Path,
    file: Option<(&str, Vec<u8>)>,
) -> Result<(), String> {
    let tree = folder.join("vm-guest");
    let make = || -> std::io::Result<()> {
        drop(fs::remove_dir_all(&tree));
        for path in ["proc", "sys", "dev", "tmp", "run"] {
            fs::create_dir_all(tree.join(path))?;
        }
        fs::copy(init, tree.join("init"))?;
        file.map_or(Ok(()), |(name, content)| fs::write(tree.join(name), content))
    };
    make().map_err(|error| format!("{}: {error}", tree.display()))?;
    run(Command::new("mkfs.erofs").args(["-T0", "--quiet"]).arg(to).arg(&tree))
}

/// Makes the root that sandboxes have: busybox with its names, runtimes in its shell, and a
/// compiled one.
fn programs_root(tree: &Path, hooks: &Path) -> std::io::Result<()> {
    for path in ["bin", "proc", "dev", "mnt", "tmp"] {
        fs::create_dir_all(tree.join(path))?;
    }
    fs::copy("/usr/bin/busybox", tree.join("bin/busybox"))?;
    for name in ["cat", "head", "kill", "ls", "printf", "sed", "sh", "sleep", "tail", "tr", "uname"]
    {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(name))?;
    }
    for name in ["wc", "wget"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(name))?;
    }
    fs::copy(hooks, tree.join("hooks"))?;
    fs::write(tree.join("runtime"), RUNTIME)?;
    fs::write(tree.join("saved"), SAVED)
}

/// Returns the paths of a program and of its libraries.
fn with_libraries(program: &str) -> std::io::Result<Vec<PathBuf>> {
    let path = Path::new("/usr/bin").join(program);
    let listed = Command::new("ldd").arg(&path).output()?.stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(libraries.map(PathBuf::from).chain([path.clone()]).collect())
}

/// A runtime for the function of the conformance suite.
const RUNTIME: &str = r#"
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
while :; do
    wget -q -S -O /tmp/event $api/next 2>/tmp/head || exit 9
    id=$(sed -n 's/.*aws-request-id: //Ip' /tmp/head | tr -d '\r')
    case "$(cat /tmp/event)" in
    *raise*) wget -q -O /dev/null --header 'Lambda-Runtime-Function-Error-Type: Unhandled' \
        --post-data '{"errorType":"Asked","errorMessage":"asked for"}' $api/$id/error ;;
    *exit*) exit 7 ;;
    *sleep*) sleep 60 ;;
    *eat*) tail /dev/zero; exit 8 ;;
    *) wget -q -O /dev/null --post-file /tmp/event $api/$id/response ;;
    esac
done
"#;

/// A runtime with a hook after the restore of a snapshot. It answers with random bytes of its init
/// and of its hook, and with the time in its hook and now.
const SAVED: &str = r#"
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime
random() { head -c 16 /dev/urandom | /bin/busybox hexdump -v -e '1/1 "%02x"'; }
echo "its init runs"
before=$(random)
wget -q -O /dev/null $api/restore/next || exit 8
hook="\"$(random)\", $(/bin/busybox date +%s)"
while :; do
    wget -q -S -O /dev/null $api/invocation/next 2>/tmp/head || exit 9
    id=$(sed -n 's/.*aws-request-id: //Ip' /tmp/head | tr -d '\r')
    wget -q -O /dev/null --post-data "[\"$before\", $hook, $(/bin/busybox date +%s)]" \
        $api/invocation/$id/response
done
"#;

/// The second script, which runs in a root that can be left: sandboxes change theirs.
const SYSTEM: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t tmpfs run /run
/bin/busybox mount -t cgroup2 cgroup /sys/fs/cgroup
for module in irqbypass kvm kvm-amd; do /bin/busybox insmod /$module.ko; done
echo \"bed: up after $(/bin/busybox cut -d' ' -f1 /proc/uptime) s\"
if [ -e /kernels ]; then
LAMBDA_VMM=/lambda-vmm VM_KERNEL=/vmlinux VM_ROOT=/root.erofs VM_CLONE_COUNT=CLONES \\
    /kernels --ignored --test-threads=1 --nocapture NAME
echo \"kernels: exit $?\"
fi
if [ -e /sandboxes ]; then
PATH=/usr/bin LAMBDA_VMM=/lambda-vmm VM_KERNEL=/vmlinux VM_GUEST=/guest.erofs VM_PROGRAMS=/programs PLAIN \\
    /sandboxes --ignored --test-threads=1 --nocapture NAME
echo \"sandboxes: exit $?\"
fi
if [ -e /host ]; then
PATH=/usr/bin LAMBDA_VMM=/lambda-vmm VM_KERNEL=/vmlinux VM_GUEST=/guest.erofs \\
    /host --ignored --test-threads=1 --nocapture NAME
echo \"host: exit $?\"
fi
if [ -e /attacks ]; then
PATH=/usr/bin LAMBDA_VMM=/lambda-vmm VM_KERNEL=/vmlinux VM_GUEST=/guest.erofs \\
    /attacks --ignored --test-threads=1 --nocapture NAME
echo \"attacks: exit $?\"
fi
DEMO
echo \"bed: done after $(/bin/busybox cut -d' ' -f1 /proc/uptime) s\"
/bin/busybox poweroff -f
";

/// The demo of a host with machines of both generations.
const DEMO: &str = "\
/bin/busybox ifconfig lo 127.0.0.1 up
for generation in 2 1; do
    PATH=/usr/bin /faas-host demo --backend vm --vm-kernel /vmlinux --vm-guest /guest.erofs \\
        --vm-monitor /lambda-vmm --vm-images /tmp/images --vm-generation $generation
    echo \"demo of generation $generation: exit $?\"
done
";
const DEMOS: [&str; 2] = ["demo of generation 2", "demo of generation 1"];

/// The processor's frequency, in which it counts instructions.
///
/// The timer ticks periodically: QEMU's emulated virtualization loses an interrupt at times, and a
/// kernel that waits for its one armed timer then stands still for ever.
const OPTIONS: &str = "tsc_early_khz=1000000 lapic=notscdeadline nohz=off highres=off";
/// Programs that the tests need, with their packages.
const PROGRAMS: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("mkfs.erofs", "erofs-utils"),
    ("xz", "xz-utils"),
];
/// Test programs, as they are named in the guest.
const PARTS: [&str; 4] = ["kernels", "sandboxes", "host", "attacks"];
const SHORT: &str = "a_kernel_boots clones_of_a three_sandboxes a_host_runs restored_machines";
/// How many clones are made of a snapshot, unless `VM_CLONES` says otherwise.
const CLONES: &str = "4";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// A processor of a million instructions in each millisecond, with emulated virtualization.
const COUNTED: [&str; 6] = ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max,+svm"];
const MODULES: [&str; 3] = ["irqbypass.ko", "kvm.ko", "kvm-amd.ko"];
