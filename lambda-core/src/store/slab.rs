//! Slots with generations: an id finds its item with one read, and a stale id finds nothing.
//!
//! Each engine of a succession has [`GENERATIONS`] generations of its own, so that none gives an id
//! that another may have given. An item of an earlier engine is adopted under its old id. It goes
//! into the id's own slot if that is within reach and unused, else it is displaced to another slot.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use super::parted::Parted;
use super::slot::Slot;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// The number of generations of one engine for each slot. The last one is never given.
const GENERATIONS: u32 = 1 << 16;

/// The most slots for each item that are created to adopt items into their own slots.
const SPARSE_MAX: u32 = 4;

/// The generation of a slot whose item has the id of another slot. No id has it.
const DISPLACED: u32 = u32::MAX;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "T: serde::Deserialize<'de>")))]
pub(crate) struct Slab<K, T> {
    slots: Parted<Place<T>>,
    /// Free slots that were used before; the last freed one is at the end.
    free: Vec<u32>,
    /// Slots that were never used.
    untouched: BTreeSet<u32>,
    live: u32,
    /// The first generation of this engine.
    generation: u32,
    /// The slots of displaced items, by id.
    displaced: BTreeMap<u64, u32>,
    /// For each slot with a displaced item: the item's id, and the slot's own generation.
    displaced_ids: BTreeMap<u32, (u64, u32)>,
    #[cfg_attr(feature = "serde", serde(skip))]
    key: PhantomData<K>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Place<T> {
    generation: u32,
    item: Option<T>,
}

impl<K: Slot, T: Clone> Slab<K, T> {
    /// Returns the slab of an engine that follows `restarts` others.
    pub(crate) fn new(restarts: u16) -> Self {
        Self {
            slots: Parted::default(),
            free: Vec::new(),
            untouched: BTreeSet::new(),
            live: 0,
            generation: u32::from(restarts) * GENERATIONS,
            displaced: BTreeMap::new(),
            displaced_ids: BTreeMap::new(),
            key: PhantomData,
        }
    }

    /// Puts an item into the slot that was freed last, or into a new one. Returns `None` if there
    /// are `max` items.
    pub(crate) fn insert(&mut self, item: T, max: u32) -> Option<K> {
        self.put(item, max).map(K::new)
    }

    fn put(&mut self, item: T, max: u32) -> Option<u32> {
        if self.live >= max {
            return None;
        }
        let at = match self.free.pop().or_else(|| self.untouched.pop_first()) {
            Some(at) => at,
            None => self.grow()?,
        };
        self.slots[at as usize].item = Some(item);
        self.live += 1;
        Some(at)
    }

    fn grow(&mut self) -> Option<u32> {
        let at = u32::try_from(self.slots.len()).ok().filter(|at| *at < NONE)?;
        self.slots.push(Place { generation: self.generation, item: None });
        Some(at)
    }

    /// Inserts an item under an id of an earlier engine, or, if `own`, under an id that this engine
    /// gave and whose item is gone. Returns `None` if no engine can have given the id, if its item
    /// is present, or if there are `max` items.
    pub(crate) fn insert_as(&mut self, id: u64, item: T, max: u32, own: bool) -> Option<K> {
        let (generation, at) = split(id);
        let earlier = generation < self.generation;
        let given = earlier || own && self.has_given(generation, at);
        let given = given && generation % GENERATIONS != GENERATIONS - 1;
        if !given || at == NONE || self.live >= max || self.find(id).is_some() {
            return None;
        }
        // The id may name any slot: create slots to reach it only in proportion to the items.
        if earlier && at / SPARSE_MAX <= self.live {
            while self.slots.len() <= at as usize {
                let new = self.grow()?;
                self.untouched.insert(new);
            }
        }
        if earlier && self.untouched.remove(&at) {
            self.slots[at as usize] = Place { generation, item: Some(item) };
            self.live += 1;
            return Some(K::new(at));
        }
        let elsewhere = self.put(item, max)?;
        let own = std::mem::replace(&mut self.slots[elsewhere as usize].generation, DISPLACED);
        self.displaced.insert(id, elsewhere);
        self.displaced_ids.insert(elsewhere, (id, own));
        Some(K::new(elsewhere))
    }

