//! TCP connections, whose memory the kernel charges when somebody accepts them: each listener holds some that nobody has accepted, and there is
//! no limit to the listeners.
//!
//! The kernel tells how many connections the machine has, and how many each network namespace has (`/proc/net/sockstat`).

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};

use crate::linux::inits::Init;

/// Memory that a sandbox may have for each of its connections: it bounds their number.
const BYTES_EACH: u64 = 32 << 10;
/// Connections that every sandbox may have.
const HELD_MIN: u64 = 1_024;
/// Connections of the machine from which on somebody may have too many, beside a few for each sandbox.
const MACHINE_MIN: usize = 1_024;
const EACH_SANDBOX: usize = 8;

/// Where the kernel tells of connections.
#[derive(Debug)]
pub(in crate::linux) struct Connections {
    machine: File,
}

/// What the machine has, compared with what it has as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::linux) enum Amount {
    Few,
    /// More may be too many at any moment.
    Some,
    Many,
}

impl Connections {
    pub(in crate::linux) fn open() -> io::Result<Self> {
        let mut connections = Self { machine: File::open("/proc/net/sockstat")? };
        connections.of_machine()?;
        Ok(connections)
    }

    /// Returns how many there are, beside so many sandboxes.
    pub(in crate::linux) fn amount(&mut self, sandboxes: usize) -> Amount {
        let Ok(all) = self.of_machine() else { return Amount::Few };
        let usual = MACHINE_MIN + EACH_SANDBOX * sandboxes;
        match all {
            _ if all > usual => Amount::Many,
            _ if all > usual / 2 => Amount::Some,
            _ => Amount::Few,
        }
    }

    fn of_machine(&mut self) -> io::Result<usize> {
        let mut text = String::new();
        self.machine.rewind()?;
        self.machine.read_to_string(&mut text)?;
        figure(&text, "TCP:", "alloc").ok_or_else(|| io::Error::other("no count of connections"))
    }
}

/// Returns those of the sandboxes that have too many connections, with how many.
pub(in crate::linux) fn too_many(living: &[Init]) -> Vec<(&Init, usize)> {
    (living.iter())
        .map(|init| (init, of_sandbox(init.process)))
        .filter(|(init, held)| *held as u64 > held_max(init.memory_bytes))
        .collect()
}

/// Returns the most connections of a sandbox with this memory limit.
const fn held_max(memory_bytes: u64) -> u64 {
    let by_memory = memory_bytes / BYTES_EACH;
    if by_memory > HELD_MIN { by_memory } else { HELD_MIN }
}

/// Returns how many connections the network namespace of a process has.
fn of_sandbox(process: u32) -> usize {
    [("sockstat", "TCP:"), ("sockstat6", "TCP6:")]
        .into_iter()
        .filter_map(|(file, line)| {
            // A machine without IPv6 has no second file.
            let text = fs::read_to_string(format!("/proc/{process}/net/{file}")).ok()?;
            figure(&text, line, "inuse")
        })
        .sum()
}

/// Reads a figure from a line of names and numbers (`TCP: inuse 5 orphan 0 ...`).
fn figure(text: &str, line: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|it| it.strip_prefix(line))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn figures_are_found_by_line_and_name() {
        let text =
            "sockets: used 142\nTCP: inuse 5 orphan 0 tw 2 alloc 9 mem 3\nUDP: inuse 1 mem 2\n";
        assert_eq!(figure(text, "TCP:", "inuse"), Some(5));
        assert_eq!(figure(text, "TCP:", "alloc"), Some(9));
        assert_eq!(figure(text, "UDP:", "alloc"), None);
        assert_eq!(figure(text, "TCP6:", "inuse"), None);
    }

    #[test]
    fn connections_that_nobody_has_accepted_are_counted() {
        let before = of_sandbox(std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("told");
        let clients: Vec<_> =
            (0..100).map(|_| TcpStream::connect(address).expect("connected")).collect();
        // Both ends of each; others on this machine come and go.
        assert!(of_sandbox(std::process::id()) >= before + 150, "{before} before");
        let mut connections = Connections::open().expect("told");
        assert!(connections.of_machine().expect("told") >= 200);
        drop(clients);
    }

    #[test]
    fn the_limit_goes_by_memory_with_a_least() {
        assert_eq!(held_max(128 << 20), 4_096);
        assert_eq!(held_max(1 << 20), 1_024);
    }
}
