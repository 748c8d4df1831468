//! How many sandboxes of a function each worker has: a table from (function, worker) to a count.
//!
//! Open addressing with linear probing and backward-shift deletion; keys are mixed by a fixed function, so that
//! the same events give the same table on any machine. Only counts are asked of it: its order shows nowhere.

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Spread {
    /// Key and count; a count of zero is a free place.
    places: Vec<(u32, u32, u32)>,
    used: usize,
}

impl Spread {
    pub(crate) fn count(&self, function: u32, worker: u32) -> u32 {
        self.place(function, worker).map_or(0, |at| self.places[at].2)
    }

    pub(crate) fn add(&mut self, function: u32, worker: u32) {
        // At most 7 of 8 places are taken.
        if (self.used + 1) * 8 > self.places.len() * 7 {
            self.grow();
        }
        let mask = self.places.len() - 1;
        let mut at = home(function, worker) & mask;
        loop {
            let place = &mut self.places[at];
            if place.2 == 0 {
                *place = (function, worker, 1);
                self.used += 1;
                return;
            }
            if (place.0, place.1) == (function, worker) {
                place.2 += 1;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    pub(crate) fn remove(&mut self, function: u32, worker: u32) {
        let Some(at) = self.place(function, worker) else { return };
        self.places[at].2 -= 1;
        if self.places[at].2 > 0 {
            return;
        }
        self.used -= 1;
        let mask = self.places.len() - 1;
        let (mut hole, mut next) = (at, (at + 1) & mask);
        while self.places[next].2 > 0 {
            let (function, worker, _) = self.places[next];
            let home = home(function, worker) & mask;
            // What lies between its home and here may move to the hole if the hole does, too.
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[next];
                self.places[next].2 = 0;
                hole = next;
            }
            next = (next + 1) & mask;
        }
    }

    fn place(&self, function: u32, worker: u32) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = home(function, worker) & mask;
        loop {
            let place = &self.places[at];
            if place.2 == 0 {
                return None;
            }
            if (place.0, place.1) == (function, worker) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let doubled = (self.places.len() * 2).max(16);
        let old = std::mem::replace(&mut self.places, vec![(0, 0, 0); doubled]);
        let mask = doubled - 1;
        for place in old.into_iter().filter(|place| place.2 > 0) {
            let mut at = home(place.0, place.1) & mask;
            while self.places[at].2 > 0 {
                at = (at + 1) & mask;
            }
            self.places[at] = place;
        }
    }
}

/// Mixes a key: the finaliser of MurmurHash3, which is public domain.
#[expect(clippy::cast_possible_truncation, reason = "the lower bits are as good as all")]
fn home(function: u32, worker: u32) -> usize {
    let mut key = (u64::from(function) << 32) | u64::from(worker);
    key ^= key >> 33;
    key = key.wrapping_mul(0xff51_afd7_ed55_8ccd);
    key ^= key >> 33;
    key = key.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    key ^= key >> 33;
    key as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_as_a_map_does(steps in prop::collection::vec((any::<bool>(), 0..12_u32, 0..12_u32), 0..400)) {
            let (mut spread, mut map) = (Spread::default(), BTreeMap::<_, u32>::new());
            for (add, function, worker) in steps {
                let count = map.entry((function, worker)).or_default();
                if add {
                    spread.add(function, worker);
                    *count += 1;
                } else {
                    spread.remove(function, worker);
                    *count = count.saturating_sub(1);
                }
                for function in 0..12 {
                    for worker in 0..12 {
                        let wanted = map.get(&(function, worker)).copied().unwrap_or_default();
                        prop_assert_eq!(spread.count(function, worker), wanted);
                    }
                }
            }
        }
    }
}
