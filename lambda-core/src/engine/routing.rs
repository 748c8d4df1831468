//! The warm path: an invocation arrives, runs, ends.
//!
//! Two dependent reads find the sandbox: the function's record, and the record of its most recently
//! used idle sandbox.

use super::Engine;
use crate::command::{Command, RejectReason, StopReason};
use crate::config::Routing;
use crate::event::{Event, EventError, Used};
use crate::explain::Decided;
use crate::id::{FunctionId, InvocationId, SandboxId};
use crate::sandbox::State;
use crate::store::slot::SandboxSlot;
use crate::time::Time;

/// The most idle sandboxes between which [`Routing::CoolWorker`] chooses.
const WOKEN_OF: usize = 4;

impl Engine {
    /// Reads what [`Engine::handle`] will read for these events, and changes nothing. A driver that
    /// has a batch of arrivals and ends of invocations, up to a few dozen, can call this first: the
    /// memory latencies of all events then overlap. Calling it is never required. Other events are
    /// ignored.
    pub fn touch<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        let mut read = 0;
        for event in events {
            let (function, sandbox) = match event {
                Event::InvocationArrived { function, .. } => (Some(*function), None),
                Event::InvocationEnded { sandbox, .. } => {
                    (None, self.state.sandboxes.find(sandbox.0))
                }
                _ => (None, None),
            };
            let sandbox = sandbox.and_then(|at| self.state.sandboxes.get(at));
            let function =
                function.or_else(|| Some(sandbox?.function)).and_then(|id| self.function(id));
            let Some(function) = function else { continue };
            read ^= function.touch();
            let sandbox = sandbox.or_else(|| self.state.sandboxes.get(function.top()));
            let Some(sandbox) = sandbox else { continue };
            read ^= sandbox.wheel_prev.0 ^ sandbox.function.0;
            read ^= self.state.workers.busy_milli(sandbox.worker);
        }
        std::hint::black_box(read);
    }

    pub(super) fn on_arrived(&mut self, invocation: InvocationId, id: FunctionId) {
        let Some(function) = self.function(id).filter(|it| !it.removed) else {
            return self.refuse(invocation, id, RejectReason::FunctionUnknown);
        };
        if let Some(reason) = self.throttle(id, function) {
            return self.refuse(invocation, id, reason);
        }
        let concurrency = function.concurrency();
        if concurrency == 0 {
            self.end_gap(id);
        }
        if let Some(function) = self.function_mut(id) {
            function.uses = function.uses.saturating_add(1);
        }
        while let Some(sandbox) = self.take_idle(id) {
            self.no_longer_idle(sandbox);
            if !self.is_on_open_worker(sandbox) {
                self.stop_unlisted(sandbox, StopReason::Gone);
                continue;
            }
            if self.is_over(sandbox) {
                self.stop_unlisted(sandbox, StopReason::FunctionRemoved);
                continue;
            }
            self.count(id, concurrency, concurrency + 1);
            return self.dispatch(invocation, sandbox);
        }
        let Some(function) = self.function(id) else { return };
        let account = function.settings.account;
        let enough = function.starting > function.waiting_count();
        if !enough && let Some(reason) = self.refuses_to_start(id) {
            return self.refuse(invocation, id, reason);
        }
        if !self.may_wait(account) {
            return self.refuse(invocation, id, RejectReason::WaitingFull);
        }
        self.count(id, concurrency, concurrency + 1);
        let now = self.state.now;
        if let Some(function) = self.function_mut(id) {
            function.wait(invocation, now);
        }
        self.waits(account, 1);
        if !self.is_in_backlog(id) {
            self.start_missing(id);
        }
    }

    /// Removes the idle sandbox of a function that the routing chooses.
    fn take_idle(&mut self, id: FunctionId) -> Option<SandboxSlot> {
        let state = &mut self.state;
        let function = state.functions.get_mut(id)?;
        if state.config.routing == Routing::CoolWorker {
            let load = |at: &SandboxSlot| {
                let worker = state.sandboxes.get(*at).map(|it| it.worker);
                worker.map_or(u64::MAX, |worker| state.workers.busy_share(worker))
            };
            // Of equal ones, `min_by_key` returns the first.
            let coolest = function.recently_used().take(WOKEN_OF).min_by_key(load);
            if let Some(at) = coolest
                && coolest != function.recently_used().next()
                && let Some(sandbox) = state.sandboxes.get(at)
            {
                function.remove_idle(sandbox.idle_place());
                let sandboxes = &mut state.sandboxes;
                function.compact_idle(|moved, place| {
                    if let Some(moved) = sandboxes.get_mut(moved) {
                        moved.set_idle_place(place, moved.is_used());
                    }
                });
                return Some(at);
            }
        }
        function.take_idle(state.config.routing)
    }

    fn is_on_open_worker(&self, at: SandboxSlot) -> bool {
        let worker = self.state.sandboxes.get(at).map(|it| it.worker);
        worker.is_some_and(|worker| self.state.workers.is_open(worker))
    }

    /// Returns why no sandbox may be started for one more invocation of a function.
    fn refuses_to_start(&self, id: FunctionId) -> Option<RejectReason> {
        let function = self.function(id)?;
        let backs_off = function.start_from > self.state.now && function.serving() == 0;
        if let Some(sandbox) = function.failed.filter(|_| backs_off) {
            return Some(RejectReason::SandboxFailed { sandbox });
        }
        let waits = function.blocked.is_some() && function.serving() > 0;
        (!waits && !self.may_scale(id)).then_some(RejectReason::ScalingRate)
    }

    /// Removes a waiting invocation that nobody waits for any more.
    pub(super) fn on_withdrawn(
        &mut self,
        invocation: InvocationId,
        id: FunctionId,
    ) -> Result<(), EventError> {
        let function = self.function_mut(id).ok_or(EventError::Unknown)?;
        if !function.withdraw(invocation) {
            return Err(EventError::OutOfOrder);
        }
        let account = function.settings.account;
        self.waits(account, -1);
        let after = self.function(id).map_or(0, super::Function::concurrency);
        self.count(id, after + 1, after);
        self.unblock_if_served(id);
        self.drop_function_if_done(id);
        Ok(())
    }

    /// Ends a function's gap, since an invocation arrived. Asks the idle policy again if the gap
    /// was long, and cancels pre-warming.
    fn end_gap(&mut self, id: FunctionId) {
        let now = self.state.now;
        let Some(function) = self.state.functions.get_mut(id) else { return };
        if function.uses == 0 || function.was_quiet(now) {
            function.set_keep(self.idle.keep(&function.idle_view()));
            function.worth = self.idle.worth(&function.idle_view(), self.state.worth_clock);
        }
        if let Some(at) = function.set_prewarm_at(None) {
            self.state.agenda.remove(&(at, super::Agenda::Prewarm(id)));
        }
    }

    /// Rejects an invocation, without changing any count.
    pub(super) fn refuse(
        &mut self,
        invocation: InvocationId,
        id: FunctionId,
        reason: RejectReason,
    ) {
        self.explain(id, Decided::Rejected { invocation, reason }, Vec::new());
        self.command(Command::Reject { invocation, reason });
    }

    /// Updates the counts of its worker for a sandbox that left the idle list.
    pub(super) fn no_longer_idle(&mut self, at: SandboxSlot) {
        if let Some(sandbox) = self.state.sandboxes.get(at) {
            self.state.workers.take_idle(sandbox.worker, sandbox.memory_kib);
        }
    }

    /// Dispatches an invocation to a sandbox that is in no idle list.
    pub(super) fn dispatch(&mut self, invocation: InvocationId, at: SandboxSlot) {
        let now = self.state.now;
        let Some(sandbox) = self.state.sandboxes.get_mut(at) else { return };
        sandbox.run(invocation, now);
        let (worker, cpu_milli, id) = (sandbox.worker, sandbox.cpu_milli, sandbox.function);
        self.run(id, 1);
        self.state.workers.add_busy(worker, cpu_milli);
        let timeout = self.function(id).map(|it| it.settings.timeout).unwrap_or_default();
        let deadline = now + timeout;
        self.state.wheel.arm(&mut self.state.sandboxes, at, deadline);
        let deadline = self.state.clock.outside(now) + timeout;
        let sandbox = SandboxId(self.state.sandboxes.id(at));
        self.command(Command::Dispatch { invocation, sandbox, worker, deadline });
    }

    /// Changes the number of running invocations of a function by `change`.
    fn run(&mut self, id: FunctionId, change: i32) {
        let now = self.state.now;
        if let Some(function) = self.function_mut(id) {
            function.meter.change(now, change);
        }
    }

    pub(super) fn on_ended(
        &mut self,
        invocation: InvocationId,
        sandbox: SandboxId,
        reusable: bool,
        used: Used,
    ) -> Result<(), EventError> {
        let at = self.state.sandboxes.find(sandbox.0).ok_or(EventError::Unknown)?;
        let Some(held) = self.state.sandboxes.get(at).filter(|it| it.runs(invocation)) else {
            return Err(EventError::OutOfOrder);
        };
        let (now, since, id, worker) = (self.state.now, held.since, held.function, held.worker);
        if let Some(function) = self.function_mut(id) {
            function.ran(now.as_nanos().saturating_sub(since.as_nanos()) / 1_000_000);
            if let Some(peak) = used.memory_peak_bytes {
                function.memory_peaks_mib.add_number(peak >> 20);
            }
        }
        self.finish(at);
        if reusable {
            self.offer(at);
        } else {
            self.ending(at);
            if let Some(held) = self.state.sandboxes.get_mut(at) {
                held.marks.set_reason(StopReason::NotReusable);
            }
            let (worker, reason) = (worker, StopReason::NotReusable);
            self.journal(Command::StopSandbox { sandbox, worker, reason });
        }
        Ok(())
    }

    /// Removes the invocation of a sandbox from all counts. The caller must set the sandbox's state
    /// next.
    pub(super) fn finish(&mut self, at: SandboxSlot) {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return };
        let (id, worker, cpu_milli) = (sandbox.function, sandbox.worker, sandbox.cpu_milli);
        if sandbox.marks.stale() {
            self.state.old_deadlines.remove(&at);
        }
        self.state.workers.take_busy(worker, cpu_milli);
        let before = self.function(id).map_or(0, super::Function::concurrency);
        self.run(id, -1);
        self.count(id, before, before.saturating_sub(1));
    }

    /// Uses a sandbox that can take an invocation: dispatches the longest waiting one, else puts
    /// the sandbox into the idle list. Stops it if its function or its worker no longer wants it,
    /// or if another function needs its room.
    pub(super) fn offer(&mut self, at: SandboxSlot) {
        let now = self.state.now;
        let Some(sandbox) = self.state.sandboxes.get_mut(at) else { return };
        sandbox.state = State::Idle;
        sandbox.since = now;
        let (id, worker) = (sandbox.function, sandbox.worker);
        let draining = !self.state.workers.is_open(worker);
        let over = self.is_over(at);
        let Some(function) = self.function_mut(id) else { return };
        let reason = if over || function.removed && function.waiting_count() == 0 {
            Some(StopReason::FunctionRemoved)
        } else {
            draining.then_some(StopReason::Draining)
        };
        if let Some(reason) = reason {
            self.stop_unlisted(at, reason);
            return self.start_missing(id);
        }
        let (account, waits) = (function.settings.account, function.waiting_count() > 0);
        if waits && self.others_want_room() && self.yield_to_poorer(at, true) {
            return;
        }
        let Some(function) = self.function_mut(id) else { return };
        if let Some(invocation) = function.pop_waiting() {
            self.waits(account, -1);
            self.unblock_if_served(id);
            return self.dispatch(invocation, at);
        }
        if self.is_replaced(at) {
            return self.stop_unlisted(at, StopReason::FunctionRemoved);
        }
        let Some(function) = self.function_mut(id) else { return };
        let place = function.push_idle(at);
        let deadline = now + super::lifecycle::jittered(function.keep_idle(), at);
        if function.meter.busy() == 0 {
            self.begin_gap(id);
        }
        if let Some(sandbox) = self.state.sandboxes.get_mut(at) {
            sandbox.set_idle_place(place, true);
            let (worker, memory_kib) = (sandbox.worker, sandbox.memory_kib);
            self.state.workers.add_idle(worker, memory_kib);
        }
        self.state.wheel.arm(&mut self.state.sandboxes, at, deadline);
        if self.others_want_room() && self.deferred.is_none() {
            self.yield_to_poorer(at, false);
        }
    }

    /// Begins a function's gap: plans pre-warming if the idle policy wants it.
    fn begin_gap(&mut self, id: FunctionId) {
        let now = self.state.now;
        let Some(function) = self.function_mut(id) else { return };
        let Some((after, _)) = function.prewarm() else { return };
        let at = now + after;
        if let Some(before) = function.set_prewarm_at(Some(at)) {
            self.state.agenda.remove(&(before, super::Agenda::Prewarm(id)));
        }
        self.state.agenda.insert((at, super::Agenda::Prewarm(id)));
    }

    pub(super) fn on_prewarm(&mut self, at: Time, id: FunctionId) {
        let Some(function) = self.function_mut(id).filter(|it| it.prewarm_at() == Some(at)) else {
            return;
        };
        function.set_prewarm_at(None);
        if function.serving() == 0 && !function.removed {
            // Without success, the next invocation starts a sandbox.
            let _made = self.start_one(id);
        }
    }
}
