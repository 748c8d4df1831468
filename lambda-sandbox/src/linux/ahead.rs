//! What a sandbox needs that does not depend on its specification, made ahead of its use: the network and ipc namespaces, which
//! are slow to make, and its wires.

use std::fs::File;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use nix::sched::{CloneFlags, unshare};

use super::netns::{self, Network};
use super::wires::Wires;
use crate::Error;

/// The start of a sandbox.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) network: Network,
    pub(super) wires: Wires,
}

/// Makes them in the background, on a thread that moves from each namespace into the next.
#[derive(Debug)]
pub(super) struct Pool {
    ready: Mutex<Receiver<Result<Ahead, Error>>>,
}

impl Pool {
    /// Starts to make them, `ready_max` ahead of their use.
    pub(super) fn start(ready_max: usize) -> Result<Self, Error> {
        let (sender, ready) = sync_channel(ready_max);
        std::thread::Builder::new()
            .name("sandbox-ahead".into())
            .spawn(move || fill(&sender))
            .map_err(|source| Error::step("starting the thread that works ahead", source))?;
        Ok(Self { ready: Mutex::new(ready) })
    }

    /// Takes one if one is ready.
    pub(super) fn try_take(&self) -> Option<Result<Ahead, Error>> {
        let ready = self.ready.try_lock().ok()?;
        ready.try_recv().ok()
    }

    /// Takes one; blocks its thread while the pool is empty.
    pub(super) fn take(&self) -> Result<Ahead, Error> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.recv().map_err(|_thread_gone| Error::Ended)?
    }
}

fn fill(sender: &SyncSender<Result<Ahead, Error>>) {
    // Ends when the pool is dropped: nobody receives then.
    while sender.send(make()).is_ok() {}
}

fn make() -> Result<Ahead, Error> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|source| Error::step("making a network namespace", source))?;
    unshare(CloneFlags::CLONE_NEWIPC)
        .map_err(|source| Error::step("making an ipc namespace", source))?;
    let path = "/proc/thread-self/ns/ipc";
    let ipc = File::open(path)
        .map_err(|source| Error::failed("opening an ipc namespace", path, source))?;
    Ok(Ahead { network: netns::here(ipc.into())?, wires: Wires::make()? })
}
