//! The engine: the whole state and all rules. Each file has the rules of one part; all change
//! [`State`] through the engine.

mod adoption;
pub(crate) mod backlog;
mod clock;
mod counting;
mod eviction;
mod fleet;
pub(crate) mod forecast;
pub(crate) mod function;
mod functions;
mod gathering;
pub(crate) mod health;
pub(crate) mod inspection;
mod interfaces;
mod leases;
mod lifecycle;
mod pools;
mod reservations;
mod rollout;
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
use crate::command::{Command, StopReason};
use crate::config::Config;
use crate::event::{Event, EventError};
use crate::explain::Explanation;
use crate::id::{FunctionId, NetworkId, WorkerId, Zone};
use crate::idle::{FixedIdle, IdlePolicy};
use crate::journal::Decision;
use crate::placement::{Placement, Scored, Scratch};
use crate::random::Random;
use crate::sandbox::Sandbox;
use crate::stats::demand::Demand;
use crate::store::deadlines::Deadlines;
use crate::store::paged::Paged;
use crate::store::slab::Slab;
use crate::store::slot::{InterfaceSlot, SandboxSlot, VmSlot};
use crate::store::wheel::Wheel;
use crate::time::Time;
use crate::workers::Workers;

/// The placement engine: decides which sandbox runs which invocation, and which sandboxes run on
/// which workers. See the [crate's documentation](crate) for the contract with the driver.
pub struct Engine {
    pub(crate) state: State,
    pub(crate) placement: Box<dyn Placement>,
    pub(crate) idle: Box<dyn IdlePolicy>,
    pub(crate) scratch: Scratch,
    /// Work postponed while a worker's report is applied.
    pub(crate) deferred: Option<Deferred>,
    /// How much later than the earliest timer the driver called.
    pub(crate) late: Duration,
    /// A copy of the state in progress, without sandboxes and functions.
    pub(crate) copy: Option<Box<State>>,
}

/// Work postponed while a worker's report is applied. A start after the first half of the report
/// could use a VM that the second half declares gone, and a VM that seems empty can hold a sandbox
/// that is not yet read.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    /// Functions that may need sandboxes.
    pub(crate) functions: BTreeSet<FunctionId>,
    /// VMs whose last known sandbox is gone.
    pub(crate) vms: BTreeSet<VmSlot>,
    /// Interfaces that a sandbox released.
    pub(crate) interfaces: BTreeSet<InterfaceSlot>,
}

/// The engine's state, without policies.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct State {
    pub(crate) config: Config,
    /// The engine's time; [`Clock::outside`] converts it to the driver's time.
    pub(crate) now: Time,
    pub(crate) clock: Clock,
    /// A restarted engine waits for the workers' reports until this time before it replaces what
    /// may still run.
    pub(crate) adopting_until: Time,
    pub(crate) random: Random,
    pub(crate) cursor: u64,
    pub(crate) commands: VecDeque<Command>,
    pub(crate) workers: Workers,
    pub(crate) functions: Paged<FunctionId, Function>,
    pub(crate) accounts: Accounts,
    pub(crate) sandboxes: Slab<SandboxSlot, Sandbox>,
    pub(crate) vms: Vms,
    pub(crate) interfaces: Interfaces,
    pub(crate) wheel: Wheel,
    /// All timers except those of sandboxes.
    pub(crate) agenda: Deadlines<Agenda>,
    /// Deadlines of busy sandboxes that differ from their function's current timeout: those of an
    /// old revision.
    pub(crate) old_deadlines: BTreeMap<SandboxSlot, Time>,
    /// Functions that wait for room.
    pub(crate) backlog: Backlog,
    pub(crate) reservations: Reservations,
    pub(crate) pools: pools::Pools,
    /// Memory in KiB and processor time in thousandths that the functions in the backlog need, by
    /// the labels that they need.
    pub(crate) wanted: BTreeMap<u16, (u64, u64)>,
    /// The block of workers at which the next search for idle sandboxes begins.
    pub(crate) eviction_cursor: usize,
    /// The number of functions that this round over the backlog has still to try.
    pub(crate) backlog_left: u32,
    /// The number of waiting invocations of all functions.
    pub(crate) waiting: u32,
    /// The number of sandboxes in [`State::Stopping`](crate::sandbox::State::Stopping).
    pub(crate) stopping: u32,
    /// For each isolation, the workers' memory sizes in KiB and the number of workers of each size.
    pub(crate) sizes: [BTreeMap<u32, u32>; 3],
    pub(crate) asked: fleet::Asked,
    /// The memory in use of each zone of a fleet that sizes itself.
    pub(crate) demand: BTreeMap<Zone, Demand>,
    pub(crate) losses: leases::Losses,
    /// The highest value that was evicted so far; the clock of [`IdlePolicy::worth`].
    pub(crate) worth_clock: f32,
    pub(crate) journal: VecDeque<Decision>,
    /// The number of decisions that were dropped because the journal was full.
    pub(crate) journal_dropped: u64,
    pub(crate) explanations: VecDeque<Explanation>,
}

