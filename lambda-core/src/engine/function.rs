//! A function as the engine keeps it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::idle::{IdleView, Keep};
use crate::settings::FunctionSettings;
use crate::stats::demand::Demand;
use crate::stats::histogram::Histogram;
use crate::store::slab::NONE;
use crate::{InvocationId, Routing, Time};

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Function {
    pub(crate) settings: FunctionSettings,
    pub(crate) revision: u64,
    pub(crate) removed: bool,
    pub(crate) idle: IdleStack,
    /// All its sandboxes, by rank.
    pub(crate) members: Vec<u32>,
    /// Sandboxes that are being made.
    pub(crate) coming: u32,
    /// Sandboxes that are being ended, or whose code is old.
    pub(crate) going: u32,
    pub(crate) busy: u32,
    /// Accepted invocations without a sandbox, in order of arrival.
    pub(crate) waiting: VecDeque<InvocationId>,
    /// Failed starts by workers' faults since the last good one.
    pub(crate) start_failures: u32,
    /// How many sandboxes it may still be given in this period.
    pub(crate) scaling_left: u32,
    pub(crate) scaling_since: Time,
    pub(crate) demand: Demand,
    pub(crate) durations: Histogram,
    pub(crate) memory_peaks_mib: Histogram,
    pub(crate) gaps: Histogram,
    pub(crate) keep: Keep,
    pub(crate) uses: u32,
    /// How long its sandboxes take to be made, lately.
    pub(crate) start: Duration,
    pub(crate) worth: Option<f32>,
    /// The sandbox that took an invocation last.
    pub(crate) last: u32,
    /// When nothing of it ran any more.
    pub(crate) quiet_since: Time,
    pub(crate) prewarm_at: Option<Time>,
    /// Since when it has waited for room in vain.
    pub(crate) blocked_since: Option<Time>,
}

impl Function {
    pub(crate) fn new(settings: FunctionSettings, revision: u64, scaling_left: u32) -> Self {
        Self {
            settings,
            revision,
            removed: false,
            idle: IdleStack::default(),
            members: Vec::new(),
            coming: 0,
            going: 0,
            busy: 0,
            waiting: VecDeque::new(),
            start_failures: 0,
            scaling_left,
            scaling_since: Time::ZERO,
            demand: Demand::default(),
            durations: Histogram::default(),
            memory_peaks_mib: Histogram::default(),
            gaps: Histogram::default(),
            keep: Keep { idle: Duration::ZERO, prewarm: None },
            uses: 0,
            start: Duration::ZERO,
            worth: None,
            last: 0,
            quiet_since: Time::ZERO,
            prewarm_at: None,
            blocked_since: None,
        }
    }

    pub(crate) fn idle_view(&self) -> IdleView<'_> {
        IdleView {
            gaps: &self.gaps,
            uses: self.uses,
            start: self.start,
            memory_bytes: self.settings.memory_bytes,
        }
    }

    /// Accepted invocations: waiting or running.
    pub(crate) fn concurrency(&self) -> u32 {
        self.busy.saturating_add(self.waiting_count())
    }

    pub(crate) fn waiting_count(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    /// Sandboxes that serve it, or will.
    pub(crate) fn serving(&self) -> u32 {
        let all = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        all.saturating_sub(self.going)
    }

    /// What it takes of its account's unreserved concurrency.
    pub(crate) fn unreserved(&self, concurrency: u32) -> u32 {
        match self.settings.reserved_concurrency {
            Some(_) => 0,
            None => concurrency.saturating_sub(self.settings.provisioned_concurrency),
        }
    }

    /// What it takes out of its account's concurrency for itself.
    pub(crate) fn claimed(&self) -> u64 {
        let provisioned = self.settings.provisioned_concurrency;
        u64::from(self.settings.reserved_concurrency.unwrap_or(provisioned))
    }
}

/// Idle sandboxes, the most recently used last. One that goes from the middle leaves a hole, so that no other
/// moves; places are numbered from the first sandbox on and wrap.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct IdleStack {
    places: VecDeque<u32>,
    first: u32,
    holes: u32,
}

