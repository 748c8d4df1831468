//! Attacks that make the kernel do or keep something: modules, compiled filters, uncharged memory,
//! I/O of the host's disks, and more than the sandbox's share.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use super::{
    Probe, apart, call, call_of_six, can_make_socket, errno_is, option_is_set, probes, reached,
    text,
};

const NOWHERE: usize = usize::MAX;
const HUGE: usize = 2 << 20;

pub(crate) const KERNEL: &[Probe] = probes! {
    // Compiled filters have one limit for the whole machine.
    outside "a filter on a socket" || filter_on_socket(libc::SO_ATTACH_FILTER);
    outside "a filter on a group of sockets" || filter_on_socket(libc::SO_ATTACH_REUSEPORT_CBPF);
    outside "a program on a socket" || option_is_set(2, 2, [libc::SOL_SOCKET, 50], &u32::MAX.to_ne_bytes());
    outside "a filter of system calls" || apart(|| filter_of_calls(false));
    outside "a filter of system calls by prctl" || apart(|| filter_of_calls(true));
    // Memory that no control group is charged for.
    outside "netlink, which answers what nobody reads" || can_make_socket(libc::AF_NETLINK, libc::SOCK_RAW, 0);
    outside "huge pages by file" || call(libc::SYS_memfd_create, [text(c"x"), 4, 0, 0, 0]) >= 0;
    inside "huge pages by mapping" || {
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB) as usize;
        call_of_six(libc::SYS_mmap, [0, HUGE, 3, flags, NOWHERE, 0]) > 0 || !errno_is(&[libc::ENOMEM])
    };
    inside "huge pages by shared memory" || {
        let flags = libc::SHM_HUGETLB as usize | 0o1600;
        reached(libc::SYS_shmget, [0, HUGE, flags, 0, 0], &[libc::EINVAL])
    };
    outside "a multicast group" || {
        option_is_set(2, 2, [libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP], &[224, 0, 0, 9, 127, 0, 0, 1])
    };
    outside "a multicast group of IPv6" || {
        let mut group = [0_u8; 20];
        group[..2].copy_from_slice(&[0xFF, 5]);
        group[15..17].copy_from_slice(&[9, 1]);
        option_is_set(10, 2, [libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP], &group)
    };
    outside "a source of a multicast group" || option_is_set(2, 2, [libc::IPPROTO_IP, 39], &[0; 12]);
    outside "a label of flows" || option_is_set(10, 2, [libc::IPPROTO_IPV6, 32], &[0; 32]);
    outside "options of all packets" || option_is_set(2, 2, [libc::IPPROTO_IP, 4], &[1; 4]);
    outside "datagrams that are held back" || {
        let socket = call(libc::SYS_socket, [2, 2, 0, 0, 0]) as usize;
        let more = libc::MSG_MORE as usize;
        reached(libc::SYS_sendto, [socket, text(c"x"), 1, more, 0], &[libc::EOPNOTSUPP])
    };
    outside "locks of nobody" || with_file("/proc/self/exe", |file| {
        let mut lock = [0_u64; 4];
        let get = libc::F_OFD_GETLK as usize + 1;
        reached(libc::SYS_fcntl, [file, get, lock.as_mut_ptr().addr(), 0, 0], &[libc::EINVAL])
    });
    outside "keys of connections" || option_is_set(2, 1, [libc::IPPROTO_TCP, 14], &[0; 216]);
    outside "larger buffers of connections to come" || {
        let socket = call(libc::SYS_socket, [2, 1, 0, 0, 0]) as usize;
        let size = || {
            let (mut bytes, mut length) = (0_u32, 4_u32);
            let places = [(&raw mut bytes).addr(), (&raw mut length).addr()];
            call(libc::SYS_getsockopt, [socket, 1, libc::SO_RCVBUF as usize, places[0], places[1]]);
            bytes
        };
        let before = size();
        let wanted = [1_u32 << 20; 1];
        let address = wanted.as_ptr().addr();
        call(libc::SYS_setsockopt, [socket, 1, libc::SO_RCVBUF as usize, address, 4]);
        size() != before
    };
    outside "room for much to receive at a time" || option_is_set(2, 1, [libc::SOL_SOCKET, 18], &[0, 0, 16, 0]);
    outside "locks that outlive their process" || {
        let flags = (libc::CLONE_FILES | libc::SIGCHLD) as usize;
        let child = call(libc::SYS_clone, [flags, 0, 0, 0, 0]);
        if child == 0 {
            // SAFETY: ends this process alone, which has a copy of the memory.
            unsafe { libc::_exit(0) };
        }
        call(libc::SYS_wait4, [child as usize, 0, 0, 0, 0]);
        child > 0
    };
    outside "a larger pipe" || {
        let mut ends = [0_i32; 2];
        call(libc::SYS_pipe, [ends.as_mut_ptr().addr(), 0, 0, 0, 0]);
        call(libc::SYS_fcntl, [ends[0] as usize, libc::F_SETPIPE_SZ as usize, 1 << 19, 0, 0]) >= 0
    };
    inside "queues of messages" || reached(libc::SYS_msgget, [0, 0o1600, 0, 0, 0], &[libc::EPERM]);
    inside "POSIX queues of messages" || reached(libc::SYS_mq_open, [text(c"x"), 0o102, 0o600, 0, 0], &[libc::EPERM]);
    outside "asynchronous I/O" || reached(libc::SYS_io_setup, [0; 5], &[libc::EPERM]);
    // Modules that the kernel loads on demand, and kernel code that is patched.
    inside "the module of bridges" || request_on_socket(0x8940);
    inside "the module of virtual networks" || request_on_socket(0x8982);
    inside "the module of frame relay" || request_on_socket(0x8980);
    inside "odd kinds of sockets" || (4..=10).any(|kind| {
        reached(libc::SYS_socket, [libc::AF_INET as usize, kind, 0, 0, 0], &[libc::EPERM])
    });
    inside "odd protocols of streams" || (0..=255).filter(|it| ![0, 6].contains(it)).any(|protocol| {
        reached(libc::SYS_socket, [libc::AF_INET as usize, 1, protocol, 0, 0], &[libc::EPERM])
    });
    inside "odd protocols of datagrams" || (0..=255).filter(|it| ![0, 17].contains(it)).any(|protocol| {
        reached(libc::SYS_socket, [libc::AF_INET6 as usize, 2, protocol, 0, 0], &[libc::EPERM])
    });
    inside "odd families" || (0..=64).filter(|it| ![1, 2, 10, 16].contains(it)).any(|family| {
        reached(libc::SYS_socket, [family, 1, 0, 0, 0], &[libc::EPERM])
    });
    inside "a protocol over TCP" || option_is_set(2, 1, [libc::IPPROTO_TCP, 31], b"tls");
    inside "a line discipline" || reached(libc::SYS_ioctl, [0, 0x5423, text(c"\x05"), 0, 0], &[libc::EPERM]);
    inside "encapsulation" || option_is_set(2, 2, [17, 100], &[2, 0, 0, 0]);
    outside "time stamps of packets" || option_is_set(2, 2, [libc::SOL_SOCKET, libc::SO_TIMESTAMP], &[1, 0, 0, 0]);
    // The host's disks and the shared page cache.
    outside "a flush of a file's disk" || call(libc::SYS_fsync, [NOWHERE, 0, 0, 0, 0]) != 0;
    outside "a flush of a file's data" || call(libc::SYS_fdatasync, [NOWHERE, 0, 0, 0, 0]) != 0;
    outside "a flush of a range" || call(libc::SYS_sync_file_range, [NOWHERE, 0, 0, 7, 0]) != 0;
    outside "a flush of a mapping" || call(libc::SYS_msync, [4096, 4096, libc::MS_SYNC as usize, 0, 0]) != 0;
    outside "putting files out of the cache" || {
        call(libc::SYS_fadvise64, [NOWHERE, 0, 0, libc::POSIX_FADV_DONTNEED as usize, 0]) != 0
    };
    inside "freezing a file system" || request_on("/", 0xC004_5877);
    inside "trimming a file system" || request_on("/", 0xC018_5879);
    outside "a lease of a file" || {
        let lease = libc::F_RDLCK as usize;
        with_file("/proc/self/exe", |file| {
            reached(libc::SYS_fcntl, [file, libc::F_SETLEASE as usize, lease, 0, 0], &[libc::EINVAL])
        })
    };
    outside "notes of a folder" || with_file("/usr/bin", |file| {
        call(libc::SYS_fcntl, [file, libc::F_NOTIFY as usize, 1, 0, 0]) == 0
    });
    inside "attributes of a file system" || request_on("/proc/self/exe", 0x801C_581F);
    // More than the sandbox's share.
    outside "thousands of signals that wait" || apart(thousands_of_signals);
    outside "thousands of timers" || apart(thousands_of_timers);
    inside "more signals than given" || {
        let limit = [1_u64 << 20; 2];
        call(libc::SYS_prlimit64, [0, libc::RLIMIT_SIGPENDING as usize, limit.as_ptr().addr(), 0, 0]) == 0
    };
    inside "limits of pid 1" || {
        let limit = [0_u64; 2];
        call(libc::SYS_prlimit64, [1, libc::RLIMIT_MSGQUEUE as usize, limit.as_ptr().addr(), 0, 0]) == 0
    };
    inside "capabilities for the asking" || apart(|| {
        let (header, all) = ([0x2008_0522_u32, 0], [u32::MAX; 6]);
        call(libc::SYS_capset, [header.as_ptr().addr(), all.as_ptr().addr(), 0, 0, 0]) == 0
    });
    outside "attributes of scheduling" || reached(libc::SYS_sched_setattr, [0; 5], &[libc::EPERM]);
    inside "cookies of processor cores" || reached(libc::SYS_prctl, [62, 1, 0, 0, 0], &[libc::EINVAL]);
    outside "placing memory" || {
        [libc::SYS_set_mempolicy, libc::SYS_mbind, libc::SYS_migrate_pages, libc::SYS_move_pages]
            .into_iter()
            .any(|number| reached(number, [NOWHERE; 5], &[libc::EPERM]))
    };
    outside "merging of equal memory" || merges();
    outside "a device that covers a file" || {
        let path = std::ffi::CString::new(format!("/tmp/cover-{}", std::process::id())).expect("a path");
        // Device 0:0 needs no right, because overlayfs uses it for whiteouts.
        let made = call(libc::SYS_mknod, [path.as_ptr().addr(), 0o020_600, 0, 0, 0]) == 0;
        drop(std::fs::remove_file(path.to_str().expect("a path")));
        made
    };
    outside "old and seldom calls" || [
        libc::SYS_modify_ldt,
        libc::SYS_kcmp,
        libc::SYS_name_to_handle_at,
        libc::SYS_remap_file_pages,
        libc::SYS_process_madvise,
        libc::SYS_process_vm_writev,
        libc::SYS_quotactl,
        libc::SYS_fanotify_mark,
        libc::SYS_pivot_root,
        libc::SYS_ioperm,
    ].into_iter().any(|number| reached(number, [NOWHERE; 5], &[libc::EPERM]));
    outside "mounts by descriptor" || {
        [libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_move_mount, libc::SYS_mount_setattr]
            .into_iter()
            .any(|number| reached(number, [NOWHERE; 5], &[libc::EPERM, libc::ENOSYS]))
    };
};

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const libc::sock_filter,
}

