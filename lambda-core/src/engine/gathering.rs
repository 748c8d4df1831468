//! Gathered room: for functions that would wait for ever for room of their size.
//!
//! Freed room goes to a function that it is large enough for, and a function's sandboxes take the
//! next invocations of its own queue. So small functions could take each piece that falls free
//! before a large one has enough, and one queue could hold a place for ever. A function that has
//! waited for some time therefore gathers room on a worker: sandboxes of others end there as they
//! become free, and the room is reserved until there is enough.
//!
//! - A function without a sandbox, or without its provisioned ones, takes any, but not the only
//!   sandbox of a function before it has had its turn. Of an account that holds more memory per
//!   weight than the other, only the oldest gathering does.
//! - A function with sandboxes takes those of functions in its account that have more sandboxes,
//!   and those of accounts that would still hold as much. It gathers only where enough will end.
//!
//! A worker gathers for one function at a time. Functions gather in the order in which they last
//! started or lost a sandbox, so each has its turn.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::function::{Blocked, Function};
use super::reservations::Reservation;
use super::{Agenda, Engine};
use crate::command::StopReason;
use crate::id::{AccountId, FunctionId, WorkerId};
use crate::placement::fleet::{Needs, Spare, needed_kib};
use crate::sandbox::{Sandbox, State};
use crate::settings::Isolation;
use crate::settings::kib;
use crate::time::Time;
use crate::workers::{Phase, Worker};

/// How long a function waits for room before room is gathered for it, and after which the gathering
/// is decided anew.
pub(super) const GATHER_AFTER: Duration = Duration::from_secs(2);
/// How long a function keeps its only sandbox, while it has invocations for it, before the sandbox
/// ends for another function.
const TURN: Duration = Duration::from_secs(2);
/// The most workers that one search for a gathering place looks at.
const GATHERED_ON_MAX: usize = 256;
/// About the most sandboxes on these that it looks at.
const SANDBOXES_MAX: u32 = 1000;

impl Engine {
    /// Starts to gather room for a function that has waited for some time since it last started or
    /// lost a sandbox.
    pub(super) fn gather_if_it_waits_long(&mut self, id: FunctionId) {
        let now = self.state.now;
        let Some(function) = self.function(id) else { return };
        let Some(Blocked::ForRoom(place)) = function.blocked else { return };
        let long = |since: Time| since.max(place.since) + GATHER_AFTER <= now;
        if function.provision_short() > 0 || function.uncovered_since().is_some_and(long) {
            self.gather(id);
        }
    }

    /// Decides anew on a gathering that was not served in time: the function may have what it
    /// needs, or what was to end for it may no longer end. Returns whether it goes on.
    pub(super) fn goes_on_gathering(&mut self, worker: WorkerId, number: u64) -> bool {
        let Some((_, held)) = self.gathers_on(worker).filter(|it| it.0 == number) else {
            return false;
        };
        self.count_reserved(worker, &held, -1);
        let will = self.function(held.function).is_some_and(Function::needs_reserved)
            && self.will_have_room(worker, held.function);
        self.count_reserved(worker, &held, 1);
        will
    }

    /// Chooses a worker and reserves room on it that is not free yet. A function without sandboxes
    /// has the worker with the most memory that is free or idle.
    fn gather(&mut self, id: FunctionId) {
        let Some(function) = self.function(id).filter(|it| it.reserved == 0) else { return };
        let settings = function.settings;
        let zones = self.zones_for(&settings).map_or(0, |(zones, _)| zones);
        let (memory_kib, config) = (kib(settings.memory_bytes), &self.state.config);
        let needs = Needs::of(&settings, memory_kib, zones);
        let workers = &self.state.workers;
        let could = |(at, row): &(WorkerId, &Worker)| {
            let needed = needed_kib(config, row.isolation, memory_kib);
            let serves = matches!(row.phase, Phase::Serving | Phase::Quiet);
            let large = row.memory_kib >= needed && row.cpu_milli >= settings.cpu_milli;
            let slot = settings.network.is_none() || row.slots > 0;
            serves && large && slot && needs.suits(row) && self.gathers_on(*at).is_none()
        };
        let seats = workers.seats();
        let first = self.state.eviction_cursor % seats.max(1);
        let looked_at = (first..seats).chain(0..first).take(GATHERED_ON_MAX);
        let free = |(at, row): (WorkerId, &Worker)| {
            (Reverse(row.free_kib().saturating_add(workers.idle_kib(at))), at)
        };
        let mut found: Vec<_> = workers.in_seats(looked_at).filter(could).map(free).collect();
        if is_starved(function) {
            found.sort_unstable();
        }
        let mut left = SANDBOXES_MAX;
        let chosen = found.into_iter().map(|(_, at)| at).find(|at| {
            let looks = left > 0;
            let all = workers.get(*at).map_or(0, |row| row.sandboxes);
            left = left.saturating_sub(all.max(1));
            looks && self.will_have_room(*at, id)
        });
        let isolation = |at| workers.get(at).map_or(Isolation::Sandbox, |row| row.isolation);
        let chosen = chosen.map(|at| (at, needed_kib(config, isolation(at), memory_kib)));
        // One more, so that in a fleet of any size but this the next search begins elsewhere.
        self.state.eviction_cursor = first + GATHERED_ON_MAX + 1;
        let Some((worker, needed)) = chosen else { return };
        let idle: Vec<_> = (self.state.workers.sandboxes(&self.state.sandboxes, worker))
            .filter(|(_, held)| held.state == State::Idle && self.may_evict(held, id))
            .map(|(at, _)| at)
            .collect();
        self.hold_room(worker, id, needed, true);
        self.stop_all(&idle, StopReason::Evicted);
        self.stop_empty_vms(worker);
        self.stop_gathering_if_enough(worker);
        self.unblock_if_served(id);
    }

