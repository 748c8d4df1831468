//! Kernel memory that no control group is charged for, and that no limit of the kernel's bounds by sandbox: connections that nobody has accepted,
//! and locks of ranges of files.
//!
//! A filter of system calls cannot count them. So a thread asks the kernel four times a second, while there are sandboxes, how much the
//! machine has of each. Only when that is much it looks whose it is: a sandbox that holds too many is killed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::Error;
use crate::linux::guard::connections::{self, Amount, Connections};
use crate::linux::guard::locks::Locks;
use crate::linux::inits::Init;
use crate::linux::shared::Shared;

const EVERY: Duration = Duration::from_millis(250);
/// While there are more connections than usual.
const SOON: Duration = Duration::from_millis(25);

/// What the thread reads.
#[derive(Debug)]
pub(in crate::linux) struct Sources {
    locks: Locks,
    connections: Connections,
}

impl Sources {
    /// Opens what the kernel tells; an error says what it does not tell here.
    pub(in crate::linux) fn open() -> Result<Self, String> {
        let absent =
            |what: &str, error: std::io::Error| format!("{what} cannot be counted: {error}");
        Ok(Self {
            locks: Locks::open().map_err(|error| absent("locks of files", error))?,
            connections: Connections::open().map_err(|error| absent("connections", error))?,
        })
    }
}

/// Starts the thread; it ends with the host.
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

/// Looks once; returns when to look again, or nothing when the host has ended.
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
