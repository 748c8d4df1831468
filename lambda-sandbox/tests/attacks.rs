//! Attacks from inside a sandbox: each must be refused there. Those that are harmless are also tried on the plain
//! host, where they must get through: a probe that is refused everywhere shows nothing.
//!
//! The test program runs itself inside the sandbox, with the one test `inside`, which prints what got through.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

mod common;
mod unprivileged;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::time::Duration;

use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::process::ProcessBackend;
use lambda_sandbox::{Backend, Defence, Root, SandboxSpec};

use self::unprivileged::With;

struct Probe {
    name: &'static str,
    /// Tried on the host too, where it must get through. Not for what breaks the host, and not for what some
    /// kernels are built without.
    works_outside: bool,
    /// Returns whether the attack got through.
    attack: fn() -> bool,
}

fn call(number: libc::c_long, a: [usize; 5]) -> libc::c_long {
    // SAFETY: the probes below pass numbers, null pointers, or addresses of live memory of theirs.
    unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) }
}

fn text(text: &CStr) -> usize {
    text.as_ptr().addr()
}

/// Runs `attack` in a process of its own, so that what it changes or breaks is that one's; says whether it
/// ended with success.
fn apart(attack: fn() -> bool) -> bool {
    // SAFETY: the child makes system calls only, and ends without returning.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let through = attack();
        call(libc::SYS_exit_group, [usize::from(!through), 0, 0, 0, 0]);
    }
    let mut status = 0;
    // SAFETY: `status` lives for the call; `child` is our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

fn can_write(path: &str) -> bool {
    std::fs::OpenOptions::new().write(true).open(path).is_ok()
}

fn can_read(path: &str) -> bool {
    use std::io::Read as _;
    let mut byte = [0];
    std::fs::File::open(path).and_then(|mut file| file.read(&mut byte)).is_ok_and(|read| read > 0)
}

fn can_make_socket(family: i32, kind: i32, protocol: i32) -> bool {
    let [family, kind, protocol] = [family, kind, protocol].map(|number| number as usize);
    call(libc::SYS_socket, [family, kind, protocol, 0, 0]) >= 0
}

fn has_entries(folder: &str) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Returns whether a control group's own file system is there, or a file of limits can be written.
fn has_control_groups(folder: &str) -> bool {
    const MAGIC: [i64; 2] = [0x0027_E0EB, 0x6367_7270];
    let of = |path: &std::path::Path| {
        nix::sys::statfs::statfs(path).is_ok_and(|it| MAGIC.contains(&it.filesystem_type().0))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = entries
        .map(|entry| entry.path())
        .any(|path| of(&path) || std::fs::OpenOptions::new().write(true).open(path).is_ok());
    of(folder.as_ref()) || below
}

/// Returns whether the number of groups of any controller is told.
fn counts_control_groups() -> bool {
    let text = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().nth(2)).any(|count| count != "1")
}

fn unshare(flag: i32) -> bool {
    call(libc::SYS_unshare, [flag as usize, 0, 0, 0, 0]) == 0
}

fn old_system_call() -> bool {
    let result: i64;
    // SAFETY: getpid by the 32-bit entry reads and writes no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    result > 0
}

macro_rules! probes {
    ($($outside:ident $name:literal $attack:expr;)*) => {
        &[$(Probe { name: $name, works_outside: probes!($outside), attack: $attack }),*]
    };
    (outside) => { true };
    (inside) => { false };
}

