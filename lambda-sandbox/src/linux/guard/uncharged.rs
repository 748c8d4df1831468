//! Watches kernel memory that no control group is charged for and that no limit of the kernel
//! bounds for one sandbox: connections that nobody has accepted, and locks of file ranges.
//!
//! A system call filter cannot count them. So while there are sandboxes, a thread reads the
//! machine's counts of both four times a second. If a count is high, the thread counts by sandbox
//! and kills those that hold too many.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::Error;
use crate::linux::guard::connections::{self, Amount, Connections};
use crate::linux::guard::locks::Locks;
use crate::linux::inits::Init;
use crate::linux::shared::Shared;

const EVERY: Duration = Duration::from_millis(250);
/// The interval while the machine has more connections than half of the usual number.
const SOON: Duration = Duration::from_millis(25);

/// The kernel's counts, kept open.
#[derive(Debug)]
pub(in crate::linux) struct Sources {
    locks: Locks,
    connections: Connections,
}

impl Sources {
    /// Opens the kernel's counts. The error text names the count that is missing on this machine.
    pub(in crate::linux) fn open() -> Result<Self, String> {
        let absent =
            |what: &str, error: std::io::Error| format!("{what} cannot be counted: {error}");
        Ok(Self {
            locks: Locks::open().map_err(|error| absent("locks of files", error))?,
            connections: Connections::open().map_err(|error| absent("connections", error))?,
        })
    }
}

/// Starts the watching thread. It ends after the host is dropped.
pub(in crate::linux) fn watch(shared: &Arc<Shared>, mut sources: Sources) -> Result<(), Error> {
    let shared = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("sandbox-counts".into())
        .spawn(move || {
            let mut pause = EVERY;
            loop {
                std::thread::sleep(pause);
                let Some(next) = look(&shared, &mut sources) else { return };
                pause = next;
            }
        })
        .map_err(|source| Error::step("starting the thread that counts kernel memory", source))?;
    Ok(())
}

/// Checks once. Returns the time until the next check, or `None` after the host was dropped.
fn look(shared: &Weak<Shared>, sources: &mut Sources) -> Option<Duration> {
    let shared = shared.upgrade()?;
    let sandboxes = shared.inits.count();
    if sandboxes == 0 {
        return Some(EVERY);
    }
    let amount = sources.connections.amount(sandboxes);
    if amount == Amount::Many {
        kill("connections", &connections::too_many(&shared.inits.living()));
    }
    if sources.locks.may_be_many() {
        let living = shared.inits.living();
        kill("locks of files", sources.locks.too_many(&living).as_slice());
    }
    Some(if amount == Amount::Few { EVERY } else { SOON })
}

fn kill(what: &str, sandboxes: &[(&Init, usize)]) {
    for (init, held) in sandboxes {
        tracing::warn!(sandbox = init.number, held, "sandbox killed: too many {what}");
        init.kill();
    }
}
