//! A function as the engine keeps it.

mod idle_stack;

use std::collections::VecDeque;
use std::time::Duration;

use self::idle_stack::IdleStack;
use crate::engine::backlog::Place;
use crate::idle::{IdleView, Keep};
use crate::settings::FunctionSettings;
use crate::stats::demand::{Demand, Meter};
use crate::stats::histogram::{Histogram, Pending};
use crate::store::slab::NONE;
use crate::store::spread::Spread;
use crate::{InvocationId, Routing, SandboxId, Time, ZONES_MAX, Zone};

/// In the order of use: an invocation and its end read and write the first two lines of the cache, placement reads
/// the first and those that follow.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C, align(64))]
pub(crate) struct Function {
    pub(crate) settings: FunctionSettings,
    waiting_count: u32,
    pub(crate) uses: u32,

    pub(crate) meter: Meter,
    /// How long an idle sandbox is kept after an invocation, in nanoseconds.
    keep_nanos: u64,
    here: Here,
    top: Top,
    pub(crate) recent_durations: Pending,
    pub(crate) recent_gaps: Pending,
    pub(crate) removed: bool,
    /// Sandboxes are made in advance, or one is about to be: what is at the end of the record counts.
    prewarms: bool,

    /// On which workers its sandboxes are.
    pub(crate) spread: Spread,
    /// All its sandboxes, by rank.
    pub(crate) members: Vec<u32>,
    pub(crate) demand: Demand,

    pub(crate) revision: u64,
    idle: IdleStack,
    /// Sandboxes that are being made.
    pub(crate) coming: u32,
    /// Sandboxes that are being ended, or whose code is old.
    pub(crate) going: u32,
    /// Sandboxes for which room is held on some worker.
    pub(crate) reserved: u32,
    /// Accepted invocations without a sandbox, in order of arrival, and when that was.
    waiting: VecDeque<(InvocationId, Time)>,
    /// Failed starts by workers' faults since the last good one.
    pub(crate) start_failures: u32,
    /// When the scaling rate is whole again: each start moves it on (a leaky bucket as a meter, GCRA).
    pub(crate) scaling_whole_at: Time,
    durations: Histogram,
    pub(crate) memory_peaks_mib: Histogram,
    gaps: Histogram,
    /// How long its sandboxes take to be made, lately.
    pub(crate) start: Duration,
    pub(crate) worth: Option<f32>,
    /// The sandbox that took an invocation last, where they take turns.
    last: u32,
    /// How it waits, where its invocations have no sandbox that comes.
    pub(crate) blocked: Option<Blocked>,
    /// Memory and processor time that it wants and has no room for, as they count in the engine's sums.
    pub(crate) wanted: (u64, u64),
    /// Its starts that failed by its own fault since the last good one.
    pub(crate) init_failures: u32,
    /// No start before this: its own fail.
    pub(crate) start_from: Time,
    /// Its sandbox that failed last.
    pub(crate) failed: Option<SandboxId>,
    /// Workers on which its starts failed since the last good one.
    pub(crate) failed_on: [u32; 4],
    /// It is to be given the sandboxes that it is provisioned with now.
    pub(crate) provision_due: bool,
    /// Its sandboxes by zone, the last counts all beyond.
    zones: [u16; ZONES_MAX as usize],
    /// As in [`Keep`].
    prewarm: Option<(Duration, Duration)>,
    prewarm_at: Option<Time>,
}

/// How a function waits whose invocations have no sandbox that comes.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Blocked {
    /// For room, in the backlog.
    ForRoom(Place),
    /// For the scaling rate, or for the end of its back-off.
    ForTime,
}

