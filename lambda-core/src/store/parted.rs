//! A list that can be copied in parts while it changes. The copy has the contents of the moment at
//! which it began.
//!
//! A block that is about to change and is not copied yet is put aside first.

use std::collections::BTreeMap;
use std::ops::{Deref, IndexMut};

/// The number of items that are put aside together.
const BLOCK: usize = 64;

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "T: serde::Deserialize<'de>")))]
pub(crate) struct Parted<T> {
    items: Vec<T>,
    #[cfg_attr(feature = "serde", serde(skip))]
    copy: Option<Box<Copying<T>>>,
}

#[derive(Debug)]
struct Copying<T> {
    /// The items that are copied, all blocks but for the last.
    done: Vec<T>,
    /// The number of items to copy.
    len: usize,
    /// Blocks after `done` that have changed, as they were before.
    aside: BTreeMap<usize, Box<[T]>>,
}

impl<T> Default for Parted<T> {
    fn default() -> Self {
        Self { items: Vec::new(), copy: None }
    }
}

/// A clone is of the list alone, without a copy in progress.
impl<T: Clone> Clone for Parted<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), copy: None }
    }
}

impl<T: Clone> Parted<T> {
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.before_change(at);
        self.items.get_mut(at)
    }

    /// Adds an item. A full list grows by an eighth, not by doubling.
    pub(crate) fn push(&mut self, item: T) {
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact((self.items.len() / 8).max(BLOCK));
        }
        self.items.push(item);
    }

    fn before_change(&mut self, at: usize) {
        if self.copy.is_some() {
            self.put_aside(at / BLOCK);
        }
    }

    #[cold]
    fn put_aside(&mut self, block: usize) {
        let Some(copy) = &mut self.copy else { return };
        let from = block * BLOCK;
        if from >= copy.done.len() && from < copy.len {
            let to = (from + BLOCK).min(copy.len);
            copy.aside.entry(block).or_insert_with(|| self.items[from..to].into());
        }
    }

    /// Begins a copy of the present contents, and drops one in progress.
    pub(crate) fn begin_copy(&mut self) {
        let len = self.items.len();
        let done = Vec::with_capacity(len);
        self.copy = Some(Box::new(Copying { done, len, aside: BTreeMap::new() }));
    }

    /// Copies the next items, `max` rounded up to whole blocks. Returns whether nothing is left.
    pub(crate) fn copy_some(&mut self, max: usize) -> bool {
        let Some(copy) = &mut self.copy else { return true };
        for _ in 0..max.div_ceil(BLOCK) {
            let from = copy.done.len();
            if from == copy.len {
                break;
            }
            match copy.aside.remove(&(from / BLOCK)) {
                Some(block) => copy.done.extend(block),
                None => {
                    let to = (from + BLOCK).min(copy.len);
                    copy.done.extend_from_slice(&self.items[from..to]);
                }
            }
        }
        copy.done.len() == copy.len
    }

    /// Returns the copy, which must be complete.
    pub(crate) fn take_copy(&mut self) -> Self {
        let items = self.copy.take().map(|it| it.done).unwrap_or_default();
        Self { items, copy: None }
    }
}

impl<T> Deref for Parted<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T> std::ops::Index<usize> for Parted<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.items[at]
    }
}

impl<T: Clone> IndexMut<usize> for Parted<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        self.before_change(at);
        &mut self.items[at]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever changes between the parts, the copy has the contents of its beginning.
        #[test]
        fn a_copy_is_of_the_moment_at_which_it_began(
            len in 0..400_usize,
            steps in prop::collection::vec((0..3_u8, 0..500_usize), 0..60),
        ) {
            let mut list = Parted::default();
            (0..len).for_each(|it| list.push(it));
            let expected = list.to_vec();
            list.begin_copy();
            for (step, number) in steps {
                match step {
                    0 => list.push(number),
                    1 => { let _ = list.copy_some(number / 4); }
                    _ => if let Some(item) = list.get_mut(number) { *item += 1000 },
                }
            }
            while !list.copy_some(1) {}
            prop_assert_eq!(list.take_copy().to_vec(), expected);
            prop_assert!(list.copy.is_none());
        }
    }
}
