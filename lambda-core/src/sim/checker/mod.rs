//! Checks an engine's events and commands against the invariants, without access to its state.

mod invariant;
mod limits;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::invariant::{Checked, hold};
pub use self::invariant::{Invariant, Violation};
pub use self::seen::{FunctionSeen, InterfaceSeen, SandboxSeen, StateSeen, VmSeen, WorkerSeen};
use crate::*;

/// A model of the fleet, updated by events and commands, against which commands are checked.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    config: Config,
    /// The driver's time. `now` is the engine's time, without steps of the clock.
    outside: Time,
    /// The idle timeout, if it is the same for all sandboxes.
    keep: Option<Duration>,
    now: Time,
    /// How late the driver was for a timer, at most. The engine is not blamed for that delay.
    late: Duration,
    /// The present workers.
    pub workers: BTreeMap<WorkerId, WorkerSeen>,
    /// The present functions, and removed ones.
    pub functions: BTreeMap<FunctionId, FunctionSeen>,
    /// The present sandboxes, in any state.
    pub sandboxes: BTreeMap<SandboxId, SandboxSeen>,
    /// The present VMs.
    pub vms: BTreeMap<VmId, VmSeen>,
    /// The present network interfaces.
    pub interfaces: BTreeMap<InterfaceId, InterfaceSeen>,
    /// Accepted invocations that have not ended. The number makes entries unique if a driver uses
    /// an id twice.
    open: BTreeSet<(InvocationId, u64)>,
    functions_of: BTreeMap<(InvocationId, u64), FunctionId>,
    arrived: u64,
    /// The number of events that the engine accepted.
    events: u64,
    accounts: BTreeMap<AccountId, u32>,
    idle: BTreeSet<(Time, SandboxId)>,
    ids: BTreeSet<SandboxId>,
    vms_commanded: BTreeSet<VmId>,
}

/// How often a call that did not fire all due timers is continued.
const CONTINUED_MAX: usize = 64;

impl Checker {
    /// Returns a checker for a new engine. `keep` is the idle timeout, if it is the same for all
    /// sandboxes.
    #[must_use]
    pub fn new(config: Config, keep: Option<Duration>) -> Self {
        Self { config, keep, ..Self::default() }
    }

    /// Passes an event to the engine, and checks and returns the resulting commands.
    ///
    /// # Errors
    ///
    /// Returns the first violation of an invariant.
    pub fn handle(
        &mut self,
        engine: &mut Engine,
        now: Time,
        event: Event,
    ) -> Result<Vec<Command>, Violation> {
        // Timers first, so that their commands are not attributed to the event.
        let mut commands = self.handle_timeout(engine, now)?;
        let before = self.open.len();
        let taken = engine.handle(now, event.clone());
        (self.now, self.outside) = (engine.elapsed(), engine.now());
        if taken.is_ok() {
            self.happened(&event);
        }
        let first = commands.len();
        commands.extend(std::iter::from_fn(|| engine.poll()));
        for command in &commands[first..] {
            self.commanded(command)?;
        }
        self.moves_nothing_else(&event, &commands[first..])?;
        if let Event::InvocationArrived { invocation, function } = event {
            self.within_limits(before, invocation, function)?;
        }
        self.counts(engine)?;
        Ok(commands)
    }