/// That there is a function. Of all that a function has this leaves most values unused, so that the compiler tells by it
/// whether an `Option` of one is empty: in a line of the cache that is read in any case, not at the record's end.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u64)]
enum Here {
    Here = 1,
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
            coming: 0,
            going: 0,
            waiting: VecDeque::new(),
            start_failures: 0,
            scaling_whole_at: Time::ZERO,
            demand: Demand::default(),
            durations: Histogram::default(),
            memory_peaks_mib: Histogram::default(),
            gaps: Histogram::default(),
            keep_nanos: 0,
            here: Here::Here,
            prewarms: false,
            prewarm: None,
            uses: 0,
            start: Duration::ZERO,
            worth: None,
            last: 0,
            prewarm_at: None,
            blocked: None,
            reserved: 0,
            wanted: (0, 0),
            init_failures: 0,
            start_from: Time::ZERO,
            failed: None,
            failed_on: [NONE; 4],
            provision_due: false,
            zones: [0; ZONES_MAX as usize],
        }
    }

    /// The idle sandbox that was used last, if it stands apart.
    pub(crate) fn top(&self) -> u32 {
        self.top.sandbox
    }

    /// Reads of each line that placement needs, in which the load in a minute of the hour and in the ten that follow is.
    pub(crate) fn touch_to_place(&self, minute: usize) -> u32 {
        let members = u32::try_from(self.members.len()).unwrap_or_default();
        members ^ self.spread.touch_few() ^ self.demand.touch(minute)
    }

    /// Reads of each line that an invocation needs.
    pub(crate) fn touch(&self) -> u32 {
        self.meter.busy() ^ self.uses
    }

    /// Returns how long an idle sandbox is kept after an invocation.
    pub(crate) fn keep_idle(&self) -> Duration {
        Duration::from_nanos(self.keep_nanos)
    }

    pub(crate) fn set_keep(&mut self, keep: Keep) {
        self.keep_nanos = u64::try_from(keep.idle.as_nanos()).unwrap_or(u64::MAX);
        if self.prewarms || keep.prewarm.is_some() {
            self.prewarm = keep.prewarm;
            self.prewarms = self.prewarm.is_some() || self.prewarm_at.is_some();
        }
    }

    /// Returns after how long one is made in advance, and how long that one is kept.
    pub(crate) fn prewarm(&self) -> Option<(Duration, Duration)> {
        if self.prewarms { self.prewarm } else { None }
    }

    /// Returns when one is to be made in advance, where that is to be.
    pub(crate) fn prewarm_at(&self) -> Option<Time> {
        if self.prewarms { self.prewarm_at } else { None }
    }

    /// Sets when one is to be made in advance; returns what it was.
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
            uses: self.uses,
            start: self.start,
            memory_bytes: self.settings.memory_bytes,
        }
    }

    /// Adds a sandbox, at the last rank.
    pub(crate) fn add_member(&mut self, sandbox: u32) {
        if self.members.len() == self.members.capacity() {
            self.members.reserve_exact(growth(self.members.len()));
        }
        self.members.push(sandbox);
    }

    /// Accepted invocations: waiting or running.
    pub(crate) fn concurrency(&self) -> u32 {
        self.meter.busy().saturating_add(self.waiting_count())
    }

    pub(crate) fn waiting_count(&self) -> u32 {
        self.waiting_count
    }

    /// Lets an invocation wait.
    pub(crate) fn wait(&mut self, invocation: InvocationId, now: Time) {
        self.waiting.push_back((invocation, now));
        self.waiting_count += 1;
    }

    /// Takes the invocation that waits longest.
    pub(crate) fn pop_waiting(&mut self) -> Option<InvocationId> {
        if self.waiting_count == 0 {
            return None;
        }
        self.waiting_count -= 1;
        let popped = self.waiting.pop_front();
        self.forget_room();
        popped.map(|(invocation, _)| invocation)
    }

    /// Gives back the room that a burst needed.
    fn forget_room(&mut self) {
        if self.waiting_count == 0 {
            self.waiting = VecDeque::new();
        }
    }

    /// Takes an invocation out of those that wait; tells whether it was there.
    pub(crate) fn withdraw(&mut self, invocation: InvocationId) -> bool {
        let Some(at) = self.waiting.iter().position(|(it, _)| *it == invocation) else {
            return false;
        };
        self.waiting.remove(at);
        self.waiting_count -= 1;
        self.forget_room();
        true
    }

    /// Takes the oldest invocation for which no sandbox comes.
    pub(crate) fn pop_uncovered(&mut self) -> Option<InvocationId> {
        let (popped, _) = self.waiting.remove(self.coming as usize)?;
        self.waiting_count -= 1;
        self.forget_room();
        Some(popped)
    }

    /// Returns since when the oldest invocation waits for which no sandbox comes.
    pub(crate) fn uncovered_since(&self) -> Option<Time> {
        self.waiting.get(self.coming as usize).map(|(_, since)| *since)
    }

    /// How many sandboxes less than it is provisioned with it has, or will.
    pub(crate) fn provision_short(&self) -> u32 {
        if self.removed || !self.provision_due {
            return 0;
        }
        self.settings.provisioned_concurrency.saturating_sub(self.serving() + self.reserved)
    }

    /// How many more sandboxes are to be started for it, `max` of them at once.
    pub(crate) fn missing(&self, max: u32) -> u32 {
        let waits = self.waiting_count().min(max).saturating_sub(self.coming + self.reserved);
        waits.max(self.provision_short())
    }

    /// Counts one more sandbox in a zone.
    pub(crate) fn add_zone(&mut self, zone: Zone) {
        let count = &mut self.zones[usize::from(zone.0)];
        *count = count.saturating_add(1);
    }

    /// Counts one less.
    pub(crate) fn take_zone(&mut self, zone: Zone) {
        let count = &mut self.zones[usize::from(zone.0)];
        *count = count.saturating_sub(1);
    }

    /// Returns those of some zones in which one more of its sandboxes leaves them evenly spread: to one more or less, or to
    /// an eighth of many.
    pub(crate) fn even_zones(&self, zones: u32) -> u32 {
        let of = |zone: &u32| zones >> zone & 1 == 1;
        let counts =
            || (0..u32::from(ZONES_MAX)).filter(of).map(|zone| (zone, self.zones[zone as usize]));
        let least = counts().map(|(_, count)| count).min().unwrap_or_default();
        counts().filter(|(_, count)| *count <= least + least / 8).map(|(zone, _)| 1 << zone).sum()
    }

    /// Takes the invocation that came last.
    pub(crate) fn pop_last_waiting(&mut self) -> Option<InvocationId> {
        let (popped, _) = self.waiting.pop_back()?;
        self.waiting_count -= 1;
        self.forget_room();
        Some(popped)
    }

    /// Counts how long an invocation ran.
    pub(crate) fn ran(&mut self, millis: u64) {
        self.recent_durations.add_number(millis, &mut self.durations);
    }

    /// Returns how long its invocations run.
    pub(crate) fn durations(&self) -> Histogram {
        let (mut durations, mut recent) = (self.durations, self.recent_durations);
        recent.flush(&mut durations);
        durations
    }

    /// Counts for how long nothing ran; tells whether it is time to ask again how long to keep its sandboxes: after
    /// some short gaps, or one that is not short.
    pub(crate) fn was_quiet(&mut self, now: Time) -> bool {
        let gap = now.since(self.meter.until());
        let millis = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        let full = self.recent_gaps.add_number(millis, &mut self.gaps);
        let ask = full || gap >= GAP_SHORT || self.recent_gaps.count() >= GAPS_SHORT_MAX;
        if ask {
            self.recent_gaps.flush(&mut self.gaps);
        }
        ask
    }

    /// Puts an idle sandbox on top and returns its place.
    pub(crate) fn push_idle(&mut self, sandbox: u32) -> u32 {
        if self.top.sandbox != NONE {
            self.idle.push_at(self.top.place, self.top.sandbox);
            self.top.place = self.idle.end();
        }
        self.top.sandbox = sandbox;
        self.top.place
    }

    /// Takes the idle sandbox that a routing chooses.
    pub(crate) fn take_idle(&mut self, routing: Routing) -> Option<u32> {
        let taken = match routing {
            Routing::MostRecentlyUsed if self.top.sandbox != NONE => {
                return Some(std::mem::replace(&mut self.top.sandbox, NONE));
            }
            Routing::MostRecentlyUsed => {
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
            self.top.sandbox = NONE;
        } else {
            self.idle.remove_sandbox(taken);
            self.place_next();
        }
        Some(taken)
    }

    /// Takes the idle sandbox at a place.
    pub(crate) fn remove_idle(&mut self, place: u32) {
        if self.top.sandbox != NONE && self.top.place == place {
            self.top.sandbox = NONE;
        } else {
            self.idle.remove(place);
        }
        self.place_next();
    }

    /// The list is another: so is the place of what comes on top of it next.
    fn place_next(&mut self) {
        if self.top.sandbox == NONE {
            self.top.place = self.idle.end();
        }
    }

    /// Returns the idle ones, the longest idle first.
    pub(crate) fn idle(&self) -> impl Iterator<Item = u32> + '_ {
        self.idle.iter().chain(Some(self.top.sandbox).filter(|it| *it != NONE))
    }

    /// Closes holes, where there are many; the places of those that moved are told.
    pub(crate) fn compact_idle(&mut self, moved: impl FnMut(u32, u32)) {
        if self.idle.is_sparse() {
            self.idle.compact(moved);
            self.place_next();
        }
    }

    /// Sandboxes that serve it, or will.
    pub(crate) fn serving(&self) -> u32 {
        let all = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        all.saturating_sub(self.going)
    }

    /// What it takes of its account's unreserved concurrency.
    pub(crate) fn unreserved(&self, concurrency: u32) -> u32 {
        match (self.settings.reserved_concurrency, self.settings.shares_with) {
            (None, None) => self.beyond(concurrency),
            _ => 0,
        }
    }

    /// How many of its invocations are beyond what it is provisioned with.
    pub(crate) fn beyond(&self, concurrency: u32) -> u32 {
        concurrency.saturating_sub(self.settings.provisioned_concurrency)
    }

    /// What it takes out of its account's concurrency for itself.
    pub(crate) fn claimed(&self) -> u64 {
        if self.settings.shares_with.is_some() {
            return 0;
        }
        let provisioned = self.settings.provisioned_concurrency;
        u64::from(self.settings.reserved_concurrency.unwrap_or(provisioned))
    }
}

