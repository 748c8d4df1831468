//! The inits of a host's live sandboxes, for whoever has to find the sandbox of a process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::linux::sys;

/// The inits by their sandbox's number.
#[derive(Debug, Default)]
pub(super) struct Inits {
    by_number: Mutex<BTreeMap<u32, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Gone with the sandbox.
    pidfd: Weak<OwnedFd>,
    memory_bytes: u64,
    exceeded: Exceeded,
}

/// Whether a sandbox was killed for what it held.
pub(super) type Exceeded = Arc<AtomicBool>;

/// A sandbox's init while somebody looks at it.
#[derive(Debug)]
pub(super) struct Init {
    /// The number of the sandbox on this host.
    pub(super) number: u32,
    /// The init's process number as the host sees it.
    pub(super) process: u32,
    /// The sandbox's memory limit.
    pub(super) memory_bytes: u64,
    pidfd: Arc<OwnedFd>,
    exceeded: Exceeded,
}

impl Inits {
    /// Adds one; returns what tells that it was killed by [`Init::kill`].
    pub(super) fn add(&self, number: u32, pidfd: &Arc<OwnedFd>, memory_bytes: u64) -> Exceeded {
        let exceeded = Exceeded::default();
        let (pidfd, told) = (Arc::downgrade(pidfd), Arc::clone(&exceeded));
        self.lock().insert(number, Entry { pidfd, memory_bytes, exceeded });
        told
    }

    /// Returns how many sandboxes there are, and forgets those that have gone.
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
    /// Kills the init for what the sandbox holds, and with it all processes of its pid namespace.
    pub(super) fn kill(&self) {
        self.exceeded.store(true, Ordering::Release);
        sys::kill(self.pidfd.as_fd());
    }
}

/// Returns the init that a process descends from. An orphan's parent is the init of its pid namespace, so that every process of a sandbox
/// does.
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

/// Reads the number of a process's parent (`/proc/PID/stat`, which every user may read), unless it is none.
fn parent(process: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything, stand the state and the parent.
    let (_, behind) = text.rsplit_once(") ")?;
    behind.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent > 1)
}

/// Longest line of descent that is followed.
const GENERATIONS_MAX: usize = 1024;

/// Reads the process number from the kernel's text about a pidfd (pidfd_open(2)); an ended process has none.
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
