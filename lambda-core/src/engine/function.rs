//! The engine's record of a function.

mod idle_stack;

use std::collections::VecDeque;
use std::time::Duration;

use self::idle_stack::{IdleStack, growth};
use crate::config::Routing;
use crate::engine::backlog::Place;
use crate::id::{InvocationId, SandboxId, WorkerId, ZONES_MAX, Zone};
use crate::idle::{IdleView, Keep};
use crate::settings::FunctionSettings;
use crate::stats::histogram::{Histogram, Pending};
use crate::stats::meter::Meter;
use crate::stats::rhythm::Rhythm;
use crate::store::slab::NONE;
use crate::store::slot::SandboxSlot;
use crate::store::spread::Spread;
use crate::time::Time;

/// The fields are ordered by use: an invocation and its end use the first two cache lines.
/// Placement uses the first and the following ones.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C, align(64))]
pub(crate) struct Function {
    pub(crate) settings: FunctionSettings,
    waiting_count: u32,
    pub(crate) uses: u32,

    pub(crate) meter: Meter,
    /// How long a sandbox is kept idle after an invocation, in nanoseconds.
    keep_nanos: u64,
    niche: Niche,
    top: Top,
    pub(crate) recent_durations: Pending,
    /// Used when an invocation ends a gap.
    pub(crate) recent_gaps: Pending,
    pub(crate) removed: bool,
    /// Whether `prewarm` or `prewarm_at` is set. If not, they are not read: they are at the end of
    /// the record.
    prewarms: bool,

    /// The number of its sandboxes on each worker.
    pub(crate) spread: Spread,
    /// All its sandboxes, in any order.
    pub(crate) members: Vec<SandboxSlot>,
    pub(crate) revision: u64,

    idle: IdleStack,
    /// The number of sandboxes that are being made.
    pub(crate) starting: u32,
    /// The number of sandboxes that are stopping, or that must end after their invocation.
    pub(crate) ending: u32,
    /// The number of reservations of room for it.
    pub(crate) reserved: u32,
    /// Accepted invocations without a sandbox, in order of arrival, with the time of arrival.
    waiting: VecDeque<(InvocationId, Time)>,
    /// The number of starts that failed by a worker's fault since the last success.
    pub(crate) start_failures: u32,
    /// The time at which the scaling rate has fully recovered. Each start moves it on (a leaky
    /// bucket as a meter, GCRA).
    pub(crate) scaling_whole_at: Time,
    durations: Histogram,
    pub(crate) memory_peaks_mib: Histogram,
    gaps: Histogram,
    rhythm: Rhythm,
    /// The usual time from the start command to readiness, as a moving average.
    pub(crate) start: Duration,
    pub(crate) worth: Option<f32>,
    /// The sandbox that took the last invocation, for the routings that need it.
    last: SandboxSlot,
    /// Set while the function has waiting invocations and no sandbox is being made for them.
    pub(crate) blocked: Option<Blocked>,
    /// The function's part of `State::wanted`: memory in KiB and processor time in thousandths.
    pub(crate) wanted: (u64, u64),
    /// The number of starts that failed by the function's own fault since the last success.
    pub(crate) init_failures: u32,
    /// No start before this time: its starts fail by its own fault.
    pub(crate) start_from: Time,
    /// The time at which the number of its ready sandboxes last rose from zero to one: the start of
    /// its turn, if functions take turns for room.
    pub(crate) turn_since: Time,
    /// The sandbox that failed last.
    pub(crate) failed: Option<SandboxId>,
    /// The workers on which its starts failed since the last success, newest first.
    pub(crate) failed_on: [WorkerId; 4],
    /// Sandboxes of the previous revision may serve until this time.
    pub(crate) rolls_until: Time,
    /// Whether missing provisioned sandboxes may be started now.
    pub(crate) provision_due: bool,
    /// The number of its sandboxes in each zone.
    zones: [u16; ZONES_MAX as usize],
    /// See [`Keep::prewarm`].
    prewarm: Option<(Duration, Duration)>,
    prewarm_at: Option<Time>,
}

/// Why no sandbox is being made for a function's waiting invocations.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Blocked {
    /// No worker has room. The function is in the backlog.
    ForRoom(Place),
    /// The scaling rate is used up, or the function's starts fail and it backs off.
    ForTime,
}

/// A value with one variant. Its unused values let the compiler store whether an `Option<Function>`
/// is empty in this field: it is in a cache line that is read anyway, not at the end of the record.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u32)]
enum Niche {
    Used = 1,
}