impl IdleStack {
    /// Puts a sandbox on top and returns its place.
    pub(crate) fn push(&mut self, sandbox: u32) -> u32 {
        let place = self.first.wrapping_add(u32::try_from(self.places.len()).unwrap_or(0));
        self.places.push_back(sandbox);
        place
    }

    /// Takes the most recently used one.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        while let Some(sandbox) = self.places.pop_back() {
            if sandbox != NONE {
                return Some(sandbox);
            }
            self.holes -= 1;
        }
        None
    }

    /// Takes the one that a routing chooses; `last` is the one that was taken before.
    pub(crate) fn take(&mut self, routing: Routing, last: u32) -> Option<u32> {
        match routing {
            Routing::MostRecentlyUsed => self.pop(),
            Routing::LeastRecentlyUsed => {
                let first = self.places.front().copied()?;
                self.remove(self.first);
                Some(first)
            }
            Routing::RoundRobin => {
                let next = self.iter().filter(|it| *it > last).min();
                let next = next.or_else(|| self.iter().min())?;
                let at = self.places.iter().position(|it| *it == next)?;
                self.remove(self.first.wrapping_add(u32::try_from(at).ok()?));
                Some(next)
            }
        }
    }

    /// Takes the one at a place. What is left of holes at both ends goes with it.
    pub(crate) fn remove(&mut self, place: u32) {
        let at = place.wrapping_sub(self.first) as usize;
        if let Some(sandbox) = self.places.get_mut(at)
            && *sandbox != NONE
        {
            *sandbox = NONE;
            self.holes += 1;
        }
        while self.places.front() == Some(&NONE) {
            self.places.pop_front();
            self.first = self.first.wrapping_add(1);
            self.holes -= 1;
        }
        while self.places.back() == Some(&NONE) {
            self.places.pop_back();
            self.holes -= 1;
        }
    }

    /// Returns the idle ones, the longest idle first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.places.iter().copied().filter(|sandbox| *sandbox != NONE)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.holes as usize
    }

    /// Returns whether holes are more than half, and more than a few.
    pub(crate) fn is_sparse(&self) -> bool {
        self.holes > 16 && self.holes as usize * 2 > self.places.len()
    }

    /// Closes the holes; the places of all are new, and told.
    pub(crate) fn compact(&mut self, mut moved: impl FnMut(u32, u32)) {
        self.places.retain(|sandbox| *sandbox != NONE);
        self.holes = 0;
        for (place, sandbox) in (0..).zip(&self.places) {
            moved(*sandbox, self.first.wrapping_add(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_recently_used_comes_first_and_holes_do_not_count() {
        let mut stack = IdleStack::default();
        let places: Vec<_> = (10..15).map(|sandbox| stack.push(sandbox)).collect();
        stack.remove(places[1]);
        stack.remove(places[3]);
        assert_eq!((stack.len(), stack.pop()), (3, Some(14)));
        assert_eq!(stack.iter().collect::<Vec<_>>(), [10, 12]);
        stack.remove(places[0]);
        let place = stack.push(20);
        assert_eq!((stack.pop(), stack.pop(), stack.pop()), (Some(20), Some(12), None));
        stack.remove(place);
        assert_eq!(stack.len(), 0);
    }

    #[test]
    fn a_sparse_stack_is_compacted() {
        let mut stack = IdleStack::default();
        let places: Vec<_> = (0..60).map(|sandbox| stack.push(sandbox)).collect();
        places.iter().skip(1).step_by(3).for_each(|place| stack.remove(*place));
        places.iter().skip(2).step_by(3).for_each(|place| stack.remove(*place));
        assert!(stack.is_sparse());
        let mut moved = Vec::new();
        stack.compact(|sandbox, place| moved.push((sandbox, place)));
        assert_eq!((stack.len(), moved.len(), moved[3]), (20, 20, (9, 3)));
        stack.remove(3);
        assert_eq!(stack.iter().nth(3), Some(12));
    }
}
