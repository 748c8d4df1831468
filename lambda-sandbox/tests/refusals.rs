//! Invalid input and unsuitable machines: the error names the step, the path and the cause, and
//! nothing is left.
//!
//! One test counts what belongs to the whole process, so it has a process of its own. A kernel that
//! lacks a feature is simulated: this program runs itself behind a filter that answers the system
//! call with an error.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;
mod counted;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::shell;
use counted::Counted;
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{
    Backend, Error, Exit, Interface, Link, Network, Root, SandboxSpec, SmallFile,
};

/// Makes and runs a sandbox. Succeeds only if the program succeeded.
async fn run(backend: &LinuxBackend, spec: SandboxSpec) -> Result<(), Error> {
    let finished = backend.create(spec).await?.run().await?;
    assert_eq!(finished.exit, Exit::Status(0), "{finished:?}");
    Ok(())
}

/// Returns the step, the path and the cause that an error names.
fn named(error: &Error) -> (String, Option<PathBuf>, Option<i32>) {
    match error {
        Error::Failed { step, path, source, .. } => {
            ((*step).to_owned(), path.clone(), source.raw_os_error())
        }
        Error::Invalid { setting, .. } => ((*setting).to_owned(), None, None),
        other => panic!("{other:?}"),
    }
}

type Wanted = (&'static str, Option<PathBuf>, Option<i32>);

fn failed(step: &'static str, path: impl Into<PathBuf>, errno: i32) -> Wanted {
    (step, Some(path.into()), Some(errno))
}

fn invalid(setting: &'static str) -> Wanted {
    (setting, None, None)
}

/// Specifications with which no sandbox can be made or run, and what the error must name.
fn broken(folder: &Path) -> Vec<(SandboxSpec, Wanted)> {
    let stage = |inside: &str| Path::new("/run/lambda-sandbox/stage").join(inside);
    let rooted = |directory: PathBuf| {
        let mut spec = shell("exit 0");
        spec.root = Root { directory: Some(directory), ..Root::default() };
        spec
    };
    let file = folder.join("file");
    std::fs::write(&file, "#!/not/there\n").expect("written");
    let garbage = folder.join("garbage");
    std::fs::write(&garbage, [0x7f; 64]).expect("written");
    for (file, mode) in [(&file, 0o755), (&garbage, 0o755)] {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).expect("set");
    }
    let bare = folder.join("bare");
    std::fs::create_dir(&bare).expect("made");
    let mut broken = vec![
        (rooted("/not/there".into()), failed("looking for the root", "/not/there", libc::ENOENT)),
        (rooted(file.clone()), failed("showing a file or folder", &file, libc::ENOTDIR)),
        (rooted(bare), failed("looking where a path inside leads", stage("dev"), libc::ENOENT)),
    ];
    for (path, errno) in [
        ("/bin/not-there", libc::ENOENT),
        ("/usr", libc::EACCES),
        ("/etc/passwd", libc::EACCES),
        ("/script", libc::ENOENT),
        ("/garbage", libc::ENOEXEC),
    ] {
        let mut spec = shell("");
        spec.root = spec.root.with_bind(&file, "/script").with_bind(&garbage, "/garbage");
        spec.command = vec![path.into()];
        broken.push((spec, failed("starting the program", path, errno)));
    }
    let mut set = |wanted: Wanted, change: &dyn Fn(&mut SandboxSpec)| {
        let mut spec = shell("exit 0");
        change(&mut spec);
        broken.push((spec, wanted));
    };
    set(failed("going to the working directory", "/not/there", libc::ENOENT), &|spec| {
        spec.working_directory = "/not/there".into();
    });
    set(failed("looking for what the root shows", "/not/there", libc::ENOENT), &|spec| {
        spec.root = std::mem::take(&mut spec.root).with_bind("/not/there", "/opt");
    });
    for cpus in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        set(invalid("limits.cpus"), &|spec| spec.limits.cpus = cpus);
    }
    set(invalid("limits.memory_bytes"), &|spec| spec.limits.memory_bytes = 0);
    set(invalid("limits.memory_bytes or limits.scratch_bytes"), &|spec| {
        spec.limits.memory_bytes = u64::MAX;
    });
    set(invalid("limits.memory_bytes or limits.scratch_bytes"), &|spec| {
        spec.limits.scratch_bytes = u64::MAX;
    });
    set(invalid("limits.processes_max"), &|spec| spec.limits.processes_max = 0);
    set(invalid("limits.files_max"), &|spec| spec.limits.files_max = 0);
    set(invalid("limits.scratch_files_max"), &|spec| spec.limits.scratch_files_max = u64::MAX);
    set(invalid("environment"), &|spec| {
        spec.environment = (0..100_000).map(|i| (format!("V{i}").into(), "x".into())).collect();
    });
    set(("starting the sandbox's init", None, Some(libc::E2BIG)), &|spec| {
        spec.command.extend((0..100_000).map(|_| "x".repeat(100).into()));
    });
    broken.extend(odd_paths(folder));
    broken.extend(NOT_CARRIED_OUT.iter().map(|(setting, change)| {
        let mut spec = shell("exit 0");
        change(&mut spec);
        (spec, invalid(setting))
    }));
    broken
}

