//! Plays a trace against an engine in virtual time, with random latencies and faults.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::checker::{Checker, Violation};
use super::meter::{MINUTE, Meter};
use super::report::Report;
use super::settings::{Bad, Settings};
use super::trace::{Trace, Trigger};
use crate::random::Random;
use crate::*;

/// A simulation that is prepared to run.
#[derive(Debug)]
pub struct Simulation<'a> {
    trace: &'a Trace,
    settings: Settings,
    functions: Vec<FunctionSettings>,
    engine: Engine,
    /// The time of the change to a second engine, that engine, and whether it adopts the running
    /// sandboxes.
    successor: Option<(Time, Engine, bool)>,
    checker: Option<Checker>,
    random: Random,
    now: Time,
    happenings: BinaryHeap<Reverse<Happening>>,
    sequence: u64,
    /// Function, arrival and duration in microseconds of each invocation, by its id.
    invocations: Vec<(u32, Time, u32)>,
    /// Invocations that wait for a sandbox, from the caller's view.
    waiting: BTreeMap<InvocationId, FunctionId>,
    /// By full id, since consecutive engines give ids with the same slots.
    sandboxes: BTreeMap<SandboxId, Alive>,
    vms: BTreeMap<VmId, (WorkerId, ReportedVm)>,
    /// The workers, and whether each takes sandboxes.
    workers: BTreeMap<WorkerId, (Capacity, bool)>,
    next_worker: u32,
    meter: Meter,
}

#[derive(Clone, Copy, Debug)]
struct Alive {
    worker: WorkerId,
    memory_mib: u32,
    /// The time when it became ready.
    since: Option<Time>,
    is: ReportedSandbox,
}

#[derive(Clone, Debug)]
struct Happening {
    at: Time,
    sequence: u64,
    event: Event,
}

impl PartialEq for Happening {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Happening {}

impl PartialOrd for Happening {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Happening {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<'a> Simulation<'a> {
    /// Prepares a run. `config` must be the one that the engine was made with.
    #[must_use]
    pub fn new(trace: &'a Trace, settings: Settings, engine: Engine, config: &Config) -> Self {
        let one = |function: &super::TraceFunction| {
            let memory_bytes = u64::from(function.memory_mib) << 20;
            let mut it = FunctionSettings::new(AccountId(function.owner), memory_bytes);
            it.cpu_milli = settings.cpu_milli;
            let longest = Duration::from_millis(u64::from(function.durations_ms[6]) + 1000);
            it.timeout = longest.min(Duration::from_secs(900));
            it
        };
        Self {
            trace,
            functions: trace.functions.iter().map(one).collect(),
            checker: settings.check.then(|| Checker::new(config.clone(), None)),
            random: Random::new(settings.seed ^ 0x5eed),
            now: Time::ZERO,
            happenings: BinaryHeap::new(),
            sequence: 0,
            invocations: Vec::new(),
            waiting: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            vms: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_worker: settings.workers,
            meter: Meter::new(trace, &settings, &engine),
            successor: None,
            engine,
            settings,
        }
    }

    /// Changes the settings of the trace's functions. [`FunctionId`]s are their positions in the
    /// trace.
    #[must_use]
    pub fn with_functions(mut self, change: impl Fn(FunctionId, &mut FunctionSettings)) -> Self {
        for (id, settings) in (0..).zip(&mut self.functions) {
            change(FunctionId(id), settings);
        }
        self
    }

    /// Replaces the engine at time `at` by one that [`Engine::restarted`] made. The new engine is
    /// given the workers and functions. If `adopts`, it also gets the workers' reports of running
    /// sandboxes; otherwise these are lost with the first engine. Waiting invocations arrive again.
    /// Nothing is checked after the change.
    #[must_use]
    pub fn with_successor(mut self, at: Time, engine: Engine, adopts: bool) -> Self {
        self.successor = Some((at, engine, adopts));
        self
    }

