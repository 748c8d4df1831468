//! The workers that the driver is connected to.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::Error;
use crate::worker::Worker;
use crate::worker::protocol::{Epoch, ToWorker, WorkerCommand, WorkerId};

/// Workers by id.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    workers: BTreeMap<WorkerId, Connected>,
    next: u32,
}

#[derive(Debug)]
struct Connected {
    worker: Arc<dyn Worker>,
    /// The life of the worker that the engine knows; `None` until it has joined.
    epoch: Option<Epoch>,
    /// Told when the engine has taken the worker, or has not.
    joined: Option<oneshot::Sender<Result<WorkerId, Error>>>,
}

impl Fleet {
    /// Gives a worker its id.
    pub(super) fn add(
        &mut self,
        worker: Arc<dyn Worker>,
        joined: oneshot::Sender<Result<WorkerId, Error>>,
    ) -> WorkerId {
        let id = WorkerId(self.next);
        self.next += 1;
        self.workers.insert(id, Connected { worker, epoch: None, joined: Some(joined) });
        id
    }

    /// Returns the life of a worker that the engine knows.
    pub(super) fn epoch(&self, id: WorkerId) -> Option<Epoch> {
        self.workers.get(&id).and_then(|connected| connected.epoch)
    }

    pub(super) fn contains(&self, id: WorkerId) -> bool {
        self.workers.contains_key(&id)
    }

    /// Notes that the engine has taken a worker, and tells whoever added it.
    pub(super) fn joined(&mut self, id: WorkerId, epoch: Epoch) {
        let Some(connected) = self.workers.get_mut(&id) else { return };
        connected.epoch = Some(epoch);
        if let Some(joined) = connected.joined.take() {
            // Who added it may have gone: the worker works all the same.
            drop(joined.send(Ok(id)));
        }
    }

    /// Lets go of a worker; `reason` is told to whoever added it and has not heard yet.
    pub(super) fn remove(&mut self, id: WorkerId, reason: &str) {
        let Some(connected) = self.workers.remove(&id) else { return };
        if let Some(joined) = connected.joined {
            let refused = Error::Worker { worker: id.0, reason: reason.to_owned() };
            drop(joined.send(Err(refused)));
        }
    }

    /// Sends a command to a worker that is there.
    pub(super) fn carry_out(&self, id: WorkerId, command: WorkerCommand) {
        if let Some(connected) = self.workers.get(&id) {
            connected.worker.carry_out(ToWorker::new(id, command));
        }
    }

    pub(super) fn ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }
}