/// Paths that are valid in a specification but not on the machine.
fn odd_paths(folder: &Path) -> Vec<(SandboxSpec, Wanted)> {
    let mut odd = Vec::new();
    let mut set = |wanted: Wanted, change: &dyn Fn(&mut SandboxSpec)| {
        let mut spec = shell("exit 0");
        change(&mut spec);
        odd.push((spec, wanted));
    };
    // A path of PATH_MAX is too long after the mount point of the root.
    let long: PathBuf = format!("/{}", "a/".repeat(2047)).into();
    let name = Path::new("/").join("n".repeat(256));
    set(failed("looking for the root", &long, libc::ENOENT), &|spec| {
        spec.root = Root::of_directory(&long);
    });
    set(failed("looking for the root", &name, libc::ENAMETOOLONG), &|spec| {
        spec.root = Root::of_directory(&name);
    });
    set(failed("looking for what the root shows", &name, libc::ENAMETOOLONG), &|spec| {
        spec.root.binds[0].source.clone_from(&name);
    });
    set(failed("going to the working directory", &name, libc::ENAMETOOLONG), &|spec| {
        spec.working_directory.clone_from(&name);
    });
    let stage = Path::new("/run/lambda-sandbox/stage");
    set(
        failed("making a folder", stage.join(&name.to_string_lossy()[1..]), libc::ENAMETOOLONG),
        &|spec| {
            spec.root = std::mem::take(&mut spec.root).with_bind("/usr", name.join("x"));
        },
    );
    let round = folder.join("round");
    std::os::unix::fs::symlink(&round, &round).expect("linked");
    set(failed("looking for the root", &round, libc::ELOOP), &|spec| {
        spec.root = Root::of_directory(&round);
    });
    set(failed("looking for a layer", &round, libc::ELOOP), &|spec| {
        spec.root = Root::of_layers([&round]);
    });
    set(failed("opening the root's image", &round, libc::ELOOP), &|spec| {
        spec.root = Root::of_image(&round);
    });
    set(failed("mounting", stage, libc::ELOOP), &|spec| {
        spec.root = Root::of_layers(["/usr", "/usr"]);
    });
    // Two mounts at one place: the later one is visible. A file cannot be mounted on a folder, nor
    // the reverse.
    let file = folder.join("file");
    set(failed("showing a file or folder", &file, libc::ENOTDIR), &|spec| {
        spec.root = Root::of_machine().with_bind("/usr", "/opt").with_bind(&file, "/opt");
    });
    set(failed("writing a file", stage.join("great"), libc::ENOSPC), &|spec| {
        let content = vec![1; 5 << 20];
        spec.root.files.push(SmallFile::new("/great", content));
    });
    set(failed("writing a file", stage.join("twice"), libc::EEXIST), &|spec| {
        for _ in 0..2 {
            spec.root.files.push(SmallFile::new("/twice", ""));
        }
    });
    odd
}

type Change = fn(&mut SandboxSpec);

