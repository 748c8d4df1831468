//! The fleet: workers join, drain, are recycled, lost, asked for and given back.

mod asked;

pub(crate) use self::asked::Asked;
use super::starting::ISOLATIONS;
use super::{Agenda, Engine};
use crate::command::{Command, RejectReason, StopReason};
use crate::event::{Event, EventError};
use crate::id::{FunctionId, WorkerId, ZONES_MAX, Zone};
use crate::settings::Capacity;
use crate::store::slot::SandboxSlot;
use crate::time::Time;
use crate::workers::Phase;

/// How often a worker that waits for its replacement checks whether to drain.
const REPLACEMENT_TICK: std::time::Duration = std::time::Duration::from_secs(30);

/// The most sandboxes of a lost worker that are removed in one call.
const LOST_AT_ONCE: usize = 256;

impl Engine {
    pub(super) fn on_worker_joined(
        &mut self,
        worker: WorkerId,
        capacity: &Capacity,
    ) -> Result<(), EventError> {
        let config = &self.state.config;
        if worker.0 >= config.workers_max || capacity.zone.0 >= ZONES_MAX {
            return Err(EventError::TooMany);
        }
        let memory = capacity.memory_bytes;
        if !(1 << 20..=1 << 42).contains(&memory) || capacity.cpu_milli == 0 {
            return Err(EventError::Size);
        }
        if self.state.workers.get(worker).is_some() {
            return Err(EventError::InUse);
        }
        let now = self.state.now;
        let lease = config.worker_lease.map(|lease| now + lease);
        let percent = (config.memory_percent, config.cpu_percent);
        let recycling = config.recycling;
        let drain_at = recycling.map(|it| {
            let latest = it.life_max.saturating_sub(it.drain_max).max(it.life_min);
            let nanos = |duration: std::time::Duration| {
                u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
            };
            // The last quarter of the window is left for a late replacement.
            let drawn = latest - latest.saturating_sub(it.life_min) / 4;
            let life = self.state.random.between(nanos(it.life_min), nanos(drawn));
            now + std::time::Duration::from_nanos(life)
        });
        let state = &mut self.state;
        let ends = (lease.unwrap_or(Time::LAST), drain_at.unwrap_or(Time::LAST));
        state.workers.insert(worker, capacity, percent, ends.0, ends.1);
        if let Some(joined) = state.workers.get(worker) {
            let kind = ISOLATIONS.iter().position(|it| *it == joined.isolation).unwrap_or_default();
            *state.sizes[kind].entry(joined.memory_kib).or_default() += 1;
        }
        if let Some(lease) = lease {
            state.agenda.insert((lease, Agenda::Lease(worker)));
        }
        if let Some((drain_at, it)) = drain_at.zip(recycling) {
            let before = |ahead: std::time::Duration| {
                let ahead = u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX);
                Time::from_nanos(drain_at.as_nanos().saturating_sub(ahead)).max(now)
            };
            state.agenda.insert((before(it.replace_ahead), Agenda::Replace(worker)));
            state.agenda.insert((before(it.quiet), Agenda::Quiet(worker)));
            state.agenda.insert((drain_at, Agenda::Drain(worker)));
        }
        self.came(capacity.zone, capacity.labels);
        self.refresh_phase(worker);
        self.on_room_freed(worker);
        Ok(())
    }

    /// Counts a worker that joined as the oldest one that was requested in its zone with the most
    /// of its labels, and as the oldest requested replacement.
    fn came(&mut self, zone: Zone, has: u16) {
        let of_zone = self.state.asked.at.range_mut((zone, 0)..=(zone, u16::MAX));
        let serves = of_zone.filter(|((_, labels), at)| labels & !has == 0 && !at.is_empty());
        if let Some((_, asked)) = serves.max_by_key(|((_, labels), _)| labels.count_ones()) {
            asked.remove(0);
        }
        if let Some(replaced) = self.state.asked.replaced.get_mut(&zone)
            && !replaced.is_empty()
        {
            replaced.remove(0);
        }
    }

    fn ask(&mut self, zone: Zone, labels: u16) {
        let now = self.state.now;
        self.state.asked.at.entry((zone, labels)).or_default().push(now);
        self.command(Command::AskWorker { zone, labels });
    }

    pub(super) fn on_replace(&mut self, at: Time, worker: WorkerId) {
        let Some(held) = self.state.workers.get(worker) else { return };
        // The timer of an earlier worker with this id, or the worker already drains.
        if self.drain_at(worker) < at || held.phase == Phase::Draining {
            return;
        }
        let (zone, labels) = (held.zone, held.labels);
        self.state.asked.replaced.entry(zone).or_default().push(worker);
        self.ask(zone, labels);
    }

    /// Returns when a worker is to drain.
    fn drain_at(&self, worker: WorkerId) -> Time {
        self.state.workers.side(worker).map_or(Time::ZERO, |it| it.drain_at)
    }

    pub(super) fn on_quiet(&mut self, at: Time, worker: WorkerId) {
        let drains = self.state.workers.get(worker).is_none_or(|it| it.phase == Phase::Draining);
        if !drains && self.drain_at(worker) >= at {
            if let Some(side) = self.state.workers.side_mut(worker) {
                side.near_end = true;
            }
            self.refresh_phase(worker);
        }
    }

    pub(super) fn on_drain_due(&mut self, at: Time, worker: WorkerId) {
        let Some(recycling) = self.state.config.recycling else { return };
        let Some(held) = self.state.workers.get(worker) else { return };
        let (zone, drain_at) = (held.zone, self.drain_at(worker));
        if drain_at > at || held.phase == Phase::Draining {
            return;
        }
        // The latest start of draining that leaves `drain_max` before `life_max`. Drawn ends are
        // not later.
        let slack = recycling.life_max.saturating_sub(recycling.drain_max);
        let latest = drain_at + slack.saturating_sub(recycling.life_min) / 4;
        let waits = |replaced: &Vec<WorkerId>| replaced.contains(&worker);
        if self.state.asked.replaced.get(&zone).is_some_and(waits) && at < latest {
            let again = (at + REPLACEMENT_TICK).min(latest);
            self.state.agenda.insert((again, Agenda::Drain(worker)));
            return;
        }
        if let Some(replaced) = self.state.asked.replaced.get_mut(&zone) {
            replaced.retain(|it| *it != worker);
        }
        self.drain(worker);
    }

    pub(super) fn on_worker_draining(&mut self, worker: WorkerId) -> Result<(), EventError> {
        let held = self.state.workers.get(worker).ok_or(EventError::Unknown)?;
        if held.phase == Phase::Draining {
            return Err(EventError::OutOfOrder);
        }
        self.drain(worker);
        Ok(())
    }

    pub(super) fn on_worker_ends(&mut self, worker: WorkerId, at: Time) -> Result<(), EventError> {
        let held = self.state.workers.get(worker).ok_or(EventError::Unknown)?;
        let draining = held.phase == Phase::Draining;
        let at = self.state.clock.inside(at).max(self.state.now);
        if draining {
            self.state.agenda.insert_earlier((at, Agenda::DrainOver(worker)));
        } else {
            self.drain_until(worker, at);
        }
        Ok(())
    }

    /// Times out the invocations that still run on a worker at the end of its draining.
    pub(super) fn on_drain_over(&mut self, worker: WorkerId) {
        let busy: Vec<_> = (self.state.workers.sandboxes(&self.state.sandboxes, worker))
            .filter(|(_, sandbox)| sandbox.state == crate::sandbox::State::Busy)
            .map(|(at, _)| at)
            .collect();
        busy.into_iter().for_each(|at| self.on_timed_out(at));
    }

    fn drain(&mut self, at: WorkerId) {
        let config = &self.state.config;
        let most = config.recycling.map_or(config.drain_max, |it| it.drain_max);
        self.drain_until(at, self.state.now + most);
    }

    /// Drains a worker: it takes no new sandboxes, idle and starting ones are stopped, busy ones
    /// finish by `deadline`.
    fn drain_until(&mut self, at: WorkerId, deadline: Time) {
        self.state.agenda.insert((deadline, Agenda::DrainOver(at)));
        self.state.workers.set_phase(at, Phase::Draining);
        self.command(Command::DrainWorker { worker: at });
        let held: Vec<_> = (self.state.workers.sandboxes(&self.state.sandboxes, at))
            .map(|(at, sandbox)| (at, sandbox.function, sandbox.state.is_starting()))
            .collect();
        let mut wanted = Vec::new();
        for (at, function, starting) in held {
            self.stop(at, StopReason::Draining);
            if starting {
                wanted.push(function);
            }
        }
        self.stop_empty_vms(at);
        self.start_elsewhere(at, wanted);
        self.retire_if_empty(at);
    }

    /// Starts what these functions, and those with room reserved on a worker, need on others.
    pub(super) fn start_elsewhere(&mut self, at: WorkerId, mut functions: Vec<FunctionId>) {
        functions.extend(self.unreserve_all(at));
        functions.sort_unstable();
        functions.dedup();
        functions.into_iter().for_each(|function| self.start_missing(function));
    }

    /// Removes a draining worker that is empty.
    pub(super) fn retire_if_empty(&mut self, at: WorkerId) {
        let done = |it: &crate::workers::Worker| it.phase == Phase::Draining && it.is_empty();
        // While a report is applied, its second half may name sandboxes of the worker.
        if self.deferred.is_none() && self.state.workers.get(at).is_some_and(done) {
            self.remove_worker(at);
            self.command(Command::RetireWorker { worker: at });
        }
    }

    fn remove_worker(&mut self, at: WorkerId) {
        for function in self.unreserve_all(at) {
            self.state.agenda.insert((self.state.now, Agenda::Retry(function)));
        }
        let Some(worker) = self.state.workers.remove(at, self.state.now) else { return };
        let kind = ISOLATIONS.iter().position(|it| *it == worker.isolation).unwrap_or_default();
        let sizes = &mut self.state.sizes[kind];
        if let Some(count) = sizes.get_mut(&worker.memory_kib) {
            *count -= 1;
            if *count == 0 {
                sizes.remove(&worker.memory_kib);
            }
        }
        for replaced in self.state.asked.replaced.values_mut() {
            replaced.retain(|it| *it != at);
        }
        self.clear_timers(at);
    }

    fn clear_timers(&mut self, of: WorkerId) {
        let timers = [
            Agenda::Lease(of),
            Agenda::Replace(of),
            Agenda::Quiet(of),
            Agenda::Drain(of),
            Agenda::DrainOver(of),
            Agenda::Health(of),
        ];
        timers.into_iter().for_each(|item| self.state.agenda.clear(item));
    }

    pub(super) fn on_worker_lost(&mut self, worker: WorkerId) -> Result<(), EventError> {
        self.state.workers.get(worker).ok_or(EventError::Unknown)?;
        self.begin_loss(worker);
        self.lose_some(worker);
        Ok(())
    }

    /// Begins the loss of a worker: nothing on it is used any more, and its timers do not fire.
    /// [`Self::lose_some`] removes what it has, in parts.
    pub(super) fn begin_loss(&mut self, at: WorkerId) {
        self.state.workers.set_phase(at, Phase::Lost);
        self.clear_timers(at);
        self.state.agenda.insert((self.state.now, Agenda::Loss(at)));
    }

    /// Removes at most [`LOST_AT_ONCE`] sandboxes of a worker that is lost, and then the worker, or
    /// sets the timer for the rest. Returns the number of sandboxes removed.
    pub(super) fn lose_some(&mut self, at: WorkerId) -> usize {
        self.state.agenda.clear(Agenda::Loss(at));
        let held: Vec<_> = (self.state.workers.sandboxes(&self.state.sandboxes, at))
            .map(|(at, sandbox)| (at, sandbox.function))
            .take(LOST_AT_ONCE)
            .collect();
        let mut functions: Vec<_> = held.iter().map(|(_, function)| *function).collect();
        held.into_iter().for_each(|(sandbox, _)| self.lose(sandbox));
        if self.state.workers.get(at).is_some_and(|it| it.sandboxes > 0) {
            self.state.agenda.insert((self.state.now, Agenda::Loss(at)));
        } else {
            let vms = self.state.vms.of_worker(at);
            vms.into_iter().for_each(|vm| self.lose_vm(vm));
            self.remove_worker(at);
        }
        let lost = functions.len();
        functions.sort_unstable();
        functions.dedup();
        functions.into_iter().for_each(|function| self.start_missing(function));
        lost
    }

    /// Removes a sandbox of a lost worker. The caller starts what its function then misses.
    pub(super) fn lose(&mut self, at: SandboxSlot) {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return };
        if sandbox.state.is_starting() {
            self.uncount_start(sandbox.function);
        }
        self.forget(at, RejectReason::WorkerLost);
    }

    /// Ends the loss of a worker that an event names, so that the event finds it gone.
    pub(super) fn finish_loss(&mut self, event: &Event) {
        let (Event::WorkerJoined { worker, .. }
        | Event::WorkerBeat { worker }
        | Event::WorkerDraining { worker }
        | Event::WorkerEnds { worker, .. }
        | Event::WorkerPressed { worker }
        | Event::WorkerRelieved { worker }
        | Event::WorkerLost { worker }
        | Event::WorkerReported { worker, .. }) = event
        else {
            return;
        };
        while self.state.agenda.contains(Agenda::Loss(*worker)) {
            self.lose_some(*worker);
        }
    }

    /// Asks for as many workers as the backlog needs, in these zones and with these labels.
    pub(super) fn ask_for_room(&mut self, zones: u32, labels: u16) {
        let Some(fleet) = self.state.config.fleet.as_ref() else { return };
        let (most, mut rooms) = (fleet.workers_max, Vec::new());
        let (mut here, mut asked) = (0, 0);
        for zone in fleet.zones.iter().filter(|zone| zones >> zone.0 & 1 == 1) {
            here |= 1 << zone.0;
            asked += self.asked_for(*zone, labels);
            let all = self.state.workers.kind(1 << zone.0, 0).lasting;
            rooms.push((all.saturating_add(self.asked_for(*zone, 0)), *zone));
        }
        let has = self.state.workers.kind(here, labels);
        let (kib, cpu_milli) = self.wanted(labels);
        let each = has.kib.checked_div(u64::from(has.lasting));
        // Without workers, the size of a worker is unknown: ask for one.
        let by_memory = each.map_or(1, |each| kib.div_ceil(each.max(1)).max(1));
        let by_cpu = has.cpu_of_one().map_or(0, |each| cpu_milli.div_ceil(each.max(1)));
        let wanted = by_memory.max(by_cpu);
        for _ in u64::from(asked)..wanted {
            let Some(least) = rooms.iter_mut().filter(|(all, _)| *all < most).min() else { return };
            least.0 += 1;
            let zone = least.1;
            self.ask(zone, labels);
        }
    }

    /// Returns the memory in KiB and the processor time in thousandths that the functions of the
    /// backlog need on workers with at least these labels.
    fn wanted(&self, labels: u16) -> (u64, u64) {
        let of = self.state.wanted.iter().filter(|(needs, _)| labels & !*needs == 0);
        of.fold((0, 0), |sum, (_, wanted)| (sum.0 + wanted.0, sum.1 + wanted.1))
    }

    /// Returns whether a worker with these labels was asked for in these zones and has not joined.
    pub(super) fn worker_comes(&self, zones: u32, labels: u16) -> bool {
        let mut asked = self.state.asked.at.iter().filter(|(_, at)| !at.is_empty());
        asked.any(|((zone, has), _)| zones >> zone.0 & 1 == 1 && labels & !has == 0)
    }

    /// Returns the number of workers of a zone with these labels that were asked for.
    fn asked_for(&self, zone: Zone, labels: u16) -> u32 {
        let of_zone = self.state.asked.at.range((zone, 0)..=(zone, u16::MAX));
        let asked = of_zone.filter(|((_, has), _)| labels & !has == 0).map(|(_, at)| at.len());
        u32::try_from(asked.sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// Returns the number of workers of a zone that take sandboxes, their memory, and the memory
    /// given away, in KiB.
    pub(super) fn zone_memory(&self, zone: Zone) -> (u32, u64, u64) {
        let all = self.state.workers.kind(1 << zone.0, 0);
        let serves = |it: &&crate::workers::Worker| {
            it.zone == zone && matches!(it.phase, Phase::Serving | Phase::Suspect)
        };
        let workers = self.state.workers.iter().map(|(_, worker)| worker).filter(serves);
        (all.lasting, all.kib, workers.map(|it| u64::from(it.memory_used_kib)).sum())
    }

    /// Compares each zone's workers with the limits: asks for a worker or gives one back.
    pub(super) fn on_fleet_tick(&mut self) {
        let Some(fleet) = self.state.config.fleet.clone() else { return };
        let now = self.state.now;
        self.state.agenda.insert((now + fleet.interval, Agenda::Fleet));
        for zone in fleet.zones {
            for (_, asked) in self.state.asked.at.range_mut((zone, 0)..=(zone, u16::MAX)) {
                asked.retain(|at| *at + fleet.ask_again > now);
            }
            self.state.asked.at.retain(|_, asked| !asked.is_empty());
            let (workers, memory, used) = self.zone_memory(zone);
            self.state.demand.entry(zone).or_default().note(now, used);
            let joining = self.asked_for(zone, 0);
            let all = workers.saturating_add(joining);
            // Workers that were asked for count as present and empty.
            let each = memory / u64::from(workers.max(1));
            let will_be = memory + each * u64::from(joining);
            let high = used * 100 > will_be * u64::from(fleet.memory_high_percent);
            if all < fleet.workers_min || high && all < fleet.workers_max {
                self.ask(zone, 0);
            } else if workers > fleet.workers_min
                && joining == 0
                && self.state.backlog.is_empty()
                && used * 100 < memory * u64::from(fleet.memory_low_percent)
            {
                self.give_back(zone, fleet.memory_high_percent);
            }
        }
    }

    /// Drains the serving worker of a zone with the fewest sandboxes, if the zone then stays well
    /// below the limit at which a worker is asked for.
    fn give_back(&mut self, zone: Zone, high_percent: u32) {
        let (_, memory, used) = self.zone_memory(zone);
        // Below 3/4 of that limit, so that a worker is not asked for again at once.
        let spared = |it: &crate::workers::Worker| {
            let left = memory.saturating_sub(u64::from(it.memory_kib));
            used * 200 < left * u64::from(high_percent + high_percent / 2)
        };
        let serves = |(_, it): &(WorkerId, &crate::workers::Worker)| {
            it.zone == zone && it.phase == Phase::Serving && spared(it)
        };
        let least = (self.state.workers.iter().filter(serves))
            .min_by_key(|(at, worker)| (worker.sandboxes, worker.memory_used_kib, *at));
        if let Some((at, _)) = least {
            self.drain(at);
        }
    }
}
