//! Leases of workers, and a limit on losing many at once.
//!
//! Heartbeats queue up while the driver stalls, and a network partition can hide many healthy
//! workers. The engine therefore renews a lease once if it expires while the driver is late, or
//! together with more others than may be lost. In any case,
//! [`Config::losses_max_percent`](crate::Config::losses_max_percent) limits how many workers are
//! lost within one lease time.

mod losses;

pub(crate) use self::losses::Losses;
use super::{Agenda, Engine};
use crate::command::Command;
use crate::event::EventError;
use crate::id::WorkerId;
use crate::time::Time;

/// The driver counts as stalled if it is late by more than a lease divided by this.
const STALL: u32 = 20;
/// A worker that may not be lost yet is checked again after a lease divided by this.
const AGAIN: u32 = 4;

impl Engine {
    pub(super) fn on_worker_beat(&mut self, worker: WorkerId) -> Result<(), EventError> {
        let (now, lease) = (self.state.now, self.state.config.worker_lease);
        let held = self.state.workers.side_mut(worker).ok_or(EventError::Unknown)?;
        if let Some(lease) = lease {
            held.lease_until = now + lease;
        }
        if std::mem::take(&mut held.graced) {
            self.refresh_phase(worker);
            self.on_room_freed(worker);
        }
        Ok(())
    }

    /// Checks all leases that are due: renews them, or loses the workers.
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
            let Some(until) = self.state.workers.side(worker).map(|it| it.lease_until) else {
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
            let graced = self.state.workers.side(worker).is_some_and(|it| it.graced);
            if suspects_itself && !graced {
                self.grace(worker, now + lease);
            } else if lost < left {
                lost += 1;
                self.state.losses.0.push_back(now);
                self.command(Command::LoseWorker { worker });
                self.begin_loss(worker);
            } else {
                self.grace(worker, now + lease / AGAIN);
            }
        }
    }

    /// Extends the lease of a worker without a heartbeat until `until`. The worker becomes suspect.
    fn grace(&mut self, worker: WorkerId, until: Time) {
        if let Some(side) = self.state.workers.side_mut(worker) {
            side.lease_until = until;
            side.graced = true;
        }
        self.state.agenda.insert((until, Agenda::Lease(worker)));
        self.refresh_phase(worker);
    }
}
