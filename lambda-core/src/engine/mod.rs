//! The engine: all state, and every rule about it.
//!
//! One file for each part of what it decides; all of them change [`State`] through the engine alone.

mod adoption;
pub(crate) mod backlog;
mod clock;
mod counting;
mod eviction;
mod fleet;
pub(crate) mod function;
mod functions;
pub(crate) mod health;
pub(crate) mod inspection;
mod interfaces;
mod leases;
mod lifecycle;
mod pools;
mod reservations;
mod routing;
mod starting;
mod vms;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use self::backlog::Backlog;
use self::clock::Clock;
use self::counting::Accounts;
use self::function::Function;
use self::interfaces::Interfaces;
use self::reservations::Reservations;
use self::vms::Vms;
use crate::idle::{FixedIdle, IdlePolicy};
use crate::placement::{Placement, Scored, Scratch};
use crate::random::Random;
use crate::sandbox::Sandbox;
use crate::stats::prior::Priors;
use crate::store::deadlines::Deadlines;
use crate::store::paged::Paged;
use crate::store::slab::Slab;
use crate::store::wheel::Wheel;
use crate::workers::Workers;
use crate::{
    Command, Config, Decision, Event, EventError, Explanation, FunctionId, NetworkId, StopReason,
    Time, WorkerId,
};

/// Decides which sandbox runs which invocation, which sandboxes there are, and where.
pub struct Engine {
    pub(crate) state: State,
    pub(crate) placement: Box<dyn Placement>,
    pub(crate) idle: Box<dyn IdlePolicy>,
    pub(crate) scratch: Scratch,
    /// Work postponed while a report is applied.
    pub(crate) deferred: Option<Deferred>,
    /// How late the driver is for the timers that fire now.
    pub(crate) late: Duration,
}

/// Work postponed while a report of a worker is applied: a start that its first half allows could use a VM that the second
/// half says is gone, and a VM that seems empty can hold a sandbox that is still to be read.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    /// Functions that want sandboxes.
    pub(crate) functions: BTreeSet<u32>,
    /// VMs of which the last known sandbox is gone.
    pub(crate) vms: BTreeSet<u32>,
    /// Interfaces that a sandbox has left.
    pub(crate) interfaces: BTreeSet<u32>,
}

/// All that the engine knows.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct State {
    pub(crate) config: Config,
    /// The engine's time; the driver's is [`Clock::outside`] of it.
    pub(crate) now: Time,
    pub(crate) clock: Clock,
    /// Until when a successor waits for the workers' reports before it replaces what may still run.
    pub(crate) adopting_until: Time,
    pub(crate) random: Random,
    pub(crate) cursor: u64,
    pub(crate) commands: VecDeque<Command>,
    pub(crate) workers: Workers,
    pub(crate) functions: Paged<Function>,
    pub(crate) accounts: Accounts,
    pub(crate) sandboxes: Slab<Sandbox>,
    pub(crate) vms: Vms,
    pub(crate) interfaces: Interfaces,
    pub(crate) priors: Priors,
    pub(crate) wheel: Wheel,
    /// All timers that are not a sandbox's.
    pub(crate) agenda: Deadlines<Agenda>,
    /// Deadlines of busy sandboxes that are not their function's timeout: those of an old revision, and those on a worker
    /// that drains until a deadline.
    pub(crate) old_deadlines: BTreeMap<u32, Time>,
    /// Functions that wait for room.
    pub(crate) backlog: Backlog,
    pub(crate) reservations: Reservations,
    pub(crate) pools: pools::Pools,
    /// Memory and processor time that functions want and have no room for.
    pub(crate) wanted: (u64, u64),
    /// Where the next search for idle sandboxes begins.
    pub(crate) eviction_cursor: usize,
    /// Where the next round over the backlog begins.
    pub(crate) backlog_cursor: FunctionId,
    /// Invocations that wait, of all functions.
    pub(crate) waiting: u32,
    /// Sandboxes that are being ended.
    pub(crate) stopping: u32,
    /// The memory of the workers that there are, in KiB, and how many have it, by their isolation.
    pub(crate) sizes: [BTreeMap<u32, u32>; 3],
    pub(crate) asked: fleet::Asked,
    pub(crate) losses: leases::Losses,
    /// What the idle sandbox was worth that went last.
    pub(crate) worth_clock: f32,
    pub(crate) journal: VecDeque<Decision>,
    /// Decisions that were dropped as nobody drained the journal.
    pub(crate) journal_dropped: u64,
    pub(crate) explanations: VecDeque<Explanation>,
}

/// Most timers that fire in one call.
const SLICE: usize = 512;
/// How long a successor waits for the workers' reports before it replaces what may still run.
pub(crate) const ADOPTION: Duration = Duration::from_secs(10);

