//! The end of sandboxes: what is left of each is reaped, removed, or kept for the next.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::cgroup::Group;
use super::kept_groups::KeptGroup;
use super::template::Template;
use super::{Shared, sys};
use crate::{Error, Limits};

/// How long is waited at a time for what does not die.
const LATE_TIME: Duration = Duration::from_secs(3600);

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

/// A sandbox's number, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    shared: Arc<Shared>,
    pub(super) number: u32,
    /// Whether the number stays taken.
    kept: bool,
}

impl Slot {
    pub(super) fn new(shared: &Arc<Shared>, number: u32) -> Self {
        Self { shared: Arc::clone(shared), number, kept: false }
    }

    /// Leaves the number taken, for the group that is kept with it.
    pub(super) fn keep(mut self) -> u32 {
        self.kept = true;
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.kept {
            self.shared.instance.give_slot(self.number);
        }
    }
}

/// A thread that waits for ended sandboxes, reaps them and removes their groups, one after another.
#[derive(Debug)]
pub(super) struct Janitor {
    work: Sender<Work>,
}

#[derive(Debug)]
enum Work {
    /// Releases what is left of a sandbox, and tells the one who asked, if any.
    Bury(Box<Remains>, Option<oneshot::Sender<Result<(), Error>>>),
    /// Tells that all before it is done.
    Mark(Sender<()>),
}

impl Janitor {
    pub(super) fn start() -> Result<Self, Error> {
        let (work, queue) = channel();
        std::thread::Builder::new()
            .name("sandbox-janitor".into())
            .spawn(move || {
                for work in queue {
                    match work {
                        Work::Bury(remains, reply) => {
                            let removed = remains.release();
                            if let Some(reply) = reply {
                                // Who asked may have gone; what could not be removed is the next sweep's.
                                drop(reply.send(removed));
                            }
                        }
                        Work::Mark(reply) => drop(reply.send(())),
                    }
                }
            })
            .map_err(|source| Error::step("starting the janitor thread", source))?;
        Ok(Self { work })
    }

    pub(super) fn bury(&self, remains: Remains, reply: Option<oneshot::Sender<Result<(), Error>>>) {
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

impl Remains {
    fn release(self) -> Result<(), Error> {
        let Self { mut group, limits, pidfd, slot, template } = self;
        if !sys::wait_ended(pidfd.as_fd(), super::DEATH_TIME) {
            // Nobody may have its group and its user id while it is there. Others are not to wait for it.
            let late = move || {
                while !sys::wait_ended(pidfd.as_fd(), LATE_TIME) {}
                sys::reap(pidfd.as_raw_fd());
                drop(template);
                group.kill();
                let removed = group.remove();
                drop((slot, removed));
            };
            std::thread::Builder::new()
                .name("sandbox-late".into())
                .spawn(late)
                .map_err(|source| Error::step("starting a thread", source))?;
            return Err(Error::step("waiting for the sandbox's end", nix::errno::Errno::ETIMEDOUT));
        }
        sys::reap(pidfd.as_raw_fd());
        drop(template);
        let entrance = if group.renew() { group.entrance().ok() } else { None };
        let Some(entrance) = entrance else {
            group.kill();
            return group.remove();
        };
        let shared = Arc::clone(&slot.shared);
        let kept = KeptGroup { group, entrance, number: slot.keep() };
        shared.groups.keep(&limits, kept).map_or(Ok(()), |surplus| shared.remove(&surplus))
    }
}
