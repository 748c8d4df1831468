//! Waiting invocations: starts for them, room for the starts, and the limits of their wait.

use std::time::Duration;

use super::backlog::{Class, Owner, Place, bits};
use super::function::Blocked;
use super::starting::Wish;
use super::{Agenda, Engine};
use crate::command::{RejectReason, StopReason};
use crate::id::{AccountId, FunctionId, WorkerId};
use crate::placement::fleet::{Needs, Spare, needed_kib, refusal};
use crate::sandbox::{Sandbox, State};
use crate::settings::Isolation;
use crate::settings::kib;
use crate::store::slot::SandboxSlot;

/// The time between two attempts for functions in the backlog.
const TICK: Duration = Duration::from_secs(1);
/// The most functions of the backlog that are tried at each tick.
const TRIED_MAX: u32 = 64;
/// The most functions of the backlog that are tried in one call: each may look at hundreds of
/// workers and at all sandboxes of one.
const TRIED_AT_ONCE: u32 = 2;
/// The divisor of the waiting limit: a sixteenth is kept for accounts with few waiting invocations.
const KEPT_FOR_FEW: u32 = 16;
/// The most sandboxes that start on a worker when room on it comes free.
const STARTED_MAX: usize = 64;

impl Engine {
    /// Starts the sandboxes that a function's waiting invocations and its provisioned concurrency
    /// need.
    pub(super) fn start_missing(&mut self, id: FunctionId) {
        if let Some(deferred) = &mut self.deferred {
            deferred.functions.insert(id);
            return;
        }
        if self.function(id).is_some_and(super::Function::has_too_many) {
            self.cancel_starts(id);
        }
        let max = self.state.config.starts_per_function_max;
        while let Some(function) = self.function(id)
            && function.missing(max) > 0
        {
            let provisioned = function.provision_short() > 0;
            if function.start_from > self.state.now
                || function.init_failures > 0 && function.starting > 0
            {
                return self.back_off(id);
            }
            if !provisioned && !self.may_scale(id) {
                return self.wait_for_rate(id);
            }
            match self.start_one(id) {
                Wish::Started => {
                    if !provisioned {
                        self.count_start(id);
                    }
                    self.requeue_if_blocked(id);
                }
                Wish::Never(reason) => {
                    if self.function(id).is_some_and(|it| it.waiting_count() > it.starting) {
                        self.reject_last(id, reason);
                    } else {
                        return self.provision_later(id);
                    }
                }
                Wish::NoRoom => {
                    if !self.make_room(id) {
                        return self.wait_for_room(id);
                    }
                }
            }
        }
        self.unblock_if_served(id);
        if self.function(id).is_some_and(|it| it.may_add() == 0) {
            self.arm_wait_timer(id);
        }
    }

    /// Cancels starts that were not commanded yet while a function has too many sandboxes.
    fn cancel_starts(&mut self, id: FunctionId) {
        let members = self.function(id).map_or_else(Vec::new, |it| it.members.clone());
        for at in members {
            let waits = self.state.sandboxes.get(at).is_some_and(|it| it.state == State::Waiting);
            if waits && self.function(id).is_some_and(super::Function::has_too_many) {
                self.stop(at, StopReason::Evicted);
            }
        }
    }

    /// Starts a sandbox in the place of one that is gone, if a function with a limit waits for it.
    pub(super) fn start_in_place(&mut self, id: FunctionId) {
        let waits = |it: &super::Function| {
            it.settings.sandboxes_max.is_some() && it.waiting_count() > it.starting
        };
        if self.function(id).is_some_and(waits) {
            self.state.agenda.insert_earlier((self.state.now, Agenda::Retry(id)));
        }
    }

    /// Rejects the waiting invocations for which no sandbox is being made and no room is reserved.
    fn reject_uncovered(&mut self, id: FunctionId, reason: RejectReason) {
        while self.function(id).is_some_and(|it| it.starting + it.reserved < it.waiting_count()) {
            self.reject_last(id, reason);
        }
    }

    /// Handles a used-up scaling rate: waits for it if the function has sandboxes, else rejects the
    /// waiting invocations.
    fn wait_for_rate(&mut self, id: FunctionId) {
        let Some(function) = self.function(id) else { return };
        if function.serving() == 0 {
            return self.reject_uncovered(id, RejectReason::ScalingRate);
        }
        let step = self.state.config.scaling_period / self.state.config.scaling_starts_max.max(1);
        self.block(id, Blocked::ForTime);
        let at = self.state.now + step.max(Duration::from_millis(1));
        self.state.agenda.insert((at, Agenda::Retry(id)));
    }

