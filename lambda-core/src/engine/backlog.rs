//! The backlog: functions that wait for room, in the order in which they get it.
//!
//! The account with the least memory held per weight comes first (max-min fairness), and of its
//! functions the one that waits longest. Functions are grouped by the power of two of their memory
//! and by the labels that they need, so that a search for a small room skips large functions, and
//! one for room on a worker skips functions that it cannot have.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::id::{AccountId, FunctionId};
use crate::settings::{FunctionSettings, kib};
use crate::time::Time;

/// A queue of the backlog: an account's functions that need sandboxes for invocations, or its
/// functions that lack provisioned sandboxes. The latter come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Owner {
    pub(crate) on_demand: bool,
    pub(crate) account: AccountId,
}

/// The position of a function in the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Place {
    pub(crate) owner: Owner,
    pub(crate) class: Class,
    pub(crate) since: Time,
}

/// The size class and the labels of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Class {
    /// The number of significant bits of its memory in KiB.
    bits: u8,
    labels: u16,
}

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Backlog {
    /// For each class, the owners with such functions, by share and by the time since which their
    /// first one waits.
    classes: BTreeMap<Class, BTreeSet<(u64, Time, Owner)>>,
    /// All functions of the backlog, in the order of the times since which they wait.
    functions: BTreeSet<(Time, FunctionId)>,
    /// The function that [`Self::sweep`] returned last, and the time at which its sweep began.
    swept: Option<(Time, FunctionId)>,
    swept_until: Time,
    /// Queues by [`Owner::number`].
    queues: BTreeMap<u64, Queue>,
    /// Accounts by the power of two of the number of their waiting invocations.
    fullest: BTreeSet<(u32, AccountId)>,
}

/// The waiting functions of one owner.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Queue {
    share: u64,
    /// Functions by class, longest wait first.
    classes: BTreeMap<Class, BTreeSet<(Time, FunctionId)>>,
}

impl Owner {
    fn number(self) -> u64 {
        u64::from(self.account.0) << 1 | u64::from(self.on_demand)
    }
}

/// The most functions that one search looks at.
const LOOKED_AT_MAX: usize = 128;
/// The most functions that one search examines in the queue of one owner and class.
const OF_ONE_MAX: usize = 8;

/// Returns the number of significant bits of a memory size.
pub(crate) fn bits(kib: u32) -> u8 {
    u8::try_from(u32::BITS - kib.leading_zeros()).unwrap_or(u8::MAX)
}

