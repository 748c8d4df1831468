//! The end of sandboxes: what is left of each is reaped, removed, or kept for the next.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::linux::group::cgroup::Group;
use crate::linux::group::kept_groups::KeptGroup;
use crate::linux::root::template::Template;
use crate::linux::slots::{Slot, stays};
use crate::linux::sys;
use crate::{Error, Limits};

/// What there is to release when a sandbox has ended.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) group: Group,
    pub(super) limits: Limits,
    pub(super) pidfd: Arc<OwnedFd>,
    pub(super) slot: Slot,
    /// The root, which goes with its last user unless it is kept.
    pub(super) template: Option<Arc<Template>>,
}

/// A thread that waits for ended sandboxes, reaps them and removes their groups, one after another.
#[derive(Debug)]
pub(super) struct Janitor {
    work: Sender<Work>,
}

#[derive(Debug)]
enum Work {
    /// Releases what is left of a sandbox, and tells the one who asked, if any.
    Bury(Box<Remains>, Reply),
    /// Tells that all before it is done.
    Mark(Sender<()>),
}

impl Janitor {
    pub(super) fn start() -> Result<Self, Error> {
        let (work, queue) = channel();
        std::thread::Builder::new()
            .name("sandbox-janitor".into())
            .spawn(move || work_off(&queue))
            .map_err(|source| Error::step("starting the janitor thread", source))?;
        Ok(Self { work })
    }

    pub(super) fn bury(&self, remains: Remains, reply: Reply) {
        // The thread lives as long as this sender.
        drop(self.work.send(Work::Bury(Box::new(remains), reply)));
    }

    /// Waits until all that was dropped before is released, no longer than `limit`.
    pub(super) fn wait(&self, limit: Duration) {
        let (reply, done) = channel();
        drop(self.work.send(Work::Mark(reply)));
        // What takes longer is the next sweep's.
        let _late = done.recv_timeout(limit);
    }
}

type Reply = Option<oneshot::Sender<Result<(), Error>>>;

/// Releases one sandbox after another. One whose processes do not die, such as those that somebody has frozen, does not hold up
/// the others: it is looked at again until they do, and whoever waits for it is told.
fn work_off(queue: &Receiver<Work>) {
    let mut late: Vec<Remains> = Vec::new();
    loop {
        let work = if late.is_empty() {
            queue.recv().map_err(|_end| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(LATE_LOOK_TIME)
        };
        match work {
            Ok(Work::Bury(remains, reply)) => late.extend(bury(*remains, reply)),
            Ok(Work::Mark(reply)) => drop(reply.send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if late.is_empty() => return,
            // The host has ended; what is late is still to be released.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LATE_LOOK_TIME),
        }
        for remains in std::mem::take(&mut late) {
            if sys::ends_within(remains.pidfd.as_fd(), Duration::ZERO) {
                // Nobody waits any more.
                stays("late sandbox", remains.release());
            } else {
                late.push(remains);
            }
        }
    }
}

/// Releases a sandbox and says so; hands it back if it has not ended in time.
fn bury(remains: Remains, reply: Reply) -> Option<Remains> {
    let ended = sys::ends_within(remains.pidfd.as_fd(), DEATH_TIME);
    let (released, late) = if ended {
        (remains.release(), None)
    } else {
        let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
        (Err(Error::step("waiting for killed processes to end", source)), Some(remains))
    };
    // Whoever asked is told; without anybody, or when they have gone, the log is.
    let untold = match reply {
        Some(reply) => reply.send(released).err().unwrap_or(Ok(())),
        None => released,
    };
    stays("sandbox", untold);
    late
}

/// Longest wait for the end of processes that were killed.
const DEATH_TIME: Duration = Duration::from_secs(5);
/// Time between two looks at those that have not ended.
const LATE_LOOK_TIME: Duration = Duration::from_millis(50);

impl Remains {
    /// Releases what has ended.
    fn release(self) -> Result<(), Error> {
        let Self { mut group, limits, pidfd, slot, template } = self;
        sys::reap(pidfd.as_raw_fd());
        drop(template);
        let entrance = if group.renew() { group.entrance().ok() } else { None };
        let Some(entrance) = entrance else {
            group.kill();
            return group.remove();
        };
        let slots = Arc::clone(&slot.slots);
        let kept = KeptGroup { group, entrance, number: slot.keep() };
        slots.groups.keep(&limits, kept).map_or(Ok(()), |surplus| slots.remove(&surplus))
    }
}