/// Specifications that are refused without access to the machine.
const NOT_CARRIED_OUT: &[(&str, Change)] = &[
    ("command", |spec| spec.command.clear()),
    ("command", |spec| spec.command = vec!["./sh".into()]),
    ("command", |spec| spec.command = vec!["".into()]),
    ("command", |spec| {
        spec.command = vec!["sh".into()];
        spec.environment.clear();
    }),
    ("command", |spec| spec.command.push("a\0b".into())),
    ("command", |spec| spec.command[0] = "/a\0b".into()),
    ("environment", |spec| spec.environment.push(("a\0b".into(), "c".into()))),
    ("environment", |spec| spec.environment.push(("a".into(), "b\0c".into()))),
    ("environment", |spec| spec.environment.push(("a=b".into(), "c".into()))),
    ("environment", |spec| spec.environment.push(("".into(), "c".into()))),
    ("environment", |spec| spec.environment.push(("a".into(), "b".repeat(1 << 20).into()))),
    ("working_directory", |spec| spec.working_directory = "tmp".into()),
    ("working_directory", |spec| spec.working_directory = "/a/../..".into()),
    ("working_directory", |spec| spec.working_directory = "/tmp\0".into()),
    ("working_directory", |spec| spec.working_directory = "/a".repeat(2048).into()),
    ("root", |spec| spec.root = Root { directory: Some("/".into()), ..Root::of_layers(["/usr"]) }),
    ("root", |spec| spec.root.binds = vec![spec.root.binds[0].clone(); 5000]),
    ("root.directory", |spec| spec.root = Root::of_directory("usr")),
    ("root.directory", |spec| spec.root = Root::of_directory("/usr\0")),
    ("root.directory", |spec| spec.root = Root::of_directory("/a".repeat(2048))),
    ("root.layers", |spec| spec.root = Root::of_layers(["usr"])),
    ("root.layers", |spec| spec.root = Root::of_layers(["/usr"; 33])),
    ("root.layers", |spec| spec.root = Root::of_layers(["/usr", "/usr\0"])),
    ("root.image", |spec| spec.root = Root::of_image("image")),
    ("root.image", |spec| spec.root = Root::of_image("/image\0")),
    ("root.image", |spec| spec.root = Root::of_image("/bin/true")),
    ("root.binds.source", |spec| spec.root.binds[0].source = "usr".into()),
    ("root.binds.source", |spec| spec.root.binds[0].source = "/usr\0".into()),
    ("root.binds.target", |spec| spec.root.binds[0].target = "usr".into()),
    ("root.binds.target", |spec| spec.root.binds[0].target = "/usr\0".into()),
    ("root.binds.target", |spec| spec.root.binds[0].target = "/usr/../..".into()),
    ("root.binds.target", |spec| spec.root.binds[0].target = "/".into()),
    ("root.binds.target", |spec| spec.root.binds[0].target = "/proc/sys".into()),
    ("root.binds.target", |spec| spec.root.binds[0].target = "/tmp/x".into()),
    ("root.links", |spec| spec.root.links.push(link("/a/../../../etc/x", "y"))),
    ("root.links", |spec| spec.root.links.push(link("a", "y"))),
    ("root.links", |spec| spec.root.links.push(link("/a\0", "y"))),
    ("root.links", |spec| spec.root.links.push(link("/a", "y\0"))),
    ("root.links", |spec| spec.root.links.push(link("/dev/sda", "y"))),
    ("root.links", |spec| spec.root.links.push(link("/usr/a", "y"))),
    ("root.links", |spec| spec.root.links.extend([link("/a", "/etc"), link("/a/b", "y")])),
    ("root.links", |spec| {
        spec.root = Root { links: vec![link("/a", "b")], ..Root::of_directory("/") };
    }),
    ("root.files", |spec| spec.root.files[0].path = "/../../../etc/x".into()),
    ("root.files", |spec| spec.root.files[0].path = "/a\0".into()),
    ("root.files", |spec| spec.root.files[0].path = "/usr/a".into()),
    ("root.files", |spec| {
        spec.root.links.push(link("/a", "/etc"));
        spec.root.files[0].path = "/a/b".into();
    }),
    ("network.name", |spec| spec.network = interface("a\0")),
    ("network.name", |spec| spec.network = interface("a\n")),
    ("times.init", |spec| spec.times.init = Duration::MAX),
    ("times.settle", |spec| spec.times.settle = Duration::MAX),
    ("times.shutdown_runtime", |spec| spec.times.shutdown_runtime = Duration::MAX),
    ("times.shutdown_internal", |spec| spec.times.shutdown_internal = Duration::MAX),
    ("times.shutdown_external", |spec| spec.times.shutdown_external = Duration::MAX),
];

