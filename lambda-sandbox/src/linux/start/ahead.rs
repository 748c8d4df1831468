//! Makes the parts of a sandbox that do not depend on its specification before they are used: the
//! network and ipc namespaces, which are slow to make, and the wires (pipes and socket) to the
//! host.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nix::sched::{CloneFlags, unshare};

use crate::Error;
use crate::linux::net::netns::{self, Network};
use crate::linux::start::wires::Wires;

/// The parts of one sandbox that are made ahead.
#[derive(Debug)]
pub(in crate::linux) struct Ahead {
    pub(in crate::linux) network: Network,
    pub(in crate::linux) wires: Wires,
}

/// A pool of [`Ahead`] parts, filled in the background by a thread that moves from each namespace
/// into the next.
///
/// The thread starts to refill when half of the pool is used, or when [`Pool::fill`] is called. A
/// refill after each use would compete with the start that used the part.
#[derive(Debug)]
pub(in crate::linux) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when a part was added or taken, and when the pool is dropped.
    changed: Condvar,
    ready_max: usize,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Result<Ahead, Error>>,
    /// The number of threads that wait for a part.
    waiting: usize,
    /// Whether to fill the pool up to `ready_max`.
    asked: bool,
    ended: bool,
}

impl Pool {
    /// Starts the thread, which keeps up to `ready_max` parts ready.
    pub(in crate::linux) fn start(ready_max: usize) -> Result<Self, Error> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), ready_max });
        let in_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("sandbox-ahead".into())
            .spawn(move || in_thread.fill())
            .map_err(|source| Error::step("starting the thread that works ahead", source))?;
        Ok(Self(shared))
    }

    /// Takes a part if one is ready.
    pub(in crate::linux) fn try_take(&self) -> Option<Result<Ahead, Error>> {
        self.0.take(&mut self.0.state())
    }

    /// Takes a part. Blocks the calling thread until one is ready.
    pub(in crate::linux) fn take(&self) -> Result<Ahead, Error> {
        let mut state = self.0.state();
        loop {
            if let Some(ahead) = self.0.take(&mut state) {
                return ahead;
            }
            state.waiting += 1;
            self.0.changed.notify_all();
            state = self.0.wait(state);
            state.waiting -= 1;
        }
    }

    /// Asks the thread to refill the pool.
    pub(in crate::linux) fn fill(&self) {
        self.0.state().asked = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, state: &mut State) -> Option<Result<Ahead, Error>> {
        let taken = state.ready.pop_front();
        if state.ready.len() == self.ready_max / 2 {
            state.asked = true;
            self.changed.notify_all();
        }
        taken
    }

    fn fill(&self) {
        let mut state = self.state();
        state.asked = true;
        while !state.ended {
            let full = state.ready.len() >= self.ready_max;
            if full || (!state.asked && state.waiting == 0) {
                state = self.wait(state);
                continue;
            }
            state.asked = false;
            while state.ready.len() < self.ready_max && !state.ended {
                drop(state);
                let made = make();
                state = self.state();
                state.ready.push_back(made);
                if state.waiting > 0 {
                    self.changed.notify_all();
                }
            }
        }
    }
}

impl Ahead {
    /// Makes the parts in the network namespace of the calling thread, which moves into a new ipc
    /// namespace.
    pub(in crate::linux) fn here() -> Result<Self, Error> {
        unshare(CloneFlags::CLONE_NEWIPC)
            .map_err(|source| Error::step("making an ipc namespace", source))?;
        let path = "/proc/thread-self/ns/ipc";
        let ipc = File::open(path)
            .map_err(|source| Error::failed("opening an ipc namespace", path, source))?;
        Ok(Self { network: netns::here(ipc.into())?, wires: Wires::make()? })
    }
}

fn make() -> Result<Ahead, Error> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|source| Error::step("making a network namespace", source))?;
    Ahead::here()
}
