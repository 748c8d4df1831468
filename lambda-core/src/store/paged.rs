//! A map from small numbers to items, in pages that are allocated when used. Memory grows with the
//! number of items, and growth moves no item. The largest number costs a pointer for each 16,384.

use std::marker::PhantomData;

use super::slot::Slot;

/// The number of items in a page.
const PAGE: usize = 16;
/// The number of pages in a chapter: the part of the directory that is allocated at once.
const CHAPTER: usize = 1024;

type Page<T> = Box<[Option<T>]>;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Paged<K, T> {
    chapters: Vec<Option<Chapter<T>>>,
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

impl<K, T> Default for Paged<K, T> {
    fn default() -> Self {
        Self { chapters: Vec::new(), key: PhantomData }
    }
}

impl<K: Slot, T> Paged<K, T> {
    pub(crate) fn get(&self, at: K) -> Option<&T> {
        let (chapter, page, item) = split(at);
        self.chapters.get(chapter)?.as_ref()?.pages[page].as_ref()?[item].as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: K) -> Option<&mut T> {
        let (chapter, page, item) = split(at);
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
        if self.chapters.len() <= chapter {
            self.chapters.resize_with(chapter + 1, || None);
        }
        let chapter = self.chapters[chapter].get_or_insert_with(Chapter::default);
        let page = &mut chapter.pages[page];
        chapter.used += u32::from(page.is_none());
        &mut page.get_or_insert_with(|| (0..PAGE).map(|_| None).collect())[item]
    }

    pub(crate) fn remove(&mut self, at: K) -> Option<T> {
        let (chapter_at, page_at, item) = split(at);
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
}

impl<T> Default for Chapter<T> {
    fn default() -> Self {
        Self { pages: (0..CHAPTER).map(|_| None).collect(), used: 0 }
    }
}

/// Returns the chapter, the page in it, and the item's position in the page.
fn split(at: impl Slot) -> (usize, usize, usize) {
    let at = at.number() as usize;
    (at / PAGE / CHAPTER, at / PAGE % CHAPTER, at % PAGE)
}

#[cfg(test)]
mod tests {
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