    /// Handles a function whose starts fail by its own fault: one start at a time, with growing
    /// delays. Rejects the waiting invocations, unless one of the function's sandboxes is busy or
    /// starting.
    fn back_off(&mut self, id: FunctionId) {
        let Some(function) = self.function(id) else { return };
        let (from, failed, busy) = (function.start_from, function.failed, function.meter.busy());
        if busy == 0
            && function.starting == 0
            && let Some(sandbox) = failed
        {
            self.reject_uncovered(id, RejectReason::SandboxFailed { sandbox });
        }
        if self.function(id).is_some_and(|it| it.waiting_count() > it.starting) {
            self.block(id, Blocked::ForTime);
        }
        let at = from.max(self.state.now + Duration::from_millis(1));
        if from > self.state.now {
            self.state.agenda.insert((at, Agenda::Retry(id)));
        }
    }

    /// Puts a function into the backlog, asks for workers, and rejects its waiting invocations if
    /// no room can come.
    fn wait_for_room(&mut self, id: FunctionId) {
        let Some(settings) = self.function(id).map(|it| it.settings) else { return };
        let zones = self.zones_for(&settings).map_or(0, |(zones, _)| zones);
        let place = self.place_of(id, settings.account);
        self.block(id, Blocked::ForRoom(place));
        let labels = settings.labels;
        self.ask_for_room(zones, labels);
        let own = self.function(id).is_some_and(|it| it.meter.busy() > 0 || it.starting > 0);
        // A full worker may get room, and an ejected one may take sandboxes again.
        let served = self.state.workers.kind(zones, labels).open > 0;
        if !own && !served && !self.worker_comes(zones, labels) {
            self.reject_uncovered(id, RejectReason::NoCapacity);
        }
    }

    fn place_of(&self, id: FunctionId, account: AccountId) -> Place {
        let urgent = self.function(id).is_some_and(|it| it.provision_short() > 0);
        let class = self.function(id).map_or_else(Class::default, |it| Class::of(&it.settings));
        let owner = Owner { on_demand: !urgent, account };
        Place { owner, class, since: self.state.now }
    }

    fn block(&mut self, id: FunctionId, how: Blocked) {
        let Some(function) = self.function(id) else { return };
        let account = function.settings.account;
        match (function.blocked, how) {
            (Some(Blocked::ForRoom(before)), Blocked::ForRoom(place))
                if before.owner == place.owner => {}
            _ => {
                self.leave_backlog(id);
                if let Blocked::ForRoom(place) = how {
                    let held = self.state.accounts.get(account);
                    let (share, waiting) = (held.share(), held.waiting());
                    if self.state.backlog.is_empty() {
                        self.state.agenda.insert((self.state.now + TICK, Agenda::Backlog));
                    }
                    self.state.backlog.insert(id, place, share, waiting);
                }
                if let Some(function) = self.function_mut(id) {
                    function.blocked = Some(how);
                }
            }
        }
        self.count_wanted(id);
        self.arm_wait_timer(id);
    }

    fn leave_backlog(&mut self, id: FunctionId) {
        let Some(function) = self.function_mut(id) else { return };
        let account = function.settings.account;
        if let Some(Blocked::ForRoom(place)) = function.blocked.take() {
            let waiting = self.state.accounts.get(account).waiting();
            self.state.backlog.remove(id, place, waiting);
        }
    }

    /// Ends a function's waiting state, in the backlog or for time, and its timer.
    pub(super) fn stop_waiting(&mut self, id: FunctionId) {
        self.leave_backlog(id);
        self.count_wanted(id);
        self.state.agenda.clear(Agenda::Blocked(id));
    }

    /// Updates the sums of what the functions in the backlog need.
    pub(super) fn count_wanted(&mut self, id: FunctionId) {
        let max = self.state.config.starts_per_function_max;
        let Some(function) = self.function_mut(id) else { return };
        let missing = match function.blocked {
            Some(Blocked::ForRoom(_)) => u64::from(function.missing(max)),
            _ => 0,
        };
        let settings = function.settings;
        let after = (
            missing * u64::from(kib(settings.memory_bytes)),
            missing * u64::from(settings.cpu_milli),
        );
        let before = std::mem::replace(&mut function.wanted, after);
        if before == after {
            return;
        }
        let labels = settings.labels;
        let wanted = self.state.wanted.entry(labels).or_default();
        *wanted = (wanted.0 - before.0 + after.0, wanted.1 - before.1 + after.1);
        if *wanted == (0, 0) {
            self.state.wanted.remove(&labels);
        }
    }