impl Function {
    pub(crate) fn new(settings: FunctionSettings, revision: u64) -> Self {
        Self {
            settings,
            revision,
            removed: false,
            top: Top::default(),
            idle: IdleStack::default(),
            meter: Meter::default(),
            recent_durations: Pending::default(),
            recent_gaps: Pending::default(),
            waiting_count: 0,
            members: Vec::new(),
            spread: Spread::default(),
            starting: 0,
            ending: 0,
            waiting: VecDeque::new(),
            start_failures: 0,
            scaling_whole_at: Time::ZERO,
            durations: Histogram::default(),
            memory_peaks_mib: Histogram::default(),
            gaps: Histogram::default(),
            rhythm: Rhythm::default(),
            keep_nanos: 0,
            niche: Niche::Used,
            prewarms: false,
            prewarm: None,
            uses: 0,
            start: Duration::ZERO,
            worth: None,
            last: SandboxSlot(0),
            prewarm_at: None,
            blocked: None,
            reserved: 0,
            wanted: (0, 0),
            init_failures: 0,
            start_from: Time::ZERO,
            turn_since: Time::ZERO,
            failed: None,
            failed_on: [WorkerId(NONE); 4],
            rolls_until: Time::ZERO,
            provision_due: false,
            zones: [0; ZONES_MAX as usize],
        }
    }

    /// The idle sandbox that was used last, if it is not in the list; else [`NONE`].
    pub(crate) fn top(&self) -> SandboxSlot {
        self.top.sandbox
    }

    /// Reads each cache line that placement needs.
    pub(crate) fn touch_to_place(&self) -> u32 {
        let members = u32::try_from(self.members.len()).unwrap_or_default();
        members ^ self.spread.touch_few()
    }

    /// Reads each cache line that an invocation needs.
    pub(crate) fn touch(&self) -> u32 {
        self.meter.busy() ^ self.uses
    }

    /// Returns how long a sandbox is kept idle after an invocation, in nanoseconds.
    pub(crate) fn keep_idle_nanos(&self) -> u64 {
        self.keep_nanos
    }

    pub(crate) fn set_keep(&mut self, keep: Keep) {
        self.keep_nanos = u64::try_from(keep.idle.as_nanos()).unwrap_or(u64::MAX);
        if self.prewarms || keep.prewarm.is_some() {
            self.prewarm = keep.prewarm;
            self.prewarms = self.prewarm.is_some() || self.prewarm_at.is_some();
        }
    }

    /// Returns the delay of pre-warming, and how long the pre-warmed sandbox is kept.
    pub(crate) fn prewarm(&self) -> Option<(Duration, Duration)> {
        if self.prewarms { self.prewarm } else { None }
    }

    /// Returns when a sandbox will be pre-warmed, if that is planned.
    pub(crate) fn prewarm_at(&self) -> Option<Time> {
        if self.prewarms { self.prewarm_at } else { None }
    }

    /// Sets when a sandbox will be pre-warmed. Returns the previous time.
    pub(crate) fn set_prewarm_at(&mut self, at: Option<Time>) -> Option<Time> {
        if !self.prewarms && at.is_none() {
            return None;
        }
        let before = std::mem::replace(&mut self.prewarm_at, at);
        self.prewarms = self.prewarm.is_some() || self.prewarm_at.is_some();
        before
    }