const PROBES: &[Probe] = probes! {
    // First: those that follow leave descriptors of their own.
    inside "more descriptors than given" || {
        (3..4096).any(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|to| {
            !to.starts_with("/dev/null") && !to.starts_with("/proc")
        }))
    };
    outside "unshare user" || apart(|| unshare(libc::CLONE_NEWUSER));
    outside "unshare mount" || apart(|| unshare(libc::CLONE_NEWNS));
    outside "unshare pid" || apart(|| unshare(libc::CLONE_NEWPID));
    outside "unshare net" || apart(|| unshare(libc::CLONE_NEWNET));
    outside "unshare ipc" || apart(|| unshare(libc::CLONE_NEWIPC));
    outside "unshare uts" || apart(|| unshare(libc::CLONE_NEWUTS));
    outside "unshare cgroup" || apart(|| unshare(libc::CLONE_NEWCGROUP));
    outside "clone user" || apart(|| {
        let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as usize;
        let child = call(libc::SYS_clone, [flags, 0, 0, 0, 0]);
        if child == 0 { call(libc::SYS_exit_group, [0; 5]); }
        child > 0
    });
    outside "clone3 is there" || {
        let result = call(libc::SYS_clone3, [0; 5]);
        !(result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS))
    };
    inside "mount tmpfs" || call(libc::SYS_mount, [text(c"x"), text(c"/tmp"), text(c"tmpfs"), 0, 0]) == 0;
    inside "mount a fresh proc" || call(libc::SYS_mount, [text(c"proc"), text(c"/proc"), text(c"proc"), 0, 0]) == 0;
    inside "remount read-write" || {
        let flags = (libc::MS_REMOUNT | libc::MS_BIND) as usize;
        call(libc::SYS_mount, [0, text(c"/usr"), 0, flags, 0]) == 0
    };
    inside "take a mask away" || call(libc::SYS_umount2, [text(c"/proc/sys"), 2, 0, 0, 0]) == 0;
    outside "fsopen" || call(libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0, 0]) >= 0;
    outside "open_tree" || call(libc::SYS_open_tree, [libc::AT_FDCWD as usize, text(c"/usr"), 1, 0, 0]) >= 0;
    inside "pivot_root" || call(libc::SYS_pivot_root, [text(c"/tmp"), text(c"/tmp"), 0, 0, 0]) == 0;
    outside "chroot" || apart(|| call(libc::SYS_chroot, [text(c"/tmp"), 0, 0, 0, 0]) == 0);
    outside "setns" || apart(|| {
        let file = call(libc::SYS_open, [text(c"/proc/self/ns/uts"), 0, 0, 0, 0]);
        file >= 0 && call(libc::SYS_setns, [file as usize, 0, 0, 0, 0]) == 0
    });
    inside "environment of pid 1" || can_read("/proc/1/environ");
    inside "root of pid 1" || std::fs::read_dir("/proc/1/root").is_ok();
    outside "descriptors of pid 1" || std::fs::read_dir("/proc/1/fd").is_ok();
    inside "program of pid 1" || std::fs::File::open("/proc/1/exe").is_ok();
    outside "many processes seen" || std::fs::read_dir("/proc").is_ok_and(|entries| {
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count() > 4
    });
    inside "ptrace pid 1" || call(libc::SYS_ptrace, [libc::PTRACE_ATTACH as usize, 1, 0, 0, 0]) == 0;
    inside "process_vm_readv is allowed" || call(libc::SYS_process_vm_readv, [std::process::id() as usize, 0, 0, 0, 0]) == 0;
    outside "pidfd_getfd" || {
        let pidfd = call(libc::SYS_pidfd_open, [std::process::id() as usize, 0, 0, 0, 0]);
        pidfd >= 0 && call(libc::SYS_pidfd_getfd, [pidfd as usize, 0, 0, 0, 0]) >= 0
    };
    outside "write core_pattern" || can_write("/proc/sys/kernel/core_pattern");
    inside "write modprobe" || can_write("/proc/sys/kernel/modprobe");
    outside "write host name" || can_write("/proc/sys/kernel/hostname");
    inside "sysrq-trigger" || can_write("/proc/sysrq-trigger");
    outside "kallsyms" || can_read("/proc/kallsyms");
    outside "kmsg" || std::fs::File::open("/proc/kmsg").is_ok_and(|_| !is_null("/proc/kmsg"));
    outside "keys" || std::fs::File::open("/proc/keys").is_ok_and(|_| !is_null("/proc/keys"));
    outside "timer_list" || can_read("/proc/timer_list");
    outside "iomem" || can_read("/proc/iomem");
    outside "kernel command line" || can_read("/proc/cmdline");
    outside "how many control groups" || counts_control_groups();
    outside "free memory by place" || can_read("/proc/buddyinfo");
    inside "traffic of the host's disks" || can_read("/proc/diskstats");
    outside "the host's interrupts" || has_entries("/proc/irq");
    inside "the host's buses and file systems" || has_entries("/proc/bus") || has_entries("/proc/fs");
    // No such file is open: whoever is told so has reached the kernel.
    outside "writing out the host's disks" || call(libc::SYS_syncfs, [usize::MAX, 0, 0, 0, 0]) != 0;
    // quotactl_fd, memfd_secret, process_mrelease, then all that came after fchmodat2 up to Linux 6.18.
    outside "system calls of late" || [443, 447, 448, 451].into_iter().chain(453..=469).any(|number| {
        call(number, [usize::MAX; 5]) >= 0 || !matches!(
            std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM | libc::ENOSYS)
        )
    });
    outside "sys" || std::fs::read_dir("/sys/kernel").is_ok();
    outside "syslog" || call(libc::SYS_syslog, [10, 0, 0, 0, 0]) >= 0;
    outside "cgroup file system" || has_control_groups("/sys/fs/cgroup");
    inside "release_agent by a new mount" || {
        call(libc::SYS_mount, [text(c"x"), text(c"/tmp"), text(c"cgroup"), 0, text(c"memory")]) == 0
    };
    outside "mknod" || {
        let path = CString::new(format!("/tmp/probe-{}", std::process::id())).expect("path");
        let made = call(libc::SYS_mknod, [path.as_ptr().addr(), 0o020_600, 0x103, 0, 0]) == 0;
        drop(std::fs::remove_file(path.to_str().expect("path")));
        made
    };
    inside "mem" || can_read("/dev/mem");
    inside "kvm" || can_write("/dev/kvm");
    inside "fuse" || can_write("/dev/fuse");
    inside "terminal" || can_write("/dev/tty");
    inside "bpf" || call(libc::SYS_bpf, [0, 0, 0, 0, 0]) >= 0 || errno_not_eperm();
    outside "perf_event_open is allowed" || call(libc::SYS_perf_event_open, [0; 5]) >= 0 || errno_not_eperm();
    outside "userfaultfd is allowed" || call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0]) >= 0 || errno_not_eperm();
    outside "fanotify_init is allowed" || call(libc::SYS_fanotify_init, [0; 5]) >= 0 || errno_not_eperm();
    outside "io_uring_setup is allowed" || call(libc::SYS_io_uring_setup, [0; 5]) >= 0 || errno_not_eperm();
    outside "add_key" || call(libc::SYS_add_key, [text(c"user"), text(c"probe"), text(c"x"), 1, -1_isize as usize]) > 0 || errno_not_eperm();
    outside "keyctl" || call(libc::SYS_keyctl, [0, -3_isize as usize, 0, 0, 0]) > 0 || errno_not_eperm();
    outside "request_key" || call(libc::SYS_request_key, [text(c"user"), text(c"none"), 0, 0, 0]) > 0 || errno_not_eperm();
    outside "module loading is allowed" || call(libc::SYS_finit_module, [usize::MAX, 0, 0, 0, 0]) == 0 || errno_not_eperm();
    outside "kexec is allowed" || call(libc::SYS_kexec_load, [0, 0, 0, usize::MAX, 0]) == 0 || errno_not_eperm();
    inside "reboot" || call(libc::SYS_reboot, [0; 5]) == 0 || errno_not_eperm();
    outside "swapon is allowed" || call(libc::SYS_swapon, [text(c"/none"), 0, 0, 0, 0]) == 0 || errno_not_eperm();
    outside "acct is allowed" || call(libc::SYS_acct, [text(c"/none"), 0, 0, 0, 0]) == 0 || errno_not_eperm();
    inside "iopl" || apart(|| call(libc::SYS_iopl, [3, 0, 0, 0, 0]) == 0);
    inside "clock_settime" || call(libc::SYS_clock_settime, [0, 0, 0, 0, 0]) == 0 || errno_not_eperm();
    outside "adjtimex is allowed" || call(libc::SYS_adjtimex, [0; 5]) >= 0 || errno_not_eperm();
    inside "sethostname" || call(libc::SYS_sethostname, [text(c"x"), 1, 0, 0, 0]) == 0;
    outside "open_by_handle_at is allowed" || call(libc::SYS_open_by_handle_at, [0; 5]) >= 0 || errno_not_eperm();
    outside "packet socket" || can_make_socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
    outside "raw socket" || can_make_socket(libc::AF_INET, libc::SOCK_RAW, 1);
    // The kernel tells events of all devices in every network namespace that root has made.
    outside "the host's device events" || can_make_socket(libc::AF_NETLINK, libc::SOCK_RAW, 15);
    // Through is also what the kernel does not know.
    outside "netfilter by netlink" || can_make_socket(libc::AF_NETLINK, libc::SOCK_RAW, 12) || errno_not_eperm();
    inside "a protocol beyond TCP and UDP" || can_make_socket(libc::AF_INET, libc::SOCK_STREAM, 262);
    // A pair of any family is refused only after its module is loaded and its socket made.
    outside "pairs of any family" || {
        let mut pair = [0_i32; 2];
        let arguments = [libc::AF_INET as usize, 1, 0, pair.as_mut_ptr().addr(), 0];
        call(libc::SYS_socketpair, arguments) == 0 || errno_not_eperm()
    };
    inside "crypto socket" || can_make_socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0);
    inside "vsock socket" || can_make_socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0);
    outside "the host's loopback" || {
        let address = std::env::var("PROBE_TCP").expect("set").parse::<SocketAddr>().expect("an address");
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
    };
    inside "the metadata address" || {
        let address = SocketAddr::from(([169, 254, 169, 254], 80));
        let error = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        error.is_ok() || error.is_err_and(|error| error.raw_os_error() != Some(libc::ENETUNREACH))
    };
    outside "the host's abstract sockets" || {
        let name = std::env::var("PROBE_UNIX").expect("set");
        UnixAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address)).is_ok()
    };
    outside "typing for another" || {
        let byte = b'x';
        let result = call(libc::SYS_ioctl, [0, libc::TIOCSTI as usize, (&raw const byte).addr(), 0, 0]);
        result == 0 || errno_not_eperm()
    };
    inside "write to the root" || std::fs::write("/probe-was-here", "x").is_ok();
    inside "write to programs" || std::fs::write("/usr/bin/probe-was-here", "x").is_ok();
    outside "32-bit system calls" || apart(old_system_call);
    inside "x32 system calls" || call(0x4000_0000 | 39, [0; 5]) > 0;
    outside "executable by reading" || apart(|| call(libc::SYS_personality, [0x40_0000, 0, 0, 0, 0]) >= 0);
    outside "no randomised addresses" || apart(|| call(libc::SYS_personality, [0x4_0000, 0, 0, 0, 0]) >= 0);
    inside "core dumps" || apart(|| {
        let limit = [1_u64 << 20; 2];
        call(libc::SYS_prlimit64, [0, libc::RLIMIT_CORE as usize, limit.as_ptr().addr(), 0, 0]) == 0
    });
    inside "more files than given" || {
        let limit = [1_u64 << 20; 2];
        call(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, limit.as_ptr().addr(), 0, 0]) == 0
    };
    outside "negative nice" || apart(|| call(libc::SYS_setpriority, [0, 0, -5_isize as usize, 0, 0]) == 0);
    outside "real-time priority" || apart(|| {
        let priority = 1;
        call(libc::SYS_sched_setscheduler, [0, 1, (&raw const priority).addr(), 0, 0]) == 0
    });
    outside "its own memory as a file" || can_write("/proc/self/mem");
    outside "how long the machine is up" || {
        let host = std::env::var("PROBE_UPTIME").expect("set").parse::<f64>().expect("seconds");
        uptime() >= host
    };
    inside "out of the killer's sight" || std::fs::write("/proc/self/oom_score_adj", "-1000").is_ok();
};