    /// Sets the timer that ends the wait of the oldest invocation for which no sandbox is being
    /// made.
    fn arm_wait_timer(&mut self, id: FunctionId) {
        let Some(since) = self.function(id).and_then(|it| it.uncovered_since()) else { return };
        let at = since + self.state.config.wait_max;
        let at = at.max(self.state.now);
        self.state.agenda.insert_earlier((at, Agenda::Blocked(id)));
    }

    pub(super) fn on_waited_too_long(&mut self, id: FunctionId) {
        let now = self.state.now;
        let Some(settings) = self.function(id).map(|it| it.settings) else { return };
        let zones = self.zones_for(&settings).map_or(0, |(zones, _)| zones);
        let mut wait = self.state.config.wait_max;
        if self.worker_comes(zones, settings.labels) {
            let comes = self.state.config.fleet.as_ref().map_or(Duration::ZERO, |it| it.ask_again);
            wait = wait.max(comes);
        }
        while let Some(function) = self.function_mut(id) {
            let Some(since) = function.uncovered_since() else { break };
            if since + wait > now {
                self.state.agenda.insert((since + wait, Agenda::Blocked(id)));
                break;
            }
            let reason = match function.may_add() {
                0 => RejectReason::SandboxesMax,
                _ => RejectReason::NoCapacity,
            };
            let popped = function.pop_uncovered();
            self.rejected(id, popped, reason);
        }
    }

    /// Removes a function from the backlog, or ends its wait for time, if it needs no more
    /// sandboxes.
    pub(super) fn unblock_if_served(&mut self, id: FunctionId) {
        let max = self.state.config.starts_per_function_max;
        let Some(function) = self.function(id).filter(|it| it.blocked.is_some()) else { return };
        if function.missing(max) == 0 {
            self.leave_backlog(id);
            if let Some(function) = self.function_mut(id) {
                function.blocked = None;
            }
            if self.function(id).is_none_or(|it| it.uncovered_since().is_none()) {
                self.state.agenda.clear(Agenda::Blocked(id));
            }
        }
        self.count_wanted(id);
    }

    /// Updates the sums and timers for a new invocation of a function that is in the backlog,
    /// without a new search for room. Returns whether the function is in the backlog.
    pub(super) fn is_in_backlog(&mut self, id: FunctionId) -> bool {
        let Some(function) = self.function(id) else { return false };
        let Some(Blocked::ForRoom(_)) = function.blocked else { return false };
        let settings = function.settings;
        self.count_wanted(id);
        self.arm_wait_timer_if_none(id);
        if self.state.config.fleet.is_some() {
            let zones = self.zones_for(&settings).map_or(0, |(zones, _)| zones);
            self.ask_for_room(zones, settings.labels);
        }
        true
    }

    fn arm_wait_timer_if_none(&mut self, id: FunctionId) {
        // Only the oldest such invocation needs the timer, which then moves to the next.
        let first = |it: &super::Function| it.waiting_count() <= it.starting + 1;
        if self.function(id).is_some_and(first) {
            self.arm_wait_timer(id);
        }
    }

    /// Returns whether one more invocation of an account may wait. At the limit, rejects one of the
    /// account with the most, if that has at least twice as many.
    pub(super) fn may_wait(&mut self, account: AccountId) -> bool {
        let (all, most) = (self.state.waiting, self.state.config.waiting_max);
        let kept = most / KEPT_FOR_FEW;
        let own = self.state.accounts.get(account).waiting();
        if all < most - kept || all < most && own < kept / 4 {
            return true;
        }
        if all < most {
            return false;
        }
        let Some(fullest) = self.state.backlog.fuller(own) else { return false };
        let uncovered = |id: &FunctionId| {
            self.function(*id).is_some_and(|it| it.waiting_count() > it.starting + it.reserved)
        };
        let Some(victim) = self.state.backlog.newest_of(fullest).find(uncovered) else {
            return false;
        };
        self.reject_last(victim, RejectReason::WaitingFull);
        true
    }