fn link(path: &str, points_to: &str) -> Link {
    Link { path: path.into(), points_to: points_to.into() }
}

fn interface(name: &str) -> Network {
    let address = std::net::IpAddr::from([10, 0, 0, 1]);
    Network::Interface(Interface { name: name.into(), address, prefix_length: 24, gateway: None })
}

/// Unusual limits that are accepted.
fn odd() -> Vec<SandboxSpec> {
    let with = |change: fn(&mut SandboxSpec)| {
        let mut spec = shell("exit 0");
        change(&mut spec);
        spec
    };
    vec![
        with(|spec| spec.limits.memory_bytes = 1 << 50),
        with(|spec| spec.limits.cpus = 1e6),
        with(|spec| spec.limits.cpus = f64::MAX),
        with(|spec| spec.limits.processes_max = u32::MAX),
        with(|spec| spec.limits.files_max = u64::MAX),
        with(|spec| spec.limits.scratch_bytes = i64::MAX.unsigned_abs()),
        with(|spec| (spec.limits.scratch_bytes, spec.limits.scratch_files_max) = (0, 0)),
        with(|spec| spec.limits.payload_bytes_max = 0),
        with(|spec| spec.limits.payload_bytes_max = usize::MAX),
        with(|spec| spec.function = "a\nb\0c/..".into()),
        with(|spec| spec.environment.push(("a\nb".into(), "c\n".into()))),
        with(|spec| {
            // The same mount many times.
            let same = spec.root.binds[0].clone();
            spec.root.binds.extend(vec![same; 5]);
        }),
        with(|spec| spec.times.init = lambda_sandbox::TIME_MAX),
        with(|spec| spec.times.shutdown_external = Duration::ZERO),
    ]
}

/// Roots with unusual names that are accepted: a link, and names with a line feed, a colon and a
/// comma.
fn odd_roots(folder: &Path) -> Vec<SandboxSpec> {
    let name = folder.join("a\nb:c,d\\e \u{fffd}");
    for inside in ["usr", "proc", "dev", "tmp"] {
        std::fs::create_dir_all(name.join(inside)).expect("made");
    }
    for (link, points_to) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::os::unix::fs::symlink(points_to, name.join(link)).expect("linked");
    }
    let link = folder.join("link");
    std::os::unix::fs::symlink(&name, &link).expect("linked");
    let program = |root: Root, test: &str| {
        let mut spec = shell(test);
        spec.root = root.with_bind("/usr", "/usr");
        spec
    };
    vec![
        program(Root::of_directory(&name), "exit 0"),
        program(Root::of_directory(&link), "exit 0"),
        program(Root::of_layers([&link]), "exit 0"),
        program(
            Root { binds: Root::of_machine().binds, ..Root::of_machine() }
                .with_bind(&link, "/a\nb"),
            "[ -d '/a\nb/usr' ]",
        ),
    ]
}

fn backend() -> Option<LinuxBackend> {
    common::backend("refusals")
}

#[test]
fn bad_input_is_told_by_step_path_and_cause_and_leaves_nothing() {
    counted::runtime().block_on(bad_input());
}

