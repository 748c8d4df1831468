//! Timers of sandboxes: a hierarchical timing wheel (Varghese and Lauck, SOSP 1987) with intrusive
//! lists through the sandboxes.
//!
//! A sandbox whose deadline moves later stays in its list until its turn, and is then linked again.
//! An invocation and its end a few milliseconds later therefore change no list. Timers fire up to
//! one tick late, never early.

use super::slab::Slab;
use crate::sandbox::Sandbox;
use crate::store::slot::{SandboxSlot, UNLINKED};
use crate::time::Time;

/// A tick is 2^20 nanoseconds.
const TICK_SHIFT: u32 = 20;
/// Enough levels for every possible time.
const LEVELS: usize = 8;
const SLOTS: u64 = 64;
/// Later than every tick.
const NEVER: u64 = u64::MAX;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Wheel {
    /// The number of ticks that have passed.
    elapsed: u64,
    /// The first tick of the earliest non-empty list; [`NEVER`] if all are empty. It is read at
    /// each event.
    next: u64,
    heads: Vec<SandboxSlot>,
    /// One bit for each non-empty list.
    occupied: [u64; LEVELS],
}

impl Default for Wheel {
    fn default() -> Self {
        let heads = vec![SandboxSlot::NONE; LEVELS * 64];
        Self { elapsed: 0, next: NEVER, heads, occupied: [0; LEVELS] }
    }
}

impl Wheel {
    /// Ensures that a sandbox gets its turn at `deadline` at the latest.
    pub(crate) fn arm(
        &mut self,
        sandboxes: &mut Slab<SandboxSlot, Sandbox>,
        at: SandboxSlot,
        deadline: Time,
    ) {
        let Some(sandbox) = sandboxes.get(at) else { return };
        if self.is_armed(sandbox, deadline) {
            return;
        }
        if sandbox.wheel_slot != UNLINKED {
            self.disarm(sandboxes, at);
        }
        self.link(sandboxes, at, self.tick_of(deadline));
    }

    /// Returns whether a sandbox already gets its turn at `deadline` at the latest.
    #[inline]
    pub(crate) fn is_armed(&self, sandbox: &Sandbox, deadline: Time) -> bool {
        let slot = sandbox.wheel_slot;
        slot != UNLINKED && self.start_of(slot) <= self.tick_of(deadline)
    }

    pub(crate) fn disarm(&mut self, sandboxes: &mut Slab<SandboxSlot, Sandbox>, at: SandboxSlot) {
        let Some(sandbox) = sandboxes.get_mut(at) else { return };
        let slot = std::mem::replace(&mut sandbox.wheel_slot, UNLINKED);
        if slot == UNLINKED {
            return;
        }
        let (next, prev) = (sandbox.wheel_next, sandbox.wheel_prev);
        match sandboxes.get_mut(prev) {
            Some(prev) => prev.wheel_next = next,
            None => self.set_head(slot, next),
        }
        if let Some(next) = sandboxes.get_mut(next) {
            next.wheel_prev = prev;
        }
    }

    /// Removes sandboxes from the earliest due list, at most `max`, and returns them. Returns
    /// `None` if nothing is due at `now`. The caller must arm those again whose deadline is later.
    pub(crate) fn turn(
        &mut self,
        sandboxes: &mut Slab<SandboxSlot, Sandbox>,
        now: Time,
        max: usize,
    ) -> Option<Vec<SandboxSlot>> {
        let now = now.as_nanos() >> TICK_SHIFT;
        let Some((slot, start)) = self.first().filter(|(_, start)| *start <= now) else {
            self.elapsed = self.elapsed.max(now);
            return None;
        };
        self.elapsed = start;
        let mut due = Vec::new();
        let mut at = self.heads[usize::from(slot)];
        while due.len() < max.max(1)
            && let Some(sandbox) = sandboxes.get_mut(at)
        {
            due.push(at);
            sandbox.wheel_slot = UNLINKED;
            at = sandbox.wheel_next;
        }
        self.set_head(slot, at);
        if let Some(first) = sandboxes.get_mut(at) {
            first.wheel_prev = SandboxSlot::NONE;
        }
        // The lists are stacks: return the oldest first.
        due.reverse();
        Some(due)
    }

    /// Returns the time of the next turn, or the last possible time if no sandbox is armed.
    pub(crate) fn next(&self) -> Time {
        if self.next == NEVER { Time::LAST } else { Time::from_nanos(self.next << TICK_SHIFT) }
    }

    /// Passes the time until `now`, which must be before [`Self::next`].
    pub(crate) fn pass(&mut self, now: Time) {
        self.elapsed = self.elapsed.max(now.as_nanos() >> TICK_SHIFT);
    }

    fn link(&mut self, sandboxes: &mut Slab<SandboxSlot, Sandbox>, at: SandboxSlot, tick: u64) {
        let slot = self.slot_of(tick);
        let head = self.heads[usize::from(slot)];
        if let Some(head) = sandboxes.get_mut(head) {
            head.wheel_prev = at;
        }
        if let Some(sandbox) = sandboxes.get_mut(at) {
            sandbox.wheel_slot = slot;
            sandbox.wheel_next = head;
            sandbox.wheel_prev = SandboxSlot::NONE;
        }
        self.set_head(slot, at);
        self.next = self.next.min(self.start_of(slot));
    }