    /// Returns whether a worker will have room for a sandbox of a function when all that ends for
    /// it has ended. Workers with VMs are not examined: they gather for a function without
    /// sandboxes alone.
    fn will_have_room(&self, worker: WorkerId, id: FunctionId) -> bool {
        let (Some(row), Some(wants)) = (self.state.workers.get(worker), self.function(id)) else {
            return false;
        };
        let starved = is_starved(wants);
        if row.isolation != Isolation::Sandbox {
            return starved;
        }
        let (account, memory_kib) = (wants.settings.account, kib(wants.settings.memory_bytes));
        let mut spare = Spare::default();
        let mut of_functions: BTreeMap<FunctionId, u32> = BTreeMap::new();
        let mut of_accounts: BTreeMap<AccountId, u32> = BTreeMap::new();
        for (_, held) in self.state.workers.sandboxes(&self.state.sandboxes, worker) {
            if row.free_kib().saturating_add(spare.memory_kib) >= memory_kib
                && self.fits_on(id, worker, &spare)
            {
                return true;
            }
            let Some(victim) = self.function(held.function) else { continue };
            let taken = of_functions.entry(held.function).or_default();
            let owner = victim.settings.account;
            let taken_kib = of_accounts.entry(owner).or_default();
            let left = victim.serving().saturating_sub(*taken);
            let all_kib = taken_kib.saturating_add(held.memory_kib);
            let ends = match held.state {
                State::Stopping => true,
                _ if held.function == id => false,
                _ if held.marks.stale() => true,
                _ if left <= victim.settings.provisioned_concurrency => false,
                _ if starved => true,
                State::Idle => self.may_evict(held, id),
                _ if owner == account => left > wants.serving() + 1,
                _ => self.holds_less(account, memory_kib, owner, all_kib),
            };
            if ends {
                if held.state != State::Stopping && !held.marks.stale() {
                    *taken += 1;
                    *taken_kib = all_kib;
                }
                spare = spare.with(&self.gives(worker, held));
            }
        }
        self.fits_on(id, worker, &spare)
    }

    /// Returns whether a sandbox ends for a function that gathers room on its worker. With `waits`,
    /// it could run its function's next invocation.
    pub(super) fn ends_for_gathered(
        &self,
        held: &Sandbox,
        (number, gathered): (u64, Reservation),
        waits: bool,
    ) -> bool {
        let id = gathered.function;
        if !waits {
            return self.may_evict_for(held, id, 1);
        }
        let (Some(own), Some(wants)) = (self.function(held.function), self.function(id)) else {
            return false;
        };
        let (account, owner) = (wants.settings.account, own.settings.account);
        let had_its_turn = own.serving() > 1 || own.turn_since + TURN <= self.state.now;
        let ends = match (account == owner, is_starved(wants)) {
            (true, starved) => starved || own.serving() > wants.serving(),
            (false, true) => {
                self.holds_less(account, 0, owner, 0)
                    || self.state.reservations.is_oldest_gathering(number, &gathered)
            }
            (false, false) => self.holds_less(account, kib(wants.settings.memory_bytes), owner, 0),
        };
        had_its_turn && ends
    }

    /// Returns the reservation for which a worker gathers room, and its number.
    pub(super) fn gathers_on(&self, worker: WorkerId) -> Option<(u64, Reservation)> {
        let mut of = self.state.reservations.of.get(&worker)?.iter();
        of.find(|(_, held)| held.gathers.is_some()).map(|(number, held)| (*number, *held))
    }

    /// Ends no more sandboxes for a function that gathers room if those that are stopping give
    /// enough. The room stays reserved.
    pub(super) fn stop_gathering_if_enough(&mut self, worker: WorkerId) {
        let Some((number, gathered)) = self.gathers_on(worker) else { return };
        let all = self.free_reserved(worker);
        let others = all.iter().filter(|(it, _)| *it != number);
        let others = others.fold(0, |sum: u64, (_, held)| sum + u64::from(held.memory_kib));
        let mut spare = Spare::default();
        for (_, held) in self.state.workers.sandboxes(&self.state.sandboxes, worker) {
            if held.state == State::Stopping {
                spare = spare.with(&self.gives(worker, held));
            }
        }
        let free = self.state.workers.get(worker).map_or(0, Worker::free_kib);
        let enough = u64::from(free) + u64::from(spare.memory_kib)
            >= others + u64::from(gathered.memory_kib)
            && self.fits_on(gathered.function, worker, &spare);
        for (_, held) in &all {
            self.hold_again(worker, held);
        }
        if enough {
            self.state.reservations.end_gathering(worker, number);
            let until = self.state.now + self.state.config.start_timeout;
            self.state.agenda.insert((until, Agenda::Reserved(worker, number)));
        }
    }

    /// Returns whether `account`, with `kib` more, holds no more memory per weight than `owner`
    /// with `less_kib` less.
    fn holds_less(&self, account: AccountId, kib: u32, owner: AccountId, less_kib: u32) -> bool {
        let (poor, rich) = (self.state.accounts.get(account), self.state.accounts.get(owner));
        poor.share() + poor.share_of(kib) <= rich.share().saturating_sub(rich.share_of(less_kib))
    }
}

/// Returns whether a function has no sandbox, or lacks provisioned ones.
fn is_starved(function: &Function) -> bool {
    function.serving() == 0 || function.lacks_provisioned()
}
