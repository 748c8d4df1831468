//! The number of a function's sandboxes on each worker: a small hash table of its own.
//!
//! Open addressing with linear probing and backward-shift deletion. The hash function is fixed, so
//! that the same events give the same table on any machine. The table is only asked for counts: its
//! order has no effect.

use crate::id::WorkerId;

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub(crate) struct Spread {
    tags: Tags,
    used: u32,
    /// Pairs of a worker and the number of sandboxes on it.
    counts: Box<[(WorkerId, u32)]>,
}

/// One byte of the hash of each worker, never 0; 0 marks a free place. Most lookups read nothing
/// else. A table of up to [`FEW`] places has its tags in the function's record, in two cache lines
/// whose address is known before the record is read.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
struct Tags {
    few: [[u8; 32]; 4],
    many: Box<[u8]>,
    places: u32,
}

impl Tags {
    fn new(places: usize) -> Self {
        let many = if places > FEW { vec![0; places].into() } else { Box::default() };
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        Self { few: Default::default(), many, places }
    }

    fn are_few(&self) -> bool {
        self.places as usize <= FEW
    }
}

impl std::ops::Deref for Tags {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.are_few() { &self.few.as_flattened()[..self.places as usize] } else { &self.many }
    }
}

impl std::ops::DerefMut for Tags {
    fn deref_mut(&mut self) -> &mut [u8] {
        if self.are_few() {
            &mut self.few.as_flattened_mut()[..self.places as usize]
        } else {
            &mut self.many
        }
    }
}

impl Spread {
    pub(crate) fn count(&self, worker: WorkerId) -> u32 {
        if self.tags.are_few() && !self.may_have(home(worker).1) {
            return 0;
        }
        self.place(worker).map_or(0, |at| self.counts[at].1)
    }

    /// Returns whether a tag is in the table. Compares all tags without branches, sixteen at a
    /// time: in a small table most lookups miss, and the end of a probe sequence is hard to
    /// predict.
    fn may_have(&self, wanted: u8) -> bool {
        let (chunks, rest) = self.tags.as_chunks::<16>();
        let mut found = 0;
        for chunk in chunks {
            for tag in chunk {
                found |= u8::from(*tag == wanted);
            }
        }
        for tag in rest {
            found |= u8::from(*tag == wanted);
        }
        found != 0
    }

    /// Reads the cache lines of a small table.
    pub(crate) fn touch_few(&self) -> u32 {
        u32::from(self.tags.few[0][0] ^ self.tags.few[2][0]) ^ self.tags.places
    }

    /// Reads the first tag that a lookup of the worker reads in a large table.
    pub(crate) fn touch(&self, worker: WorkerId) -> u32 {
        if self.tags.are_few() {
            return 0;
        }
        let mask = self.tags.len().wrapping_sub(1);
        self.tags.get(home(worker).0 & mask).copied().map_or(0, u32::from)
    }

    /// Adds a sandbox on a worker. Tables with different `stagger` grow at different numbers of
    /// workers: else those of all functions would grow in the same call when a worker reports one
    /// sandbox of each.
    pub(crate) fn add(&mut self, worker: WorkerId, stagger: u32) {
        // At most 7 of 8 places are used, and of a large table 5 to 7.
        let early =
            if self.tags.are_few() { 0 } else { self.tags.len() * share(stagger) / 4 / 256 };
        if (self.used as usize + 1 + early) * 8 > self.tags.len() * 7 {
            self.resize((self.tags.len() * 2).max(4));
        }
        if let Some(at) = self.place(worker) {
            self.counts[at].1 += 1;
        } else {
            self.put(worker, 1);
            self.used += 1;
        }
    }