    /// Returns whether this slab gave the id in the past and its item is gone.
    fn has_given(&self, generation: u32, at: u32) -> bool {
        let Some(slot) = self.slots.get(at as usize) else { return false };
        let next = match slot.generation {
            DISPLACED => self.displaced_ids.get(&at).map_or(0, |(_, own)| *own),
            next => next,
        };
        (self.generation..next).contains(&generation)
    }

    pub(crate) fn remove(&mut self, at: K) -> Option<T> {
        let at = at.number();
        let slot = self.slots.get_mut(at as usize)?;
        let item = slot.item.take()?;
        self.live -= 1;
        if slot.generation == DISPLACED {
            // The slot's own generation was not given to an item; use it next.
            let (id, own) = self.displaced_ids.remove(&at)?;
            self.displaced.remove(&id);
            slot.generation = own;
        } else if slot.generation < self.generation {
            slot.generation = self.generation;
        } else {
            slot.generation += 1;
        }
        // A slot whose generations are used up stays free for ever, so that no id is given twice.
        if slot.generation % GENERATIONS != GENERATIONS - 1 {
            self.free.push(at);
        }
        Some(item)
    }

    /// Returns the id of the item in slot `at`.
    pub(crate) fn id(&self, at: K) -> u64 {
        let at = at.number();
        match self.slots[at as usize].generation {
            DISPLACED => self.displaced_id(at),
            generation => (u64::from(generation) << 32) | u64::from(at),
        }
    }

    #[cold]
    fn displaced_id(&self, at: u32) -> u64 {
        self.displaced_ids[&at].0
    }

    /// Returns the slot of an id, or `None` if its item is gone.
    #[inline]
    pub(crate) fn find(&self, id: u64) -> Option<K> {
        let (generation, at) = split(id);
        match self.slots.get(at as usize) {
            Some(slot)
                if slot.generation == generation
                    && slot.item.is_some()
                    && generation != DISPLACED =>
            {
                Some(K::new(at))
            }
            _ => self.find_displaced(id),
        }
    }

    #[cold]
    fn find_displaced(&self, id: u64) -> Option<K> {
        self.displaced.get(&id).copied().map(K::new)
    }

    #[inline]
    pub(crate) fn get(&self, at: K) -> Option<&T> {
        self.slots.get(at.number() as usize)?.item.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: K) -> Option<&mut T> {
        self.slots.get_mut(at.number() as usize)?.item.as_mut()
    }

    /// Begins a copy in parts. Returns the copy without its items.
    pub(crate) fn begin_copy(&mut self) -> Self {
        self.slots.begin_copy();
        Self {
            slots: Parted::default(),
            free: self.free.clone(),
            untouched: self.untouched.clone(),
            live: self.live,
            generation: self.generation,
            displaced: self.displaced.clone(),
            displaced_ids: self.displaced_ids.clone(),
            key: PhantomData,
        }
    }

    /// Copies the next items, about `max`. Returns whether nothing is left.
    pub(crate) fn copy_some(&mut self, max: usize) -> bool {
        self.slots.copy_some(max)
    }

    /// Puts the copied items, which must be complete, into the copy that [`Self::begin_copy`]
    /// returned.
    pub(crate) fn end_copy(&mut self, copy: &mut Self) {
        copy.slots = self.slots.take_copy();
    }