/// How many more a list of sandboxes is to have room for: a quarter, not twice as many. Functions are many, and most have
/// few.
fn growth(len: usize) -> usize {
    (len / 4).max(2)
}

/// Gaps below this are short: how long to keep sandboxes is not asked after each.
const GAP_SHORT: Duration = Duration::from_secs(1);
/// After so many short gaps it is asked at the latest.
const GAPS_SHORT_MAX: u32 = 32;

/// The most recently used idle sandbox, apart from the others: a function that is called one at a time reads and writes
/// no list. Its place is at the end of the list or beyond it, also of the next one while there is none.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Top {
    sandbox: u32,
    place: u32,
}

impl Default for Top {
    fn default() -> Self {
        Self { sandbox: NONE, place: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AccountId;

    fn function() -> Function {
        Function::new(FunctionSettings::new(AccountId(0), 1 << 20), 0)
    }

    fn idle(function: &Function) -> Vec<u32> {
        function.idle().collect()
    }

    #[test]
    fn an_invocation_reads_two_lines_and_placement_six_that_follow() {
        use std::mem::offset_of;
        assert_eq!((offset_of!(Function, meter), offset_of!(Function, spread)), (64, 128));
        assert_eq!(offset_of!(Function, members), 128 + 2 * 64 + 48);
        assert!(offset_of!(Function, revision) <= 8 * 64);
    }

    #[test]
    fn the_most_recently_used_comes_first_and_holes_do_not_count() {
        let mut function = function();
        let pop = |it: &mut Function| it.take_idle(Routing::MostRecentlyUsed);
        let places: Vec<_> = (10..15).map(|sandbox| function.push_idle(sandbox)).collect();
        function.remove_idle(places[1]);
        function.remove_idle(places[3]);
        assert_eq!((idle(&function).len(), pop(&mut function)), (3, Some(14)));
        assert_eq!(idle(&function), [10, 12]);
        function.remove_idle(places[0]);
        let place = function.push_idle(20);
        assert_eq!([(); 3].map(|()| pop(&mut function)), [Some(20), Some(12), None]);
        function.remove_idle(place);
        assert_eq!(idle(&function), [0; 0]);
    }

    #[test]
    fn a_place_stays_while_others_below_it_go() {
        let mut function = function();
        let places: Vec<_> = (0..4).map(|sandbox| function.push_idle(sandbox)).collect();
        // The end of the list goes, and the place above it stays as it was told.
        (1..3).for_each(|at| function.remove_idle(places[at]));
        let above = function.push_idle(9);
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
            function.push_idle(sandbox);
        });
        assert_eq!(function.take_idle(Routing::LeastRecentlyUsed), Some(5));
        assert_eq!(function.take_idle(Routing::RoundRobin), Some(8));
        function.push_idle(8);
        assert_eq!(function.take_idle(Routing::RoundRobin), Some(3));
        assert_eq!(function.take_idle(Routing::RoundRobin), Some(8));
        assert_eq!(function.take_idle(Routing::RoundRobin), None);
    }

    #[test]
    fn a_sparse_stack_is_compacted() {
        let mut function = function();
        let places: Vec<_> = (0..60).map(|sandbox| function.push_idle(sandbox)).collect();
        places.iter().skip(1).step_by(3).for_each(|place| function.remove_idle(*place));
        places.iter().skip(2).step_by(3).for_each(|place| function.remove_idle(*place));
        let mut moved = Vec::new();
        function.compact_idle(|sandbox, place| moved.push((sandbox, place)));
        assert_eq!((idle(&function).len(), moved.len(), moved[3]), (20, 20, (9, 3)));
        function.remove_idle(3);
        assert_eq!(idle(&function)[3], 12);
    }
}
