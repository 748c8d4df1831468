//! The engine: all state, and every rule about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::contract::*;
use crate::placement::{Worker, place};
use crate::time::Time;

/// Decides which sandbox runs which invocation, which sandboxes there are, and where.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    config: Config,
    commands: VecDeque<Command>,
    workers: BTreeMap<WorkerId, Worker>,
    functions: BTreeMap<FunctionId, Function>,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    invocations: BTreeMap<InvocationId, Invocation>,
    /// Accepted invocations of each account's functions without reserved concurrency.
    unreserved: BTreeMap<AccountId, u32>,
    /// Reserved concurrency of each account's functions, summed.
    reserved: BTreeMap<AccountId, u64>,
    /// Idle sandboxes, the one that is longest idle first; the timers of the idle timeout too.
    idle: BTreeSet<(Time, SandboxId)>,
    /// When starting sandboxes are given up, and when running invocations have to have ended.
    deadlines: BTreeSet<(Time, Timer)>,
    last_sandbox: u64,
}

#[derive(Clone, Debug)]
struct Function {
    settings: FunctionSettings,
    /// Idle sandboxes, the most recently used last.
    idle: Vec<SandboxId>,
    starting: u32,
    /// Accepted invocations without a sandbox, in order of arrival.
    waiting: VecDeque<InvocationId>,
    /// Accepted invocations.
    concurrency: u32,
    /// Sandboxes in any state.
    sandboxes: u32,
    removed: bool,
    /// Failed starts by workers' faults since the last good one.
    start_failures: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sandbox {
    function: FunctionId,
    worker: WorkerId,
    memory_bytes: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting { give_up_at: Time },
    Idle { since: Time },
    Busy { invocation: InvocationId },
    Stopping,
}

#[derive(Clone, Copy, Debug)]
struct Invocation {
    function: FunctionId,
    /// Where it runs and until when, once it does.
    running: Option<(SandboxId, Time)>,
    reserved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Start(SandboxId),
    Invocation(InvocationId),
}

impl Engine {
    /// Returns an engine without workers and functions.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Takes what happened at `now`. Timers that are due fire first.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.handle_timeout(now);
        match event {
            Event::WorkerJoined { worker, capacity } => {
                let joined = Worker { capacity, memory_used_bytes: 0, draining: false };
                self.workers.entry(worker).or_insert(joined);
                self.start_for_all(now);
            }
            Event::WorkerDraining { worker } => self.on_worker_draining(worker),
            Event::WorkerLost { worker } => self.on_worker_lost(now, worker),
            Event::FunctionPut { function, settings } => self.on_function_put(function, settings),
            Event::FunctionRemoved { function } => self.on_function_removed(function),
            Event::InvocationArrived { invocation, function } => {
                self.on_arrived(now, invocation, function);
            }
            Event::InvocationEnded { invocation, reusable } => {
                self.on_ended(now, invocation, reusable)
            }
            Event::SandboxReady { sandbox } => self.on_ready(now, sandbox),
            Event::SandboxFailed { sandbox, fault } => self.on_failed(now, sandbox, fault),
            Event::SandboxGone { sandbox } => self.on_gone(now, sandbox),
        }
    }

