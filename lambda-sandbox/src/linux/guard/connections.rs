//! Counts TCP connections that nobody has accepted. The kernel charges their memory only when they
//! are accepted; each listener holds some, and the number of listeners is not limited.
//!
//! `/proc/net/sockstat` has the number of connections of the machine and of each network namespace.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};

use crate::linux::inits::Init;

/// A sandbox may have one connection for each such part of its memory limit, in bytes.
const BYTES_EACH: u64 = 32 << 10;
/// The connections that every sandbox may have, whatever its memory limit.
const HELD_MIN: u64 = 1_024;
/// The usual number of connections of a machine is this, plus [`EACH_SANDBOX`] for each sandbox.
/// Beyond it the sandboxes are checked.
const MACHINE_MIN: usize = 1_024;
const EACH_SANDBOX: usize = 8;

/// The kernel's count of the machine's connections, kept open.
#[derive(Debug)]
pub(in crate::linux) struct Connections {
    machine: File,
}

/// The number of the machine's connections compared with the usual number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::linux) enum Amount {
    Few,
    /// More than half of the usual number: check again soon.
    Some,
    Many,
}

impl Connections {
    pub(in crate::linux) fn open() -> io::Result<Self> {
        let mut connections = Self { machine: File::open("/proc/net/sockstat")? };
        connections.of_machine()?;
        Ok(connections)
    }

    /// Compares the machine's connections with the usual number for so many sandboxes. If the count
    /// cannot be read, the answer is [`Amount::Few`].
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

/// Returns the sandboxes with too many connections, each with its number of connections.
pub(in crate::linux) fn too_many(living: &[Init]) -> Vec<(&Init, usize)> {
    (living.iter())
        .map(|init| (init, of_sandbox(init.process)))
        .filter(|(init, held)| *held as u64 > held_max(init.memory_bytes))
        .collect()
}

/// Returns how many connections a sandbox with this memory limit may have.
const fn held_max(memory_bytes: u64) -> u64 {
    let by_memory = memory_bytes / BYTES_EACH;
    if by_memory > HELD_MIN { by_memory } else { HELD_MIN }
}

/// Returns the number of TCP connections in the network namespace of a process, IPv4 and IPv6.
fn of_sandbox(process: u32) -> usize {
    [("sockstat", "TCP:"), ("sockstat6", "TCP6:")]
        .into_iter()
        .filter_map(|(file, line)| {
            // Without IPv6 there is no `sockstat6`.
            let text = fs::read_to_string(format!("/proc/{process}/net/{file}")).ok()?;
            figure(&text, line, "inuse")
        })
        .sum()
}

/// Reads a number by line and name (`TCP: inuse 5 orphan 0 ...`).
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
        // Both ends of each connection; other connections of this machine come and go.
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
