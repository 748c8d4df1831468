//! The life of a sandbox after the decision to start it: ready or failed, idle, stopped, gone.

use std::time::Duration;

use super::{Agenda, Engine};
use crate::command::{Command, RejectReason, StopReason};
use crate::event::{EventError, Fault};
use crate::explain::Decided;
use crate::id::{FunctionId, InvocationId, SandboxId, WorkerId};
use crate::sandbox::{Sandbox, State};
use crate::store::slab::NONE;
use crate::store::slot::{SandboxSlot, VmSlot};
use crate::time::Time;

impl Engine {
    pub(super) fn on_ready(&mut self, sandbox: SandboxId) -> Result<(), EventError> {
        let at = self.state.sandboxes.find(sandbox.0).ok_or(EventError::Unknown)?;
        let Some(held) = self.state.sandboxes.get_mut(at).filter(|it| it.state == State::Starting)
        else {
            return Err(EventError::OutOfOrder);
        };
        let took = self.state.now.since(held.since);
        let worker = held.worker;
        self.on_started(at, took);
        // Its worker may start another sandbox now.
        self.on_room_freed(worker);
        Ok(())
    }

    /// Handles a sandbox whose start succeeded after `took`: dispatches a waiting invocation to it,
    /// or puts it into the idle list.
    pub(super) fn on_started(&mut self, at: SandboxSlot, took: Duration) {
        let now = self.state.now;
        self.no_longer_starting(at);
        let Some(held) = self.state.sandboxes.get_mut(at) else { return };
        (held.state, held.since) = (State::Idle, now);
        let (id, stale, worker) = (held.function, held.marks.stale(), held.worker);
        let draining = !self.state.workers.is_open(worker);
        let Some(function) = self.function_mut(id) else { return };
        function.start_failures = 0;
        function.failed_on = [WorkerId(NONE); 4];
        function.init_failures = 0;
        function.start_from = Time::ZERO;
        if function.serving() == 1 {
            function.turn_since = now;
        }
        let usual = function.start;
        function.start =
            if function.start.is_zero() { took } else { (function.start * 3 + took) / 4 };
        self.worker_succeeded(worker, took, usual);
        let Some(function) = self.function_mut(id) else { return };
        if stale || draining || function.removed && function.waiting_count() == 0 {
            let reason = if draining { StopReason::Draining } else { StopReason::FunctionRemoved };
            self.stop_unlisted(at, reason);
            return self.start_missing(id);
        }
        let account = function.settings.account;
        if let Some(invocation) = function.pop_waiting() {
            self.waits(account, -1);
            self.unblock_if_served(id);
            self.dispatch(invocation, at);
            // The function now has one start less and may begin another one of a burst.
            return self.start_missing(id);
        }
        let place = function.push_idle(at);
        if let Some(sandbox) = self.state.sandboxes.get_mut(at) {
            sandbox.set_idle_place(place, false);
            let (worker, memory_kib) = (sandbox.worker, sandbox.memory_kib);
            self.state.workers.add_idle(worker, memory_kib);
        }
        let deadline = idle_until(now, self.keep_nanos(at), at);
        self.state.wheel.arm(&mut self.state.sandboxes, at, deadline);
        self.retire_old(id);
    }

