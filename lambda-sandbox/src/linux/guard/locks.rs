//! Counts locks of file ranges (fcntl(2), F_SETLK). The kernel charges their memory, about 220
//! bytes each, to nobody.
//!
//! No limit of the kernel bounds their number: RLIMIT_LOCKS has had no effect since Linux 2.6.
//! `/proc/locks` lists all locks of the machine with the process that took each. Reading it is
//! expensive: each page read blocks all lock operations, after the kernel has waited for all
//! processors. So it is read only after the kernel's own memory has grown (`SUnreclaim` of
//! `/proc/meminfo`), which is cheap to read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};

use crate::linux::inits::{Init, init_of};

/// A sandbox with this many locks is killed.
const HELD_MAX: usize = 4_000;
/// The most lines of `/proc/locks` that one check reads.
const LINES_MAX: usize = 24_000;
/// The growth of the kernel's memory, in bytes, after which the locks are counted.
const GROWTH_BYTES: u64 = 4 << 20;

/// `/proc/meminfo` and `/proc/locks`, kept open.
#[derive(Debug)]
pub(in crate::linux) struct Locks {
    memory: File,
    all: File,
    /// The size of the kernel's memory at the last check, in bytes.
    seen_bytes: u64,
}

impl Locks {
    /// Opens both files now, so that the host's number of descriptors does not change later.
    pub(in crate::linux) fn open() -> io::Result<Self> {
        let mut locks = Self {
            memory: File::open("/proc/meminfo")?,
            all: File::open("/proc/locks")?,
            seen_bytes: 0,
        };
        locks.seen_bytes = locks.memory_bytes()?;
        Ok(locks)
    }

    /// Returns whether the kernel's memory has grown by more than [`GROWTH_BYTES`] since the last
    /// check. A growth is reported once.
    pub(in crate::linux) fn may_be_many(&mut self) -> bool {
        let Ok(bytes) = self.memory_bytes() else { return false };
        let grown = bytes > self.seen_bytes + GROWTH_BYTES;
        if grown || bytes < self.seen_bytes {
            self.seen_bytes = bytes;
        }
        grown
    }

    /// Returns a sandbox with too many locks, and how many were counted. Counting stops at the
    /// first such sandbox; the next check counts again to find others.
    pub(in crate::linux) fn too_many<'a>(
        &mut self,
        living: &'a [Init],
    ) -> Option<(&'a Init, usize)> {
        self.all.rewind().ok()?;
        let inits = living.iter().map(|init| init.process).collect();
        let lines = BufReader::new(&self.all).lines().map_while(Result::ok).take(LINES_MAX);
        let holder = holder(lines, |process| init_of(process, &inits))?;
        self.seen_bytes = 0;
        living.iter().find(|init| init.process == holder).map(|init| (init, HELD_MAX))
    }

    fn memory_bytes(&mut self) -> io::Result<u64> {
        let mut text = String::new();
        self.memory.rewind()?;
        self.memory.read_to_string(&mut text)?;
        kernel_bytes(&text)
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| io::Error::other("no SUnreclaim"))
    }
}

/// Reads the size of the kernel's unreclaimable memory from `/proc/meminfo` (proc_meminfo(5)).
fn kernel_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:"))?;
    line.split_whitespace().next()?.parse().ok().map(|kib: u64| kib * 1024)
}

/// Returns the first init whose processes have taken [`HELD_MAX`] locks (`/proc/locks`,
/// proc_locks(5)).
fn holder(
    lines: impl Iterator<Item = String>,
    init_of: impl Fn(u32) -> Option<u32>,
) -> Option<u32> {
    let mut inits = BTreeMap::<u32, Option<u32>>::new();
    let mut held = BTreeMap::<u32, usize>::new();
    for line in lines {
        // Fields: number, kind, advisory or mandatory, read or write, process.
        let process = line.split_whitespace().nth(4).and_then(|word| word.parse().ok());
        let init = process.and_then(|it| *inits.entry(it).or_insert_with(|| init_of(it)));
        if let Some(init) = init {
            let held = held.entry(init).or_default();
            *held += 1;
            if *held >= HELD_MAX {
                return Some(init);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_count_to_the_init_of_who_took_them() {
        let line = |process: u32| format!("1: POSIX  ADVISORY  WRITE {process} 00:2a:7 0 EOF");
        let init_of = |process: u32| (process < 30).then_some(process / 10);
        let lines = |ours: usize| {
            let ours = (0..ours).map(move |number| line(10 + u32::from(number % 2 == 0)));
            let others = (0..HELD_MAX).map(move |number| line(20 + 10 * u32::from(number > 9)));
            others.chain(["?".into()]).chain(ours)
        };
        assert_eq!(holder(lines(HELD_MAX), init_of), Some(1));
        assert_eq!(holder(lines(HELD_MAX - 1), init_of), None, "nobody's are not counted");
        assert_eq!(kernel_bytes("Slab: 9 kB\nSUnreclaim:      20 kB\n"), Some(20 << 10));
        assert_eq!(kernel_bytes("Slab: 9 kB\n"), None);
    }

    #[test]
    fn growth_is_told_once() {
        let mut locks = Locks::open().expect("told");
        locks.seen_bytes = 1;
        assert!(locks.may_be_many(), "all of the kernel's memory is new");
        assert!(!locks.may_be_many());
        locks.seen_bytes = u64::MAX - GROWTH_BYTES;
        assert!(!locks.may_be_many());
        assert!(locks.seen_bytes < 1 << 40, "less memory than before is the new measure");
    }
}
