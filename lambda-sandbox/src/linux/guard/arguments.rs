//! The system calls that are allowed or refused by their arguments, as data: the conditions under
//! which each is allowed, and the error otherwise.

/// A system call with a rule about its arguments.
#[derive(Debug, Clone, Copy)]
pub struct ByArgument {
    /// Its name.
    pub name: &'static str,
    /// Its x86-64 number.
    pub number: libc::c_long,
    /// The rule, in words.
    pub rule: &'static str,
    /// The cases, in order. The first case all of whose conditions hold decides.
    pub(in crate::linux) cases: &'static [Case],
    /// The answer if no case holds.
    pub(in crate::linux) otherwise: Answer,
}

/// What the filter does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::linux) enum Answer {
    /// The kernel executes the call.
    Made,
    /// The kernel does not execute the call and returns this errno, or success for 0.
    Error(i32),
}

#[derive(Debug, Clone, Copy)]
pub(in crate::linux) struct Case {
    pub(in crate::linux) conditions: &'static [Condition],
    pub(in crate::linux) answer: Answer,
}

#[derive(Debug, Clone, Copy)]
pub(in crate::linux) enum Condition {
    /// These bits of the lower 32 bits of an argument are in one of these ranges. The ranges are in
    /// ascending order. The kernel reads 32 bits or fewer of every argument that is tested so.
    Among { argument: u32, bits: u32, ranges: &'static [(u32, u32)] },
    /// An argument is the null pointer.
    Null { argument: u32 },
}

use Answer::Error;

const fn among(argument: u32, ranges: &'static [(u32, u32)]) -> Condition {
    Condition::Among { argument, bits: u32::MAX, ranges }
}

/// The condition that none of these bits is set.
const fn without(argument: u32, bits: u32) -> Condition {
    Condition::Among { argument, bits, ranges: &[(0, 0)] }
}

const fn made(conditions: &'static [Condition]) -> Case {
    Case { conditions, answer: Answer::Made }
}

const fn error(conditions: &'static [Condition], errno: i32) -> Case {
    Case { conditions, answer: Error(errno) }
}

/// The bits of a socket's type, without `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
const KIND: u32 = 0xF;
const STREAM: &[(u32, u32)] = &[(1, 1)];
const DATAGRAM: &[(u32, u32)] = &[(2, 2)];
const INTERNET: &[(u32, u32)] = &[(2, 2), (10, 10)];
const UNIX: &[(u32, u32)] = &[(1, 1)];

const fn kind(ranges: &'static [(u32, u32)]) -> Condition {
    Condition::Among { argument: 1, bits: KIND, ranges }
}

/// Allowed options of level SOL_SOCKET (socket(7)); the lists of the other levels follow (ip(7),
/// tcp(7), udp(7), ipv6(7)). They leave out options that attach programs, load modules, join groups
/// or keep uncharged memory. They also leave out time stamps, which patch the kernel's code for the
/// whole machine.
const SOCKET_OPTIONS: &[(u32, u32)] = &[
    (2, 2),
    (4, 7),
    (9, 10),
    (12, 13),
    (15, 16),
    (20, 21),
    (25, 25),
    (34, 34),
    (40, 40),
    (42, 42),
    (47, 47),
    (66, 67),
    (76, 76),
];
/// SO_RCVBUF. The call is answered with success and not executed: connections inherit the size from
/// their listener, and until they are accepted nobody is charged for their buffers. The kernel
/// sizes TCP buffers by how fast they are read; other sockets keep the machine's default.
/// SO_RCVLOWAT, which enlarges the buffers too, is not in the list of options.
const RECEIVE_BUFFER: &[(u32, u32)] = &[(8, 8)];
const IP_OPTIONS: &[(u32, u32)] = &[(1, 2), (8, 8), (10, 15), (24, 24), (32, 34), (49, 51)];
const TCP_OPTIONS: &[(u32, u32)] = &[(1, 10), (12, 13), (16, 18), (23, 25), (30, 30), (36, 36)];
const UDP_OPTIONS: &[(u32, u32)] = &[(103, 103)];
const IPV6_OPTIONS: &[(u32, u32)] = &[
    (16, 19),
    (23, 26),
    (29, 29),
    (49, 49),
    (51, 51),
    (62, 62),
    (66, 67),
    (70, 70),
    (72, 72),
    (76, 76),
    (78, 78),
];

/// KVM's ioctl requests, by their type byte (0xAE), for sandboxes with `/dev/kvm`. No other driver
/// has this type.
const MACHINES: Condition =
    Condition::Among { argument: 1, bits: 0xFF00, ranges: &[(0xAE00, 0xAE00)] };
/// Allowed ioctl requests. The first four ranges are terminals: all but TIOCSTI, TIOCLINUX and
/// TIOCCONS, which act for another process, and TIOCSETD, which loads modules.
const REQUESTS: &[(u32, u32)] = &[
    (0x5401, 0x5411),
    (0x5413, 0x541B),
    (0x541E, 0x5422),
    (0x5424, 0x54FF),
    // Sockets: owners, marks, time stamps; names, indices, flags, addresses and sizes of
    // interfaces. SIOCGIFBR and SIOCGIFVLAN are left out because they load modules.
    (0x8901, 0x8907),
    (0x8910, 0x8910),
    (0x8912, 0x8913),
    (0x8915, 0x8915),
    (0x8917, 0x8917),
    (0x8919, 0x8919),
    (0x891B, 0x891B),
    (0x891D, 0x891D),
    (0x8921, 0x8921),
    (0x8927, 0x8927),
    (0x8933, 0x8933),
    (0x8938, 0x8938),
    (0x8942, 0x8942),
    (0x8946, 0x8946),
    (0x8970, 0x8970),
    // Pseudo-terminals that the program opened.
    (0x4004_5431, 0x4004_5431),
    (0x402C_542B, 0x402C_542D),
    // The amount of entropy, numbers of pseudo-terminals, flags of files.
    (0x8004_5200, 0x8004_5200),
    (0x8004_5430, 0x8004_5440),
    (0x8008_6601, 0x8008_6601),
    (0x802C_542A, 0x802C_542A),
];

/// TIOCSTI, TIOCLINUX, TIOCCONS and TIOCSETD.
const FOR_ANOTHER: &[(u32, u32)] = &[(0x5412, 0x5412), (0x541C, 0x541D), (0x5423, 0x5423)];

const PLAIN_FILES: &[(u32, u32)] = &[(0, 0), (0x1000, 0x1000), (0x8000, 0x8000), (0xC000, 0xC000)];
/// RLIMIT_CORE.
const CORE: u32 = libc::RLIMIT_CORE;
const ALL_BUT_CORE: &[(u32, u32)] = &[(0, CORE - 1), (CORE + 1, u32::MAX)];

/// CLONE_FILES and CLONE_THREAD.
const SHARED: u32 = 0x1_0400;
/// The allowed combinations. CLONE_FILES without CLONE_THREAD is refused: file locks belong to the
/// descriptor table, but are found by the process that took them, so the table must not outlive
/// that process.
const WITH_THREADS: &[(u32, u32)] = &[(0, 0), (0x1_0000, 0x1_0000), (0x1_0400, 0x1_0400)];

macro_rules! calls {
    ($($name:literal $number:ident $rule:literal $cases:expr, $otherwise:expr;)*) => {
        &[$(ByArgument {
            name: $name,
            number: libc::$number,
            rule: $rule,
            cases: $cases,
            otherwise: $otherwise,
        }),*]
    };
}

/// Every call with a rule about its arguments.
pub const BY_ARGUMENT: &[ByArgument] = calls! {
    "clone" SYS_clone "no flag that makes a namespace; a table of descriptors is shared with threads only"
        &[made(&[without(0, NEW_NAMESPACES), Condition::Among { argument: 0, bits: SHARED, ranges: WITH_THREADS }])],
        Error(libc::EPERM);
    "socket" SYS_socket
        "unix; IPv4 and IPv6 as streams of TCP and datagrams of UDP. Not netlink: nobody counts the memory of its answers"
        &[
            made(&[among(0, UNIX), kind(&[(1, 2), (5, 5)]), among(2, &[(0, 1)])]),
            made(&[among(0, INTERNET), kind(STREAM), among(2, &[(0, 0), (6, 6)])]),
            made(&[among(0, INTERNET), kind(DATAGRAM), among(2, &[(0, 0), (17, 17)])]),
            error(&[among(0, &[(16, 16)])], libc::EAFNOSUPPORT),
        ], Error(libc::EPERM);
    "socketpair" SYS_socketpair "unix only: pairs of others are not made, but their modules are loaded"
        &[made(&[among(0, UNIX)])], Error(libc::EPERM);
    "setsockopt" SYS_setsockopt "options by list; no programs, no receive buffers (success, not made), no multicast groups, no encapsulation, no time stamps"
        &[
            made(&[among(1, &[(1, 1)]), among(2, SOCKET_OPTIONS)]),
            error(&[among(1, &[(1, 1)]), among(2, RECEIVE_BUFFER)], 0),
            made(&[among(1, &[(6, 6)]), among(2, TCP_OPTIONS)]),
            made(&[among(1, &[(0, 0)]), among(2, IP_OPTIONS)]),
            made(&[among(1, &[(41, 41)]), among(2, IPV6_OPTIONS)]),
            made(&[among(1, &[(17, 17)]), among(2, UDP_OPTIONS)]),
        ], Error(libc::ENOPROTOOPT);
    "ioctl" SYS_ioctl "requests by list: terminals, but for typing for another; sockets and interfaces, to ask; KVM's; no file systems"
        &[made(&[among(1, REQUESTS)]), made(&[MACHINES]), error(&[among(1, FOR_ANOTHER)], libc::EPERM)],
        Error(libc::ENOTTY);
    "fcntl" SYS_fcntl "no leases, no notes of folders, no larger pipes, no locks of open files, whose holder nobody is told"
        &[
            made(&[among(1, &[(0, 36), (39, 1023), (1027, 1030), (1032, u32::MAX)])]),
            error(&[among(1, &[(1031, 1031)])], libc::EPERM),
        ], Error(libc::EINVAL);
    "personality" SYS_personality "0 and the question for it only"
        &[made(&[among(0, &[(0, 0), (u32::MAX, u32::MAX)])])], Error(libc::EPERM);
    "prctl" SYS_prctl "no system call filters, no cookies of processor cores, no merging of equal memory, no other memory map"
        &[
            made(&[among(0, &[(0, 21), (23, 34), (36, 61), (63, 66), (68, u32::MAX)])]),
            error(&[among(0, &[(35, 35)])], libc::EPERM),
        ], Error(libc::EINVAL);
    "seccomp" SYS_seccomp "no filters: their compiled code is the machine's, and so is its limit"
        &[made(&[among(0, &[(0, 0), (2, u32::MAX)])])], Error(libc::EINVAL);
    "prlimit64" SYS_prlimit64 "not of pid 1; core dumps stay off, whatever is asked for"
        &[
            error(&[among(0, &[(1, 1)])], libc::EPERM),
            made(&[Condition::Null { argument: 2 }]),
            made(&[among(1, ALL_BUT_CORE)]),
            error(&[Condition::Null { argument: 3 }], 0),
        ], Error(libc::EPERM);
    "setrlimit" SYS_setrlimit "core dumps stay off, whatever is asked for"
        &[made(&[among(0, ALL_BUT_CORE)])], Error(0);
    "mmap" SYS_mmap "no huge pages from the machine's store"
        &[made(&[without(3, libc::MAP_HUGETLB.cast_unsigned())])], Error(libc::ENOMEM);
    "memfd_create" SYS_memfd_create "no huge pages from the machine's store"
        &[made(&[without(1, libc::MFD_HUGETLB)])], Error(libc::EINVAL);
    "shmget" SYS_shmget "no huge pages from the machine's store"
        &[made(&[without(2, libc::SHM_HUGETLB.cast_unsigned())])], Error(libc::EINVAL);
    "madvise" SYS_madvise "no merging of equal memory, which tells what others have"
        &[made(&[among(2, &[(0, 11), (13, u32::MAX)])])], Error(libc::EINVAL);
    "msync" SYS_msync "nothing is written out"
        &[made(&[without(2, libc::MS_SYNC.cast_unsigned())])], Error(0);
    "fadvise64" SYS_fadvise64 "nothing is dropped from the cache that all share"
        &[made(&[among(3, &[(0, 3), (5, u32::MAX)])])], Error(0);
    "preadv2" SYS_preadv2 "no flag that tells what is cached or drops it"
        &[made(&[without(5, NOT_PLAIN)])], Error(libc::EOPNOTSUPP);
    "pwritev2" SYS_pwritev2 "no flag that tells what is cached or drops it"
        &[made(&[without(5, NOT_PLAIN)])], Error(libc::EOPNOTSUPP);
    "sendto" SYS_sendto "not to be held back: nobody counts the memory of what waits for more"
        &[made(&[without(3, HELD_BACK)])], Error(libc::EOPNOTSUPP);
    "sendmsg" SYS_sendmsg "not to be held back: nobody counts the memory of what waits for more"
        &[made(&[without(2, HELD_BACK)])], Error(libc::EOPNOTSUPP);
    "sendmmsg" SYS_sendmmsg "not to be held back: nobody counts the memory of what waits for more"
        &[made(&[without(3, HELD_BACK)])], Error(libc::EOPNOTSUPP);
    "mknod" SYS_mknod "files, pipes and sockets; no devices"
        &[made(&[Condition::Among { argument: 1, bits: 0xF000, ranges: PLAIN_FILES }])],
        Error(libc::EPERM);
    "mknodat" SYS_mknodat "files, pipes and sockets; no devices"
        &[made(&[Condition::Among { argument: 2, bits: 0xF000, ranges: PLAIN_FILES }])],
        Error(libc::EPERM);
};

const _: () = assert!(CORE == 4, "`ALL_BUT_CORE` is told from RLIMIT_CORE");

/// MSG_MORE and MSG_ZEROCOPY.
const HELD_BACK: u32 = 0x400_8000;
/// The flags of clone that make a namespace.
const NEW_NAMESPACES: u32 = 0x7E02_0000;
/// All flags of preadv2 and pwritev2 but RWF_HIPRI, RWF_DSYNC, RWF_SYNC and RWF_APPEND.
const NOT_PLAIN: u32 = !0x17;