/// A filter that allows everything.
const ALL: [libc::sock_filter; 1] = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0x7FFF_0000 }];

fn program() -> Program {
    Program { length: 1, instructions: ALL.as_ptr() }
}

fn filter_on_socket(option: i32) -> bool {
    let program = program();
    // SAFETY: a `Program` is 16 bytes, of which the kernel reads the length and the address.
    let bytes = unsafe { std::slice::from_raw_parts((&raw const program).cast::<u8>(), 16) };
    let socket = call(libc::SYS_socket, [2, 2, 0, 0, 0]) as usize;
    let on: [u32; 1] = [1];
    let level = libc::SOL_SOCKET as usize;
    call(libc::SYS_setsockopt, [socket, level, libc::SO_REUSEPORT as usize, on.as_ptr().addr(), 4]);
    let set = [socket, level, option as usize, bytes.as_ptr().addr(), bytes.len()];
    let through = reached(libc::SYS_setsockopt, set, &[libc::ENOPROTOOPT]);
    call(libc::SYS_close, [socket, 0, 0, 0, 0]);
    through
}

fn filter_of_calls(by_prctl: bool) -> bool {
    let program = program();
    let address = (&raw const program).addr();
    call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0]);
    if by_prctl {
        call(libc::SYS_prctl, [libc::PR_SET_SECCOMP as usize, 2, address, 0, 0]) == 0
    } else {
        call(libc::SYS_seccomp, [1, 0, address, 0, 0]) == 0
    }
}

