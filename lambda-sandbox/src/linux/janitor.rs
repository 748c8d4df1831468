//! Cleans up after ended sandboxes: reaps their processes, and removes their groups or keeps them
//! for the next sandbox.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::linux::group::cgroup::Group;
use crate::linux::group::kept_groups::KeptGroup;
use crate::linux::root::scratch::Disk;
use crate::linux::root::template::Template;
use crate::linux::slots::{Slot, stays};
use crate::linux::sys;
use crate::{Error, Limits};

/// The resources of an ended sandbox.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) group: Group,
    pub(super) limits: Limits,
    pub(super) pidfd: Arc<OwnedFd>,
    pub(super) slot: Slot,
    /// The mounted root. It is released with its last user, unless it is kept.
    pub(super) template: Option<Arc<Template>>,
    /// The scratch space on disk, if it has one.
    pub(super) disk: Option<Disk>,
}

/// A thread that releases the resources of ended sandboxes, one sandbox after another.
#[derive(Debug)]
pub(super) struct Janitor {
    work: Sender<Work>,
}

#[derive(Debug)]
enum Work {
    /// Releases the resources of a sandbox, and answers if there is a reply channel.
    Bury(Box<Remains>, Reply),
    /// Answers when all work that was queued before is done.
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
        // The receiver lives as long as the thread, and the thread as long as this sender.
        drop(self.work.send(Work::Bury(Box::new(remains), reply)));
    }

    /// Waits, for `limit` at most, until the work queued before is done.
    pub(super) fn wait(&self, limit: Duration) {
        let (reply, done) = channel();
        drop(self.work.send(Work::Mark(reply)));
        // The next sweep removes what takes longer.
        let _late = done.recv_timeout(limit);
    }
}

type Reply = Option<oneshot::Sender<Result<(), Error>>>;

/// Releases one sandbox after another. If a sandbox's processes do not end, for example because
/// somebody has frozen them, the caller gets an error, and the sandbox is checked again until they
/// end. The others do not wait for it.
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
            // The host has ended. The late sandboxes must still be released.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LATE_LOOK_TIME),
        }
        for remains in std::mem::take(&mut late) {
            if sys::ends_within(remains.pidfd.as_fd(), Duration::ZERO) {
                // Its caller was answered before: errors go to the log.
                stays("late sandbox", remains.release());
            } else {
                late.push(remains);
            }
        }
    }
}

/// Releases a sandbox and answers the caller. Returns the resources if the processes have not ended
/// in time.
fn bury(remains: Remains, reply: Reply) -> Option<Remains> {
    let ended = sys::ends_within(remains.pidfd.as_fd(), DEATH_TIME);
    let (released, late) = if ended {
        (remains.release(), None)
    } else {
        let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
        (Err(Error::step("waiting for killed processes to end", source)), Some(remains))
    };
    // Without a caller, or if its future was dropped, an error goes to the log.
    let untold = match reply {
        Some(reply) => reply.send(released).err().unwrap_or(Ok(())),
        None => released,
    };
    stays("sandbox", untold);
    late
}

/// The longest wait for the end of killed processes.
const DEATH_TIME: Duration = Duration::from_secs(5);
/// The time between two checks of the late sandboxes.
const LATE_LOOK_TIME: Duration = Duration::from_millis(50);

impl Remains {
    /// Releases the resources of a sandbox whose processes have ended.
    fn release(self) -> Result<(), Error> {
        let Self { mut group, limits, pidfd, slot, template, disk } = self;
        sys::reap(pidfd.as_raw_fd());
        drop((template, disk));
        let entrance = if group.renew() { group.entrance().ok() } else { None };
        let Some(entrance) = entrance else {
            group.kill();
            return group.remove();
        };
        let slots = Arc::clone(&slot.slots);
        let users = slots.user_namespace(slot.number);
        let kept = KeptGroup { group, entrance, number: slot.keep(), users };
        slots.groups.keep(&limits, kept).map_or(Ok(()), |surplus| slots.remove(&surplus))
    }
}