    /// Returns how long a sandbox is kept idle, in nanoseconds.
    fn keep_nanos(&self, at: SandboxSlot) -> u64 {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return 0 };
        let Some(function) = self.function(sandbox.function) else { return 0 };
        match function.prewarm() {
            Some((_, keep)) if !sandbox.is_used() => {
                u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX)
            }
            _ => function.keep_idle_nanos(),
        }
    }

    /// Removes a sandbox from the counts of starting ones.
    fn no_longer_starting(&mut self, at: SandboxSlot) {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return };
        let (id, worker, stale) = (sandbox.function, sandbox.worker, sandbox.marks.stale());
        if let Some(worker) = self.state.workers.get_mut(worker) {
            worker.starting -= 1;
        }
        if let Some(function) = self.function_mut(id).filter(|_| !stale) {
            function.starting -= 1;
        }
    }

    /// Stops a sandbox that runs no invocation. Returns whether it did.
    pub(super) fn stop(&mut self, at: SandboxSlot, reason: StopReason) -> bool {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return false };
        let (id, place) = (sandbox.function, sandbox.idle_place());
        match sandbox.state {
            State::Idle => self.leave_idle(at, id, place),
            State::Starting => self.no_longer_starting(at),
            State::Waiting => {
                // Its start was not commanded yet: it is gone at once.
                self.no_longer_starting(at);
                self.mark_stopping(at);
                self.forget(at, RejectReason::SandboxLost);
                return true;
            }
            State::Busy | State::Stopping => return false,
        }
        self.stop_unlisted(at, reason);
        true
    }

    fn leave_idle(&mut self, at: SandboxSlot, id: FunctionId, place: u32) {
        self.no_longer_idle(at);
        let Some(function) = self.state.functions.get_mut(id) else { return };
        function.remove_idle(place);
        let sandboxes = &mut self.state.sandboxes;
        function.compact_idle(|at, place| {
            if let Some(sandbox) = sandboxes.get_mut(at) {
                sandbox.set_idle_place(place, sandbox.is_used());
            }
        });
    }

    /// Stops a sandbox that is not in its function's idle list.
    pub(super) fn stop_unlisted(&mut self, at: SandboxSlot, reason: StopReason) {
        self.ending(at);
        let Some(worker) = self.state.sandboxes.get(at).map(|it| it.worker) else {
            return;
        };
        let sandbox = SandboxId(self.state.sandboxes.id(at));
        if let Some(held) = self.state.sandboxes.get_mut(at) {
            held.marks.set_reason(reason);
        }
        if self.state.workers.is_lost(worker) {
            self.journal(Command::StopSandbox { sandbox, worker, reason });
        } else {
            self.command(Command::StopSandbox { sandbox, worker, reason });
        }
    }

    /// Marks a sandbox as stopping and sets the timer for its end.
    pub(super) fn ending(&mut self, at: SandboxSlot) {
        self.mark_stopping(at);
        let deadline = self.state.now + self.state.config.stop_timeout;
        self.state.wheel.arm(&mut self.state.sandboxes, at, deadline);
    }

    fn mark_stopping(&mut self, at: SandboxSlot) {
        let now = self.state.now;
        let Some(sandbox) = self.state.sandboxes.get_mut(at) else { return };
        (sandbox.state, sandbox.since) = (State::Stopping, now);
        self.state.stopping += 1;
        let (id, counted) = (sandbox.function, sandbox.marks.stale());
        if let Some(function) = self.function_mut(id).filter(|_| !counted) {
            function.ending += 1;
        }
        self.provision_soon(id);
    }

    pub(super) fn on_failed(&mut self, sandbox: SandboxId, fault: Fault) -> Result<(), EventError> {
        let at = self.state.sandboxes.find(sandbox.0).ok_or(EventError::Unknown)?;
        let held = self.state.sandboxes.get(at).ok_or(EventError::Unknown)?;
        let (id, state, worker) = (held.function, held.state, held.worker);
        let begun = held.since;
        if state == State::Waiting {
            return Err(EventError::OutOfOrder);
        }
        let starting = state == State::Starting;
        self.forget(at, RejectReason::SandboxLost);
        if starting {
            match fault {
                Fault::Worker => self.on_worker_fault(id, sandbox, Some((worker, begun))),
                Fault::Function => {
                    self.function_failed(id, sandbox);
                    self.reject_first(id, RejectReason::SandboxFailed { sandbox });
                    self.provision_soon(id);
                    self.start_missing(id);
                }
            }
        }
        self.on_room_freed(worker);
        Ok(())
    }

    pub(super) fn on_gone(&mut self, sandbox: SandboxId) -> Result<(), EventError> {
        let at = self.state.sandboxes.find(sandbox.0).ok_or(EventError::Unknown)?;
        let held = self.state.sandboxes.get(at).ok_or(EventError::Unknown)?;
        let (id, state, worker) = (held.function, held.state, held.worker);
        let begun = held.since;
        if state == State::Waiting {
            return Err(EventError::OutOfOrder);
        }
        self.forget(at, RejectReason::SandboxLost);
        if state == State::Starting {
            self.on_worker_fault(id, sandbox, Some((worker, begun)));
        }
        self.on_room_freed(worker);
        Ok(())
    }

    /// Handles a start that failed by no fault of the function. Tries again. After more than
    /// [`Config::start_retries_max`](crate::Config::start_retries_max) failures in a row, rejects
    /// one waiting invocation and counts from zero. Failures on one worker of starts that began
    /// before the first of them count once.
    pub(super) fn on_worker_fault(
        &mut self,
        id: FunctionId,
        sandbox: SandboxId,
        on: Option<(WorkerId, Time)>,
    ) {
        self.uncount_start(id);
        let worker = on.map(|(worker, _)| worker);
        let old = on.is_some_and(|(worker, begun)| {
            self.state.workers.side(worker).is_some_and(|side| side.health.is_old_news(begun))
        });
        if let Some(worker) = worker {
            self.worker_failed(worker);
        }
        let retries = self.state.config.start_retries_max;
        let Some(function) = self.function_mut(id) else { return };
        let worker = worker.unwrap_or(WorkerId(NONE));
        let known = old && worker != WorkerId(NONE) && function.failed_on.contains(&worker);
        if !known {
            function.failed_on.rotate_right(1);
            function.failed_on[0] = worker;
            function.start_failures += 1;
        }
        if function.start_failures > retries {
            function.start_failures = 0;
            function.failed_on = [WorkerId(NONE); 4];
            self.reject_first(id, RejectReason::SandboxFailed { sandbox });
        }
        self.provision_soon(id);
        self.start_missing(id);
    }

    /// Removes a sandbox that is gone from all counts and tables. An invocation that it ran is
    /// rejected with `reason`.
    pub(super) fn forget(&mut self, at: SandboxSlot, reason: RejectReason) {
        let Some(sandbox) = self.state.sandboxes.get(at).cloned() else { return };
        match sandbox.state {
            State::Waiting | State::Starting => self.no_longer_starting(at),
            State::Idle => self.leave_idle(at, sandbox.function, sandbox.idle_place()),
            State::Busy => {
                self.finish(at);
                let invocation = sandbox.invocation();
                self.refuse(invocation, sandbox.function, reason);
            }
            State::Stopping => {}
        }
        self.state.wheel.disarm(&mut self.state.sandboxes, at);
        if sandbox.state != State::Waiting && sandbox.state != State::Stopping {
            // It ended without a command; the journal records the end nevertheless.
            let id = SandboxId(self.state.sandboxes.id(at));
            let (worker, reason) = (sandbox.worker, StopReason::Gone);
            self.journal(Command::StopSandbox { sandbox: id, worker, reason });
        }
        self.release(at, &sandbox);
        self.state.stopping -= u32::from(sandbox.state == State::Stopping);
        self.state.sandboxes.remove(at);
        self.leave_vm(sandbox.vm, sandbox.memory_kib);
        self.leave_interface(sandbox.interface);
        self.retire_if_empty(sandbox.worker);
        self.provision_soon(sandbox.function);
        self.start_in_place(sandbox.function);
        self.drop_function_if_done(sandbox.function);
    }

    /// Removes a sandbox from the counts of its worker and its function.
    fn release(&mut self, at: SandboxSlot, sandbox: &Sandbox) {
        let state = &mut self.state;
        state.workers.unlink(&mut state.sandboxes, at);
        if sandbox.vm == VmSlot::NONE {
            state.workers.hold_memory(sandbox.worker, -i64::from(sandbox.memory_kib));
        }
        let Some(function) = state.functions.get_mut(sandbox.function) else {
            return;
        };
        if sandbox.marks.stale() || sandbox.state == State::Stopping {
            function.ending -= 1;
        }
        let (milli, slots) = (i64::from(sandbox.cpu_milli), i64::from(sandbox.marks.slot()));
        state.workers.hold(sandbox.worker, 0, -milli, -slots);
        let zone = state.workers.get(sandbox.worker).map(|it| it.zone);
        zone.into_iter().for_each(|zone| function.take_zone(zone));
        function.spread.remove(sandbox.worker);
        let account = function.settings.account;
        function.members.swap_remove(sandbox.member as usize);
        let moved = function.members.get(sandbox.member as usize).copied();
        if let Some(moved) = moved.and_then(|moved| state.sandboxes.get_mut(moved)) {
            moved.member = sandbox.member;
        }
        self.hold_for(account, -i64::from(sandbox.memory_kib));
    }

    /// Handles the turn of a sandbox in the timer wheel.
    pub(super) fn on_sandbox_due(&mut self, at: SandboxSlot) {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return };
        let (state, since, id) = (sandbox.state, sandbox.since, sandbox.function);
        if self.state.workers.is_lost(sandbox.worker) {
            self.lose(at);
            return self.start_missing(id);
        }
        let config = &self.state.config;
        let limit = match state {
            State::Waiting => config
                .start_timeout
                .max(config.vm.start_timeout)
                .max(config.interface.start_timeout),
            State::Starting => config.start_timeout,
            State::Idle => idle_until(since, self.keep_nanos(at), at).since(since),
            State::Busy => self.function(id).map(|it| it.settings.timeout).unwrap_or_default(),
            State::Stopping => config.stop_timeout,
        };
        let old = self.state.old_deadlines.get(&at).filter(|_| state == State::Busy);
        let deadline = old.copied().unwrap_or(since + limit);
        if deadline > self.state.now {
            return self.state.wheel.arm(&mut self.state.sandboxes, at, deadline);
        }
        match state {
            State::Waiting | State::Starting => {
                let sandbox = SandboxId(self.state.sandboxes.id(at));
                let worker = self.state.sandboxes.get(at).map(|it| (it.worker, it.since));
                self.stop(at, StopReason::StartTimedOut);
                let worker = worker.filter(|_| state == State::Starting);
                self.on_worker_fault(id, sandbox, worker);
            }
            State::Idle => self.on_idle_too_long(at),
            State::Busy => self.on_timed_out(at),
            State::Stopping => self.stop_again(at),
        }
    }

    fn on_idle_too_long(&mut self, at: SandboxSlot) {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return };
        let provisioned = |it: &super::Function| {
            !it.removed && it.serving() <= it.settings.provisioned_concurrency
        };
        if !sandbox.marks.stale() && self.function(sandbox.function).is_some_and(provisioned) {
            // Checked again later: the provisioned concurrency may be lower then.
            let deadline = self.state.now + self.state.config.stop_timeout;
            return self.state.wheel.arm(&mut self.state.sandboxes, at, deadline);
        }
        self.stop(at, StopReason::Idle);
    }

    /// Times out the invocation of a sandbox, if it runs one.
    pub(super) fn on_timed_out(&mut self, at: SandboxSlot) {
        let busy = |it: &&Sandbox| it.state == State::Busy;
        let Some(sandbox) = self.state.sandboxes.get(at).filter(busy) else { return };
        let (invocation, worker) = (sandbox.invocation(), sandbox.worker);
        let id = sandbox.function;
        self.finish(at);
        self.ending(at);
        if let Some(held) = self.state.sandboxes.get_mut(at) {
            held.marks.set_reason(StopReason::TimedOut);
        }
        let sandbox = SandboxId(self.state.sandboxes.id(at));
        self.command(Command::TimeOut { invocation, sandbox, worker });
        self.start_missing(id);
    }

    /// Repeats the stop command of a sandbox whose end was not reported.
    fn stop_again(&mut self, at: SandboxSlot) {
        let now = self.state.now;
        let Some(sandbox) = self.state.sandboxes.get_mut(at) else { return };
        sandbox.since = now;
        let (worker, reason) = (sandbox.worker, sandbox.marks.reason());
        let deadline = now + self.state.config.stop_timeout;
        self.state.wheel.arm(&mut self.state.sandboxes, at, deadline);
        let sandbox = SandboxId(self.state.sandboxes.id(at));
        self.command(Command::StopSandbox { sandbox, worker, reason });
    }

    /// Rejects the invocation that waits longest.
    pub(super) fn reject_first(&mut self, id: FunctionId, reason: RejectReason) {
        let popped = self.function_mut(id).and_then(|it| it.pop_waiting());
        self.rejected(id, popped, reason);
    }

    /// Rejects the newest waiting invocation.
    pub(super) fn reject_last(&mut self, id: FunctionId, reason: RejectReason) {
        let popped = self.function_mut(id).and_then(|it| it.pop_last_waiting());
        self.rejected(id, popped, reason);
    }

    pub(super) fn rejected(
        &mut self,
        id: FunctionId,
        invocation: Option<InvocationId>,
        reason: RejectReason,
    ) {
        let Some(invocation) = invocation else { return };
        if let Some(account) = self.function(id).map(|it| it.settings.account) {
            self.waits(account, -1);
        }
        let after = self.function(id).map_or(0, super::Function::concurrency);
        self.count(id, after + 1, after);
        self.explain(id, Decided::Rejected { invocation, reason }, Vec::new());
        self.command(Command::Reject { invocation, reason });
        self.unblock_if_served(id);
        self.drop_function_if_done(id);
    }

    /// Sets a timer to start missing provisioned sandboxes.
    pub(super) fn provision_soon(&mut self, id: FunctionId) {
        let short = |it: &super::Function| {
            !it.removed && it.serving() < it.settings.provisioned_concurrency
        };
        let Some(function) = self.function_mut(id).filter(|it| short(it)) else { return };
        // Delayed after failed starts, so that a function that cannot start does not try
        // constantly.
        let failures = function.start_failures.min(6);
        let wait = Duration::from_millis(if failures == 0 { 0 } else { 500 << failures });
        function.provision_due &= failures == 0;
        let at =
            (self.state.now + wait).max(self.function(id).map_or(Time::ZERO, |it| it.start_from));
        self.state.agenda.insert_earlier((at, Agenda::Provision(id)));
    }
}

/// Returns until when a sandbox that became idle at `since` is kept. `keep_nanos` is shortened by
/// up to a sixteenth, by an amount that depends on the sandbox, so that the sandboxes of a burst do
/// not all end at once.
pub(super) fn idle_until(since: Time, keep_nanos: u64, at: SandboxSlot) -> Time {
    // Multiples of the golden ratio spread neighbouring numbers widest (Knuth, vol. 3, 6.4).
    let share = u64::from(at.0.wrapping_mul(0x9E37_79B9) >> 16);
    let kept = keep_nanos - keep_nanos / 16 / 65536 * share;
    Time::from_nanos(since.as_nanos().saturating_add(kept))
}
