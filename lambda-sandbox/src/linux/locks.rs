//! Locks of ranges of files (fcntl(2), F_SETLK), whose memory the kernel charges to nobody: who holds too many is killed.
//!
//! No limit of the kernel's bounds them (RLIMIT_LOCKS has no effect since Linux 2.6), and a filter of system calls cannot count. So the
//! host looks at `/proc/locks` ten times a second while it has sandboxes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Shared;
use crate::Error;

/// Most locks that one process may hold: each takes about 220 bytes.
const HELD_MAX: u32 = 20_000;
/// Most lines looked at: beyond that somebody else on this machine has as many.
const LINES_MAX: usize = 1_000_000;
const EVERY: Duration = Duration::from_millis(100);

/// Starts the thread that looks; it ends with the host.
pub(super) fn watch(shared: &Arc<Shared>) -> Result<(), Error> {
    let shared = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("sandbox-locks".into())
        .spawn(move || while look(&shared) {})
        .map_err(|source| Error::step("starting the thread that counts locks", source))?;
    Ok(())
}

fn look(shared: &Weak<Shared>) -> bool {
    std::thread::sleep(EVERY);
    let Some(shared) = shared.upgrade() else { return false };
    if shared.instance.has_sandboxes()
        && let Ok(file) = File::open("/proc/locks")
    {
        let lines = BufReader::new(file).lines().map_while(Result::ok).take(LINES_MAX);
        let group = shared.instance.group();
        for process in too_many(lines) {
            end(process, &group, &shared);
        }
    }
    true
}

/// Returns the processes that hold too many, from the text of `/proc/locks` (proc_locks(5)).
fn too_many(lines: impl Iterator<Item = String>) -> Vec<u32> {
    let mut held = BTreeMap::<u32, u32>::new();
    for line in lines {
        // Behind a number and the kind: how far it binds, and whether it is for reading; then the process.
        if let Some(process) = line.split_whitespace().nth(4).and_then(|word| word.parse().ok()) {
            *held.entry(process).or_default() += 1;
        }
    }
    held.into_iter().filter(|(_, held)| *held > HELD_MAX).map(|(process, _)| process).collect()
}

/// Kills the sandbox that a process is in, if it is one of this host's.
fn end(process: u32, host: &str, shared: &Shared) {
    let Ok(groups) = std::fs::read_to_string(format!("/proc/{process}/cgroup")) else { return };
    let slot = groups.lines().find_map(|line| {
        let (_, below) = line.split_once(&format!("/{host}/"))?;
        below.split('/').next()?.parse::<u32>().ok()
    });
    let Some(slot) = slot else { return };
    for root in shared.hierarchies.roots() {
        let group = root.join(host).join(slot.to_string());
        kill_all(&group);
    }
}

fn kill_all(group: &Path) {
    if std::fs::write(group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // Version 1 has no such file.
    let inside = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for process in inside.lines().filter_map(|line| line.parse().ok()) {
        // SAFETY: kill takes two numbers and no pointer. A process that has just left its number to another is one of this group
        // still, or it was read a moment ago.
        unsafe { libc::kill(process, libc::SIGKILL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_too_many_is_told() {
        let line = |number: u32, process: u32| {
            format!("{number}: POSIX  ADVISORY  WRITE {process} 00:2a:{number} 0 EOF")
        };
        let many = (0..HELD_MAX + 1).map(|number| line(number, 7));
        let few = (0..HELD_MAX).map(|number| line(number, 8));
        let waits = std::iter::once("1: -> POSIX  ADVISORY  WRITE 9 00:2a:1 0 EOF".to_owned());
        assert_eq!(too_many(many.chain(few).chain(waits)), [7]);
    }
}
