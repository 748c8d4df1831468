//! Attacks that leave the sandbox: namespaces, mounts, other processes, sockets, rights, and large
//! subsystems of the kernel.

use std::ffi::CString;
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use super::{
    Probe, apart, call, can_make_socket, can_read, can_write, counts_control_groups, errno_is,
    errno_not_eperm, has_control_groups, has_entries, is_null, old_system_call, probes, text,
    unshare, uptime,
};

pub(crate) const ISOLATION: &[Probe] = probes! {
    // First, because the later ones leave descriptors open.
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
    // No such descriptor is open: an EBADF would show that the kernel executed the call.
    outside "writing out the host's disks" || call(libc::SYS_syncfs, [usize::MAX, 0, 0, 0, 0]) != 0;
    // quotactl_fd, memfd_secret, process_mrelease, then all calls after fchmodat2 up to Linux 6.18.
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
    // The kernel sends the events of all devices to every network namespace that root has made.
    outside "the host's device events" || can_make_socket(libc::AF_NETLINK, libc::SOCK_RAW, 15);
    // An error for a protocol that the kernel lacks also counts as success: the call was executed.
    outside "netfilter by netlink" || can_make_socket(libc::AF_NETLINK, libc::SOCK_RAW, 12) || !errno_is(&[libc::EPERM, libc::EAFNOSUPPORT]);
    inside "a protocol beyond TCP and UDP" || can_make_socket(libc::AF_INET, libc::SOCK_STREAM, 262);
    // The kernel refuses a pair of another family only after it has loaded the module and made a
    // socket.
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
    // A success that changes nothing is no core dump.
    inside "core dumps" || apart(|| core_limit_after(1 << 20) != 1);
    // With any limit but 1 the host's core dump program, if there is one, gets the dump.
    outside "core dumps for a program of the host's" || apart(|| core_limit_after(0) != 1);
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

fn core_limit_after(wanted: u64) -> u64 {
    let limit = [wanted; 2];
    let resource = libc::RLIMIT_CORE as usize;
    call(libc::SYS_prlimit64, [0, resource, limit.as_ptr().addr(), 0, 0]);
    let mut found = [0_u64; 2];
    call(libc::SYS_prlimit64, [0, resource, 0, found.as_mut_ptr().addr(), 0]);
    found[0]
}
