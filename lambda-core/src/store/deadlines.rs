//! Deadlines, at most one for each item: a new deadline replaces the old one.

use std::collections::BTreeSet;

use crate::time::Time;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "T: Ord + serde::Deserialize<'de>")))]
pub(crate) struct Deadlines<T> {
    by_time: BTreeSet<(Time, T)>,
    by_item: BTreeSet<(T, Time)>,
    /// The time of the earliest deadline; the last possible time if there is none. It is read at
    /// each event.
    next: Time,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_item: BTreeSet::new(), next: Time::LAST }
    }
}

impl<T: Copy + Ord> Deadlines<T> {
    /// Sets an item's deadline, replacing an old one.
    pub(crate) fn insert(&mut self, (at, item): (Time, T)) {
        self.clear(item);
        self.by_time.insert((at, item));
        self.by_item.insert((item, at));
        self.next = self.next.min(at);
    }

    /// Sets an item's deadline, unless it has an earlier one.
    pub(crate) fn insert_earlier(&mut self, (at, item): (Time, T)) {
        if self.of(item).is_none_or(|before| at < before) {
            self.insert((at, item));
        }
    }

    /// Removes an item's deadline if it is this one.
    pub(crate) fn remove(&mut self, (at, item): &(Time, T)) {
        if self.by_time.remove(&(*at, *item)) {
            self.by_item.remove(&(*item, *at));
            self.next = self.by_time.first().map_or(Time::LAST, |(at, _)| *at);
        }
    }

    /// Removes an item's deadline, if it has one.
    pub(crate) fn clear(&mut self, item: T) {
        if let Some(at) = self.of(item) {
            self.remove(&(at, item));
        }
    }

    /// Returns the time of the earliest deadline, or the last possible time if there is none.
    pub(crate) fn next(&self) -> Time {
        self.next
    }

    /// Returns the earliest deadline.
    pub(crate) fn first(&self) -> Option<&(Time, T)> {
        self.by_time.first()
    }

    /// Returns whether an item has a deadline.
    pub(crate) fn contains(&self, item: T) -> bool {
        self.of(item).is_some()
    }

    fn of(&self, item: T) -> Option<Time> {
        let mut of = self.by_item.range((item, Time::ZERO)..=(item, Time::from_nanos(u64::MAX)));
        of.next().map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_has_one_deadline() {
        let at = Time::from_nanos;
        let mut deadlines = Deadlines::default();
        deadlines.insert((at(5), 'a'));
        deadlines.insert((at(7), 'b'));
        deadlines.insert((at(9), 'a'));
        assert_eq!(deadlines.first(), Some(&(at(7), 'b')));
        deadlines.insert_earlier((at(8), 'b'));
        deadlines.insert_earlier((at(6), 'a'));
        assert_eq!((deadlines.by_time.len(), deadlines.by_item.len()), (2, 2));
        assert_eq!(deadlines.next(), at(6));
        deadlines.remove(&(at(5), 'a'));
        assert_eq!(deadlines.first(), Some(&(at(6), 'a')));
        deadlines.clear('a');
        deadlines.clear('b');
        assert!(deadlines.by_time.is_empty() && deadlines.by_item.is_empty());
        assert_eq!(deadlines.next(), Time::LAST);
    }
}