    /// Lets the engine's timers fire, and checks and returns the resulting commands.
    ///
    /// # Errors
    ///
    /// Returns the first violation of an invariant.
    pub fn handle_timeout(
        &mut self,
        engine: &mut Engine,
        now: Time,
    ) -> Result<Vec<Command>, Violation> {
        let before = engine.elapsed();
        let until_due = engine.next_timeout().map_or(Duration::MAX, |due| due.since(engine.now()));
        engine.handle_timeout(now);
        for _ in 0..CONTINUED_MAX {
            if engine.next_timeout().is_none_or(|due| due > engine.now()) {
                break;
            }
            engine.handle_timeout(now);
        }
        (self.now, self.outside) = (engine.elapsed(), engine.now());
        self.late = self.late.max(self.now.since(before).saturating_sub(until_due));
        let commands: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
        for command in &commands {
            self.commanded(command)?;
        }
        self.idle_is_gone_in_time()?;
        self.nothing_runs_beyond_a_workers_life()?;
        let due = engine.next_timeout();
        hold(
            due.is_none_or(|due| due > self.outside),
            Invariant::CommandsMakeSense,
            "timers that are due have fired",
            || format!("{due:?} at {:?}", self.outside),
        )?;
        Ok(commands)
    }
    /// Checks a command of the engine, and applies it to the model.
    ///
    /// # Errors
    ///
    /// Returns the first violation of an invariant.
    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    pub fn commanded(&mut self, command: &Command) -> Checked {
        let told = || format!("{command:?} at {:?}", self.now);
        hold(
            command.worker().is_none_or(|worker| self.workers.contains_key(&worker)),
            Invariant::CommandsMakeSense,
            "commands name workers that are there",
            told,
        )?;
        match *command {
            Command::StartSandbox { sandbox, worker, function, revision, vm, interface } => {
                hold(
                    self.ids.insert(sandbox),
                    Invariant::CommandsMakeSense,
                    "no sandbox id is given twice",
                    || format!("{sandbox:?}"),
                )?;
                let new = !self.sandboxes.contains_key(&sandbox);
                hold(new, Invariant::CommandsMakeSense, "no sandbox id is in use already", told)?;
                let Some(seen) = self.functions.get(&function) else {
                    return hold(
                        false,
                        Invariant::OneFunctionPerSandbox,
                        "sandboxes are of functions that are there",
                        told,
                    );
                };
                hold(
                    seen.revision == revision,
                    Invariant::OneFunctionPerSandbox,
                    "a new sandbox has its function's code",
                    told,
                )?;
                let settings = seen.settings;
                let started = SandboxSeen {
                    function,
                    revision,
                    worker,
                    vm,
                    interface,
                    interface_gone: false,
                    state: StateSeen::Starting,
                    settings,
                    deadline: None,
                };
                self.within_its_number(&started)?;
                self.on_a_worker_with_its_labels(&started)?;
                self.in_its_vm(&started)?;
                self.with_its_interface(&started)?;
                self.sandboxes.insert(sandbox, started);
                self.within_capacity(worker, vm.is_none())
            }
            Command::StopSandbox { sandbox, worker, reason: StopReason::Stray } => {
                if self.sandboxes.get(&sandbox).is_some_and(|it| it.worker == worker) {
                    self.forget(sandbox);
                }
                Ok(())
            }
            Command::StopSandbox { sandbox, worker, .. } => {
                let Some(seen) = self.sandboxes.get(&sandbox) else {
                    // A stray that a worker reported.
                    return Ok(());
                };
                let busy = matches!(seen.state, StateSeen::Busy(_));
                hold(
                    !busy,
                    Invariant::BusyIsNotStopped,
                    "no busy sandbox is stopped, but for its timeout",
                    told,
                )?;
                hold(
                    seen.worker == worker,
                    Invariant::CommandsMakeSense,
                    "commands name a sandbox's own worker",
                    told,
                )?;
                self.set(sandbox, StateSeen::Stopping);
                Ok(())
            }
            Command::Dispatch { invocation, sandbox, worker, deadline } => {
                let Some(seen) = self.sandboxes.get(&sandbox) else {
                    return hold(
                        false,
                        Invariant::NothingToWhatEnds,
                        "nothing is dispatched to a sandbox that is gone",
                        told,
                    );
                };
                let function = self.functions.get(&seen.function);
                let drains = self.workers.get(&worker).is_none_or(|it| it.draining);
                hold(
                    !drains,
                    Invariant::NothingToWhatEnds,
                    "nothing is dispatched to a draining worker",
                    told,
                )?;
                let state = || format!("{command:?} while {:?}", seen.state);
                let busy = matches!(seen.state, StateSeen::Busy(_));
                hold(!busy, Invariant::OneInvocationAtATime, "one invocation at a time", state)?;
                hold(
                    seen.state == StateSeen::Idle,
                    Invariant::NothingToWhatEnds,
                    "nothing is dispatched to a sandbox that is not ready",
                    state,
                )?;
                let timeout = function.map(|it| it.settings.timeout).unwrap_or_default();
                hold(
                    deadline == self.outside + timeout,
                    Invariant::CommandsMakeSense,
                    "a deadline is its function's timeout from now",
                    told,
                )?;
                let own = self.function_of(invocation) == Some(seen.function);
                hold(
                    own,
                    Invariant::OneFunctionPerSandbox,
                    "a sandbox runs one function all its life",
                    told,
                )?;
                let current = function.is_some_and(|it| {
                    let rolls = |(revision, until)| revision == seen.revision && until > self.now;
                    it.revision == seen.revision || it.previous.is_some_and(rolls)
                });
                hold(
                    current,
                    Invariant::OneFunctionPerSandbox,
                    "nothing new is dispatched to old code, but for a rollout",
                    told,
                )?;
                self.set(sandbox, StateSeen::Busy(invocation));
                if let Some(seen) = self.sandboxes.get_mut(&sandbox) {
                    seen.deadline = Some(self.now + timeout);
                }
                Ok(())
            }
            Command::TimeOut { invocation, sandbox, .. } => {
                let seen = self.sandboxes.get(&sandbox);
                let runs = seen.map(|it| it.state) == Some(StateSeen::Busy(invocation));
                let drained = (seen.and_then(|it| self.workers.get(&it.worker)))
                    .and_then(|it| it.drained_by)
                    .is_some_and(|it| it <= self.now);
                let over = seen.and_then(|it| it.deadline).is_none_or(|it| it <= self.now);
                let over = over || drained;
                hold(runs, Invariant::BusyIsNotStopped, "only what runs is timed out", told)?;
                hold(over, Invariant::BusyIsNotStopped, "nothing is timed out too early", told)?;
                self.end(invocation, command)?;
                self.set(sandbox, StateSeen::Stopping);
                Ok(())
            }
            Command::Reject { invocation, .. } => self.end(invocation, command),
            Command::StartVm { vm, worker, memory_bytes, account } => {
                let seen = VmSeen {
                    worker,
                    ready: false,
                    commanded: true,
                    stopped: false,
                    ready_by: 0,
                    memory_bytes,
                    account,
                    had: 0,
                };
                self.vms_commanded.insert(vm);
                let new = self.vms.insert(vm, seen).is_none_or(|it| !it.commanded);
                hold(new, Invariant::CommandsMakeSense, "no VM id is given twice", || {
                    format!("{vm:?}")
                })?;
                self.within_capacity(worker, true)
            }
            // A stray: the VM with this id is on another worker.
            Command::StopVm { vm, worker }
                if self.vms.get(&vm).is_some_and(|it| it.worker != worker) =>
            {
                Ok(())
            }
            Command::StopVm { vm, .. } => {
                let empty = !self.sandboxes.values().any(|it| it.vm == Some(vm));
                // A late report can name a VM that is gone, with its sandboxes: all of them are
                // strays.
                let stray = !self.vms.contains_key(&vm);
                hold(
                    empty || stray,
                    Invariant::BusyIsNotStopped,
                    "no VM is stopped with sandboxes in it",
                    told,
                )?;
                if let Some(vm) = self.vms.get_mut(&vm) {
                    (vm.ready, vm.stopped) = (false, true);
                }
                Ok(())
            }
            Command::StartInterface { interface, network, zone } => {
                let (ready, commanded, full_by) = (false, true, None);
                let seen = InterfaceSeen { ready, full_by, commanded, network, zone };
                let before = self.interfaces.insert(interface, seen);
                let new = before.is_none_or(|it| !it.commanded);
                hold(new, Invariant::CommandsMakeSense, "no interface id is given twice", || {
                    format!("{interface:?}")
                })
            }
            Command::StopInterface { interface } => {
                let used = |it: &SandboxSeen| it.interface == Some(interface) && !it.interface_gone;
                let unused = !self.sandboxes.values().any(used);
                if let Some(interface) = self.interfaces.get_mut(&interface) {
                    interface.ready = false;
                }
                hold(
                    unused,
                    Invariant::BusyIsNotStopped,
                    "no interface is removed with sandboxes on it",
                    || format!("{interface:?}"),
                )
            }
            Command::DrainWorker { worker } => {
                self.drains_within_its_window(worker)?;
                self.drains(worker, None);
                Ok(())
            }
            Command::RetireWorker { worker } => {
                let empty = !self.sandboxes.values().any(|it| it.worker == worker);
                hold(
                    empty,
                    Invariant::BusyIsNotStopped,
                    "a worker retires when nothing is left on it",
                    told,
                )?;
                self.lose_worker(worker);
                Ok(())
            }
            Command::LoseWorker { worker } => {
                self.lose_worker(worker);
                Ok(())
            }
            Command::AskWorker { .. } => Ok(()),
        }
    }

