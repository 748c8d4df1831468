//! Attacks on confidentiality: information about the host and other sandboxes, and marks that
//! others could find.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;

use super::{Probe, call, call_of_six, can_read, errno_is, probes, reached, text};

pub(crate) const LEAKS: &[Probe] = probes! {
    outside "who holds which locks" || tells("/proc/locks");
    outside "the host's partitions" || can_read("/proc/partitions");
    outside "the host's swap" || can_read("/proc/swaps");
    outside "the host's consoles" || can_read("/proc/consoles");
    outside "the host's devices" || can_read("/proc/devices");
    outside "what modules of ciphers are used" || can_read("/proc/crypto");
    outside "drivers of the host" || can_read("/proc/misc");
    outside "formats of programs" || can_read("/proc/execdomains");
    inside "channels of memory" || can_read("/proc/dma") || can_read("/proc/mtrr");
    outside "the host's interrupts by kind" || can_read("/proc/softirqs") || can_read("/proc/interrupts");
    outside "how many keys users have" || can_read("/proc/key-users");
    outside "ports of devices" || can_read("/proc/ioports");
    outside "memory by zone" || can_read("/proc/zoneinfo");
    inside "pressure on the machine" || can_read("/proc/pressure/cpu");
    inside "how the kernel was made" || can_read("/proc/config.gz");
    outside "how many files are open" || can_read("/proc/sys/fs/file-nr");
    outside "how many files are known" || can_read("/proc/sys/fs/inode-nr") || can_read("/proc/sys/fs/dentry-state");
    inside "the number of the last process" || can_read("/proc/sys/kernel/ns_last_pid");
    outside "where core dumps go" || can_read("/proc/sys/kernel/core_pattern");
    outside "which boot of which machine" || can_read("/proc/sys/kernel/random/boot_id");
    outside "how much entropy there is" || can_read("/proc/sys/kernel/random/entropy_avail");
    outside "what has tainted the kernel" || can_read("/proc/sys/kernel/tainted");
    outside "how many terminals are open" || can_read("/proc/sys/kernel/pty/nr");
    outside "a count by writing" || File::open("/proc/sys/vm/stat_refresh").is_ok();
    // In no list: settings that a future kernel may add.
    outside "settings that nobody has looked at" || files_below("/proc/sys") > 100;
    outside "where a file lies on its disk" || with(file(), |file| {
        let mut map = [0_u64; 8];
        (map[1], map[3]) = (u64::MAX, 1);
        reached(libc::SYS_ioctl, [file, 0xC020_660B, map.as_mut_ptr().addr(), 0, 0], &[libc::ENOTTY, libc::EPERM])
    });
    outside "a block of a file" || with(file(), |file| {
        let mut block = [0_u32; 1];
        reached(libc::SYS_ioctl, [file, 1, block.as_mut_ptr().addr(), 0, 0], &[libc::ENOTTY, libc::EPERM])
    });
    // Not every kernel and file system has these.
    inside "what is in the cache by reading" || with(file(), |file| {
        let mut byte = [0_u8; 1];
        let part = [byte.as_mut_ptr().addr(), 1];
        let nowait = 8;
        call_of_six(libc::SYS_preadv2, [file, part.as_ptr().addr(), 1, 0, 0, nowait]) >= 0
            || !errno_is(&[libc::EOPNOTSUPP])
    });
    inside "what is in the cache by mapping" || with(file(), |file| {
        let length = 256 * 4096;
        let mapped = call_of_six(libc::SYS_mmap, [0, length, 1, libc::MAP_SHARED as usize, file, 0]);
        let mut pages = [1_u8; 256];
        let told = call(libc::SYS_mincore, [mapped as usize, length, pages.as_mut_ptr().addr(), 0, 0]);
        // For users who may not write the file, mincore(2) reports all pages as resident.
        mapped > 0 && told == 0 && pages.iter().any(|page| page & 1 == 0)
    });
    inside "what is in the cache by count" || {
        let (range, mut counts) = ([0_u64; 2], [0_u64; 5]);
        let arguments = [range.as_ptr().addr(), counts.as_mut_ptr().addr(), 0, 0];
        with(file(), |file| {
            let [range, counts, ..] = arguments;
            reached(451, [file, range, counts, 0, 0], &[libc::ENOSYS])
        })
    };
    outside "a mark on the null device" || {
        let (here, path) = (libc::AT_FDCWD as usize, text(c"/dev/null"));
        call(libc::SYS_utimensat, [here, path, 0, 0, 0]) == 0
    };
    inside "a mark on the random device" || {
        let (here, path) = (libc::AT_FDCWD as usize, text(c"/dev/urandom"));
        call(libc::SYS_utimensat, [here, path, 0, 0, 0]) == 0
    };
    inside "its own output read back" || {
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        call(libc::SYS_open, [text(c"/proc/self/fd/1"), flags as usize, 0, 0, 0]) >= 0
    };
    outside "its own name for others" || std::fs::write("/proc/self/comm", "x").is_ok();
};

fn file() -> Option<File> {
    File::open("/proc/self/exe").ok()
}

fn with(file: Option<File>, attack: impl FnOnce(usize) -> bool) -> bool {
    file.is_some_and(|file| attack(file.as_raw_fd() as usize))
}

/// Returns whether a file shows a lock that certainly exists.
fn tells(path: &str) -> bool {
    let held = File::open("/proc/self/exe").expect("there");
    held.lock_shared().expect("locked");
    let mut text = String::new();
    let told = File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .is_ok_and(|read| read > 0);
    held.unlock().expect("unlocked");
    told
}

fn files_below(folder: &str) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path().to_string_lossy()),
            _ => 1,
        })
        .sum()
}