    pub(crate) fn remove(&mut self, worker: WorkerId) {
        let Some(at) = self.place(worker) else { return };
        self.counts[at].1 -= 1;
        if self.counts[at].1 > 0 {
            return;
        }
        self.used -= 1;
        let mask = self.tags.len() - 1;
        let (mut hole, mut next) = (at, (at + 1) & mask);
        self.tags[hole] = 0;
        while self.tags[next] != 0 {
            let home = home(self.counts[next].0).0 & mask;
            // An entry may move to the hole only if its home is not after the hole.
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.tags[hole] = std::mem::take(&mut self.tags[next]);
                self.counts[hole] = self.counts[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        if self.used == 0 {
            *self = Self::default();
        } else if self.used as usize * 8 <= self.tags.len() && self.tags.len() > 4 {
            self.resize(self.tags.len() / 4);
        }
    }

    fn place(&self, worker: WorkerId) -> Option<usize> {
        let mask = self.tags.len().checked_sub(1)?;
        let (home, wanted) = home(worker);
        let mut at = home & mask;
        loop {
            let tag = self.tags[at];
            if tag == 0 {
                return None;
            }
            if tag == wanted && self.counts[at].0 == worker {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a worker that is not in the table.
    fn put(&mut self, worker: WorkerId, count: u32) {
        let mask = self.tags.len() - 1;
        let (home, tag) = home(worker);
        let mut at = home & mask;
        while self.tags[at] != 0 {
            at = (at + 1) & mask;
        }
        (self.tags[at], self.counts[at]) = (tag, (worker, count));
    }

    fn resize(&mut self, places: usize) {
        let tags = std::mem::replace(&mut self.tags, Tags::new(places));
        let counts = std::mem::replace(&mut self.counts, vec![(WorkerId(0), 0); places].into());
        for (_, (worker, count)) in tags.iter().zip(counts).filter(|(tag, _)| **tag != 0) {
            self.put(worker, count);
        }
    }
}

/// Returns the first place to probe for a worker, and its tag: parts of its product with the golden
/// ratio (Knuth).
fn home(worker: WorkerId) -> (usize, u8) {
    let mixed = u64::from(worker.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let tag = u8::try_from(mixed >> 24 & 0xff).unwrap_or_default();
    ((mixed >> 32) as usize, tag.max(1))
}

/// Returns a number below 256 that is spread evenly over neighbouring numbers.
fn share(of: u32) -> usize {
    (of.wrapping_mul(0x9e37_79b9) >> 24) as usize
}

/// The largest table whose tags are in the function's record.
const FEW: usize = 128;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_as_a_map_does(steps in prop::collection::vec((0..3_u32, 0..40_u32), 0..600)) {
            let (mut spread, mut map) = (Spread::default(), BTreeMap::<_, u32>::new());
            for (step, (add, worker)) in steps.into_iter().enumerate() {
                // First more additions than removals, then more removals.
                let add = if step < 300 { add > 0 } else { add > 1 };
                let count = map.entry(worker).or_default();
                if add {
                    spread.add(WorkerId(worker), 0);
                    *count += 1;
                } else {
                    spread.remove(WorkerId(worker));
                    *count = count.saturating_sub(1);
                }
                for worker in 0..40 {
                    let wanted = map.get(&worker).copied().unwrap_or_default();
                    prop_assert_eq!(spread.count(WorkerId(worker)), wanted);
                }
                prop_assert!(spread.tags.len() <= 4 || spread.used as usize * 8 > spread.tags.len());
            }
        }
    }

    #[test]
    fn large_tables_of_many_functions_do_not_grow_together() {
        let mut spreads = vec![Spread::default(); 1000];
        let mut grown = Vec::new();
        for worker in 0..1000 {
            let grows = |(stagger, spread): (u32, &mut Spread)| {
                let before = spread.tags.len();
                spread.add(WorkerId(worker), stagger);
                usize::from(before >= FEW && spread.tags.len() > before)
            };
            grown.push((0..).zip(&mut spreads).map(grows).sum::<usize>());
        }
        // Each table grows from 256, 512 and 1,024 places after 112 have been in the record.
        assert_eq!(grown.iter().skip(113).filter(|count| **count > 100).count(), 0, "{grown:?}");
        assert!(spreads.iter().all(|it| it.used == 1000 && it.count(WorkerId(999)) == 1));
    }
}