fn request_on_socket(request: usize) -> bool {
    let socket = call(libc::SYS_socket, [2, 2, 0, 0, 0]) as usize;
    let argument = [0_u8; 64];
    let through = reached(
        libc::SYS_ioctl,
        [socket, request, argument.as_ptr().addr(), 0, 0],
        &[libc::ENOTTY],
    );
    call(libc::SYS_close, [socket, 0, 0, 0, 0]);
    through
}

fn with_file(path: &str, attack: impl FnOnce(usize) -> bool) -> bool {
    File::open(path).is_ok_and(|file| attack(file.as_raw_fd() as usize))
}

fn request_on(path: &str, request: usize) -> bool {
    let argument = [0_u8; 64];
    with_file(path, |file| {
        reached(
            libc::SYS_ioctl,
            [file, request, argument.as_ptr().addr(), 0, 0],
            &[libc::ENOTTY, libc::EPERM],
        )
    })
}

const THOUSANDS: usize = 2000;

fn thousands_of_signals() -> bool {
    let blocked = [u64::MAX; 1];
    call(libc::SYS_rt_sigprocmask, [0, blocked.as_ptr().addr(), 0, 8, 0]);
    let own = call(libc::SYS_getpid, [0; 5]) as usize;
    let mut information = [0_i32; 32];
    // `siginfo_t`: the number, an errno, the code of sigqueue(3).
    (information[0], information[2]) = (40, -1);
    (0..THOUSANDS)
        .all(|_| call(libc::SYS_rt_sigqueueinfo, [own, 40, information.as_ptr().addr(), 0, 0]) == 0)
}

fn thousands_of_timers() -> bool {
    // `struct sigevent`: a value, a signal, and SIGEV_NONE.
    let mut event = [0_i32; 16];
    event[3] = libc::SIGEV_NONE;
    (0..THOUSANDS).all(|_| {
        let mut timer = 0_i32;
        let (event, timer) = (event.as_ptr().addr(), (&raw mut timer).addr());
        call(libc::SYS_timer_create, [libc::CLOCK_MONOTONIC as usize, event, timer, 0, 0]) == 0
    })
}

fn merges() -> bool {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let page = call_of_six(libc::SYS_mmap, [0, 4096, 3, flags, NOWHERE, 0]);
    let advice = libc::MADV_MERGEABLE as usize;
    call(libc::SYS_madvise, [page as usize, 4096, advice, 0, 0]) == 0
}
