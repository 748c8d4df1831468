//! A map from small numbers to items, in pages that are allocated when used. Memory grows with the
//! number of items, and growth moves no item. The largest number costs a pointer for each 16,384.
//!
//! A map can be copied in parts while it changes. The copy has the contents of the moment at which
//! it began: a page that is about to change and is not copied yet is put aside first.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use super::slot::Slot;

/// The number of items in a page.
const PAGE: usize = 16;
/// The number of pages in a chapter: the part of the directory that is allocated at once.
const CHAPTER: usize = 1024;

type Page<T> = Box<[Option<T>; PAGE]>;

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "T: serde::Deserialize<'de>")))]
pub(crate) struct Paged<K, T> {
    chapters: Vec<Option<Chapter<T>>>,
    #[cfg_attr(feature = "serde", serde(skip))]
    copy: Option<Box<Copying<T>>>,
    #[cfg_attr(feature = "serde", serde(skip))]
    key: PhantomData<K>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Chapter<T> {
    pages: Box<[Option<Page<T>>]>,
    /// The number of pages that are allocated.
    used: u32,
}

/// A copy in progress. Pages are numbered through all chapters.
#[derive(Debug)]
struct Copying<T> {
    chapters: Vec<Option<Chapter<T>>>,
    /// The next page to copy.
    next: usize,
    end: usize,
    /// Pages from `next` on that have changed, as they were before.
    aside: BTreeMap<usize, Option<Page<T>>>,
}

impl<K, T> Default for Paged<K, T> {
    fn default() -> Self {
        Self { chapters: Vec::new(), copy: None, key: PhantomData }
    }
}

/// A clone is of the map alone, without a copy in progress.
impl<K, T: Clone> Clone for Paged<K, T> {
    fn clone(&self) -> Self {
        Self { chapters: self.chapters.clone(), copy: None, key: PhantomData }
    }
}

impl<K: Slot, T: Clone> Paged<K, T> {
    #[inline]
    pub(crate) fn get(&self, at: K) -> Option<&T> {
        let (chapter, page, item) = split(at);
        self.chapters.get(chapter)?.as_ref()?.pages[page].as_ref()?[item].as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: K) -> Option<&mut T> {
        let (chapter, page, item) = split(at);
        self.before_change(chapter, page);
        self.chapters.get_mut(chapter)?.as_mut()?.pages[page].as_mut()?[item].as_mut()
    }

    pub(crate) fn insert(&mut self, at: K, item: T) -> &mut T {
        self.place(at).insert(item)
    }

    pub(crate) fn get_or_insert_with(&mut self, at: K, item: impl FnOnce() -> T) -> &mut T {
        self.place(at).get_or_insert_with(item)
    }

    fn place(&mut self, at: K) -> &mut Option<T> {
        let (chapter, page, item) = split(at);
        self.before_change(chapter, page);
        if self.chapters.len() <= chapter {
            self.chapters.resize_with(chapter + 1, || None);
        }
        let chapter = self.chapters[chapter].get_or_insert_with(Chapter::default);
        let page = &mut chapter.pages[page];
        chapter.used += u32::from(page.is_none());
        &mut page.get_or_insert_with(|| Box::new([const { None }; PAGE]))[item]
    }

    pub(crate) fn remove(&mut self, at: K) -> Option<T> {
        let (chapter_at, page_at, item) = split(at);
        self.before_change(chapter_at, page_at);
        let chapter = self.chapters.get_mut(chapter_at)?.as_mut()?;
        let page = chapter.pages[page_at].as_mut()?;
        let item = page[item].take();
        if page.iter().all(Option::is_none) {
            chapter.pages[page_at] = None;
            chapter.used -= 1;
            if chapter.used == 0 {
                self.chapters[chapter_at] = None;
            }
        }
        item
    }

    fn before_change(&mut self, chapter: usize, page: usize) {
        if self.copy.is_some() {
            self.put_aside(chapter * CHAPTER + page);
        }
    }

    #[cold]
    fn put_aside(&mut self, at: usize) {
        let Some(copy) = &mut self.copy else { return };
        if (copy.next..copy.end).contains(&at) {
            copy.aside.entry(at).or_insert_with(|| page(&self.chapters, at).cloned());
        }
    }

    /// Begins a copy of the present contents, and drops one in progress.
    pub(crate) fn begin_copy(&mut self) {
        let end = self.chapters.len() * CHAPTER;
        let chapters = (0..self.chapters.len()).map(|_| None).collect();
        self.copy = Some(Box::new(Copying { chapters, next: 0, end, aside: BTreeMap::new() }));
    }