async fn bad_input() {
    let Some(backend) = backend() else { return };
    if std::env::var_os("WITHOUT").is_some() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("refusals-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("made");
    run(&backend, shell("exit 0")).await.expect("runs");
    let before = Counted::settled(Some(&backend)).await;
    let mut wrong = Vec::new();
    for (spec, wanted) in broken(&folder) {
        let told = match run(&backend, spec).await {
            Ok(()) => None,
            Err(error) => Some(named(&error)),
        };
        let wanted = (wanted.0.to_owned(), wanted.1, wanted.2);
        if told.as_ref() != Some(&wanted) {
            wrong.push(format!("{told:?} instead of {wanted:?}"));
        }
    }
    for spec in odd().into_iter().chain(odd_roots(&folder)) {
        let told = format!("{spec:?}");
        if let Err(error) = run(&backend, spec).await {
            wrong.push(format!("{error:?} of {told}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    full_groups(&backend).await;
    backend.sweep().await.expect("swept");
    assert_eq!(before.again(Some(&backend)).await, before);
    std::fs::remove_dir_all(folder).expect("removed");

    for lack in LACKS {
        let wanted = format!("{}|{}|{}|nothing left", lack.step(), lack.path, lack.errno);
        let told = without(lack.name);
        if told != wanted {
            wrong.push(format!("{told} instead of {wanted} without {}", lack.name));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// A host whose group may have no more child groups, as if the machine's limit were used up.
async fn full_groups(backend: &LinuxBackend) {
    // A kept group would serve without a new one.
    backend.sweep().await.expect("swept");
    let held = backend.create(shell("exit 0")).await.expect("created");
    let most = (backend.groups().iter())
        .filter_map(|group| Some(group.parent()?.join("cgroup.max.descendants")))
        .find(|file| file.exists());
    let Some(most) = most else {
        test_support::left_out("a full cgroup file system", "no cgroup2 here");
        return;
    };
    std::fs::write(&most, "1").expect("set");
    let error = backend.create(shell("exit 0")).await.expect_err("full");
    let (step, path, errno) = named(&error);
    assert_eq!((step.as_str(), errno), ("making a control group", Some(libc::EAGAIN)));
    assert_eq!(path.as_deref().and_then(Path::parent), most.parent());
    held.destroy().await.expect("destroyed");
    std::fs::write(&most, "max").expect("set");
    run(backend, shell("exit 0")).await.expect("runs again");
}

/// A kernel that lacks a feature, and the expected report.
struct Lack {
    name: &'static str,
    call: libc::c_long,
    /// The call fails only if its first argument has one of these bits; 0 means always.
    bits: u32,
    errno: i32,
    step: &'static str,
    path: &'static str,
}

impl Lack {
    /// Returns the step that fails. A root of several binds is a copy of one without its last bind;
    /// a root of one bind is not, as on a machine whose programs all lie below `/usr`.
    fn step(&self) -> &'static str {
        let copied = Root::of_machine().binds.len() > 1;
        if self.name == "setns" && !copied { "entering the network namespace" } else { self.step }
    }
}

macro_rules! lacks {
    ($($name:literal $call:ident $bits:expr, $errno:ident => $step:literal $path:literal;)*) => {
        &[$(Lack {
            name: $name,
            call: libc::$call,
            bits: { let bits: i32 = $bits; bits.cast_unsigned() },
            errno: libc::$errno,
            step: $step,
            path: $path,
        }),*]
    };
}

const LACKS: &[Lack] = lacks! {
    "clone3" SYS_clone3 0, ENOSYS => "making a process" "";
    "memory files" SYS_memfd_create 0, ENOSYS => "making a file in memory" "";
    "network namespaces" SYS_unshare libc::CLONE_NEWNET, EINVAL => "making a network namespace" "";
    "ipc namespaces" SYS_unshare libc::CLONE_NEWIPC, EINVAL => "making an ipc namespace" "";
    "cgroup namespaces" SYS_unshare libc::CLONE_NEWCGROUP, EINVAL => "making a cgroup namespace" "";
    "user namespaces" SYS_clone libc::CLONE_NEWUSER, EINVAL => "making a user namespace" "";
    "user namespaces left" SYS_clone libc::CLONE_NEWUSER, ENOSPC => "making a user namespace" "";
    "setns" SYS_setns 0, ENOSYS => "taking a copy of the mounted root" "";
    "mounts" SYS_mount 0, EPERM => "making mounts private" "";
    "open_tree" SYS_open_tree 0, ENOSYS => "showing a file or folder" "/usr";
    "mount_setattr" SYS_mount_setattr 0, ENOSYS => "showing a file or folder" "/usr";
    "move_mount" SYS_move_mount 0, ENOSYS => "showing a file or folder" "/usr";
    "fsopen" SYS_fsopen 0, ENOSYS => "mounting" "/proc";
    "openat2" SYS_openat2 0, ENOSYS => "mounting" "/run/lambda-sandbox/stage";
    "pivot_root" SYS_pivot_root 0, ENOSYS => "changing the root" "/run/lambda-sandbox/stage";
    "close_range" SYS_close_range 0, ENOSYS => "making a table of descriptors" "";
    "execveat" SYS_execveat 0, ENOSYS => "starting the sandbox's init" "";
    "seccomp" SYS_seccomp 0, ENOSYS => "loading the system call filter" "";
    "capset" SYS_capset 0, EPERM => "dropping capabilities" "";
    // A failure so early that the start command was already sent, which must not hide the failure.
    "a user's ids" SYS_setresuid 0, EPERM => "becoming nobody" "";
    "keyrings" SYS_keyctl 0, ENOSYS => "none" "";
    "pidfd_send_signal" SYS_pidfd_send_signal 0, ENOSYS => "none" "";
};

/// Runs this program as a host on a kernel that lacks `name`. Returns its output.
fn without(name: &str) -> String {
    let me = std::env::current_exe().expect("a path");
    let mut host = Command::new(me);
    host.args(["--exact", "lacking", "--nocapture", "--test-threads=1"]).env("WITHOUT", name);
    let output = host.output().expect("started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = text.split_once("told|").and_then(|(_, rest)| rest.lines().next());
    if told.is_some_and(|told| told.ends_with("something left")) {
        let said = String::from_utf8_lossy(&output.stderr);
        writeln!(std::io::stderr(), "without {name}: {said}").expect("written");
    }
    told.map_or_else(|| format!("{output:?}"), str::to_owned)
}

/// The host on the restricted kernel: tries a sandbox, and prints the error and what is left.
#[test]
fn lacking() {
    let Ok(name) = std::env::var("WITHOUT") else {
        return;
    };
    let lack = LACKS.iter().find(|lack| lack.name == name).expect("a name from the list");
    filter(lack);
    let (result, left) = counted::runtime().block_on(async {
        let before = Counted::now(None);
        let backend = match LinuxBackend::new() {
            Ok(backend) => backend,
            Err(error) => return (Err(error), before.again(None).await == before),
        };
        let before = Counted::settled(Some(&backend)).await;
        let mut result = run(&backend, shell("exit 0")).await;
        // Several times: leaks would add up.
        for _ in 0..5 {
            result = run(&backend, shell("exit 0")).await;
        }
        let after = before.again(Some(&backend)).await;
        if after != before {
            writeln!(std::io::stderr(), "before: {before:?}\nafter: {after:?}").expect("written");
        }
        (result, after == before)
    });
    let (step, path, errno) = match &result {
        Ok(()) => ("none".to_owned(), None, Some(lack.errno)),
        Err(error) => named(error),
    };
    let path = path.unwrap_or_default();
    let (path, errno) = (path.display(), errno.unwrap_or_default());
    let left = if left { "nothing left" } else { "something left" };
    writeln!(std::io::stdout(), "told|{step}|{path}|{errno}|{left}").expect("written");
}

/// Makes a system call fail for this thread and everything that it starts.
fn filter(lack: &Lack) {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FIRST_ARGUMENT: u32 = 16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = u32::try_from(lack.call).expect("a number");
    let refuse = libc::SECCOMP_RET_ERRNO | lack.errno.cast_unsigned();
    // Without bits, any argument matches.
    let look = if lack.bits == 0 { line(0x35, 0, 1, 0) } else { line(ANY_BIT, 0, 1, lack.bits) };
    let mut program = [
        line(LOAD, 0, 0, 0),
        line(EQUAL, 0, 3, number),
        line(LOAD, 0, 0, FIRST_ARGUMENT),
        look,
        line(RETURN, 0, 0, refuse),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let length = u16::try_from(program.len()).expect("short");
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: PR_SET_SECCOMP reads the program, which lives for the call with as many lines as it
    // says.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