    /// Returns whether this engine follows no other one.
    pub(crate) fn is_first(&self) -> bool {
        self.generation == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.live as usize
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        (0..)
            .zip(self.slots.iter())
            .filter_map(|(at, slot)| Some((K::new(at), slot.item.as_ref()?)))
    }
}

fn split(id: u64) -> (u32, u32) {
    let low = u32::try_from(id & u64::from(u32::MAX)).unwrap_or(NONE);
    (u32::try_from(id >> 32).unwrap_or(NONE), low)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Slab<T> = super::Slab<u32, T>;

    impl Slot for u32 {
        fn new(number: u32) -> Self {
            number
        }

        fn number(self) -> u32 {
            self
        }
    }

    #[test]
    fn an_id_is_never_given_twice() {
        let mut slab = Slab::new(0);
        let first = slab.insert('a', 2).unwrap();
        let id = slab.id(first);
        assert_eq!(slab.find(id), Some(first));
        assert_eq!(slab.remove(first), Some('a'));
        assert_eq!(slab.find(id), None);
        let second = slab.insert('b', 2).unwrap();
        assert_eq!((second, slab.id(second) == id), (first, false));
        assert!(slab.insert('c', 2).is_some() && slab.insert('d', 2).is_none());
    }

    #[test]
    fn the_ids_of_earlier_engines_are_kept() {
        let mut slab = Slab::new(8);
        let id = (7_u64 << 32) | 3;
        assert_eq!(slab.insert_as(id, 'a', 10, false), Some(3));
        assert_eq!(slab.insert_as(id, 'b', 10, false), None, "it is here");
        assert_eq!((slab.find(id), slab.id(3)), (Some(3), id));
        let others: Vec<_> = (0..4).filter_map(|_| slab.insert('c', 10)).collect();
        assert_eq!(others, [0, 1, 2, 4]);
        let own = slab.id(4);
        assert_eq!(slab.remove(3), Some('a'));
        assert_eq!((slab.find(id), slab.find(own)), (None, Some(4)));
        let next = slab.insert('d', 10).unwrap();
        assert_eq!((next, slab.id(next) >> 32), (3, 8 << 16));
    }

    #[test]
    fn an_id_whose_place_is_taken_is_kept_elsewhere() {
        let mut slab = Slab::new(1);
        let own = slab.insert('a', 10).unwrap();
        let own_id = slab.id(own);
        // Two ids of earlier engines for the slot that holds an item of this engine.
        let [first, second] = [0, 5 << 32];
        let [at, beside] = [first, second].map(|id| slab.insert_as(id, 'b', 10, false).unwrap());
        assert_eq!([own, at, beside], [0, 1, 2]);
        let ids = [own_id, first, second];
        assert_eq!(ids.map(|id| slab.find(id)), [Some(0), Some(1), Some(2)]);
        assert_eq!([0, 1, 2].map(|at| slab.id(at)), ids);
        // Ids that no item has: the generations that the slots themselves hold.
        for generation in [1 << 16, u64::from(DISPLACED)] {
            assert_eq!(slab.find((generation << 32) | 1), None);
        }
        assert_eq!((slab.insert_as(first, 'c', 10, false), slab.len()), (None, 3));
        assert_eq!(slab.remove(at), Some('b'));
        assert_eq!(slab.find(first), None);
        let new = slab.insert('d', 10).unwrap();
        assert_eq!((new, slab.id(new)), (at, own_id | 1));
        // An id of this engine stays used up, although an item of an earlier engine was in its
        // slot.
        assert_eq!(slab.remove(own), Some('a'));
        let again = slab.insert_as(first, 'e', 10, false).unwrap();
        slab.remove(again);
        let next = slab.insert('f', 10).unwrap();
        assert_eq!((next, slab.id(next) == own_id), (own, false));
    }

    #[test]
    fn an_id_of_a_place_far_away_makes_no_slots_up_to_there() {
        let mut slab = Slab::new(1);
        let far = u64::from(NONE - 1);
        let at = slab.insert_as(far, 'a', 10, false).unwrap();
        assert_eq!((slab.slots.len(), slab.id(at), slab.find(far)), (1, far, Some(at)));
        assert_eq!(slab.insert_as(u64::from(NONE), 'b', 10, false), None, "no place");
    }

    #[test]
    fn only_what_an_earlier_engine_can_have_given_is_taken_in() {
        let mut first = Slab::new(0);
        assert_eq!(first.insert_as(0, 'a', 10, false), None);
        let mut third = Slab::new(2);
        let taken: Vec<_> = [0, (1 << 16) - 1, 1 << 16, 2 << 16, u64::from(u32::MAX)]
            .into_iter()
            .filter(|generation| third.insert_as(generation << 32, 'a', 10, false).is_some())
            .collect();
        assert_eq!(taken, [0, 1 << 16]);
    }

    #[test]
    fn a_place_whose_ids_are_used_up_is_left() {
        for restarts in [0, 1, u16::MAX] {
            let mut slab = Slab::new(restarts);
            let mut ids = BTreeSet::new();
            for nth in 0..2 * GENERATIONS {
                let at = slab.insert(nth, 1).unwrap();
                assert!(ids.insert(slab.id(at)), "given twice");
                assert_eq!(slab.id(at) >> 48, u64::from(restarts), "another engine's");
                slab.remove(at);
            }
            assert_eq!(slab.slots.len(), 3);
        }
    }
}
