//! A list that grows without moving its items, and that can be copied in parts while it changes.
//! The copy has the contents of the moment at which it began.
//!
//! A block that is about to change and is not copied yet is put aside first.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

/// The number of items in a segment: the part of the list that is allocated at once.
const SEGMENT: usize = 1024;
/// The number of items that are put aside together.
const BLOCK: usize = 64;

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "T: serde::Deserialize<'de>")))]
pub(crate) struct Parted<T> {
    /// All full but for the last.
    segments: Vec<Vec<T>>,
    #[cfg_attr(feature = "serde", serde(skip))]
    copy: Option<Box<Copying<T>>>,
}

#[derive(Debug)]
struct Copying<T> {
    /// The items that are copied, all blocks but for the last.
    done: Parted<T>,
    /// The number of items to copy.
    len: usize,
    /// Blocks after `done` that have changed, as they were before.
    aside: BTreeMap<usize, Box<[T]>>,
}

impl<T> Default for Parted<T> {
    fn default() -> Self {
        Self { segments: Vec::new(), copy: None }
    }
}

/// A clone is of the list alone, without a copy in progress.
impl<T: Clone> Clone for Parted<T> {
    fn clone(&self) -> Self {
        Self { segments: self.segments.clone(), copy: None }
    }
}

impl<T> Parted<T> {
    pub(crate) fn len(&self) -> usize {
        let full = self.segments.len().saturating_sub(1);
        full * SEGMENT + self.segments.last().map_or(0, Vec::len)
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.segments.get(at / SEGMENT)?.get(at % SEGMENT)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments.iter().flatten()
    }

    /// Returns the items of a block. A block is within a segment.
    fn block(&self, from: usize, to: usize) -> &[T] {
        &self.segments[from / SEGMENT][from % SEGMENT..][..to - from]
    }
}

impl<T: Clone> Parted<T> {
    #[inline]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.before_change(at);
        self.segments.get_mut(at / SEGMENT)?.get_mut(at % SEGMENT)
    }

    pub(crate) fn push(&mut self, item: T) {
        match self.segments.last_mut() {
            Some(last) if last.len() < SEGMENT => last.push(item),
            _ => {
                let mut segment = Vec::with_capacity(SEGMENT);
                segment.push(item);
                self.segments.push(segment);
            }
        }
    }

    fn before_change(&mut self, at: usize) {
        if self.copy.is_some() {
            self.put_aside(at / BLOCK);
        }
    }

    #[cold]
    fn put_aside(&mut self, block: usize) {
        let Some(mut copy) = self.copy.take() else { return };
        let from = block * BLOCK;
        if from >= copy.done.len() && from < copy.len {
            let to = (from + BLOCK).min(copy.len);
            copy.aside.entry(block).or_insert_with(|| self.block(from, to).into());
        }
        self.copy = Some(copy);
    }

    /// Begins a copy of the present contents, and drops one in progress.
    pub(crate) fn begin_copy(&mut self) {
        let (done, len) = (Self::default(), self.len());
        self.copy = Some(Box::new(Copying { done, len, aside: BTreeMap::new() }));
    }

    /// Copies the next items, `max` rounded up to whole blocks. Returns whether nothing is left.
    pub(crate) fn copy_some(&mut self, max: usize) -> bool {
        let Some(mut copy) = self.copy.take() else { return true };
        for _ in 0..max.div_ceil(BLOCK) {
            let from = copy.done.len();
            if from == copy.len {
                break;
            }
            let to = (from + BLOCK).min(copy.len);
            let aside = copy.aside.remove(&(from / BLOCK));
            copy.done.append(aside.as_deref().unwrap_or_else(|| self.block(from, to)));
        }
        let complete = copy.done.len() == copy.len;
        self.copy = Some(copy);
        complete
    }

    /// Adds the items of a block.
    fn append(&mut self, block: &[T]) {
        if self.segments.last().is_none_or(|last| last.len() == SEGMENT) {
            self.segments.push(Vec::with_capacity(SEGMENT));
        }
        if let Some(last) = self.segments.last_mut() {
            last.extend_from_slice(block);
        }
    }

    /// Returns the copy, which must be complete.
    pub(crate) fn take_copy(&mut self) -> Self {
        self.copy.take().map(|it| it.done).unwrap_or_default()
    }
}

impl<T> Index<usize> for Parted<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.segments[at / SEGMENT][at % SEGMENT]
    }
}

impl<T: Clone> IndexMut<usize> for Parted<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        self.before_change(at);
        &mut self.segments[at / SEGMENT][at % SEGMENT]
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
            len in 0..2500_usize,
            steps in prop::collection::vec((0..3_u8, 0..2600_usize), 0..60),
        ) {
            let mut list = Parted::default();
            (0..len).for_each(|it| list.push(it));
            let all = |it: &Parted<usize>| -> Vec<_> { it.iter().copied().collect() };
            let expected = all(&list);
            prop_assert_eq!((list.len(), expected.len()), (len, len));
            list.begin_copy();
            for (step, number) in steps {
                match step {
                    0 => list.push(number),
                    1 => { let _ = list.copy_some(number / 4); }
                    _ => if let Some(item) = list.get_mut(number) { *item += 1000 },
                }
            }
            while !list.copy_some(1) {}
            prop_assert_eq!(all(&list.take_copy()), expected);
            prop_assert!(list.copy.is_none());
        }
    }
}