    fn set_head(&mut self, slot: u16, head: SandboxSlot) {
        let at = usize::from(slot);
        self.heads[at] = head;
        let bit = 1 << (at % 64);
        if head == SandboxSlot::NONE {
            self.occupied[at / 64] &= !bit;
            // The start of a list does not change while it is not empty.
            if self.start_of(slot) == self.next {
                self.next = self.first().map_or(NEVER, |(_, start)| start);
            }
        } else {
            self.occupied[at / 64] |= bit;
        }
    }

    /// Returns the tick of a turn at `deadline`, or the next tick if that has passed.
    fn tick_of(&self, deadline: Time) -> u64 {
        // Clamped to the last tick that is a valid time.
        let tick = deadline.as_nanos().div_ceil(1 << TICK_SHIFT).min(u64::MAX >> TICK_SHIFT);
        tick.max(self.elapsed + 1)
    }

    /// Returns the list of a future tick. Its level is that of the highest base-64 digit in which
    /// the tick differs from the present.
    fn slot_of(&self, tick: u64) -> u16 {
        let differs = (self.elapsed ^ tick) | (SLOTS - 1);
        let level = differs.ilog2() / 6;
        let digit = tick >> (6 * level) & (SLOTS - 1);
        u16::try_from(u64::from(level) * SLOTS + digit).unwrap_or(0)
    }

    /// Returns the first tick of a non-empty list.
    fn start_of(&self, slot: u16) -> u64 {
        let (level, digit) = (u64::from(slot) / SLOTS, u64::from(slot) % SLOTS);
        let above = 6 * (level + 1);
        (self.elapsed >> above << above) + (digit << (6 * level))
    }

    fn first(&self) -> Option<(u16, u64)> {
        // A list of a high level that was taken in part can start before lists of lower levels that
        // were filled since.
        let first = |(level, lists): (usize, &u64)| {
            let slot = level * 64 + lists.trailing_zeros() as usize;
            let slot = u16::try_from(slot).ok().filter(|_| *lists != 0)?;
            Some((slot, self.start_of(slot)))
        };
        self.occupied.iter().enumerate().filter_map(first).min_by_key(|(_, start)| *start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{FunctionId, WorkerId};
    use crate::sandbox::{Made, State};
    use crate::store::slot::VmSlot;

    fn sandbox() -> Sandbox {
        let made = Made {
            function: FunctionId(0),
            worker: WorkerId(0),
            vm: VmSlot::NONE,
            memory_kib: 0,
            cpu_milli: 0,
            member: 0,
            slot: false,
        };
        Sandbox::new(made, State::Idle, Time::ZERO)
    }

    proptest! {
        /// Each timer fires once, at its deadline or up to a tick after it, and `next` is never too
        /// late for that.
        #[test]
        fn timers_fire_on_time(
            delays in prop::collection::vec((0..4_u32, 0..u64::MAX, 0..60_u32), 1..60)
        ) {
            let (mut wheel, mut sandboxes) = (Wheel::default(), Slab::new(0));
            let mut deadlines: Vec<Option<Time>> = Vec::new();
            let mut now = Time::ZERO;
            for (step, chance, shift) in delays {
                let delay = chance >> 8 >> shift.min(55);
                if step > 0 {
                    let at = sandboxes.insert(sandbox(), 100).unwrap();
                    let deadline = Time::from_nanos(now.as_nanos() + delay);
                    wheel.arm(&mut sandboxes, at, deadline);
                    deadlines.push(Some(deadline));
                    if step == 3 {
                        // Move the deadline: half the delay or double the delay.
                        let deadline = Time::from_nanos(now.as_nanos() + if chance % 2 == 0 { delay / 2 } else { delay * 2 });
                        wheel.arm(&mut sandboxes, at, deadline);
                        deadlines[at.0 as usize] = Some(deadline);
                    }
                    continue;
                }
                let until = Time::from_nanos(now.as_nanos() + delay);
                while wheel.next() <= until && wheel.next() != Time::LAST {
                    now = now.max(wheel.next());
                    while let Some(due) = wheel.turn(&mut sandboxes, now, usize::MAX) {
                        for at in due {
                            let deadline = deadlines[at.0 as usize].expect("fires once");
                            if deadline > now {
                                wheel.arm(&mut sandboxes, at, deadline);
                            } else {
                                let late = now.since(deadline);
                                prop_assert!(late.as_nanos() <= 1 << TICK_SHIFT, "{late:?} late");
                                deadlines[at.0 as usize] = None;
                            }
                        }
                    }
                }
                now = until;
                while wheel.turn(&mut sandboxes, now, usize::MAX).is_some() {}
                let tick = 1 << TICK_SHIFT;
                for deadline in deadlines.iter().flatten() {
                    prop_assert!(deadline.as_nanos() + tick > now.as_nanos(), "missed");
                }
            }
        }
    }
}