/// Something to look at, at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Agenda {
    Lease(WorkerId),
    Replace(WorkerId),
    Quiet(WorkerId),
    Drain(WorkerId),
    DrainOver(WorkerId),
    Health(WorkerId),
    Vm(u64),
    Interface(u64),
    Network(NetworkId),
    Prewarm(FunctionId),
    Blocked(FunctionId),
    Provision(FunctionId),
    Retry(FunctionId),
    Reserved(WorkerId, u64),
    Backlog,
    Fleet,
    Pool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("now", &self.state.now)
            .field("placement", &self.placement)
            .field("idle", &self.idle)
            .field("workers", &self.state.workers.len())
            .field("sandboxes", &self.state.sandboxes.len())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Returns an engine without workers and functions. The same seed and the same events at the same times give
    /// the same commands, on any machine.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self::restarted(config, seed, 0)
    }

    /// Returns the engine that follows others which are lost, `restarts` of them: it gives no id that one of them
    /// may have given. It is to be told of workers, functions and networks, and then by
    /// [`Event::WorkerReported`] what runs: what one of the others started it takes over under its own id. A first
    /// engine takes over nothing: what it did not start itself it stops as a stray.
    #[must_use]
    pub fn restarted(config: Config, seed: u64, restarts: u16) -> Self {
        let mut state = State {
            now: Time::ZERO,
            clock: Clock::default(),
            adopting_until: if restarts > 0 { Time::ZERO + ADOPTION } else { Time::ZERO },
            random: Random::new(seed),
            cursor: 0,
            commands: VecDeque::new(),
            workers: Workers::default(),
            functions: Paged::default(),
            accounts: Accounts::default(),
            sandboxes: Slab::new(restarts),
            vms: Vms::new(restarts, &config.vm),
            interfaces: Interfaces::new(restarts),
            priors: Priors::default(),
            wheel: Wheel::default(),
            agenda: Deadlines::default(),
            old_deadlines: BTreeMap::new(),
            backlog: Backlog::default(),
            reservations: Reservations::default(),
            pools: pools::Pools::default(),
            wanted: (0, 0),
            eviction_cursor: 0,
            backlog_cursor: FunctionId(0),
            waiting: 0,
            stopping: 0,
            sizes: Default::default(),
            asked: fleet::Asked::default(),
            losses: leases::Losses::default(),
            worth_clock: 0.0,
            journal: VecDeque::new(),
            journal_dropped: 0,
            explanations: VecDeque::new(),
            config,
        };
        if state.config.fleet.is_some() {
            state.agenda.insert((Time::ZERO, Agenda::Fleet));
        }
        if !state.config.vm.pool_sizes_bytes.is_empty() {
            state.agenda.insert((Time::ZERO, Agenda::Pool));
        }
        Self {
            state,
            placement: Box::new(Scored::default()),
            idle: Box::new(FixedIdle::default()),
            scratch: Scratch::default(),
            deferred: None,
            late: Duration::ZERO,
        }
    }

    /// Replaces the placement policy.
    #[must_use]
    pub fn with_placement(mut self, placement: Box<dyn Placement>) -> Self {
        self.placement = placement;
        self
    }

    /// Replaces the policy by which idle sandboxes are kept.
    #[must_use]
    pub fn with_idle_policy(mut self, idle: Box<dyn IdlePolicy>) -> Self {
        self.idle = idle;
        self
    }

    /// Takes what happened at `now`. Timers that are due fire first. A time before an earlier one counts as that; a step
    /// beyond [`Config::clock_jump_max`] is a clock that was set, and no time passes for the engine.
    ///
    /// # Errors
    ///
    /// [`EventError`] when the event could not be taken; but for timers the engine is as it was. Late and repeated
    /// events are errors here and nothing to worry about.
    pub fn handle(&mut self, now: Time, event: Event) -> Result<(), EventError> {
        self.handle_timeout(now);
        match event {
            Event::InvocationArrived { invocation, function } => {
                self.on_arrived(invocation, function);
                Ok(())
            }
            Event::InvocationEnded { invocation, sandbox, reusable, used } => {
                self.on_ended(invocation, sandbox, reusable, used)
            }
            Event::InvocationWithdrawn { invocation, function } => {
                self.on_withdrawn(invocation, function)
            }
            Event::SandboxReady { sandbox } => self.on_ready(sandbox),
            Event::SandboxFailed { sandbox, fault } => self.on_failed(sandbox, fault),
            Event::SandboxGone { sandbox } => self.on_gone(sandbox),
            Event::WorkerJoined { worker, capacity } => self.on_worker_joined(worker, &capacity),
            Event::WorkerBeat { worker } => self.on_worker_beat(worker),
            Event::WorkerDraining { worker } => self.on_worker_draining(worker),
            Event::WorkerEnds { worker, at } => self.on_worker_ends(worker, at),
            Event::WorkerLost { worker } => self.on_worker_lost(worker),
            Event::WorkerReported { worker, vms, sandboxes } => {
                self.on_worker_reported(worker, &vms, &sandboxes)
            }
            Event::AccountPut { account, concurrency_max } => {
                self.on_account_put(account, concurrency_max)
            }
            Event::AccountWeighed { account, weight } => self.on_account_weighed(account, weight),
            Event::FunctionPut { function, revision, settings } => {
                self.on_function_put(function, revision, settings)
            }
            Event::FunctionRemoved { function } => self.on_function_removed(function),
            Event::NetworkPut { network, settings } => self.on_network_put(network, settings),
            Event::NetworkRemoved { network } => self.on_network_removed(network),
            Event::VmReady { vm } => self.on_vm_ready(vm),
            Event::VmGone { vm } => self.on_vm_gone(vm),
            Event::InterfaceReady { interface } => self.on_interface_ready(interface),
            Event::InterfaceGone { interface } => self.on_interface_gone(interface),
        }
    }

    /// Lets the timers fire that are due at `now`, in slices: of very many some are left, and
    /// [`Engine::next_timeout`] is `now` again.
    pub fn handle_timeout(&mut self, now: Time) {
        let due = self.due();
        let before = self.state.now;
        let now = self.state.clock.read(now, before, due, self.state.config.clock_jump_max);
        self.state.now = now;
        self.late = due.map_or(Duration::ZERO, |due| now.since(due));
        let mut left = SLICE;
        while let Some(due) = self.state.wheel.turn(&mut self.state.sandboxes, now, left) {
            left = left.saturating_sub(due.len());
            for sandbox in due {
                self.on_sandbox_due(sandbox);
            }
            if left == 0 {
                return;
            }
        }
        while left > 0
            && let Some(&(at, item)) = self.state.agenda.first()
            && at <= now
        {
            left -= 1;
            self.state.agenda.remove(&(at, item));
            self.on_agenda(at, item);
        }
    }

    /// Returns the next command, or `None` when there is nothing to do before the next event.
    pub fn poll(&mut self) -> Option<Command> {
        self.state.commands.pop_front()
    }

    /// Returns when [`Engine::handle_timeout`] has to be called at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        self.due().map(|due| self.state.clock.outside(due))
    }

    /// The same in the engine's time.
    fn due(&self) -> Option<Time> {
        let agenda = self.state.agenda.first().map(|(at, _)| *at);
        self.state.wheel.next().into_iter().chain(agenda).min()
    }

    fn on_agenda(&mut self, at: Time, item: Agenda) {
        match item {
            Agenda::Lease(worker) => self.on_lease(worker),
            Agenda::Replace(worker) => self.on_replace(at, worker),
            Agenda::Quiet(worker) => self.on_quiet(at, worker),
            Agenda::Drain(worker) => self.on_drain_due(at, worker),
            Agenda::DrainOver(worker) => self.on_drain_over(worker),
            Agenda::Health(worker) => self.on_health_due(worker),
            Agenda::Vm(vm) => self.on_vm_due(vm),
            Agenda::Interface(interface) => self.on_interface_due(interface),
            Agenda::Network(network) => self.start_beforehand(network),
            Agenda::Prewarm(function) => self.on_prewarm(at, function),
            Agenda::Blocked(function) => self.on_waited_too_long(function),
            Agenda::Provision(function) => self.provision(function),
            Agenda::Retry(function) => self.start_what_is_needed(function.0),
            Agenda::Reserved(worker, number) => self.on_reserved_too_long(worker, number),
            Agenda::Backlog => self.on_backlog_tick(),
            Agenda::Fleet => self.on_fleet_tick(),
            Agenda::Pool => self.on_pool_tick(),
        }
    }

    /// Gives a command, and writes it down where that is wanted.
    pub(crate) fn command(&mut self, command: Command) {
        let state = &mut self.state;
        state.commands.push_back(command);
        self.write_down(command);
    }

    /// Writes a decision into the journal, where one is wanted.
    pub(crate) fn write_down(&mut self, command: Command) {
        let state = &mut self.state;
        if !state.config.journal {
            return;
        }
        if state.journal.len() >= state.config.journal_max as usize {
            state.journal.pop_front();
            state.journal_dropped += 1;
        }
        state.journal.push_back(Decision { at: state.clock.outside(state.now), command });
    }

    pub(crate) fn function(&self, id: u32) -> Option<&Function> {
        self.state.functions.get(id as usize)
    }

    pub(crate) fn function_mut(&mut self, id: u32) -> Option<&mut Function> {
        self.state.functions.get_mut(id as usize)
    }

    /// Stops every sandbox of a list that runs nothing; the busy ones end with their invocation.
    pub(crate) fn stop_all(&mut self, sandboxes: &[u32], reason: StopReason) {
        for sandbox in sandboxes {
            self.stop(*sandbox, reason);
        }
    }
}