    /// Ends an accepted invocation.
    fn end(&mut self, invocation: InvocationId, command: &Command) -> Checked {
        let open = self.close(invocation);
        hold(open, Invariant::InvocationsEndOnce, "every invocation ends exactly once", || {
            format!("{command:?} at {:?}", self.now)
        })
    }

    /// Checks that a worker that joins, leaves or drains causes no stops on other workers, except
    /// for evictions.
    fn moves_nothing_else(&self, event: &Event, commands: &[Command]) -> Checked {
        let (Event::WorkerJoined { worker, .. }
        | Event::WorkerLost { worker }
        | Event::WorkerDraining { worker }) = event
        else {
            return Ok(());
        };
        for command in commands {
            if let Command::StopSandbox { worker: on, reason, .. } = command {
                let own = on == worker || *reason == StopReason::Evicted;
                hold(
                    own,
                    Invariant::OthersStayWhereTheyAre,
                    "a worker that comes or goes moves no sandbox of others",
                    || format!("{command:?} after {event:?}"),
                )?;
            }
        }
        Ok(())
    }

    fn idle_is_gone_in_time(&self) -> Checked {
        let (Some(keep), Some((since, id))) = (self.keep, self.idle.first()) else { return Ok(()) };
        let kept = self.sandboxes.get(id).is_some_and(|it| {
            self.functions
                .get(&it.function)
                .is_some_and(|it| it.settings.provisioned_concurrency > 0)
        });
        let late = *since + keep + Duration::from_nanos(2 << 20) < self.now;
        hold(
            kept || !late,
            Invariant::IdleIsGoneInTime,
            "idle sandboxes are gone by the idle timeout",
            || format!("{id:?} since {since:?} at {:?}", self.now),
        )
    }

