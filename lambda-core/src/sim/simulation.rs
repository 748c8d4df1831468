//! Plays a trace against an engine: carries commands out in virtual time, with latencies and faults by chance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::checker::{Checker, Violation};
use super::report::{Report, Shape, lower_bound, peak_and_p999};
use super::trace::Trace;
use crate::random::Random;
use crate::*;

/// How long things take: each between two bounds, any time as likely as another.
#[derive(Clone, Copy, Debug)]
pub struct Latencies {
    /// A sandbox, from its command to its being ready.
    pub sandbox_start: (Duration, Duration),
    /// The end of a sandbox, from its command.
    pub sandbox_stop: (Duration, Duration),
    /// A VM, from its command to its being ready.
    pub vm_start: (Duration, Duration),
    /// A network interface, from its command to its being ready.
    pub interface_start: (Duration, Duration),
    /// A worker, from its being asked for to its joining.
    pub worker_start: (Duration, Duration),
}

impl Default for Latencies {
    fn default() -> Self {
        let ms = |low, high| (Duration::from_millis(low), Duration::from_millis(high));
        Self {
            sandbox_start: ms(100, 400),
            sandbox_stop: ms(5, 20),
            vm_start: ms(100, 150),
            interface_start: ms(10_000, 20_000),
            worker_start: ms(60_000, 90_000),
        }
    }
}

/// What goes wrong, and how often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of 1,000 starts of sandboxes so many fail.
    pub starts_failed: u32,
    /// Of 1,000 events so many come twice.
    pub events_repeated: u32,
    /// So many workers are lost in an hour, of all together; each joins again, empty.
    pub workers_lost: u32,
}

/// What a simulation is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Workers at the start.
    pub workers: u32,
    /// What each has.
    pub capacity: Capacity,
    /// How long things take.
    pub latencies: Latencies,
    /// What goes wrong.
    pub faults: Faults,
    /// How many of the trace's first minutes are played without being measured.
    pub train_minutes: usize,
    /// The seed of arrivals, durations, latencies and faults.
    pub seed: u64,
    /// Processor time of a busy sandbox, in thousandths.
    pub cpu_milli: u32,
    /// Whether every command is checked: slow, for tests.
    pub check: bool,
    /// Whether the run is reported by minute.
    pub shape: bool,
}

impl Default for Settings {
    /// 20 workers of 64 GiB whose processors are not counted.
    fn default() -> Self {
        Self {
            workers: 20,
            capacity: Capacity::of_memory(64 << 30),
            latencies: Latencies::default(),
            faults: Faults::default(),
            train_minutes: 0,
            seed: 0,
            cpu_milli: 1000,
            check: false,
            shape: false,
        }
    }
}

/// A run that has not ended.
#[derive(Debug)]
pub struct Simulation<'a> {
    trace: &'a Trace,
    settings: Settings,
    engine: Engine,
    checker: Option<Checker>,
    random: Random,
    now: Time,
    happenings: BinaryHeap<Reverse<Happening>>,
    sequence: u64,
    /// Function, arrival and duration of each invocation, by its id.
    invocations: Vec<(u32, Time, u32)>,
    /// What each slot's sandbox is, by slot.
    sandboxes: Vec<Option<Alive>>,
    alive: u32,
    alive_memory_mib: u64,
    next_worker: u32,
    load: Vec<Vec<f64>>,
    report: Report,
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
struct Alive {
    sandbox: SandboxId,
    worker: WorkerId,
    memory_mib: u32,
    since: Time,
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

const MINUTE: u64 = 60_000_000_000;
/// How many functions, those with most sandboxes, are looked at for their spread.
const SPREAD_FUNCTIONS: usize = 8;

impl<'a> Simulation<'a> {
    /// Prepares a run: the engine is told of workers and functions. `config` is what the engine was made with.
    #[must_use]
    pub fn new(trace: &'a Trace, settings: Settings, engine: Engine, config: &Config) -> Self {
        let keep = None;
        let checker = settings.check.then(|| Checker::new(config.clone(), keep));
        let report = Report {
            policy: engine.placement.name().to_owned(),
            idle: engine.idle.name(),
            trace: trace.name.clone(),
            seed: settings.seed,
            workers: settings.workers,
            minutes: trace.minutes.saturating_sub(settings.train_minutes),
            digest: 0xcbf2_9ce4_8422_2325,
            ..Report::default()
        };
        Self {
            trace,
            engine,
            checker,
            random: Random::new(settings.seed ^ 0x5eed),
            now: Time::ZERO,
            happenings: BinaryHeap::new(),
            sequence: 0,
            invocations: Vec::new(),
            sandboxes: Vec::new(),
            alive: 0,
            alive_memory_mib: 0,
            next_worker: settings.workers,
            load: vec![vec![0.0; settings.workers as usize]; trace.minutes],
            report,
            shape: Shape::default(),
            settings,
        }
    }