impl Class {
    pub(crate) fn of(settings: &FunctionSettings) -> Self {
        Self { bits: bits(kib(settings.memory_bytes)), labels: settings.labels }
    }
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Returns the number of functions.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.functions.len()).unwrap_or(u32::MAX)
    }

    /// Lets [`Self::sweep`] begin with the longest wait.
    pub(crate) fn begin_sweep(&mut self) {
        self.swept = None;
    }

    /// Returns the next functions of a sweep, longest wait first, at most `most`. A sweep returns
    /// all that waited when it began; after its end the next one begins.
    pub(crate) fn sweep(&mut self, now: Time, most: usize) -> Vec<FunctionId> {
        let until = (self.swept_until, FunctionId(u32::MAX));
        let mut swept = Vec::new();
        if let Some(last) = self.swept.filter(|last| *last <= until) {
            let left = (Bound::Excluded(last), Bound::Included(until));
            swept.extend(self.functions.range(left).take(most).copied());
        }
        if swept.is_empty() {
            self.swept_until = now;
            swept.extend(self.functions.iter().take(most).copied());
        }
        self.swept = swept.last().copied();
        swept.into_iter().map(|(_, function)| function).collect()
    }

    pub(crate) fn insert(&mut self, function: FunctionId, place: Place, share: u64, waiting: u32) {
        let share = if place.owner.on_demand { share } else { 0 };
        let owned = self.queues.entry(place.owner.number()).or_insert_with(|| {
            self.fullest.insert((waiting_class(waiting), place.owner.account));
            Queue { share, classes: BTreeMap::new() }
        });
        let share = owned.share;
        let queue = owned.classes.entry(place.class).or_default();
        let before = queue.first().map(|(since, _)| *since);
        queue.insert((place.since, function));
        let after = queue.first().map(|(since, _)| *since);
        self.functions.insert((place.since, function));
        self.list(place, share, before, after);
    }

    /// Updates the index after the first function of an owner and class changed.
    fn list(&mut self, place: Place, share: u64, before: Option<Time>, after: Option<Time>) {
        if before == after {
            return;
        }
        let class = self.classes.entry(place.class).or_default();
        if let Some(before) = before {
            class.remove(&(share, before, place.owner));
        }
        class.extend(after.map(|after| (share, after, place.owner)));
        if class.is_empty() {
            self.classes.remove(&place.class);
        }
    }

    pub(crate) fn remove(&mut self, function: FunctionId, place: Place, waiting: u32) {
        let Some(owned) = self.queues.get_mut(&place.owner.number()) else { return };
        let share = owned.share;
        let Some(queue) = owned.classes.get_mut(&place.class) else { return };
        let before = queue.first().map(|(since, _)| *since);
        queue.remove(&(place.since, function));
        let after = queue.first().map(|(since, _)| *since);
        if queue.is_empty() {
            owned.classes.remove(&place.class);
        }
        self.functions.remove(&(place.since, function));
        if owned.classes.is_empty() {
            self.queues.remove(&place.owner.number());
            let account = place.owner.account;
            let other = Owner { on_demand: !place.owner.on_demand, account };
            if !self.queues.contains_key(&other.number()) {
                self.fullest.remove(&(waiting_class(waiting), account));
            }
        }
        self.list(place, share, before, after);
    }

    /// Sets the share of an account: the memory that it holds per weight.
    pub(crate) fn set_share(&mut self, account: AccountId, share: u64) {
        let owner = Owner { on_demand: true, account };
        let Some(owned) = self.queues.get_mut(&owner.number()) else { return };
        let before = std::mem::replace(&mut owned.share, share);
        if before == share {
            return;
        }
        for (class, queue) in &owned.classes {
            let Some((since, _)) = queue.first() else { continue };
            if let Some(class) = self.classes.get_mut(class) {
                class.remove(&(before, *since, owner));
                class.insert((share, *since, owner));
            }
        }
    }

    /// Updates the number of waiting invocations of an account.
    pub(crate) fn set_waiting(&mut self, account: AccountId, before: u32, after: u32) {
        let (before, after) = (waiting_class(before), waiting_class(after));
        if before != after && self.fullest.remove(&(before, account)) {
            self.fullest.insert((after, account));
        }
    }

    /// Returns an account with about the most waiting invocations, if it has at least twice as many
    /// as `than`.
    pub(crate) fn fuller(&self, than: u32) -> Option<AccountId> {
        let (class, account) = self.fullest.last()?;
        (*class > waiting_class(than) + 1).then_some(*account)
    }

    /// Returns some functions of an account that wait for invocations, shortest wait first within a
    /// class.
    pub(crate) fn newest_of(&self, account: AccountId) -> impl Iterator<Item = FunctionId> + '_ {
        let owned = self.queues.get(&Owner { on_demand: true, account }.number());
        let functions = owned.into_iter().flat_map(|owned| owned.classes.values());
        functions
            .flat_map(|queue| queue.iter().rev())
            .map(|(_, function)| *function)
            .take(OF_ONE_MAX)
    }

    /// Returns the first function with at most `most` bits of memory and no labels but those of
    /// `has` for which `will_do` returns `true`.
    pub(crate) fn next(
        &self,
        most: u8,
        has: u16,
        mut will_do: impl FnMut(FunctionId, Owner, u64) -> bool,
    ) -> Option<FunctionId> {
        let most = Class { bits: most, labels: u16::MAX };
        let mut heads: Vec<_> = (self.classes.range(..=most))
            .filter(|(class, _)| class.labels & !has == 0)
            .map(|(class, owners)| (*class, owners.iter().peekable()))
            .take(LOOKED_AT_MAX)
            .collect();
        let mut left = LOOKED_AT_MAX;
        while left > 0 {
            let mut first: Option<((u64, Time, Owner), usize)> = None;
            for (at, (_, owners)) in heads.iter_mut().enumerate() {
                if let Some(head) = owners.peek()
                    && first.is_none_or(|(least, _)| **head < least)
                {
                    first = Some((**head, at));
                }
            }
            let ((share, _, owner), at) = first?;
            heads[at].1.next();
            let owned = self.queues.get(&owner.number());
            let queue = owned.and_then(|owned| owned.classes.get(&heads[at].0));
            for (_, function) in queue.into_iter().flatten().take(OF_ONE_MAX) {
                left = left.saturating_sub(1);
                if will_do(*function, owner, share) {
                    return Some(*function);
                }
            }
        }
        None
    }
}