    /// Plays the whole trace. Calls `progress` with the completed and the total number of minutes.
    ///
    /// # Errors
    ///
    /// Returns the first violation of an invariant, if invariants are checked.
    pub fn run(mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<Report, Violation> {
        self.prepare()?;
        for minute in 0..self.trace.minutes {
            self.play(minute)?;
            self.meter.look(minute, self.trace, &self.engine);
            progress(minute + 1, self.trace.minutes);
        }
        let now = self.now;
        for alive in self.sandboxes.values() {
            if let Some(since) = alive.since {
                self.meter.count_alive(now, since, alive.memory_mib);
            }
        }
        Ok(self.meter.finish())
    }

    /// Returns the engine in its present state, to inspect or change it.
    #[must_use]
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn prepare(&mut self) -> Result<(), Violation> {
        for worker in 0..self.settings.workers {
            let capacity = self.settings.capacity;
            self.happen(Event::WorkerJoined { worker: WorkerId(worker), capacity })?;
        }
        for (at, event) in std::mem::take(&mut self.settings.events) {
            if at == Time::ZERO {
                self.happen(event)?;
            } else {
                self.later(at, event);
            }
        }
        for (id, settings) in (0..).zip(self.functions.clone()) {
            self.happen(Event::FunctionPut { function: FunctionId(id), revision: 0, settings })?;
        }
        let lost = u64::from(self.settings.faults.workers_lost) * self.trace.minutes as u64 / 60;
        for _ in 0..lost {
            let at = self.random.between(0, self.trace.minutes as u64 * MINUTE);
            let worker = WorkerId(
                u32::try_from(self.random.below(self.settings.workers as usize)).unwrap_or(0),
            );
            self.later(Time::from_nanos(at), Event::WorkerLost { worker });
            let again = Time::from_nanos(at) + Duration::from_secs(60);
            self.later(again, Event::WorkerJoined { worker, capacity: self.settings.capacity });
        }
        Ok(())
    }

    /// Plays one minute: its arrivals, in order, between the other events.
    fn play(&mut self, minute: usize) -> Result<(), Violation> {
        let arrivals = self.arrivals(minute);
        for (at, function, duration_us) in arrivals {
            self.play_until(at)?;
            let id = InvocationId(self.invocations.len() as u64);
            self.invocations.push((function, at, duration_us));
            if minute >= self.settings.train_minutes {
                self.meter.report.invocations += 1;
            }
            let function = FunctionId(function);
            self.waiting.insert(id, function);
            self.happen(Event::InvocationArrived { invocation: id, function })?;
        }
        self.play_until(Time::from_nanos((minute as u64 + 1) * MINUTE))
    }

    /// Returns the arrivals of a minute. Timers fire at its beginning, or at equal intervals if
    /// there are several; other triggers at random times.
    fn arrivals(&mut self, minute: usize) -> Vec<(Time, u32, u32)> {
        let start = minute as u64 * MINUTE;
        let mut arrivals = Vec::new();
        for (id, function) in (0..).zip(&self.trace.functions) {
            let count = function.counts.get(minute).copied().unwrap_or_default();
            for nth in 0..count {
                let within = if function.trigger == Trigger::Timer {
                    let step = MINUTE / u64::from(count);
                    u64::from(nth) * step + self.random.between(0, step.min(2_000_000_000) - 1)
                } else {
                    self.random.between(0, MINUTE - 1)
                };
                let chance = self.random.below(1 << 32) as u64;
                let chance = u32::try_from(chance).unwrap_or(u32::MAX);
                let duration = u32::try_from(function.duration_us(chance)).unwrap_or(u32::MAX);
                arrivals.push((Time::from_nanos(start + within), id, duration));
            }
        }
        arrivals.sort_unstable();
        arrivals
    }

    fn play_until(&mut self, until: Time) -> Result<(), Violation> {
        loop {
            if self.successor.as_ref().is_some_and(|(at, ..)| *at <= self.now) {
                self.change_engines()?;
            }
            let next = self.happenings.peek().map(|Reverse(it)| it.at).filter(|at| *at <= until);
            let due = self.engine.next_timeout().filter(|due| *due <= until);
            match (next, due) {
                (None, None) => break,
                (next, Some(due)) if next.is_none_or(|next| due <= next) => {
                    self.now = self.now.max(due);
                    match &mut self.checker {
                        Some(checker) => {
                            let commands = checker.handle_timeout(&mut self.engine, self.now)?;
                            commands.iter().for_each(|command| self.carry_out(command));
                        }
                        None => {
                            self.engine.handle_timeout(self.now);
                            self.carry_all_out();
                        }
                    }
                }
                _ => {
                    if let Some(Reverse(happening)) = self.happenings.pop() {
                        self.now = self.now.max(happening.at);
                        let repeated = self.chance(self.settings.faults.events_repeated);
                        if repeated {
                            self.happen(happening.event.clone())?;
                        }
                        self.happen(happening.event)?;
                    }
                }
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Replaces the engine by the second one and gives it what the driver and the workers know.
    fn change_engines(&mut self) -> Result<(), Violation> {
        let Some((_, engine, adopts)) = self.successor.take() else { return Ok(()) };
        (self.engine, self.checker) = (engine, None);
        let now = self.now;
        if !adopts {
            self.vms.clear();
        }
        // Starting sandboxes are not reported: their workers drop them.
        let gone = |_: &SandboxId, it: &mut Alive| !adopts || it.since.is_none();
        for (_, alive) in self.sandboxes.extract_if(.., gone) {
            if let Some(since) = alive.since {
                self.meter.sandbox_ended(now, since, alive.memory_mib);
                let lost = u64::from(alive.is.invocation.is_some() && self.meter.measures(now));
                self.meter.report.lost += lost;
                self.meter.report.rejected += lost;
            }
        }
        for (worker, (capacity, _)) in self.workers.clone() {
            self.happen(Event::WorkerJoined { worker, capacity })?;
        }
        for (id, settings) in (0..).zip(self.functions.clone()) {
            self.happen(Event::FunctionPut { function: FunctionId(id), revision: 0, settings })?;
        }
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            let on = self.sandboxes.values().filter(|it| it.worker == worker);
            let sandboxes: Vec<_> = on.filter(|it| it.since.is_some()).map(|it| it.is).collect();
            let on = self.vms.values().filter(|(on, _)| *on == worker);
            let vms = on.map(|(_, vm)| *vm).collect();
            self.happen(Event::WorkerReported { worker, vms, sandboxes })?;
        }
        for (invocation, function) in self.waiting.clone() {
            self.happen(Event::InvocationArrived { invocation, function })?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        let measures = self.meter.measures(self.now);
        match &event {
            Event::WorkerJoined { worker, capacity } => {
                let known = self.workers.insert(*worker, (*capacity, true)).is_some();
                if !known {
                    self.meter.report.workers_joined += u64::from(measures);
                    self.meter.worker_serves(self.now, true);
                }
            }
            Event::WorkerLost { worker } => self.lost(*worker),
            Event::SandboxReady { sandbox } => self.began(*sandbox),
            Event::InvocationEnded { invocation, sandbox, .. } => {
                if let Some(alive) = self.sandboxes.get_mut(sandbox) {
                    alive.is.invocation.take_if(|it| it == invocation);
                }
            }
            Event::VmGone { vm } => {
                self.vms.remove(vm);
            }
            _ => {}
        }
        match &mut self.checker {
            Some(checker) => {
                let commands = checker.handle(&mut self.engine, self.now, event)?;
                commands.iter().for_each(|command| self.carry_out(command));
            }
            None => {
                // The engine refuses late and repeated events.
                let _taken = self.engine.handle(self.now, event);
                self.carry_all_out();
            }
        }
        Ok(())
    }

    fn carry_all_out(&mut self) {
        while let Some(command) = self.engine.poll() {
            self.carry_out(&command);
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    fn carry_out(&mut self, command: &Command) {
        let (now, latencies) = (self.now, self.settings.latencies);
        self.meter.digest(now, command);
        let measures = self.meter.measures(now);
        match *command {
            Command::StartSandbox { sandbox, worker, function, revision, vm, interface } => {
                self.meter.report.started += u64::from(measures);
                let bad = self.bad(worker);
                self.meter.report.started_on_bad += u64::from(bad.is_some() && measures);
                let half = now.as_nanos() % MINUTE >= MINUTE / 2;
                let fails = self.chance(self.settings.faults.starts_failed)
                    || bad == Some(Bad::BlackHole)
                    || bad == Some(Bad::Flapping) && half;
                let slower = if bad == Some(Bad::Slow) { 20 } else { 1 };
                let memory_mib = self.memory_mib(function);
                let invocation = None;
                let is = ReportedSandbox { sandbox, function, revision, vm, interface, invocation };
                self.sandboxes.insert(sandbox, Alive { worker, memory_mib, since: None, is });
                let fault = Fault::Worker;
                let event = if fails {
                    Event::SandboxFailed { sandbox, fault }
                } else {
                    Event::SandboxReady { sandbox }
                };
                let (least, most) = latencies.sandbox_start;
                self.after((least * slower, most * slower), event);
            }
            Command::StopSandbox { sandbox, .. } => {
                self.ended(sandbox);
                self.after(latencies.sandbox_stop, Event::SandboxGone { sandbox });
            }
            Command::Dispatch { invocation, sandbox, worker, deadline } => {
                self.waiting.remove(&invocation);
                let at = usize::try_from(invocation.0).unwrap_or(0);
                let Some((function, arrived, duration_us)) = self.invocations.get(at).copied()
                else {
                    return;
                };
                self.meter.dispatched(now, now.since(arrived));
                let end = (now + Duration::from_micros(u64::from(duration_us))).min(deadline);
                let account = self.trace.functions.get(function as usize).map_or(0, |it| it.owner);
                let memory_mib = self.memory_mib(FunctionId(function));
                self.meter.carry((worker, account, sandbox), (now, end), memory_mib);
                if let Some(alive) = self.sandboxes.get_mut(&sandbox) {
                    alive.is.invocation = Some(invocation);
                }
                let used = Used::default();
                let ended = Event::InvocationEnded { invocation, sandbox, reusable: true, used };
                if end < deadline {
                    self.later(end, ended);
                }
            }
            Command::TimeOut { sandbox, .. } => {
                self.ended(sandbox);
                self.after(latencies.sandbox_stop, Event::SandboxGone { sandbox });
            }
            Command::Reject { invocation, reason } => {
                self.waiting.remove(&invocation);
                let lost = matches!(reason, RejectReason::WorkerLost | RejectReason::SandboxLost);
                self.meter.report.lost += u64::from(lost && measures);
                self.meter.rejected(now);
            }
            Command::StartVm { vm, worker, memory_bytes, account } => {
                self.meter.report.vms_started += u64::from(measures);
                self.vms.insert(vm, (worker, ReportedVm { vm, account, memory_bytes }));
                self.after(latencies.vm_start, Event::VmReady { vm });
            }
            Command::StopVm { vm, .. } => self.after(latencies.sandbox_stop, Event::VmGone { vm }),
            Command::StartInterface { interface, .. } => {
                self.meter.report.interfaces_started += 1;
                self.after(latencies.interface_start, Event::InterfaceReady { interface });
            }
            Command::StopInterface { interface } => {
                self.after(latencies.interface_start, Event::InterfaceGone { interface });
            }
            Command::AskWorker { zone, labels } => {
                let worker = WorkerId(self.next_worker);
                self.next_worker += 1;
                let labels = labels | self.settings.capacity.labels;
                let capacity = Capacity { zone, labels, ..self.settings.capacity };
                self.after(latencies.worker_start, Event::WorkerJoined { worker, capacity });
            }
            Command::LoseWorker { worker } => self.lost(worker),
            Command::DrainWorker { worker } => self.serves_no_more(worker),
            Command::RetireWorker { worker } => {
                self.workers.remove(&worker);
                self.meter.report.workers_retired += u64::from(measures);
            }
        }
    }

    /// Returns the simulated fault of a worker, or `None` for a worker that works.
    fn bad(&self, worker: WorkerId) -> Option<Bad> {
        (worker.0 < self.settings.faults.bad_workers).then_some(self.settings.faults.bad)
    }

    fn serves_no_more(&mut self, worker: WorkerId) {
        let Some((_, serves)) = self.workers.get_mut(&worker) else { return };
        if std::mem::replace(serves, false) {
            self.meter.worker_serves(self.now, false);
        }
    }

    fn lost(&mut self, worker: WorkerId) {
        self.serves_no_more(worker);
        self.workers.remove(&worker);
        self.vms.retain(|_, (on, _)| *on != worker);
        let all = self.sandboxes.values();
        let on: Vec<_> = all.filter(|it| it.worker == worker).map(|it| it.is.sandbox).collect();
        on.into_iter().for_each(|sandbox| self.ended(sandbox));
    }

    fn memory_mib(&self, function: FunctionId) -> u32 {
        self.trace.functions.get(function.0 as usize).map_or(0, |it| it.memory_mib)
    }

    fn began(&mut self, sandbox: SandboxId) {
        let starting = |it: &&mut Alive| it.since.is_none();
        let Some(alive) = self.sandboxes.get_mut(&sandbox).filter(starting) else { return };
        alive.since = Some(self.now);
        self.meter.sandbox_began(alive.memory_mib);
    }

    fn ended(&mut self, sandbox: SandboxId) {
        let Some(alive) = self.sandboxes.remove(&sandbox) else { return };
        if let Some(since) = alive.since {
            self.meter.sandbox_ended(self.now, since, alive.memory_mib);
        }
    }

    fn chance(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.random.below(1000) < of_thousand as usize
    }

    fn after(&mut self, latency: (Duration, Duration), event: Event) {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let latency = self.random.between(nanos(latency.0), nanos(latency.1));
        self.later(self.now + Duration::from_nanos(latency), event);
    }

    fn later(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.happenings.push(Reverse(Happening { at, sequence: self.sequence, event }));
    }
}
