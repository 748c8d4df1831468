//! Slots with generations: an id finds its item by one read, and never another's.

/// A place that is no place.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    live: u32,
    /// Where the generations of this engine begin.
    generation: u32,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Slot<T> {
    generation: u32,
    item: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::from_generation(0)
    }
}

impl<T> Slab<T> {
    /// Makes a slab whose ids are of this generation or a later one.
    pub(crate) fn from_generation(generation: u32) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), live: 0, generation }
    }

    /// Puts an item into the slot that was freed last, or a new one; `None` when there are `max`.
    pub(crate) fn insert(&mut self, item: T, max: u32) -> Option<u32> {
        if self.live >= max {
            return None;
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                let at = u32::try_from(self.slots.len()).ok().filter(|at| *at < NONE)?;
                if self.slots.len() == self.slots.capacity() {
                    // An eighth more, not twice as much: it is most of what an idle sandbox takes.
                    self.slots.reserve_exact((self.slots.len() / 8).max(64));
                }
                self.slots.push(Slot { generation: self.generation, item: None });
                at
            }
        };
        self.slots[at as usize].item = Some(item);
        self.live += 1;
        Some(at)
    }

    /// Puts an item where another engine had it; refused when the place is taken or beyond `max`.
    pub(crate) fn insert_as(&mut self, id: u64, item: T, max: u32) -> Option<u32> {
        let (generation, at) = split(id);
        if at >= max || self.live >= max {
            return None;
        }
        while self.slots.len() <= at as usize {
            let new = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot { generation: self.generation, item: None });
            self.free.push(new);
        }
        let slot = &mut self.slots[at as usize];
        // An id of an earlier engine, or one of this engine's that is not used up.
        let unused = generation < self.generation || generation >= slot.generation;
        if slot.item.is_some() || !unused {
            return None;
        }
        *slot = Slot { generation, item: Some(item) };
        self.free.retain(|free| *free != at);
        self.live += 1;
        Some(at)
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let slot = self.slots.get_mut(at as usize)?;
        let item = slot.item.take()?;
        // A slot whose generations are used up is never used again: no id is given twice.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next.max(self.generation);
            self.free.push(at);
        }
        self.live -= 1;
        Some(item)
    }

    /// Returns the id of what is at `at`.
    pub(crate) fn id(&self, at: u32) -> u64 {
        (u64::from(self.slots[at as usize].generation) << 32) | u64::from(at)
    }

    /// Finds the place of an id, if its item is there.
    pub(crate) fn find(&self, id: u64) -> Option<u32> {
        let (generation, at) = split(id);
        let slot = self.slots.get(at as usize)?;
        (slot.generation == generation && slot.item.is_some()).then_some(at)
    }

    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.slots.get(at as usize)?.item.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.slots.get_mut(at as usize)?.item.as_mut()
    }

    /// Returns whether no other engine gave ids before.
    pub(crate) fn is_first(&self) -> bool {
        self.generation == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.live as usize
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(at, slot)| Some((at, slot.item.as_ref()?)))
    }
}

fn split(id: u64) -> (u32, u32) {
    let low = u32::try_from(id & u64::from(u32::MAX)).unwrap_or(NONE);
    (u32::try_from(id >> 32).unwrap_or(NONE), low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_given_twice() {
        let mut slab = Slab::default();
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
    fn adopted_ids_keep_their_place() {
        let mut slab = Slab::default();
        let id = (7_u64 << 32) | 3;
        assert_eq!(slab.insert_as(id, 'a', 10), Some(3));
        assert_eq!(slab.insert_as(id, 'b', 10), None);
        assert_eq!(slab.insert_as(10, 'b', 10), None);
        assert_eq!((slab.find(id), slab.id(3)), (Some(3), id));
        let others: Vec<_> = (0..4).filter_map(|_| slab.insert('c', 10)).collect();
        assert_eq!(others, [2, 1, 0, 4]);
    }
}
