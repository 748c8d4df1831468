//! The inits of a host's live sandboxes, for finding the sandbox of a process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::linux::sys;

/// The inits by sandbox number.
#[derive(Debug, Default)]
pub(super) struct Inits {
    by_number: Mutex<BTreeMap<u32, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Dangling after the sandbox has ended.
    pidfd: Weak<OwnedFd>,
    memory_bytes: u64,
    exceeded: Exceeded,
}

/// Whether the sandbox was killed for holding too much kernel memory.
pub(super) type Exceeded = Arc<AtomicBool>;

/// A live sandbox's init.
#[derive(Debug)]
pub(super) struct Init {
    /// The sandbox's number on this host.
    pub(super) number: u32,
    /// The init's process number in the host's pid namespace.
    pub(super) process: u32,
    /// The sandbox's memory limit, in bytes.
    pub(super) memory_bytes: u64,
    pidfd: Arc<OwnedFd>,
    exceeded: Exceeded,
}

impl Inits {
    /// Adds an init. Returns the flag that [`Init::kill`] sets.
    pub(super) fn add(&self, number: u32, pidfd: &Arc<OwnedFd>, memory_bytes: u64) -> Exceeded {
        let exceeded = Exceeded::default();
        let (pidfd, told) = (Arc::downgrade(pidfd), Arc::clone(&exceeded));
        self.lock().insert(number, Entry { pidfd, memory_bytes, exceeded });
        told
    }

    /// Returns the number of live sandboxes, and removes the entries of the others.
    pub(super) fn count(&self) -> usize {
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.pidfd.strong_count() > 0);
        entries.len()
    }

    /// Returns the inits that have not ended.
    pub(super) fn living(&self) -> Vec<Init> {
        (self.lock().iter())
            .filter_map(|(number, entry)| {
                let pidfd = entry.pidfd.upgrade()?;
                let process = process_of(&pidfd)?;
                let (memory_bytes, exceeded) = (entry.memory_bytes, Arc::clone(&entry.exceeded));
                Some(Init { number: *number, process, memory_bytes, pidfd, exceeded })
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Entry>> {
        self.by_number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Init {
    /// Kills the init, and with it all processes of its pid namespace, because the sandbox holds
    /// too much kernel memory.
    pub(super) fn kill(&self) {
        self.exceeded.store(true, Ordering::Release);
        sys::kill(self.pidfd.as_fd());
    }
}

/// Returns the init from which a process descends. The parent of an orphan is the init of its pid
/// namespace, so every process of a sandbox descends from the sandbox's init.
pub(super) fn init_of(process: u32, inits: &BTreeSet<u32>) -> Option<u32> {
    let mut process = process;
    for _ in 0..GENERATIONS_MAX {
        if inits.contains(&process) {
            return Some(process);
        }
        process = parent(process)?;
    }
    None
}

/// Reads a process's parent from `/proc/PID/stat`, which every user may read. Returns `None` for a
/// parent of 0 or 1.
fn parent(process: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may contain anything. The state and the parent follow it.
    let (_, behind) = text.rsplit_once(") ")?;
    behind.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent > 1)
}

/// The most generations that are followed.
const GENERATIONS_MAX: usize = 1024;

/// Reads the process number from a pidfd's `fdinfo` (pidfd_open(2)). An ended process has none.
fn process_of(pidfd: &OwnedFd) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd as _;

    use super::*;

    /// Returns a pidfd of this process.
    fn own() -> Arc<OwnedFd> {
        // SAFETY: pidfd_open takes two numbers.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
        // SAFETY: the descriptor was made above and nobody else owns it.
        Arc::new(unsafe { OwnedFd::from_raw_fd(i32::try_from(pidfd).expect("a descriptor")) })
    }

    #[test]
    fn inits_are_found_until_their_sandbox_goes() {
        let inits = Inits::default();
        let pidfd = own();
        let exceeded = inits.add(7, &pidfd, 1 << 20);
        assert_eq!(inits.count(), 1);
        let living = inits.living();
        assert_eq!((living[0].number, living[0].process), (7, std::process::id()));
        assert_eq!(living[0].memory_bytes, 1 << 20);
        assert!(!exceeded.load(Ordering::Acquire));
        drop(living);
        drop(pidfd);
        assert!(inits.living().is_empty());
        assert_eq!(inits.count(), 0);
    }

    #[test]
    fn a_process_descends_from_its_parents() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        assert_eq!(init_of(child.id(), &BTreeSet::from([own])), Some(own));
        assert_eq!(init_of(own, &BTreeSet::from([child.id()])), None);
        assert_eq!(init_of(u32::MAX, &BTreeSet::from([own])), None);
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
}