    /// Tries some functions of the backlog, longest wait first. A round of [`TRIED_MAX`] functions
    /// takes several calls, so that none is long; the next round begins a [`TICK`] later. A
    /// backlog of more functions is swept in several rounds: each function that waited at the start
    /// of a sweep is tried once before the next sweep begins.
    pub(super) fn on_backlog_tick(&mut self) {
        if self.state.backlog_left == 0 {
            let all = self.state.backlog.len();
            self.state.backlog_left = all.min(TRIED_MAX);
            if all <= TRIED_MAX {
                // What is left of an earlier sweep would come before those that wait longer.
                self.state.backlog.begin_sweep();
            }
        }
        let most = self.state.backlog_left.min(TRIED_AT_ONCE);
        self.state.backlog_left -= most;
        let now = self.state.now;
        for id in self.state.backlog.sweep(now, most as usize) {
            self.start_missing(id);
            self.gather_if_it_waits_long(id);
        }
        if !self.state.backlog.is_empty() {
            let wait = if self.state.backlog_left > 0 { Duration::ZERO } else { TICK };
            self.state.agenda.insert((self.state.now + wait, Agenda::Backlog));
        }
    }

    /// Puts a function at the end of its account's queue.
    fn requeue(&mut self, id: FunctionId, account: AccountId) {
        let place = self.place_of(id, account);
        self.leave_backlog(id);
        self.block(id, Blocked::ForRoom(place));
    }

    /// As [`Self::requeue`], for a function that may be in the backlog.
    fn requeue_if_blocked(&mut self, id: FunctionId) {
        if let Some(function) = self.function(id)
            && matches!(function.blocked, Some(Blocked::ForRoom(_)))
        {
            self.requeue(id, function.settings.account);
        }
    }

    /// Uses room that may have come free on a worker: first for its reservations, then for the
    /// backlog.
    pub(super) fn on_room_freed(&mut self, worker: WorkerId) {
        if self.deferred.is_some() {
            return;
        }
        if self.has_reserved(worker) {
            self.serve_reserved(worker);
        }
        for _ in 0..STARTED_MAX {
            if self.state.backlog.is_empty() {
                return;
            }
            let Some(row) = self.state.workers.get(worker) else { return };
            let has = row.labels;
            let most = match row.isolation {
                Isolation::Sandbox => bits(row.free_kib()),
                _ => u8::MAX,
            };
            let fits = |id, _, _| self.fits_on(id, worker, &Spare::default());
            let next = self.state.backlog.next(most, has, fits);
            let Some(id) = next else { break };
            let started = self.start_for_backlog(id, worker);
            self.unblock_if_served(id);
            self.requeue_if_blocked(id);
            if !started {
                break;
            }
        }
    }

    fn start_for_backlog(&mut self, id: FunctionId, worker: WorkerId) -> bool {
        let provisioned = self.function(id).is_some_and(|it| it.provision_short() > 0);
        if !provisioned && !self.may_scale(id) || !self.start_on(id, worker) {
            return false;
        }
        if !provisioned {
            self.count_start(id);
        }
        true
    }

    fn serve_reserved(&mut self, worker: WorkerId) {
        // The oldest reservation may use all that is free. If that is too little, its room is
        // reserved again before younger reservations are served.
        let mut again = Vec::new();
        for (number, held) in self.free_reserved(worker) {
            let id = held.function;
            let needed = self.function(id).is_some_and(super::Function::needs_reserved);
            let fits = needed && self.fits_on(id, worker, &Spare::default());
            self.hold_again(worker, &held);
            if needed && !fits {
                continue;
            }
            self.unreserve(worker, number);
            if !needed {
                continue;
            }
            if self.start_for_backlog(id, worker) {
                self.requeue_if_blocked(id);
            } else {
                again.push(id);
            }
            self.unblock_if_served(id);
        }
        again.into_iter().for_each(|id| self.start_missing(id));
    }

    /// Returns whether a worker can have a sandbox of a function, with `spare` in addition to its
    /// free resources.
    pub(super) fn fits_on(&self, id: FunctionId, worker: WorkerId, spare: &Spare) -> bool {
        let Some(settings) = self.function(id).map(|it| it.settings) else { return false };
        let Some(row) = self.state.workers.get(worker) else { return false };
        let Some((zones, _)) = self.zones_for(&settings) else { return false };
        let memory_kib = kib(settings.memory_bytes);
        let needs = Needs::of(&settings, memory_kib, zones);
        let has_vm = row.isolation != Isolation::Sandbox
            && self.has_vm_on(worker, settings.account, memory_kib);
        let spare = Spare { has_vm: spare.has_vm || has_vm, ..*spare };
        refusal(&self.state.config, row, &needs, &spare).is_none()
    }

    /// Returns whether the backlog is not empty or room is gathered.
    pub(super) fn others_want_room(&self) -> bool {
        !self.state.backlog.is_empty() || self.state.reservations.gather()
    }

