//! Health and pressure of workers. Health is by the outlier ejection that Envoy uses: a worker
//! whose starts fail is tried last, then ejected for a while, then tried with one start at a time.
//!
//! The score of a worker grows with each failure, shrinks with each success and halves with time.
//! It is kept when the worker is lost, since the same machine may join again.

mod record;

use std::time::Duration;

pub(crate) use self::record::Health;
use self::record::{HALF_LIFE, SLOW, SLOW_MIN};
use super::{Agenda, Engine};
use crate::command::StopReason;
use crate::event::EventError;
use crate::id::WorkerId;
use crate::sandbox::State;
use crate::workers::Phase;

impl Engine {
    /// Counts a start that failed by no fault of the function.
    pub(super) fn worker_failed(&mut self, worker: WorkerId) {
        let now = self.state.now;
        let (all, percent) = (self.state.workers.len(), self.state.config.ejected_max_percent);
        let most = (all * percent as usize / 100).max(usize::from(all > 1));
        let ejected = self.state.workers.ejected();
        let Some(side) = self.state.workers.side_mut(worker) else { return };
        if side.health.is_ejected(now) {
            // The start began before the ejection.
            return;
        }
        let outlier = side.health.failed(now);
        let until =
            if outlier && ejected < most { side.health.eject(now) } else { now + HALF_LIFE };
        self.state.agenda.insert((until, Agenda::Health(worker)));
        self.refresh_phase(worker);
    }

    /// Counts a successful start. It counts as failed if it took much longer than the function's
    /// starts usually do.
    pub(super) fn worker_succeeded(&mut self, worker: WorkerId, took: Duration, usual: Duration) {
        if !usual.is_zero() && took > SLOW_MIN && took > usual * SLOW {
            return self.worker_failed(worker);
        }
        let now = self.state.now;
        let Some(side) = self.state.workers.side_mut(worker) else { return };
        if side.health.is_suspect(now) {
            side.health.succeeded(now);
            self.refresh_phase(worker);
        }
    }

    pub(super) fn on_health_due(&mut self, worker: WorkerId) {
        let now = self.state.now;
        self.refresh_phase(worker);
        let suspect = |it: &crate::workers::Side| it.health.is_suspect(now);
        if self.state.workers.side(worker).is_some_and(suspect) {
            self.state.agenda.insert((now + HALF_LIFE, Agenda::Health(worker)));
        }
        self.on_room_freed(worker);
    }

    /// Handles the begin (`pressed`) or the end of pressure on a worker. Starts on it that were not
    /// commanded yet are made elsewhere.
    pub(super) fn on_worker_pressure(
        &mut self,
        worker: WorkerId,
        pressed: bool,
    ) -> Result<(), EventError> {
        let side = self.state.workers.side_mut(worker).ok_or(EventError::Unknown)?;
        if side.pressed == pressed {
            return Err(EventError::OutOfOrder);
        }
        side.pressed = pressed;
        self.refresh_phase(worker);
        if !pressed {
            self.on_room_freed(worker);
            return Ok(());
        }
        let waiting: Vec<_> = (self.state.workers.sandboxes(&self.state.sandboxes, worker))
            .filter(|(_, sandbox)| sandbox.state == State::Waiting)
            .map(|(at, sandbox)| (at, sandbox.function))
            .collect();
        for (at, _) in &waiting {
            self.stop(*at, StopReason::Evicted);
        }
        self.start_elsewhere(worker, waiting.into_iter().map(|(_, function)| function).collect());
        Ok(())
    }

    /// Sets the phase of a worker that is not draining, by its health, its pressure, its lease and
    /// the end of its life.
    pub(super) fn refresh_phase(&mut self, worker: WorkerId) {
        let now = self.state.now;
        let Some(held) = self.state.workers.get(worker) else { return };
        let Some(side) = self.state.workers.side(worker) else { return };
        let phase = match held.phase {
            Phase::Draining | Phase::Lost => return,
            _ if side.health.is_ejected(now) => Phase::Ejected,
            _ if side.pressed => Phase::Pressed,
            _ if side.health.is_suspect(now) || side.graced => Phase::Suspect,
            _ if side.near_end => Phase::Quiet,
            _ => Phase::Serving,
        };
        if phase != held.phase {
            self.state.workers.set_phase(worker, phase);
        }
    }
}