/// Probes that nothing refuses but a defence that this machine may lack: named as left out where it does.
const NEEDS: &[(&str, Defence)] = &[
    ("its own memory as a file", Defence::FileAccess),
    ("how long the machine is up", Defence::Time),
];

fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("proc");
    text.split(' ').next().expect("a word").parse().expect("seconds")
}

fn errno_not_eperm() -> bool {
    std::io::Error::last_os_error().raw_os_error() != Some(libc::EPERM)
}

fn is_null(path: &str) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path| std::fs::metadata(path).map(|file| file.rdev()).ok();
    device(path) == device("/dev/null")
}

/// Runs in the sandbox: prints what got through.
#[test]
fn inside() {
    if std::env::var_os("PROBE_TCP").is_none() {
        return;
    }
    let outside = std::env::var_os("PROBE_OUTSIDE").is_some();
    for probe in PROBES.iter().filter(|probe| !outside || probe.works_outside) {
        let verdict = if (probe.attack)() { "through" } else { "refused" };
        let mut out = std::io::stdout();
        writeln!(out, "probe|{}|{verdict}", probe.name).expect("written");
    }
}

async fn verdicts(backend: &dyn Backend, outside: bool) -> BTreeMap<String, String> {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let name = format!("lambda-sandbox-probe-{}-{outside}", std::process::id());
    let address = UnixAddr::from_abstract_name(&name).expect("a name");
    let _unix = UnixListener::bind_addr(&address).expect("bound");
    let me = std::env::current_exe().expect("a path");
    let root = Root::of_machine().with_bind(me, "/probe");
    let command = ["/probe", "--exact", "inside", "--nocapture", "--test-threads=1"];
    let mut spec = SandboxSpec::new(root, command);
    let log = common::logged(&mut spec);
    spec.limits.cpus = 1.0;
    spec.environment = vec![
        ("PROBE_TCP".into(), tcp.local_addr().expect("an address").to_string().into()),
        ("PROBE_UNIX".into(), name.into()),
        ("PROBE_UPTIME".into(), uptime().to_string().into()),
    ];
    if outside {
        spec.environment.push(("PROBE_OUTSIDE".into(), "1".into()));
    }
    let finished = backend.create(spec).await.expect("created").run().await.expect("run");
    let output = String::from_utf8_lossy(&log.tail(1 << 20)).into_owned();
    assert_eq!(finished.exit, lambda_sandbox::Exit::Status(0), "{output}");
    output
        .lines()
        .filter_map(|line| line.split_once("probe|")?.1.split_once('|'))
        .map(|(name, verdict)| (name.to_owned(), verdict.to_owned()))
        .collect()
}