    /// Stops a sandbox that could run its function's next invocation (`waits`) or has become idle,
    /// if another function has less and needs the room. Returns whether it did.
    pub(super) fn yield_to_poorer(&mut self, at: SandboxSlot, waits: bool) -> bool {
        let Some(held) = self.state.sandboxes.get(at).cloned() else { return false };
        let worker = held.worker;
        let Some(row) = self.state.workers.get(worker) else { return false };
        let (isolation, free_kib, has) = (row.isolation, row.free_kib(), row.labels);
        let own = held.function;
        let Some(serving) = self.function(own).map(|it| it.serving()) else { return false };
        let provisioned =
            |it: &super::Function| it.serving() <= it.settings.provisioned_concurrency;
        if self.function(own).is_some_and(provisioned) {
            return false;
        }
        if let Some(gathered) = self.gathers_on(worker)
            && gathered.1.function != own
            && self.ends_for_gathered(&held, gathered, waits)
        {
            self.evict_for(at, own, waits);
            self.stop_gathering_if_enough(worker);
            return true;
        }
        let gives = self.gives(worker, &held);
        let most = match isolation {
            Isolation::Sandbox => bits(free_kib.saturating_add(gives.memory_kib)),
            _ => u8::MAX,
        };
        let next = self.state.backlog.next(most, has, |id, owner, _| {
            if id == own {
                return false;
            }
            let Some(other) = self.function(id) else { return false };
            if other.start_from > self.state.now {
                return false;
            }
            let due = !owner.on_demand || self.ends_for(&held, id, serving, waits);
            due && self.fits_on(id, worker, &gives)
        });
        let Some(id) = next else { return false };
        let Some(settings) = self.function(id).map(|it| it.settings) else { return false };
        let memory_kib = needed_kib(&self.state.config, isolation, kib(settings.memory_bytes));
        self.reserve(worker, id, memory_kib);
        self.requeue(id, settings.account);
        self.unblock_if_served(id);
        self.evict_for(at, own, waits);
        true
    }

    /// Returns whether a sandbox of a function with `serving` sandboxes ends for function `id`.
    /// With `waits`: if `id` has fewer sandboxes in the same account, or its account holds less
    /// memory per weight. Else: if the sandbox may be evicted.
    fn ends_for(&self, held: &Sandbox, id: FunctionId, serving: u32, waits: bool) -> bool {
        if !waits {
            return self.may_evict(held, id);
        }
        let (Some(own), Some(other)) = (self.function(held.function), self.function(id)) else {
            return false;
        };
        let same = own.settings.account == other.settings.account;
        let fewer = same && other.serving() + other.reserved + 1 < serving;
        fewer || self.is_poorer(other.settings.account, kib(other.settings.memory_bytes), held)
    }

    fn evict_for(&mut self, at: SandboxSlot, own: FunctionId, waits: bool) {
        if waits {
            self.stop_unlisted(at, StopReason::Evicted);
            self.start_missing(own);
            // Without a sandbox, its turn comes after those that wait already.
            if self.function(own).is_some_and(|it| it.serving() == 0) {
                self.requeue_if_blocked(own);
            }
        } else {
            self.stop(at, StopReason::Evicted);
        }
    }

    /// Starts the missing provisioned sandboxes of a function.
    pub(super) fn provision(&mut self, id: FunctionId) {
        let now = self.state.now;
        if now < self.state.adopting_until && !self.state.workers.all_reported() {
            // They may already run on a worker that has not sent its report.
            let at = self.state.adopting_until;
            return self.state.agenda.insert((at, Agenda::Provision(id)));
        }
        let Some(function) = self.function_mut(id).filter(|it| !it.removed) else { return };
        function.provision_due = true;
        self.start_missing(id);
    }

    fn provision_later(&mut self, id: FunctionId) {
        let at = self.state.now + self.state.config.start_timeout;
        if let Some(function) = self.function_mut(id) {
            function.provision_due = false;
        }
        self.state.agenda.insert((at, Agenda::Provision(id)));
        self.unblock_if_served(id);
    }

    /// Counts a start that failed by the function's own fault. From the third in a row, the next
    /// start is delayed, twice as long each time.
    pub(super) fn function_failed(&mut self, id: FunctionId, sandbox: crate::id::SandboxId) {
        let now = self.state.now;
        let Some(function) = self.function_mut(id) else { return };
        function.init_failures = function.init_failures.saturating_add(1);
        function.failed = Some(sandbox);
        let nth = function.init_failures.saturating_sub(3);
        if function.init_failures >= 3 {
            let wait = Duration::from_millis(250).saturating_mul(1 << nth.min(8));
            function.start_from = now + wait.min(Duration::from_secs(60));
        }
    }
}