fn waiting_class(waiting: u32) -> u32 {
    u32::BITS - waiting.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(account: u32, kib: u32, since: u64) -> Place {
        let owner = Owner { on_demand: true, account: AccountId(account) };
        let class = Class { bits: bits(kib), labels: 0 };
        Place { owner, class, since: Time::from_nanos(since) }
    }

    #[test]
    fn who_holds_least_comes_first_and_then_who_waits_longest() {
        let mut backlog = Backlog::default();
        backlog.insert(FunctionId(1), place(1, 100, 5), 900, 1);
        backlog.insert(FunctionId(2), place(2, 7, 9), 500, 1);
        backlog.insert(FunctionId(3), place(2, 7, 8), 500, 1);
        let next = |backlog: &Backlog, kib| backlog.next(bits(kib), 0, |_, _, _| true);
        assert_eq!(next(&backlog, 100), Some(FunctionId(3)));
        backlog.set_share(AccountId(2), 1000);
        assert_eq!(
            (next(&backlog, 100), next(&backlog, 7)),
            (Some(FunctionId(1)), Some(FunctionId(3)))
        );
        let urgent =
            Place { owner: Owner { on_demand: false, account: AccountId(2) }, ..place(2, 7, 99) };
        backlog.insert(FunctionId(4), urgent, 1000, 1);
        assert_eq!(next(&backlog, 100), Some(FunctionId(4)));
        backlog.remove(FunctionId(4), urgent, 1);
        backlog.remove(FunctionId(1), place(1, 100, 5), 1);
        backlog.remove(FunctionId(3), place(2, 7, 8), 1);
        assert_eq!(next(&backlog, 100), Some(FunctionId(2)));
        assert_eq!(backlog.sweep(Time::from_nanos(9), 5), [FunctionId(2)]);
        backlog.remove(FunctionId(2), place(2, 7, 9), 1);
        assert!(backlog.is_empty() && backlog.classes.is_empty() && backlog.fullest.is_empty());
    }

    #[test]
    fn room_goes_to_a_function_whose_labels_the_worker_has() {
        let mut backlog = Backlog::default();
        let labelled = |labels, since| {
            let plain = place(1, 7, since);
            Place { class: Class { labels, ..plain.class }, ..plain }
        };
        for function in 0..300 {
            backlog.insert(FunctionId(function), labelled(2, u64::from(function)), 500, 1);
        }
        backlog.insert(FunctionId(1000), labelled(1, 999), 500, 1);
        let next = |has| backlog.next(bits(7), has, |_, _, _| true);
        assert_eq!(
            (next(0), next(1), next(3)),
            (None, Some(FunctionId(1000)), Some(FunctionId(0)))
        );
    }

    #[test]
    fn a_sweep_has_all_that_waited_when_it_began_and_none_twice() {
        let mut backlog = Backlog::default();
        for (function, since) in [(1, 5), (2, 3), (3, 4)] {
            backlog.insert(FunctionId(function), place(1, 1, since), 0, 1);
        }
        let sweep = |backlog: &mut Backlog, now| {
            let swept = backlog.sweep(Time::from_nanos(now), 2);
            swept.into_iter().map(|it| it.0).collect::<Vec<_>>()
        };
        assert_eq!(sweep(&mut backlog, 9), [2, 3]);
        // A start moves it to the end: the next sweep has it.
        backlog.remove(FunctionId(2), place(1, 1, 3), 1);
        backlog.insert(FunctionId(2), place(1, 1, 10), 0, 1);
        assert_eq!(sweep(&mut backlog, 11), [1]);
        assert_eq!((sweep(&mut backlog, 12), sweep(&mut backlog, 13)), (vec![3, 1], vec![2]));
    }

    #[test]
    fn the_fullest_account_is_known_about() {
        let mut backlog = Backlog::default();
        backlog.insert(FunctionId(1), place(1, 1, 5), 0, 100);
        backlog.insert(FunctionId(2), place(2, 1, 5), 0, 3);
        assert_eq!((backlog.fuller(3), backlog.fuller(99)), (Some(AccountId(1)), None));
        backlog.set_waiting(AccountId(1), 100, 2);
        assert_eq!(backlog.fuller(0), Some(AccountId(2)));
    }
}