/// Runs every probe inside and demands that each is refused; names those that nothing here refuses.
async fn check_inside(backend: &LinuxBackend) {
    let verdicts_inside = verdicts(backend, false).await;
    let isolation = backend.isolation();
    let mut moot = Vec::new();
    for (name, defence) in NEEDS {
        if let Some(why) = isolation.absent.get(defence) {
            test_support::left_out(&format!("attack: {name}"), why);
            moot.push(*name);
        }
    }
    let through: Vec<_> = (verdicts_inside.iter())
        .filter(|(name, verdict)| *verdict != "refused" && !moot.contains(&name.as_str()))
        .collect();
    assert_eq!(through, Vec::<(&String, &String)>::new());
    assert_eq!(verdicts_inside.len(), PROBES.len());
}

#[tokio::test]
async fn attacks_are_refused_inside_and_work_outside() {
    if unprivileged::inside().is_some() {
        return;
    }
    let Some(backend) = common::backend("attacks") else { return };
    check_inside(&backend).await;

    let verdicts_outside = verdicts(&ProcessBackend::new(), true).await;
    let refused: Vec<_> =
        (verdicts_outside.iter()).filter(|(_, verdict)| *verdict != "through").collect();
    assert_eq!(refused, Vec::<(&String, &String)>::new());
}

#[test]
fn attacks_are_refused_without_root() {
    if unprivileged::inside().is_none() {
        unprivileged::run("attacks_on_a_user", With::Nothing);
        unprivileged::run("attacks_on_a_user", With::Groups);
    }
}

/// Runs again as a user without rights; not on its own.
#[tokio::test]
async fn attacks_on_a_user() {
    if unprivileged::inside().is_none() {
        return;
    }
    let settings = Settings::default().rootless();
    let Some(backend) = common::backend_with(&settings, "attacks without root") else { return };
    check_inside(&backend).await;
    let memory = backend.isolation().in_force.contains_key(&Defence::Memory);
    let groups = unprivileged::inside() == Some(With::Groups);
    assert_eq!(memory, groups, "{}", backend.isolation());
}