    pub(crate) fn idle_view(&self) -> IdleView<'_> {
        IdleView {
            gaps: &self.gaps,
            rhythm: self.rhythm,
            uses: self.uses,
            start: self.start,
            memory_bytes: self.settings.memory_bytes,
        }
    }

    /// Adds a sandbox.
    pub(crate) fn add_member(&mut self, sandbox: SandboxSlot) {
        if self.members.len() == self.members.capacity() {
            self.members.reserve_exact(growth(self.members.len()));
        }
        self.members.push(sandbox);
    }

    /// Returns the number of accepted invocations: waiting or running.
    pub(crate) fn concurrency(&self) -> u32 {
        self.meter.busy().saturating_add(self.waiting_count())
    }

    pub(crate) fn waiting_count(&self) -> u32 {
        self.waiting_count
    }

    /// Adds an invocation to the waiting ones.
    pub(crate) fn wait(&mut self, invocation: InvocationId, now: Time) {
        self.waiting.push_back((invocation, now));
        self.waiting_count += 1;
    }

    /// Removes the invocation that waits longest.
    pub(crate) fn pop_waiting(&mut self) -> Option<InvocationId> {
        if self.waiting_count == 0 {
            return None;
        }
        self.waiting_count -= 1;
        let popped = self.waiting.pop_front();
        self.forget_room();
        popped.map(|(invocation, _)| invocation)
    }

    /// Frees the memory of the queue when it is empty.
    fn forget_room(&mut self) {
        if self.waiting_count == 0 {
            self.waiting = VecDeque::new();
        }
    }

    /// Removes an invocation from the waiting ones. Returns whether it was there.
    pub(crate) fn withdraw(&mut self, invocation: InvocationId) -> bool {
        let Some(at) = self.waiting.iter().position(|(it, _)| *it == invocation) else {
            return false;
        };
        self.waiting.remove(at);
        self.waiting_count -= 1;
        self.forget_room();
        true
    }

    /// Removes the oldest waiting invocation for which no sandbox is being made.
    pub(crate) fn pop_uncovered(&mut self) -> Option<InvocationId> {
        let (popped, _) = self.waiting.remove(self.starting as usize)?;
        self.waiting_count -= 1;
        self.forget_room();
        Some(popped)
    }

    /// Returns since when the oldest invocation waits for which no sandbox is being made.
    pub(crate) fn uncovered_since(&self) -> Option<Time> {
        self.waiting.get(self.starting as usize).map(|(_, since)| *since)
    }

    /// Returns how many provisioned sandboxes are missing and may be started now.
    pub(crate) fn provision_short(&self) -> u32 {
        if self.removed || !self.provision_due {
            return 0;
        }
        self.settings.provisioned_concurrency.saturating_sub(self.serving() + self.reserved)
    }

    /// Returns whether provisioned sandboxes are missing and may be started now, also if room is
    /// reserved for them.
    pub(crate) fn lacks_provisioned(&self) -> bool {
        !self.removed
            && self.provision_due
            && self.serving() < self.settings.provisioned_concurrency
    }

    /// Returns whether it needs the room that is reserved for it.
    pub(crate) fn needs_reserved(&self) -> bool {
        self.waiting_count() > self.starting || self.lacks_provisioned()
    }

    /// Returns how many more sandboxes must be started, with at most `max` starts for waiting
    /// invocations at once.
    pub(crate) fn missing(&self, max: u32) -> u32 {
        let waits = self.waiting_count().min(max).saturating_sub(self.starting + self.reserved);
        waits.max(self.provision_short()).min(self.may_add())
    }

    /// Returns how many more sandboxes it may have.
    pub(crate) fn may_add(&self) -> u32 {
        let Some(most) = self.settings.sandboxes_max else { return u32::MAX };
        let all = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        u32::from(most.get()).saturating_sub(all.saturating_add(self.reserved))
    }

    /// Returns whether it has more sandboxes than it may. Adoption can lead to that.
    pub(crate) fn has_too_many(&self) -> bool {
        let most = self.settings.sandboxes_max;
        most.is_some_and(|most| self.members.len() > usize::from(most.get()))
    }

    /// Counts one more sandbox in a zone.
    pub(crate) fn add_zone(&mut self, zone: Zone) {
        let count = &mut self.zones[usize::from(zone.0)];
        *count = count.saturating_add(1);
    }

    /// Counts one sandbox less in a zone.
    pub(crate) fn take_zone(&mut self, zone: Zone) {
        let count = &mut self.zones[usize::from(zone.0)];
        *count = count.saturating_sub(1);
    }

    /// Returns those of `zones` in which one more sandbox keeps the function's sandboxes evenly
    /// spread: with at most 9/8 of the lowest count.
    pub(crate) fn even_zones(&self, zones: u32) -> u32 {
        let of = |zone: &u32| zones >> zone & 1 == 1;
        let counts =
            || (0..u32::from(ZONES_MAX)).filter(of).map(|zone| (zone, self.zones[zone as usize]));
        let least = counts().map(|(_, count)| count).min().unwrap_or_default();
        counts().filter(|(_, count)| *count <= least + least / 8).map(|(zone, _)| 1 << zone).sum()
    }

    /// Removes the newest waiting invocation.
    pub(crate) fn pop_last_waiting(&mut self) -> Option<InvocationId> {
        let (popped, _) = self.waiting.pop_back()?;
        self.waiting_count -= 1;
        self.forget_room();
        Some(popped)
    }

    /// Records the duration of an invocation.
    pub(crate) fn ran(&mut self, millis: u64) {
        self.recent_durations.add_number(millis, &mut self.durations);
    }

    /// Returns the histogram of the durations of its invocations.
    pub(crate) fn durations(&self) -> Histogram {
        let (mut durations, mut recent) = (self.durations, self.recent_durations);
        recent.flush(&mut durations);
        durations
    }

    /// Records the gap since the last invocation. Returns whether to ask the idle policy again:
    /// after a long gap, or after some short ones.
    pub(crate) fn was_quiet(&mut self, now: Time) -> bool {
        let gap = now.since(self.meter.until());
        let millis = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        let full = self.recent_gaps.add_number(millis, &mut self.gaps);
        let ask = full || gap >= GAP_SHORT || self.recent_gaps.count() >= GAPS_SHORT_MAX;
        if ask {
            self.recent_gaps.flush(&mut self.gaps);
        }
        // The first invocation of a function ends no gap.
        if gap >= GAP_SHORT && self.uses > 0 {
            self.rhythm.add(gap);
        }
        ask
    }

    /// Adds a sandbox as the most recently used idle one. Returns its place.
    pub(crate) fn push_idle(&mut self, sandbox: SandboxSlot) -> u32 {
        if self.top.sandbox != SandboxSlot::NONE {
            self.idle.push_at(self.top.place, self.top.sandbox);
            self.top.place = self.idle.end();
        }
        self.top.sandbox = sandbox;
        self.top.place
    }

    /// Removes the idle sandbox that the routing chooses.
    pub(crate) fn take_idle(&mut self, routing: Routing) -> Option<SandboxSlot> {
        let taken = match routing {
            Routing::MostRecentlyUsed | Routing::CoolWorker
                if self.top.sandbox != SandboxSlot::NONE =>
            {
                return Some(std::mem::replace(&mut self.top.sandbox, SandboxSlot::NONE));
            }
            Routing::MostRecentlyUsed | Routing::CoolWorker => {
                let popped = self.idle.pop();
                self.top.place = self.idle.end();
                return popped;
            }
            Routing::LeastRecentlyUsed => self.idle().next()?,
            Routing::RoundRobin => {
                let next = self.idle().filter(|it| *it > self.last).min();
                next.or_else(|| self.idle().min())?
            }
        };
        self.last = taken;
        if taken == self.top.sandbox {
            self.top.sandbox = SandboxSlot::NONE;
        } else {
            self.idle.remove_sandbox(taken);
            self.place_next();
        }
        Some(taken)
    }

    /// Removes the idle sandbox at a place.
    pub(crate) fn remove_idle(&mut self, place: u32) {
        if self.top.sandbox != SandboxSlot::NONE && self.top.place == place {
            self.top.sandbox = SandboxSlot::NONE;
        } else {
            self.idle.remove(place);
        }
        self.place_next();
    }

    /// Updates the place of the next top after the list changed.
    fn place_next(&mut self) {
        if self.top.sandbox == SandboxSlot::NONE {
            self.top.place = self.idle.end();
        }
    }

    /// Returns the idle sandboxes, the longest idle first.
    pub(crate) fn idle(&self) -> impl Iterator<Item = SandboxSlot> + '_ {
        self.idle.iter().chain(Some(self.top.sandbox).filter(|it| *it != SandboxSlot::NONE))
    }

    /// Returns idle sandboxes, the most recently used first; some of a sparse list.
    pub(crate) fn recently_used(&self) -> impl Iterator<Item = SandboxSlot> + '_ {
        let top = Some(self.top.sandbox).filter(|it| *it != SandboxSlot::NONE);
        top.into_iter().chain(self.idle.last_few())
    }

    /// Closes the holes of the list if there are many. `moved` gets each sandbox and its new place.
    pub(crate) fn compact_idle(&mut self, moved: impl FnMut(SandboxSlot, u32)) {
        if self.idle.is_sparse() {
            self.idle.compact(moved);
            self.place_next();
        }
    }

    /// Returns the number of its sandboxes that serve it or will.
    pub(crate) fn serving(&self) -> u32 {
        let all = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        all.saturating_sub(self.ending)
    }

    /// Returns how many of `concurrency` invocations count against the account's unreserved
    /// concurrency.
    pub(crate) fn unreserved(&self, concurrency: u32) -> u32 {
        match (self.settings.reserved_concurrency, self.settings.shares_with) {
            (None, None) => self.beyond(concurrency),
            _ => 0,
        }
    }

    /// Returns how many of `concurrency` invocations exceed the function's provisioned concurrency.
    pub(crate) fn beyond(&self, concurrency: u32) -> u32 {
        concurrency.saturating_sub(self.settings.provisioned_concurrency)
    }

    /// Returns the concurrency that is reserved for it out of the account's.
    pub(crate) fn claimed(&self) -> u64 {
        if self.settings.shares_with.is_some() {
            return 0;
        }
        let provisioned = self.settings.provisioned_concurrency;
        u64::from(self.settings.reserved_concurrency.unwrap_or(provisioned))
    }
}

