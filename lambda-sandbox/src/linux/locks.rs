//! Locks of ranges of files (fcntl(2), F_SETLK), whose memory the kernel charges to nobody: who holds too many is killed.
//!
//! No limit of the kernel's bounds them (RLIMIT_LOCKS has no effect since Linux 2.6), and a filter of system calls cannot count. So the
//! host looks four times a second, while it has sandboxes, at how many there are on the machine. Only when there are many it
//! looks whose they are: each page of `/proc/locks` that is read holds up everybody's locks for a moment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Shared;
use crate::Error;

/// Most locks that there may be before somebody's are too many: each takes about 220 bytes.
const HELD_MAX: u32 = 20_000;
/// Lines looked at to find who holds most of them.
const LINES_MAX: usize = 2_000;
const EVERY: Duration = Duration::from_millis(250);
/// Where the kernel counts what it keeps, for root; and what it calls these locks there, unless it counts them with others.
const COUNTS: &str = "/proc/slabinfo";
const NAME: &str = "file_lock_cache";

/// Starts the thread that looks; it ends with the host. Nothing is done where the kernel does not tell how many locks there are.
pub(super) fn watch(shared: &Arc<Shared>) -> Result<(), Error> {
    // Opened once, so that the host has as many descriptors at any moment.
    let (Ok(mut counts), Ok(mut locks)) = (File::open(COUNTS), File::open("/proc/locks")) else {
        return Ok(());
    };
    let shared = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("sandbox-locks".into())
        .spawn(move || while look(&shared, &mut counts, &mut locks) {})
        .map_err(|source| Error::step("starting the thread that counts locks", source))?;
    Ok(())
}

fn look(shared: &Weak<Shared>, counts: &mut File, locks: &mut File) -> bool {
    std::thread::sleep(EVERY);
    let Some(shared) = shared.upgrade() else { return false };
    let mut text = String::new();
    let many = shared.instance.has_sandboxes()
        && counts.rewind().and_then(|()| counts.read_to_string(&mut text)).is_ok()
        && in_use(&text).is_some_and(|count| count > HELD_MAX);
    if many && locks.rewind().is_ok() {
        let lines = BufReader::new(locks).lines().map_while(Result::ok).take(LINES_MAX);
        let host = shared.instance.group();
        if let Some(slot) = holder(lines, |process| slot_of(process, &host)) {
            for root in shared.hierarchies.roots() {
                kill_all(&root.join(&host).join(slot.to_string()));
            }
        }
    }
    true
}

/// Reads how many locks there are from the text of `/proc/slabinfo` (slabinfo(5)).
fn in_use(counts: &str) -> Option<u32> {
    let line = counts.lines().find(|line| line.starts_with(NAME))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Returns the sandbox whose processes hold most of these locks, if one does (`/proc/locks`, proc_locks(5)).
fn holder(
    lines: impl Iterator<Item = String>,
    slot_of: impl Fn(u32) -> Option<u32>,
) -> Option<u32> {
    let mut held = BTreeMap::<u32, usize>::new();
    let mut all = 0;
    for line in lines {
        all += 1;
        // Behind a number and the kind: how far it binds, and whether it is for reading; then the process.
        if let Some(process) = line.split_whitespace().nth(4).and_then(|word| word.parse().ok()) {
            *held.entry(process).or_default() += 1;
        }
    }
    let mut sandboxes = BTreeMap::<u32, usize>::new();
    for (process, held) in held {
        if let Some(slot) = slot_of(process) {
            *sandboxes.entry(slot).or_default() += held;
        }
    }
    sandboxes.into_iter().find(|(_, held)| *held > all / 2).map(|(slot, _)| slot)
}

/// Returns which of this host's sandboxes a process is in, if it is in one.
fn slot_of(process: u32, host: &str) -> Option<u32> {
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    groups.lines().find_map(|line| {
        let (_, below) = line.split_once(&format!("/{host}/"))?;
        below.split('/').next()?.parse().ok()
    })
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
    fn who_holds_most_is_told() {
        let line = |number: u32, process: u32| {
            format!("{number}: POSIX  ADVISORY  WRITE {process} 00:2a:{number} 0 EOF")
        };
        let slot_of = |process| (process < 30).then_some(process / 10);
        let most = (0..60).map(|number| line(number, 10 + number % 4));
        let rest = (0..40).map(|number| line(number, 20 + 10 * (number % 2)));
        assert_eq!(holder(most.chain(rest), slot_of), Some(1));
        // Nobody of ours.
        let others = (0..60).map(|number| line(number, 30));
        let ours = (0..40).map(|number| line(number, 20));
        assert_eq!(holder(others.chain(ours), slot_of), None);
        let counts = "slabinfo - version: 2.1\nfile_lock_cache 20001 30000 216 37 2 : tunables\n";
        assert_eq!(in_use(counts), Some(20_001));
        assert_eq!(in_use("kmalloc-8 1 2 3\n"), None);
    }
}