    /// Copies the next pages, at most `max`. Returns whether nothing is left.
    pub(crate) fn copy_some(&mut self, max: usize) -> bool {
        let Some(copy) = &mut self.copy else { return true };
        let mut left = max;
        while copy.next < copy.end && left > 0 {
            let at = copy.next;
            let aside = copy.aside.first_key_value().map(|(at, _)| *at);
            let unused = self.chapters[at / CHAPTER].is_none();
            if unused && aside.is_none_or(|aside| aside / CHAPTER > at / CHAPTER) {
                copy.next = (at / CHAPTER + 1) * CHAPTER;
                continue;
            }
            copy.next += 1;
            let copied = match copy.aside.remove(&at) {
                Some(page) => page,
                None => page(&self.chapters, at).cloned(),
            };
            if let Some(copied) = copied {
                left -= 1;
                let chapter = copy.chapters[at / CHAPTER].get_or_insert_with(Chapter::default);
                chapter.pages[at % CHAPTER] = Some(copied);
                chapter.used += 1;
            }
        }
        copy.next >= copy.end
    }

    /// Returns the copy, which must be complete.
    pub(crate) fn take_copy(&mut self) -> Self {
        let chapters = self.copy.take().map(|it| it.chapters).unwrap_or_default();
        Self { chapters, copy: None, key: PhantomData }
    }
}

impl<T> Default for Chapter<T> {
    fn default() -> Self {
        Self { pages: (0..CHAPTER).map(|_| None).collect(), used: 0 }
    }
}

/// Returns a page by its number through all chapters.
fn page<T>(chapters: &[Option<Chapter<T>>], at: usize) -> Option<&Page<T>> {
    chapters.get(at / CHAPTER)?.as_ref()?.pages[at % CHAPTER].as_ref()
}

/// Returns the chapter, the page in it, and the item's position in the page.
fn split(at: impl Slot) -> (usize, usize, usize) {
    let at = at.number() as usize;
    (at / PAGE / CHAPTER, at / PAGE % CHAPTER, at % PAGE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::FunctionId;

    #[test]
    fn pages_come_and_go_with_their_items() {
        let mut paged = Paged::<FunctionId, u32>::default();
        for at in [3, 2_000_000, 17] {
            *paged.insert(FunctionId(at), 0) += at;
        }
        let get = |it: &Paged<_, u32>, at| it.get(FunctionId(at)).copied();
        let found = [3, 17, 2_000_000, 4].map(|at| get(&paged, at));
        assert_eq!(found, [Some(3), Some(17), Some(2_000_000), None]);
        let pages = |it: &Paged<_, u32>| -> Vec<_> {
            it.chapters.iter().flatten().map(|it| it.used).collect()
        };
        assert_eq!(pages(&paged), [2, 1]);
        assert_eq!(paged.remove(FunctionId(17)), Some(17));
        assert_eq!(paged.remove(FunctionId(17)), None);
        assert_eq!(paged.remove(FunctionId(2_000_000)), Some(2_000_000));
        assert_eq!((pages(&paged), get(&paged, 3)), (vec![1], Some(3)));
    }

    proptest! {
        /// Whatever changes between the parts, the copy has the contents of its beginning.
        #[test]
        fn a_copy_is_of_the_moment_at_which_it_began(
            before in prop::collection::vec(0..300_u32, 0..60),
            steps in prop::collection::vec((0..4_u8, 0..300_u32), 0..60),
        ) {
            // Some of the numbers are in other chapters.
            let id = |number: u32| FunctionId(number / 8 + number % 8 * 10_000);
            let mut paged = Paged::<FunctionId, u32>::default();
            for number in before {
                paged.insert(id(number), number);
            }
            let all = |it: &Paged<FunctionId, u32>| -> Vec<_> {
                (0..300).map(|number| it.get(id(number)).copied()).collect()
            };
            let used = |it: &Paged<FunctionId, u32>| -> Vec<_> {
                it.chapters.iter().map(|it| it.as_ref().map(|it| it.used)).collect()
            };
            let expected = (all(&paged), used(&paged));
            paged.begin_copy();
            for (step, number) in steps {
                match step {
                    0 => { paged.insert(id(number), 1000); }
                    1 => { paged.remove(id(number)); }
                    2 => { paged.copy_some(number as usize % 8); }
                    _ => if let Some(item) = paged.get_mut(id(number)) { *item += 1000 },
                }
            }
            while !paged.copy_some(1) {}
            let copy = paged.take_copy();
            prop_assert_eq!((all(&copy), used(&copy)), expected);
        }
    }

    #[test]
    fn the_directory_does_not_grow_with_the_largest_number() {
        let mut paged = Paged::<FunctionId, u64>::default();
        paged.insert(FunctionId(u32::MAX), 7);
        assert_eq!(paged.get(FunctionId(u32::MAX)), Some(&7));
        // 2^32 items in pages of 16, 1,024 pages a chapter.
        assert_eq!(paged.chapters.len(), 1 << 18);
        assert_eq!(paged.chapters.iter().flatten().count(), 1);
    }
}