/// Shorter gaps are short: the idle policy is not asked after each.
const GAP_SHORT: Duration = Duration::from_secs(1);
/// The most short gaps before the idle policy is asked.
const GAPS_SHORT_MAX: u32 = 32;

/// The most recently used idle sandbox, kept outside the list: a function with one invocation at a
/// time then reads and writes no list. Its place is at the end of the list or beyond it. While
/// there is none, `place` is that of the next.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Top {
    sandbox: SandboxSlot,
    place: u32,
}

impl Default for Top {
    fn default() -> Self {
        Self { sandbox: SandboxSlot::NONE, place: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AccountId;

    fn function() -> Function {
        Function::new(FunctionSettings::new(AccountId(0), 1 << 20), 0)
    }

    fn idle(function: &Function) -> Vec<u32> {
        function.idle().map(|it| it.0).collect()
    }

    #[test]
    fn an_invocation_reads_two_lines_and_placement_three_that_follow() {
        use std::mem::offset_of;
        assert_eq!((offset_of!(Function, meter), offset_of!(Function, spread)), (72, 128));
        assert!(offset_of!(Function, recent_gaps) < 128 && offset_of!(Function, prewarms) < 128);
        assert_eq!(offset_of!(Function, members), 128 + 2 * 64 + 48);
    }

    #[test]
    fn the_most_recently_used_comes_first_and_holes_do_not_count() {
        let mut function = function();
        let pop = |it: &mut Function| it.take_idle(Routing::MostRecentlyUsed).map(|it| it.0);
        let places: Vec<_> =
            (10..15).map(|sandbox| function.push_idle(SandboxSlot(sandbox))).collect();
        function.remove_idle(places[1]);
        function.remove_idle(places[3]);
        assert_eq!((idle(&function).len(), pop(&mut function)), (3, Some(14)));
        assert_eq!(idle(&function), [10, 12]);
        function.remove_idle(places[0]);
        let place = function.push_idle(SandboxSlot(20));
        assert_eq!([(); 3].map(|()| pop(&mut function)), [Some(20), Some(12), None]);
        function.remove_idle(place);
        assert_eq!(idle(&function), [0; 0]);
    }

    #[test]
    fn a_place_stays_while_others_below_it_go() {
        let mut function = function();
        let places: Vec<_> =
            (0..4).map(|sandbox| function.push_idle(SandboxSlot(sandbox))).collect();
        // The end of the list is removed, and the place of the top stays as returned.
        (1..3).for_each(|at| function.remove_idle(places[at]));
        let above = function.push_idle(SandboxSlot(9));
        assert_eq!(idle(&function), [0, 3, 9]);
        function.remove_idle(places[3]);
        assert_eq!(idle(&function), [0, 9]);
        function.remove_idle(above);
        assert_eq!(idle(&function), [0]);
    }

    #[test]
    fn the_least_recently_used_and_in_turn() {
        let mut function = function();
        [5, 3, 8].into_iter().for_each(|sandbox| {
            function.push_idle(SandboxSlot(sandbox));
        });
        assert_eq!(function.take_idle(Routing::LeastRecentlyUsed), Some(SandboxSlot(5)));
        assert_eq!(function.take_idle(Routing::RoundRobin), Some(SandboxSlot(8)));
        function.push_idle(SandboxSlot(8));
        assert_eq!(function.take_idle(Routing::RoundRobin), Some(SandboxSlot(3)));
        assert_eq!(function.take_idle(Routing::RoundRobin), Some(SandboxSlot(8)));
        assert_eq!(function.take_idle(Routing::RoundRobin), None);
    }

    #[test]
    fn a_sparse_stack_is_compacted() {
        let mut function = function();
        let places: Vec<_> =
            (0..60).map(|sandbox| function.push_idle(SandboxSlot(sandbox))).collect();
        places.iter().skip(1).step_by(3).for_each(|place| function.remove_idle(*place));
        places.iter().skip(2).step_by(3).for_each(|place| function.remove_idle(*place));
        let mut moved = Vec::new();
        function.compact_idle(|sandbox, place| moved.push((sandbox.0, place)));
        assert_eq!((idle(&function).len(), moved.len(), moved[3]), (20, 20, (9, 3)));
        function.remove_idle(3);
        assert_eq!(idle(&function)[3], 12);
    }
}