    /// Plays the whole trace. `progress` is told how many minutes are done, of how many.
    ///
    /// # Errors
    ///
    /// The first invariant that did not hold, where they are checked.
    pub fn run(mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<Report, Violation> {
        self.prepare()?;
        for minute in 0..self.trace.minutes {
            self.play(minute)?;
            self.look(minute);
            progress(minute + 1, self.trace.minutes);
        }
        Ok(self.finish())
    }

    /// Returns the engine as it is, for whoever wants to look at it or to go on with another.
    #[must_use]
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn prepare(&mut self) -> Result<(), Violation> {
        for worker in 0..self.settings.workers {
            let joined =
                Event::WorkerJoined { worker: WorkerId(worker), capacity: self.settings.capacity };
            self.happen(joined)?;
        }
        for (id, function) in (0..).zip(&self.trace.functions) {
            let mut settings = FunctionSettings::new(
                AccountId(function.owner),
                u64::from(function.memory_mib) << 20,
            );
            settings.trigger = function.trigger;
            settings.cpu_milli = self.settings.cpu_milli;
            let longest = Duration::from_millis(u64::from(function.durations_ms[6]) + 1000);
            settings.timeout = longest.min(Duration::from_secs(900));
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

    /// Plays one minute: its arrivals, in order, among what happens meanwhile.
    fn play(&mut self, minute: usize) -> Result<(), Violation> {
        let arrivals = self.arrivals(minute);
        for (at, function, duration_us) in arrivals {
            self.play_until(at)?;
            let id = InvocationId(self.invocations.len() as u64);
            self.invocations.push((function, at, duration_us));
            if minute >= self.settings.train_minutes {
                self.report.invocations += 1;
            }
            let function = FunctionId(function);
            self.happen(Event::InvocationArrived { invocation: id, function })?;
        }
        self.play_until(Time::from_nanos((minute as u64 + 1) * MINUTE))
    }

    /// Timers fire at the beginning of their minute, evenly where there are several; all else comes at any time.
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

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match &event {
            Event::WorkerLost { worker } => self.lost(*worker),
            Event::SandboxReady { sandbox } => self.began(*sandbox),
            _ => {}
        }
        match &mut self.checker {
            Some(checker) => {
                let commands = checker.handle(&mut self.engine, self.now, event)?;
                commands.iter().for_each(|command| self.carry_out(command));
            }
            None => {
                // Late and repeated events are refused: that is the engine's part.
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
        self.report.commands += 1;
        self.digest(command);
        let latencies = self.settings.latencies;
        match *command {
            Command::StartSandbox { sandbox, worker, function, .. } => {
                self.report.started += u64::from(self.measures());
                let fails = self.chance(self.settings.faults.starts_failed);
                let slot = usize::try_from(sandbox.0 & u64::from(u32::MAX)).unwrap_or(0);
                if self.sandboxes.len() <= slot {
                    self.sandboxes.resize(slot + 1, None);
                }
                let memory_mib =
                    self.trace.functions.get(function.0 as usize).map_or(0, |it| it.memory_mib);
                // Counted from its being ready on.
                let since = Time::from_nanos(u64::MAX);
                self.sandboxes[slot] = Some(Alive { sandbox, worker, memory_mib, since });
                let fault = Fault::Worker;
                let event = if fails {
                    Event::SandboxFailed { sandbox, fault }
                } else {
                    Event::SandboxReady { sandbox }
                };
                self.after(latencies.sandbox_start, event);
            }
            Command::StopSandbox { sandbox, .. } => {
                self.ended(sandbox);
                self.after(latencies.sandbox_stop, Event::SandboxGone { sandbox });
            }
            Command::Dispatch { invocation, sandbox, worker, deadline } => {
                let at = usize::try_from(invocation.0).unwrap_or(0);
                let Some((function, arrived, duration_us)) = self.invocations.get(at).copied()
                else {
                    return;
                };
                if self.measures() {
                    self.report.cold += u64::from(self.now > arrived);
                    self.report.waited_seconds += self.now.since(arrived).as_secs_f64();
                    let minute = self.minute();
                    if self.now > arrived && self.settings.shape {
                        grow(&mut self.shape.cold, minute - self.settings.train_minutes);
                        self.shape.cold[minute - self.settings.train_minutes] += 1;
                    }
                }
                let end = (self.now + Duration::from_micros(u64::from(duration_us))).min(deadline);
                self.carry(worker, self.now, end, function);
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
            Command::Reject { .. } => self.report.rejected += u64::from(self.measures()),
            Command::StartVm { vm, .. } => self.after(latencies.vm_start, Event::VmReady { vm }),
            Command::StopVm { vm, .. } => self.after(latencies.sandbox_stop, Event::VmGone { vm }),
            Command::StartInterface { interface, .. } => {
                self.after(latencies.interface_start, Event::InterfaceReady { interface });
            }
            Command::StopInterface { interface } => {
                self.after(latencies.interface_start, Event::InterfaceGone { interface });
            }
            Command::AskWorker { zone } => {
                let worker = WorkerId(self.next_worker);
                self.next_worker += 1;
                let capacity = Capacity { zone, ..self.settings.capacity };
                self.after(latencies.worker_start, Event::WorkerJoined { worker, capacity });
            }
            Command::LoseWorker { worker } => self.lost(worker),
            Command::DrainWorker { .. } | Command::RetireWorker { .. } => {}
        }
    }

    fn lost(&mut self, worker: WorkerId) {
        let all = self.sandboxes.iter().flatten();
        let on: Vec<_> = all.filter(|it| it.worker == worker).map(|it| it.sandbox).collect();
        on.into_iter().for_each(|sandbox| self.ended(sandbox));
    }

    /// Counts the load of one invocation, minute by minute.
    fn carry(&mut self, worker: WorkerId, from: Time, to: Time, function: u32) {
        let memory = self.trace.functions.get(function as usize).map_or(0, |it| it.memory_mib);
        let seconds = to.since(from).as_secs_f64();
        if self.measures() {
            self.report.busy_gb_seconds += seconds * f64::from(memory) / 1024.0;
        }
        let (mut at, end) = (from.as_nanos(), to.as_nanos());
        while at < end {
            let minute = at / MINUTE;
            let until = end.min((minute + 1) * MINUTE);
            let Some(loads) = usize::try_from(minute).ok().and_then(|it| self.load.get_mut(it))
            else {
                return;
            };
            let worker = worker.0 as usize;
            if loads.len() <= worker {
                loads.resize(worker + 1, 0.0);
            }
            loads[worker] += (until - at) as f64 / MINUTE as f64;
            at = until;
        }
    }

    fn began(&mut self, sandbox: SandboxId) {
        let now = self.now;
        let slot = usize::try_from(sandbox.0 & u64::from(u32::MAX)).unwrap_or(0);
        let Some(Some(alive)) = self.sandboxes.get_mut(slot) else { return };
        if alive.sandbox == sandbox && alive.since > now {
            alive.since = now;
            self.alive += 1;
            self.alive_memory_mib += u64::from(alive.memory_mib);
        }
    }

    fn ended(&mut self, sandbox: SandboxId) {
        let slot = usize::try_from(sandbox.0 & u64::from(u32::MAX)).unwrap_or(0);
        let Some(place) = self.sandboxes.get_mut(slot) else { return };
        let Some(alive) = place.take_if(|it| it.sandbox == sandbox) else { return };
        if alive.since > self.now {
            return;
        }
        self.alive -= 1;
        self.alive_memory_mib -= u64::from(alive.memory_mib);
        self.count_alive(&alive);
    }

    /// Counts the time that a sandbox was there, after training; busy time is taken off at the end.
    fn count_alive(&mut self, alive: &Alive) {
        let start = Time::from_nanos(self.settings.train_minutes as u64 * MINUTE);
        let lived = self.now.since(alive.since.max(start)).as_secs_f64();
        self.report.idle_gb_seconds += lived * f64::from(alive.memory_mib) / 1024.0;
        self.report.sandboxes_mean += lived;
    }

    /// Looks at the fleet at the end of a minute.
    fn look(&mut self, minute: usize) {
        if minute < self.settings.train_minutes {
            return;
        }
        self.report.sandboxes_peak = self.report.sandboxes_peak.max(self.alive);
        let spread = self.spread();
        let excess: f64 = spread
            .iter()
            .map(|counts| {
                let all: u32 = counts.iter().sum();
                let least = all.div_ceil(u32::try_from(counts.len()).unwrap_or(1).max(1)).max(1);
                f64::from(counts.iter().copied().max().unwrap_or(0).max(1)) / f64::from(least)
            })
            .sum();
        self.report.spread += excess / spread.len().max(1) as f64;
        if !self.settings.shape {
            return;
        }
        let used = self.engine.workers().filter(|worker| worker.sandboxes() > 0).count();
        let each = self.settings.capacity.memory_bytes >> 20;
        let bound = self.alive_memory_mib.div_ceil(each.max(1));
        grow(&mut self.shape.cold, minute - self.settings.train_minutes);
        self.shape.sandboxes.push(self.alive);
        self.shape.workers_used.push(u32::try_from(used).unwrap_or(u32::MAX));
        self.shape.workers_bound.push(u32::try_from(bound).unwrap_or(u32::MAX));
        if minute + 1 == self.trace.minutes {
            self.shape.spread = spread;
        }
    }

    /// How many sandboxes each worker has, of the functions that have most.
    fn spread(&self) -> Vec<Vec<u32>> {
        let ids = (0..).zip(&self.trace.functions).map(|(id, _)| FunctionId(id));
        let of = |id: FunctionId| self.engine.function_status(id).map_or(0, |it| it.sandboxes);
        let mut most: Vec<_> = ids.map(|id| (Reverse(of(id)), id)).collect();
        most.sort_unstable();
        (most.into_iter().take(SPREAD_FUNCTIONS))
            .map(|(_, id)| self.engine.workers().map(|worker| worker.of_function(id)).collect())
            .collect()
    }

    fn finish(mut self) -> Report {
        let now = self.now;
        let left: Vec<_> = self.sandboxes.iter().flatten().copied().collect();
        for alive in left.into_iter().filter(|it| it.since <= now) {
            self.count_alive(&alive);
        }
        let measured = &self.load[self.settings.train_minutes.min(self.load.len())..];
        let widest = measured.iter().map(Vec::len).max().unwrap_or_default();
        let measured: Vec<Vec<f64>> = measured
            .iter()
            .map(|minute| {
                let mut minute = minute.clone();
                minute.resize(widest, 0.0);
                minute
            })
            .collect();
        let report = &mut self.report;
        (report.load_peak, report.load_p999) = peak_and_p999(&measured);
        (report.bound_peak, report.bound_p999) = lower_bound(&measured);
        report.idle_gb_seconds = (report.idle_gb_seconds - report.busy_gb_seconds).max(0.0);
        report.sandboxes_mean /= (report.minutes.max(1) * 60) as f64;
        report.spread /= report.minutes.max(1) as f64;
        if self.settings.shape {
            #[expect(clippy::cast_possible_truncation, reason = "for drawing")]
            let narrow = |minute: Vec<f64>| minute.into_iter().map(|load| load as f32).collect();
            self.shape.load = measured.into_iter().map(narrow).collect();
            report.shape = Some(self.shape);
        }
        self.report
    }

    fn measures(&self) -> bool {
        self.minute() >= self.settings.train_minutes
    }

    fn minute(&self) -> usize {
        let last = (self.trace.minutes as u64).saturating_sub(1);
        usize::try_from((self.now.as_nanos() / MINUTE).min(last)).unwrap_or(0)
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

    /// FNV-1a over the words of a command.
    fn digest(&mut self, command: &Command) {
        let words = match *command {
            Command::StartSandbox { sandbox, worker, .. } => [1, sandbox.0, u64::from(worker.0)],
            Command::StopSandbox { sandbox, worker, .. } => [2, sandbox.0, u64::from(worker.0)],
            Command::Dispatch { invocation, sandbox, .. } => [3, invocation.0, sandbox.0],
            Command::TimeOut { invocation, sandbox, .. } => [4, invocation.0, sandbox.0],
            Command::Reject { invocation, .. } => [5, invocation.0, 0],
            Command::StartVm { vm, worker, .. } => [6, vm.0, u64::from(worker.0)],
            Command::StopVm { vm, .. } => [7, vm.0, 0],
            Command::StartInterface { interface, .. } => [8, interface.0, 0],
            Command::StopInterface { interface } => [9, interface.0, 0],
            Command::AskWorker { zone } => [10, u64::from(zone.0), 0],
            Command::DrainWorker { worker } => [11, u64::from(worker.0), 0],
            Command::RetireWorker { worker } => [12, u64::from(worker.0), 0],
            Command::LoseWorker { worker } => [13, u64::from(worker.0), 0],
        };
        for word in words.into_iter().chain([self.now.as_nanos()]) {
            self.report.digest = (self.report.digest ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn grow(list: &mut Vec<u32>, at: usize) {
    if list.len() <= at {
        list.resize(at + 1, 0);
    }
}
