//! Leases of workers, and the brake on losing many at once.
//!
//! Beats wait in the driver's queue while the driver stalls, and a part of the network can hide many workers that are well. So
//! a lease that ends unheard while the driver is late, or together with many others, is renewed once: the engine
//! suspects itself first. Beyond that [`Config::losses_max_percent`](crate::Config::losses_max_percent) bounds how many
//! workers are lost in the time of a lease.

use std::collections::VecDeque;

use super::{Agenda, Engine};
use crate::{Command, EventError, Time, WorkerId};

/// When the last workers were lost by the end of their lease, oldest first.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Losses(VecDeque<Time>);

/// The driver is late by more than this part of a lease: it stalls.
const STALL: u32 = 20;
/// A worker that may not be lost yet is looked at again after this part of a lease.
const AGAIN: u32 = 4;

impl Engine {
    pub(super) fn on_worker_beat(&mut self, worker: WorkerId) -> Result<(), EventError> {
        let (now, lease) = (self.state.now, self.state.config.worker_lease);
        let held = self.state.workers.get_mut(worker.0).ok_or(EventError::Unknown)?;
        if let Some(lease) = lease {
            held.lease_until = now + lease;
        }
        let graced = self.state.workers.side_mut(worker.0).map(|it| std::mem::take(&mut it.graced));
        if graced == Some(true) {
            self.refresh_phase(worker.0);
            self.room_came(worker.0);
        }
        Ok(())
    }

    /// A lease may be over, and others with it.
    pub(super) fn on_lease(&mut self, worker: WorkerId) {
        let Some(lease) = self.state.config.worker_lease else { return };
        let now = self.state.now;
        let mut due = vec![worker];
        while let Some(&(at, item @ Agenda::Lease(worker))) = self.state.agenda.first()
            && at <= now
        {
            self.state.agenda.remove(&(at, item));
            due.push(worker);
        }
        let mut silent = Vec::new();
        for worker in due {
            let Some(until) = self.state.workers.get(worker.0).map(|it| it.lease_until) else {
                continue;
            };
            if until > now {
                self.state.agenda.insert((until, Agenda::Lease(worker)));
            } else {
                silent.push(worker);
            }
        }
        while self.state.losses.0.front().is_some_and(|at| *at + lease <= now) {
            self.state.losses.0.pop_front();
        }
        let percent = self.state.config.losses_max_percent as usize;
        let most = (self.state.workers.len() * percent / 100).max(1);
        let left = most.saturating_sub(self.state.losses.0.len());
        let suspects_itself = silent.len() > left || self.late > lease / STALL;
        let mut lost = 0;
        for worker in silent {
            let graced = self.state.workers.side(worker.0).is_some_and(|it| it.graced);
            if suspects_itself && !graced {
                self.grace(worker, now + lease);
            } else if lost < left {
                lost += 1;
                self.state.losses.0.push_back(now);
                self.command(Command::LoseWorker { worker });
                self.lose_worker(worker.0);
            } else {
                self.grace(worker, now + lease / AGAIN);
            }
        }
    }

    /// Renews the lease of a worker that was not heard: it gets nothing new where another can have it.
    fn grace(&mut self, worker: WorkerId, until: Time) {
        if let Some(held) = self.state.workers.get_mut(worker.0) {
            held.lease_until = until;
        }
        if let Some(side) = self.state.workers.side_mut(worker.0) {
            side.graced = true;
        }
        self.state.agenda.insert((until, Agenda::Lease(worker)));
        self.refresh_phase(worker.0);
    }
}