    /// Lets the timers fire that are due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&(at, timer)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, timer));
            match timer {
                Timer::Start(sandbox) => self.on_start_timed_out(now, sandbox),
                Timer::Invocation(invocation) => self.on_timed_out(now, invocation),
            }
        }
        while let Some(&(since, sandbox)) = self.idle.first() {
            if since + self.config.idle_timeout > now {
                break;
            }
            self.stop(sandbox, StopReason::Idle);
        }
    }

    /// Returns the next command, or `None` when there is nothing to do before the next event.
    pub fn poll(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Returns when [`Engine::handle_timeout`] has to be called at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let idle = self.idle.first().map(|(since, _)| *since + self.config.idle_timeout);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        idle.into_iter().chain(deadline).min()
    }

    /// Returns how many sandboxes there are, those included that are starting or stopping.
    #[must_use]
    pub fn sandboxes(&self) -> usize {
        self.sandboxes.len()
    }

    /// Returns how many invocations run or wait.
    #[must_use]
    pub fn invocations(&self) -> usize {
        self.invocations.len()
    }

    fn on_worker_draining(&mut self, worker: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.draining = true;
        }
        let idle = |(_, sandbox): &(_, SandboxId)| self.sandboxes[sandbox].worker == worker;
        let idle: Vec<_> =
            self.idle.iter().filter(|it| idle(it)).map(|(_, sandbox)| *sandbox).collect();
        for sandbox in idle {
            self.stop(sandbox, StopReason::Draining);
        }
    }

    fn on_worker_lost(&mut self, now: Time, worker: WorkerId) {
        if self.workers.remove(&worker).is_none() {
            return;
        }
        let lost: Vec<_> = self
            .sandboxes
            .iter()
            .filter(|(_, it)| it.worker == worker)
            .map(|(id, _)| *id)
            .collect();
        for sandbox in lost {
            self.forget(sandbox, RejectReason::WorkerLost);
        }
        self.start_for_all(now);
    }

    fn on_function_put(&mut self, id: FunctionId, settings: FunctionSettings) {
        let fresh = || Function {
            settings,
            idle: Vec::new(),
            starting: 0,
            waiting: VecDeque::new(),
            concurrency: 0,
            sandboxes: 0,
            removed: false,
            start_failures: 0,
        };
        let known = self.functions.contains_key(&id);
        let function = self.functions.entry(id).or_insert_with(fresh);
        let before = std::mem::replace(&mut function.settings, settings);
        function.removed = false;
        // A new function is made with its settings, of which nothing is counted yet.
        if known {
            self.unreserve(&before);
        }
        let reserved = self.reserved.entry(settings.account).or_default();
        *reserved += u64::from(settings.reserved_concurrency.unwrap_or_default());
    }

    fn on_function_removed(&mut self, id: FunctionId) {
        let Some(function) = self.functions.get_mut(&id) else {
            return;
        };
        function.removed = true;
        for sandbox in function.idle.clone() {
            self.stop(sandbox, StopReason::FunctionRemoved);
        }
        self.drop_function_if_done(id);
    }

    fn on_arrived(&mut self, now: Time, invocation: InvocationId, id: FunctionId) {
        let reject = |reason| Command::Reject { invocation, reason };
        if self.invocations.contains_key(&invocation) {
            return self.commands.push_back(reject(RejectReason::DuplicateInvocation));
        }
        let Some(settings) = self.functions.get(&id).filter(|it| !it.removed).map(|it| it.settings)
        else {
            return self.commands.push_back(reject(RejectReason::FunctionUnknown));
        };
        if let Some(reason) = self.throttle(id, &settings) {
            return self.commands.push_back(reject(reason));
        }
        let reserved = settings.reserved_concurrency.is_some();
        if !reserved {
            *self.unreserved.entry(settings.account).or_default() += 1;
        }
        self.invocations.insert(invocation, Invocation { function: id, running: None, reserved });
        if let Some(function) = self.functions.get_mut(&id) {
            function.concurrency += 1;
            // The most recently used: the surplus falls idle and is destroyed.
            match function.idle.last().copied() {
                Some(sandbox) => self.dispatch(now, invocation, sandbox),
                None => {
                    function.waiting.push_back(invocation);
                    self.start_what_is_needed(now, id);
                }
            }
        }
    }

    /// Returns the limit that one more invocation would break.
    fn throttle(&self, id: FunctionId, settings: &FunctionSettings) -> Option<RejectReason> {
        if let Some(reserved) = settings.reserved_concurrency {
            let full = self.functions.get(&id).is_none_or(|it| it.concurrency >= reserved);
            return full.then_some(RejectReason::ReservedConcurrency);
        }
        let reserved = self.reserved.get(&settings.account).copied().unwrap_or_default();
        let limit = u64::from(self.config.account_concurrency_max).saturating_sub(reserved);
        let running = self.unreserved.get(&settings.account).copied().unwrap_or_default();
        (u64::from(running) >= limit).then_some(RejectReason::AccountConcurrency)
    }

    fn dispatch(&mut self, now: Time, invocation: InvocationId, sandbox: SandboxId) {
        let Some(held) = self.sandboxes.get_mut(&sandbox) else {
            return;
        };
        let Some(function) = self.functions.get_mut(&held.function) else {
            return;
        };
        if let State::Idle { since } = held.state {
            self.idle.remove(&(since, sandbox));
            function.idle.retain(|it| *it != sandbox);
        }
        held.state = State::Busy { invocation };
        let (deadline, worker) = (now + function.settings.timeout, held.worker);
        self.deadlines.insert((deadline, Timer::Invocation(invocation)));
        if let Some(it) = self.invocations.get_mut(&invocation) {
            it.running = Some((sandbox, deadline));
        }
        self.commands.push_back(Command::Dispatch { invocation, sandbox, worker, deadline });
    }

    /// Starts as many sandboxes as waiting invocations need: not one for each event.
    fn start_what_is_needed(&mut self, now: Time, id: FunctionId) {
        while let Some(function) = self.functions.get(&id)
            && (function.starting as usize) < function.waiting.len()
        {
            let memory_bytes = function.settings.memory_bytes;
            if let Some(worker) = place(&self.workers, memory_bytes) {
                self.start(now, id, worker, memory_bytes);
                continue;
            }
            let waits_for_its_own = function.sandboxes > 0;
            if self.evict_for(memory_bytes) || waits_for_its_own {
                // Room, or a sandbox of its own, is to come free: tried again then.
                return;
            }
            let newest = self.functions.get(&id).and_then(|it| it.waiting.back());
            let Some(invocation) = newest.copied() else {
                return;
            };
            self.reject(invocation, RejectReason::NoCapacity);
        }
    }

    /// Stops the sandboxes that are longest idle until one worker has, or will have, room; tells whether
    /// one will.
    fn evict_for(&mut self, memory_bytes: u64) -> bool {
        let mut coming: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for sandbox in self.sandboxes.values().filter(|it| it.state == State::Stopping) {
            *coming.entry(sandbox.worker).or_default() += sandbox.memory_bytes;
        }
        let fits = |worker: &Worker, coming: u64| {
            !worker.draining && worker.free_bytes().saturating_add(coming) >= memory_bytes
        };
        if coming
            .iter()
            .any(|(id, coming)| self.workers.get(id).is_some_and(|it| fits(it, *coming)))
        {
            return true;
        }
        let mut chosen: BTreeMap<WorkerId, Vec<SandboxId>> = BTreeMap::new();
        for (_, id) in &self.idle {
            let sandbox = &self.sandboxes[id];
            let Some(worker) = self.workers.get(&sandbox.worker) else {
                continue;
            };
            let chosen = chosen.entry(sandbox.worker).or_default();
            chosen.push(*id);
            let coming = coming.entry(sandbox.worker).or_default();
            *coming += sandbox.memory_bytes;
            if fits(worker, *coming) {
                for sandbox in std::mem::take(chosen) {
                    self.stop(sandbox, StopReason::Evicted);
                }
                return true;
            }
        }
        false
    }

    fn start(&mut self, now: Time, id: FunctionId, worker: WorkerId, memory_bytes: u64) {
        self.last_sandbox += 1;
        let sandbox = SandboxId(self.last_sandbox);
        let give_up_at = now + self.config.start_timeout;
        self.deadlines.insert((give_up_at, Timer::Start(sandbox)));
        let state = State::Starting { give_up_at };
        self.sandboxes.insert(sandbox, Sandbox { function: id, worker, memory_bytes, state });
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.memory_used_bytes += memory_bytes;
        }
        if let Some(function) = self.functions.get_mut(&id) {
            function.starting += 1;
            function.sandboxes += 1;
        }
        self.commands.push_back(Command::StartSandbox { sandbox, worker, function: id });
    }

    /// Stops a sandbox that runs nothing.
    fn stop(&mut self, sandbox: SandboxId, reason: StopReason) {
        let Some(held) = self.sandboxes.get_mut(&sandbox) else {
            return;
        };
        let function = self.functions.get_mut(&held.function);
        match held.state {
            State::Idle { since } => {
                self.idle.remove(&(since, sandbox));
                if let Some(function) = function {
                    function.idle.retain(|it| *it != sandbox);
                }
            }
            State::Starting { give_up_at } => {
                self.deadlines.remove(&(give_up_at, Timer::Start(sandbox)));
                if let Some(function) = function {
                    function.starting -= 1;
                }
            }
            State::Busy { .. } | State::Stopping => return,
        }
        held.state = State::Stopping;
        let worker = held.worker;
        self.commands.push_back(Command::StopSandbox { sandbox, worker, reason });
    }

    fn on_ready(&mut self, now: Time, sandbox: SandboxId) {
        let Some(held) = self.sandboxes.get(&sandbox) else {
            return;
        };
        let State::Starting { give_up_at } = held.state else {
            return;
        };
        let Some(function) = self.functions.get_mut(&held.function) else {
            return;
        };
        self.deadlines.remove(&(give_up_at, Timer::Start(sandbox)));
        function.starting -= 1;
        function.start_failures = 0;
        self.offer(now, sandbox);
    }

    /// Gives a sandbox that has nothing to do the next waiting invocation, or lets it idle, or ends it.
    fn offer(&mut self, now: Time, sandbox: SandboxId) {
        let Some(held) = self.sandboxes.get_mut(&sandbox) else {
            return;
        };
        let Some(function) = self.functions.get_mut(&held.function) else {
            return;
        };
        let draining = self.workers.get(&held.worker).is_none_or(|worker| worker.draining);
        if !draining && let Some(invocation) = function.waiting.pop_front() {
            return self.dispatch(now, invocation, sandbox);
        }
        held.state = State::Idle { since: now };
        self.idle.insert((now, sandbox));
        function.idle.push(sandbox);
        if draining {
            self.stop(sandbox, StopReason::Draining);
        } else if function.removed {
            self.stop(sandbox, StopReason::FunctionRemoved);
        }
    }

    fn on_ended(&mut self, now: Time, invocation: InvocationId, reusable: bool) {
        let Some((sandbox, _)) = self.invocations.get(&invocation).and_then(|it| it.running) else {
            return;
        };
        self.finish(invocation);
        if reusable {
            self.offer(now, sandbox);
        } else if let Some(held) = self.sandboxes.get_mut(&sandbox) {
            held.state = State::Stopping;
        }
    }

    fn on_timed_out(&mut self, now: Time, invocation: InvocationId) {
        let Some((sandbox, _)) = self.invocations.get(&invocation).and_then(|it| it.running) else {
            return;
        };
        self.finish(invocation);
        let Some(held) = self.sandboxes.get_mut(&sandbox) else {
            return;
        };
        held.state = State::Stopping;
        let (worker, function) = (held.worker, held.function);
        self.commands.push_back(Command::TimeOut { invocation, sandbox, worker });
        self.start_what_is_needed(now, function);
    }

    fn on_start_timed_out(&mut self, now: Time, sandbox: SandboxId) {
        let Some(held) = self.sandboxes.get(&sandbox).copied() else {
            return;
        };
        self.stop(sandbox, StopReason::StartTimedOut);
        self.on_worker_fault(now, held.function, sandbox);
    }

    fn on_failed(&mut self, now: Time, sandbox: SandboxId, fault: Fault) {
        let Some(held) = self.sandboxes.get(&sandbox).copied() else {
            return;
        };
        let starting = matches!(held.state, State::Starting { .. });
        self.forget(sandbox, RejectReason::SandboxLost);
        if starting {
            match fault {
                Fault::Worker => self.on_worker_fault(now, held.function, sandbox),
                Fault::Function => {
                    let waiting =
                        self.functions.get(&held.function).and_then(|it| it.waiting.front());
                    if let Some(invocation) = waiting.copied() {
                        self.reject(invocation, RejectReason::SandboxFailed { sandbox });
                    }
                    self.start_what_is_needed(now, held.function);
                }
            }
        }
        self.start_for_all(now);
    }

    /// Tries again, until too many starts in a row failed: then one invocation is refused for each.
    fn on_worker_fault(&mut self, now: Time, id: FunctionId, sandbox: SandboxId) {
        let Some(function) = self.functions.get_mut(&id) else {
            return;
        };
        function.start_failures += 1;
        if function.start_failures > self.config.start_retries_max {
            function.start_failures = 0;
            if let Some(invocation) = function.waiting.front().copied() {
                self.reject(invocation, RejectReason::SandboxFailed { sandbox });
            }
        }
        self.start_what_is_needed(now, id);
    }

    fn on_gone(&mut self, now: Time, sandbox: SandboxId) {
        let Some(held) = self.sandboxes.get(&sandbox).copied() else {
            return;
        };
        self.forget(sandbox, RejectReason::SandboxLost);
        if matches!(held.state, State::Starting { .. }) {
            self.on_worker_fault(now, held.function, sandbox);
        }
        self.start_for_all(now);
    }

    /// Frees what a sandbox held that is no more; an invocation in it is answered with `reason`.
    fn forget(&mut self, sandbox: SandboxId, reason: RejectReason) {
        let Some(held) = self.sandboxes.remove(&sandbox) else {
            return;
        };
        if let Some(worker) = self.workers.get_mut(&held.worker) {
            worker.memory_used_bytes -= held.memory_bytes;
        }
        if let Some(function) = self.functions.get_mut(&held.function) {
            function.sandboxes -= 1;
            match held.state {
                State::Starting { give_up_at } => {
                    self.deadlines.remove(&(give_up_at, Timer::Start(sandbox)));
                    function.starting -= 1;
                }
                State::Idle { since } => {
                    self.idle.remove(&(since, sandbox));
                    function.idle.retain(|it| *it != sandbox);
                }
                State::Busy { invocation } => self.reject(invocation, reason),
                State::Stopping => {}
            }
        }
        self.drop_function_if_done(held.function);
    }

    /// Answers an accepted invocation with a refusal.
    fn reject(&mut self, invocation: InvocationId, reason: RejectReason) {
        if let Some(it) = self.invocations.get(&invocation)
            && let Some(function) = self.functions.get_mut(&it.function)
        {
            function.waiting.retain(|it| *it != invocation);
        }
        self.finish(invocation);
        self.commands.push_back(Command::Reject { invocation, reason });
    }

    /// Takes an invocation out of every count.
    fn finish(&mut self, invocation: InvocationId) {
        let Some(ended) = self.invocations.remove(&invocation) else {
            return;
        };
        if let Some((_, deadline)) = ended.running {
            self.deadlines.remove(&(deadline, Timer::Invocation(invocation)));
        }
        if let Some(function) = self.functions.get_mut(&ended.function) {
            function.concurrency -= 1;
            if !ended.reserved
                && let Some(running) = self.unreserved.get_mut(&function.settings.account)
            {
                *running -= 1;
            }
        }
        self.drop_function_if_done(ended.function);
    }

    fn drop_function_if_done(&mut self, id: FunctionId) {
        let done = |it: &Function| it.removed && it.concurrency == 0 && it.sandboxes == 0;
        if self.functions.get(&id).is_some_and(done)
            && let Some(function) = self.functions.remove(&id)
        {
            self.unreserve(&function.settings);
        }
    }

    fn unreserve(&mut self, settings: &FunctionSettings) {
        if let Some(reserved) = self.reserved.get_mut(&settings.account) {
            *reserved -= u64::from(settings.reserved_concurrency.unwrap_or_default());
        }
    }

    /// Room may be there again: starts what waiting invocations need, by function id.
    fn start_for_all(&mut self, now: Time) {
        let waiting = self.functions.iter().filter(|(_, it)| !it.waiting.is_empty());
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.start_what_is_needed(now, id);
        }
    }
}