/// The most timers that fire in one call.
const SLICE: usize = 512;
/// As how many timers the end of a reservation counts.
const RESERVATION: usize = 64;
/// How long a restarted engine waits for the workers' reports before it replaces what may still
/// run.
pub(crate) const ADOPTION: Duration = Duration::from_secs(10);

/// A timer of something other than a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Agenda {
    Lease(WorkerId),
    /// The rest of a lost worker is removed.
    Loss(WorkerId),
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
    Rollout(FunctionId),
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
    /// Returns an engine without workers and functions. The same seed and the same events at the
    /// same times give the same commands on any machine.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self::restarted(config, seed, 0)
    }

    /// Returns an engine that follows `restarts` earlier ones whose state is lost. It gives no id
    /// that an earlier one may have given.
    ///
    /// The driver declares workers, functions and networks again, and then passes each worker's
    /// [`Event::WorkerReported`]. The engine adopts sandboxes and VMs of earlier engines under
    /// their old ids. With `restarts` = 0 there are no earlier engines: whatever a worker reports
    /// that this engine did not start is stopped as a stray.
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
            wheel: Wheel::default(),
            agenda: Deadlines::default(),
            old_deadlines: BTreeMap::new(),
            backlog: Backlog::default(),
            reservations: Reservations::default(),
            pools: pools::Pools::default(),
            wanted: BTreeMap::new(),
            eviction_cursor: 0,
            backlog_left: 0,
            waiting: 0,
            stopping: 0,
            sizes: Default::default(),
            asked: fleet::Asked::default(),
            demand: BTreeMap::new(),
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
            copy: None,
        }
    }

    /// Replaces the placement policy, [`Scored`] by default.
    #[must_use]
    pub fn with_placement(mut self, placement: Box<dyn Placement>) -> Self {
        self.placement = placement;
        self
    }

    /// Replaces the idle policy, [`FixedIdle`] by default.
    #[must_use]
    pub fn with_idle_policy(mut self, idle: Box<dyn IdlePolicy>) -> Self {
        self.idle = idle;
        self
    }

    /// Applies an event at `now`, after all timers that are due. If `now` is before the previous
    /// call's, the previous time counts. A step of the clock beyond [`Config::clock_jump_max`] does
    /// not count as time that passed.
    ///
    /// # Errors
    ///
    /// Returns [`EventError`] if the event cannot be applied. The engine is then unchanged, apart
    /// from timers. Late and repeated events are such errors, and the driver can ignore them.
    pub fn handle(&mut self, now: Time, event: Event) -> Result<(), EventError> {
        self.handle_timeout(now);
        self.finish_loss(&event);
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
            Event::WorkerPressed { worker } => self.on_worker_pressure(worker, true),
            Event::WorkerRelieved { worker } => self.on_worker_pressure(worker, false),
            Event::WorkerLost { worker } => self.on_worker_lost(worker),
            Event::WorkerReported { worker, vms, sandboxes } => {
                self.on_worker_reported(worker, &vms, &sandboxes)
            }
            Event::AccountPut { account, concurrency_max } => {
                self.on_account_put(account, concurrency_max)
            }
            Event::AccountWeightSet { account, weight } => {
                self.on_account_weight_set(account, weight)
            }
            Event::FunctionPut { function, revision, settings } => {
                self.on_function_put(function, revision, settings)
            }
            Event::FunctionRemoved { function } => self.on_function_removed(function),
            Event::NetworkPut { network, settings } => self.on_network_put(network, settings),
            Event::NetworkRemoved { network } => self.on_network_removed(network),
            Event::VmReady { vm } => self.on_vm_ready(vm),
            Event::VmGone { vm } => self.on_vm_gone(vm),
            Event::InterfaceReady { interface } => self.on_interface_ready(interface),
            Event::InterfaceFull { interface } => self.on_interface_full(interface),
            Event::InterfaceRoom { interface } => self.on_interface_room(interface),
            Event::InterfaceGone { interface } => self.on_interface_gone(interface),
        }
    }

    /// Fires the timers that are due at `now`, up to 512, and a part of what takes long: a round
    /// over functions that wait for room, the loss of a large worker. If more are due,
    /// [`Engine::next_timeout`] is not later than `now` afterwards.
    pub fn handle_timeout(&mut self, now: Time) {
        let (due, before) = (self.due(), self.state.now);
        let now = self.state.clock.read(now, before, due, self.state.config.clock_jump_max);
        self.state.now = now;
        if now < due {
            return self.state.wheel.pass(now);
        }
        self.late = now.since(due);
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
            self.state.agenda.remove(&(at, item));
            if let Agenda::Loss(worker) = item {
                // The loss of a sandbox costs about as much as two timers.
                left = left.saturating_sub(1 + 2 * self.lose_some(worker));
                continue;
            }
            // Reserved room that is given back is offered to the whole backlog.
            let cost = if matches!(item, Agenda::Reserved(..)) { RESERVATION } else { 1 };
            left = left.saturating_sub(cost);
            self.on_agenda(at, item);
            if item == Agenda::Backlog && self.state.backlog_left > 0 {
                // A step over the backlog can take half a millisecond: the next call continues.
                return;
            }
        }
    }

    /// Returns the next command, or `None` if there are no more before the next event or timer.
    pub fn poll(&mut self) -> Option<Command> {
        self.state.commands.pop_front()
    }

    /// Returns the latest time at which the driver must call [`Engine::handle_timeout`], in the
    /// driver's time; `None` if no timer is set.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let due = self.due();
        (due < Time::LAST).then(|| self.state.clock.outside(due))
    }

    /// Returns the time of the next timer in the engine's time, or [`Time::LAST`] if none is set.
    fn due(&self) -> Time {
        self.state.wheel.next().min(self.state.agenda.next())
    }

    fn on_agenda(&mut self, at: Time, item: Agenda) {
        match item {
            Agenda::Lease(worker) => self.on_lease(worker),
            Agenda::Loss(worker) => {
                self.lose_some(worker);
            }
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
            Agenda::Retry(function) => self.start_missing(function),
            Agenda::Rollout(function) => self.end_rollout(function),
            Agenda::Reserved(worker, number) => self.on_reserved_too_long(worker, number),
            Agenda::Backlog => self.on_backlog_tick(),
            Agenda::Fleet => self.on_fleet_tick(),
            Agenda::Pool => self.on_pool_tick(),
        }
    }

    /// Queues a command, and writes it to the journal if there is one.
    pub(crate) fn command(&mut self, command: Command) {
        let state = &mut self.state;
        state.commands.push_back(command);
        self.journal(command);
    }

    /// Writes a decision to the journal if there is one.
    pub(crate) fn journal(&mut self, command: Command) {
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

    #[inline]
    pub(crate) fn function(&self, id: FunctionId) -> Option<&Function> {
        self.state.functions.get(id)
    }

    #[inline]
    pub(crate) fn function_mut(&mut self, id: FunctionId) -> Option<&mut Function> {
        self.state.functions.get_mut(id)
    }

    /// Stops those sandboxes of a list that run no invocation.
    pub(crate) fn stop_all(&mut self, sandboxes: &[SandboxSlot], reason: StopReason) {
        for sandbox in sandboxes {
            self.stop(*sandbox, reason);
        }
    }
}