    /// Checks that nothing runs beyond a worker's life, unless a function's timeout is longer than
    /// draining takes.
    fn nothing_runs_beyond_a_workers_life(&self) -> Checked {
        let Some(recycling) = self.config.recycling else { return Ok(()) };
        let may = recycling.life_max + self.late + LATE;
        for (id, sandbox) in &self.sandboxes {
            let StateSeen::Busy(_) = sandbox.state else { continue };
            // An invocation that only a worker reported has no deadline.
            if sandbox.deadline.is_none() {
                continue;
            }
            let Some(worker) = self.workers.get(&sandbox.worker) else { continue };
            let life = self.now.since(worker.joined);
            let short = sandbox.settings.timeout <= recycling.drain_max;
            let window = Invariant::WorkersEndInTheirWindow;
            hold(!short || life <= may, window, "nothing runs beyond a worker's life", || {
                format!("{id:?} on {:?} at {life:?}", sandbox.worker)
            })?;
        }
        Ok(())
    }

    /// Checks that a worker drains within its window. Only without a fleet, which may give workers
    /// back at any time.
    fn drains_within_its_window(&self, id: WorkerId) -> Checked {
        let Some(worker) = self.workers.get(&id).filter(|it| !it.draining) else { return Ok(()) };
        if self.config.fleet.is_some() {
            return Ok(());
        }
        let life = self.now.since(worker.joined);
        let holds = self.config.recycling.is_some_and(|it| {
            let latest = it.life_max.saturating_sub(it.drain_max).max(it.life_min);
            (it.life_min..=latest + self.late + LATE).contains(&life)
        });
        let window = Invariant::WorkersEndInTheirWindow;
        hold(holds, window, "a worker drains within its window", || format!("{id:?} at {life:?}"))
    }

    /// Checks that the engine's counts match the model and its limits.
    fn counts(&self, engine: &Engine) -> Checked {
        let waiting = engine.waiting();
        let running =
            self.sandboxes.values().filter(|it| matches!(it.state, StateSeen::Busy(_))).count();
        hold(
            self.open.len() == waiting + running,
            Invariant::InvocationsEndOnce,
            "every accepted invocation waits or runs",
            || format!("{} open, {waiting} wait, {running} run", self.open.len()),
        )?;
        let commanded = self.sandboxes.len();
        // The engine also counts sandboxes that wait for a VM or an interface, whose start was not
        // commanded yet.
        let bounded = Invariant::StateIsBounded;
        hold(engine.sandboxes() >= commanded, bounded, "the engine knows every sandbox", || {
            format!("{} of {commanded}", engine.sandboxes())
        })?;
        let config = &self.config;
        let bounds = [
            ("sandboxes", engine.sandboxes(), config.sandboxes_max as usize),
            ("waiting invocations", waiting, config.waiting_max as usize),
            ("VMs", engine.vms(), self.vms.len().min(config.vm.vms_max as usize)),
            (
                "interfaces",
                engine.interfaces(),
                self.interfaces.len().min(config.interface.interfaces_max as usize),
            ),
            ("workers", engine.fleet().len(), self.workers.len()),
            ("explanations", engine.explanations().count(), config.explanations_kept as usize),
        ];
        for (what, has, may) in bounds {
            hold(
                has <= may,
                bounded,
                "the engine holds no more than the world and its limits",
                || format!("{has} {what}, {may} at most"),
            )?;
        }
        Ok(())
    }
}

/// How late a worker's timer may be, since events come between.
const LATE: Duration = Duration::from_millis(2);
