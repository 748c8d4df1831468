//! The warm path: an invocation arrives, runs, ends.
//!
//! Two dependent reads find the sandbox: the function's record, and the record of its most recently
//! used idle sandbox.

use super::lifecycle::idle_until;
use super::{Agenda, Engine, Function};
use crate::command::{Command, RejectReason, StopReason};
use crate::config::Routing;
use crate::event::{Event, EventError, Used};
use crate::explain::Decided;
use crate::id::{FunctionId, InvocationId, SandboxId};
use crate::sandbox::{Sandbox, State};
use crate::store::slot::SandboxSlot;
use crate::time::Time;

/// The most idle sandboxes between which [`Routing::CoolWorker`] chooses.
const WOKEN_OF: usize = 4;
/// How many events [`Engine::touch`] reads for at once.
const TOUCHED: usize = 16;

impl Engine {
    /// Reads what [`Engine::handle`] will read for these events, and changes nothing. A driver that
    /// has a batch of arrivals and ends of invocations, up to a few dozen, can call this first: the
    /// memory latencies of all events then overlap. Calling it is never required. Other events are
    /// ignored.
    pub fn touch<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        let mut events = events.into_iter();
        let mut found: [(Option<&Function>, Option<&Sandbox>); TOUCHED] = [(None, None); TOUCHED];
        let mut read = 0;
        // An arrival names a function, which names its sandbox; an end the other way round. The
        // loops are short, so that the processor reaches the reads of several events before the
        // first one completes.
        loop {
            let mut count = 0;
            for (place, event) in found.iter_mut().zip(events.by_ref()) {
                *place = match event {
                    Event::InvocationArrived { function, .. } => (self.function(*function), None),
                    Event::InvocationEnded { sandbox, .. } => {
                        let at = self.state.sandboxes.find(sandbox.0);
                        (None, at.and_then(|at| self.state.sandboxes.get(at)))
                    }
                    _ => (None, None),
                };
                read ^= lines_of(place);
                count += 1;
            }
            if count == 0 {
                break;
            }
            for place in &mut found[..count] {
                *place = match *place {
                    (Some(function), None) => (None, self.state.sandboxes.get(function.top())),
                    (None, Some(sandbox)) => (self.function(sandbox.function), None),
                    place => place,
                };
                read ^= lines_of(place);
            }
        }
        std::hint::black_box(read);
    }

    pub(super) fn on_arrived(&mut self, invocation: InvocationId, id: FunctionId) {
        if let Err(reason) = self.admit(id) {
            return self.refuse(invocation, id, reason);
        }
        let mut idle = self.take_first_idle(id);
        while let Some(at) = idle {
            match self.wake(at) {
                Ok(()) => return self.begin(invocation, at),
                Err(reason) => self.stop_unlisted(at, reason),
            }
            idle = self.take_idle(id);
        }
        let Some(function) = self.function(id) else { return };
        let (account, concurrency) = (function.settings.account, function.concurrency());
        let enough = function.starting > function.waiting_count();
        let refused = if enough { None } else { self.refuses_to_start(id) };
        let full = || RejectReason::WaitingFull;
        if let Some(reason) = refused.or_else(|| (!self.may_wait(account)).then(full)) {
            self.count(id, concurrency + 1, concurrency);
            return self.refuse(invocation, id, reason);
        }
        let now = self.state.now;
        if let Some(function) = self.function_mut(id) {
            function.wait(invocation, now);
        }
        self.waits(account, 1);
        if !self.is_in_backlog(id) {
            self.start_missing(id);
        }
    }

    /// Counts a use of a function, and removes the idle sandbox that the routing chooses. If
    /// nothing of the function runs or waits, ends its gap: asks the idle policy again if the gap
    /// was long, and cancels pre-warming.
    fn take_first_idle(&mut self, id: FunctionId) -> Option<SandboxSlot> {
        let state = &mut self.state;
        let function = state.functions.get_mut(id)?;
        if function.concurrency() == 0 {
            if function.uses == 0 || function.was_quiet(state.now) {
                function.set_keep(self.idle.keep(&function.idle_view()));
                function.worth = self.idle.worth(&function.idle_view(), state.worth_clock);
            }
            if let Some(at) = function.set_prewarm_at(None) {
                state.agenda.remove(&(at, Agenda::Prewarm(id)));
            }
        }
        function.uses = function.uses.saturating_add(1);
        match state.config.routing {
            Routing::CoolWorker => self.take_idle(id),
            routing => function.take_idle(routing),
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

    /// Counts a sandbox that left the idle list as busy. If it must take no invocation, counts it
    /// only as no longer idle and returns the reason.
    fn wake(&mut self, at: SandboxSlot) -> Result<(), StopReason> {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return Err(StopReason::Gone) };
        let (worker, memory_kib) = (sandbox.worker, sandbox.memory_kib);
        if sandbox.marks.stale() && self.is_over(at) {
            self.state.workers.take_idle(worker, memory_kib);
            return Err(StopReason::FunctionRemoved);
        }
        let open = self.state.workers.wake(worker, memory_kib, sandbox.cpu_milli);
        if open { Ok(()) } else { Err(StopReason::Gone) }
    }

    /// Returns why no sandbox may be started for one more invocation of a function.
    fn refuses_to_start(&self, id: FunctionId) -> Option<RejectReason> {
        let function = self.function(id)?;
        let backs_off = function.start_from > self.state.now && function.serving() == 0;
        if let Some(sandbox) = function.failed.filter(|_| backs_off) {
            return Some(RejectReason::SandboxFailed { sandbox });
        }
        let waits = function.blocked.is_some() && function.serving() > 0 || function.may_add() == 0;
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
        let after = self.function(id).map_or(0, Function::concurrency);
        self.count(id, after + 1, after);
        self.unblock_if_served(id);
        self.drop_function_if_done(id);
        Ok(())
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
        if let Some(sandbox) = self.state.sandboxes.get(at) {
            self.state.workers.add_busy(sandbox.worker, sandbox.cpu_milli);
        }
        self.begin(invocation, at);
    }

    /// Dispatches an invocation to a sandbox that its worker already counts as busy.
    fn begin(&mut self, invocation: InvocationId, at: SandboxSlot) {
        let state = &mut self.state;
        let now = state.now;
        let id = SandboxId(state.sandboxes.id(at));
        let Some(sandbox) = state.sandboxes.get_mut(at) else { return };
        let Some(function) = state.functions.get_mut(sandbox.function) else { return };
        sandbox.run(invocation, now);
        function.meter.change(now, 1);
        let (worker, timeout) = (sandbox.worker, function.settings.timeout);
        let deadline = now + timeout;
        if !state.wheel.is_armed(sandbox, deadline) {
            state.wheel.arm(&mut state.sandboxes, at, deadline);
        }
        let deadline = state.clock.outside(now) + timeout;
        self.command(Command::Dispatch { invocation, sandbox: id, worker, deadline });
    }

    pub(super) fn on_ended(
        &mut self,
        invocation: InvocationId,
        sandbox: SandboxId,
        reusable: bool,
        used: Used,
    ) -> Result<(), EventError> {
        let at = self.state.sandboxes.find(sandbox.0).ok_or(EventError::Unknown)?;
        let state = &mut self.state;
        let Some(held) = state.sandboxes.get(at).filter(|it| it.runs(invocation)) else {
            return Err(EventError::OutOfOrder);
        };
        let worker = held.worker;
        if let Some(function) = state.functions.get_mut(held.function) {
            let ran_nanos = state.now.as_nanos().saturating_sub(held.since.as_nanos());
            function.ran(ran_nanos / 1_000_000);
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
        let state = &mut self.state;
        let Some(sandbox) = state.sandboxes.get(at) else { return };
        let id = sandbox.function;
        if sandbox.marks.stale() {
            state.old_deadlines.remove(&at);
        }
        state.workers.take_busy(sandbox.worker, sandbox.cpu_milli);
        let Some(function) = state.functions.get_mut(id) else { return };
        let before = function.concurrency();
        function.meter.change(state.now, -1);
        let (shares, account) =
            (function.settings.shares_with.is_some(), function.settings.account);
        let less = function.unreserved(before) - function.unreserved(before.saturating_sub(1));
        if shares {
            self.count_in_pool(id, before, before.saturating_sub(1));
        } else if less > 0
            && let Some(account) = state.accounts.known_mut(account)
        {
            account.take(less);
        }
    }

    /// Uses a sandbox that can take an invocation: dispatches the longest waiting one, else puts
    /// the sandbox into the idle list. Stops it if its function or its worker no longer wants it,
    /// or if another function needs its room.
    pub(super) fn offer(&mut self, at: SandboxSlot) {
        let state = &mut self.state;
        let Some(sandbox) = state.sandboxes.get_mut(at) else { return };
        (sandbox.state, sandbox.since) = (State::Idle, state.now);
        let (id, worker, stale) = (sandbox.function, sandbox.worker, sandbox.marks.stale());
        let Some(function) = state.functions.get(id) else { return };
        let (waits, removed) = (function.waiting_count() > 0, function.removed);
        if stale && self.is_over(at) || removed && !waits {
            self.stop_unlisted(at, StopReason::FunctionRemoved);
            self.start_missing(id);
        } else if waits && self.state.workers.is_open(worker) {
            self.serve_waiting(id, at);
        } else if stale && self.is_replaced(at) {
            self.stop_unlisted(at, StopReason::FunctionRemoved);
        } else if !self.rest(at) {
            self.stop_unlisted(at, StopReason::Draining);
            self.start_missing(id);
        }
    }

    /// Dispatches a function's longest waiting invocation to a sandbox, or stops the sandbox if
    /// another function needs its room.
    fn serve_waiting(&mut self, id: FunctionId, at: SandboxSlot) {
        if self.others_want_room() && self.yield_to_poorer(at, true) {
            return;
        }
        let Some(function) = self.function_mut(id) else { return };
        let account = function.settings.account;
        let Some(invocation) = function.pop_waiting() else { return };
        self.waits(account, -1);
        self.unblock_if_served(id);
        self.dispatch(invocation, at);
    }

    /// Puts a sandbox into the idle list, if its worker keeps idle sandboxes. Returns whether it
    /// does. Begins the function's gap if no other sandbox of it is busy: plans pre-warming if the
    /// idle policy wants it.
    fn rest(&mut self, at: SandboxSlot) -> bool {
        let state = &mut self.state;
        let Some(sandbox) = state.sandboxes.get_mut(at) else { return false };
        let Some(function) = state.functions.get_mut(sandbox.function) else { return false };
        if !state.workers.settle(sandbox.worker, sandbox.memory_kib) {
            return false;
        }
        sandbox.set_idle_place(function.push_idle(at), true);
        if function.meter.busy() == 0
            && let Some((after, _)) = function.prewarm()
        {
            let (item, prewarm_at) = (Agenda::Prewarm(sandbox.function), state.now + after);
            function.set_prewarm_at(Some(prewarm_at));
            state.agenda.insert((prewarm_at, item));
        }
        let deadline = idle_until(state.now, function.keep_idle_nanos(), at);
        if !state.wheel.is_armed(sandbox, deadline) {
            state.wheel.arm(&mut state.sandboxes, at, deadline);
        }
        if self.others_want_room() && self.deferred.is_none() {
            self.yield_to_poorer(at, false);
        }
        true
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

/// Reads each cache line of a function and of a sandbox that an invocation needs.
fn lines_of((function, sandbox): &(Option<&Function>, Option<&Sandbox>)) -> u32 {
    let sandbox = sandbox.map_or(0, |it| it.wheel_prev.0 ^ it.function.0);
    function.map_or(0, Function::touch) ^ sandbox
}
